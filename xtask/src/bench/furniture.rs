//! Effects: apiserver, Vault — what the benchmarks share: how their objects come to be and how they are.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DynamicObject,
};
use lockstep_testbed::Bed;
use serde_json::{Value, json};

use crate::failure::Failure;

/// The annotation of a Deployment in which its controller counts pod templates.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Prepares CRDs, a connection, a login that is allowed this much in Vault by tokens of this TTL, and namespaces, each
/// an identity in Vault.
pub(super) async fn furnish(
    bed: &Bed,
    allowed: &str,
    ttl: &str,
    namespaces: usize,
) -> Result<Vec<String>, Failure> {
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
    bed.install_crds(&read_all(crds).map_err(Failure::Prepare)?)
        .await?;
    bed.vault().policy("bench", allowed).await?;
    bed.login_for_everybody("bench", &["bench"], ttl).await?;
    let mut names = Vec::new();
    for _ in 0..namespaces.max(1) {
        names.push(bed.namespace("bench").await?);
    }
    Ok(names)
}

/// Applies a `VaultSecret`.
pub(super) async fn apply(
    client: Client,
    namespace: &str,
    name: &str,
    object: &Value,
) -> Result<(), kube::Error> {
    let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource());
    let ours = PatchParams::apply("bench");
    api.patch(name, &ours, &Patch::Apply(object))
        .await
        .map(drop)
}

/// Whether this many `VaultSecrets`, all there are, are reported ready.
pub(super) async fn all_ready(bed: &Bed, wanted: usize) -> Result<(), String> {
    let all = objects(bed).await?;
    let ready = all.iter().filter(|object| is_ready(&object.data)).count();
    if ready == wanted {
        Ok(())
    } else {
        Err(format!("{ready} of {wanted}"))
    }
}

/// All `VaultSecrets`.
pub(super) async fn objects(bed: &Bed) -> Result<Vec<DynamicObject>, String> {
    let client = bed.client().await.map_err(|error| error.to_string())?;
    let api = Api::<DynamicObject>::all_with(client, &resource());
    let all = api.list(&ListParams::default()).await;
    all.map(|all| all.items).map_err(|error| error.to_string())
}

/// A Deployment of so many pods, which take their environment from a Secret.
pub(super) fn deployment(namespace: &str, name: &str, secret: &str, pods: i32) -> Value {
    let labels = json!({"app": name});
    let container =
        json!({"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": secret}}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

/// All Deployments.
pub(super) async fn deployments(bed: &Bed) -> Result<Vec<Deployment>, Failure> {
    let api = Api::<Deployment>::all(bed.client().await?);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// How many pod templates a Deployment has had, once its controller has counted them.
pub(super) fn revision(deployment: &Deployment) -> Option<usize> {
    deployment.annotations().get(REVISION)?.parse().ok()
}

fn is_ready(object: &Value) -> bool {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let is = |condition: &Value, field: &str, wanted: &str| {
        condition.get(field).and_then(Value::as_str) == Some(wanted)
    };
    conditions
        .into_iter()
        .flatten()
        .any(|condition| is(condition, "type", "Ready") && is(condition, "status", "True"))
}

/// What a `VaultSecret` is to the apiserver.
pub(super) fn resource() -> kube::core::ApiResource {
    kube::core::ApiResource {
        group: "lockstep.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "lockstep.dev/v1alpha1".to_owned(),
        kind: "VaultSecret".to_owned(),
        plural: "vaultsecrets".to_owned(),
    }
}

fn read_all(directory: &str) -> std::io::Result<String> {
    let mut all = String::new();
    for file in std::fs::read_dir(directory)? {
        all.push_str("---\n");
        all.push_str(&std::fs::read_to_string(file?.path())?);
    }
    Ok(all)
}
