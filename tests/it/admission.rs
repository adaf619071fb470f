//! What can be told wrong by itself is told wrong when it is applied, in words that help.

mod older_schema;

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lockstep::api::vault_secret::VaultSecret;
use serde_json::{Value, json};

use crate::support::{Stage, crds};

/// A `VaultSecret` that is as it should be.
fn vault_secret() -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
        "metadata": {"name": "app", "namespace": "default"},
        "spec": {"sources": [{"name": "main", "kv": {"mount": "secret", "path": "app"}}]},
    })
}

/// A login or a connection that is as it should be.
fn object(kind: &str) -> Value {
    let token = json!({"secretRef": {"name": "a", "key": "b"}});
    let connection = |kind: &str| json!({"kind": kind, "name": "main"});
    let (namespace, spec) = match kind {
        "VaultAuth" => (
            json!("default"),
            json!({"connectionRef": connection("VaultConnection"), "token": token}),
        ),
        "ClusterVaultAuth" => (
            json!(null),
            json!({"connectionRef": connection("ClusterVaultConnection"), "token": token}),
        ),
        "VaultConnection" => (json!("default"), json!({"address": "https://vault:8200"})),
        _ => (json!(null), json!({"address": "https://vault:8200"})),
    };
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "app", "namespace": namespace}, "spec": spec,
    })
}

/// `base` with the value at `pointer` put in, or taken out where it is null.
fn with(mut base: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let mut place = &mut base;
    for step in parent.split('/').skip(1) {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    if value.is_null() {
        place.as_object_mut().unwrap().remove(name);
    } else {
        place[name] = value;
    }
    base
}

/// Each object has to be refused, with all of its words in the answer.
async fn all_refused(rows: Vec<(Value, &[&str])>) {
    let stage = Stage::shared().await;
    let mut wrong = Vec::new();
    for (manifest, words) in rows {
        match stage.admit(&manifest).await {
            Ok(()) => wrong.push(format!("accepted: {manifest}")),
            Err(said) => wrong.extend(
                words
                    .iter()
                    .filter(|word| !said.contains(*word))
                    .map(|word| format!("no {word:?} in {said:?}")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_vault_secret_with_a_mistake_is_refused_in_words_that_help() {
    let put = |pointer: &str, value: Value| with(vault_secret(), pointer, value);
    let target = |value: Value| put("/spec/target", value);
    let kv = "/spec/sources/0/kv";
    let twice = json!([
        {"name": "main", "kv": {"mount": "secret", "path": "a"}},
        {"name": "main", "kv": {"mount": "secret", "path": "b"}},
    ]);
    all_refused(vec![
        (
            put("/spec/refreshInterval", json!("5 minutes")),
            &["spec.refreshInterval", "ns|us|ms|s|m|h|d"],
        ),
        (
            put("/spec/refreshInterval", json!(300)),
            &["spec.refreshInterval", "string"],
        ),
        (
            put("/spec/refreshIntervall", json!("5m")),
            &["not declared in schema", "refreshIntervall"],
        ),
        (
            put("/spec/sources/0/kv/mnt", json!("x")),
            &["not declared in schema", "mnt"],
        ),
        (
            put("/spec/sources", json!([])),
            &["spec.sources", "at least 1"],
        ),
        (
            put("/spec/sources", json!(null)),
            &["spec.sources", "Required"],
        ),
        (put("/spec/sources", twice), &["sources", "duplicate"]),
        (
            put(kv, json!(null)),
            &["spec.sources[0]", "exactly one kind: set kv"],
        ),
        (
            put(
                "/spec/sources/0/dynamic",
                json!({"path": "database/creds/app"}),
            ),
            &["not declared in schema", "dynamic"],
        ),
        (
            put("/spec/sources/0/kv/engineVersion", json!(3)),
            &["engineVersion", "2"],
        ),
        (
            with(
                put("/spec/sources/0/kv/version", json!(7)),
                "/spec/sources/0/kv/engineVersion",
                json!(1),
            ),
            &[
                "spec.sources[0].kv",
                "remove version, or set engineVersion: 2",
            ],
        ),
        (
            put(
                "/spec/authRef",
                json!({"kind": "VaultAuth", "name": "a", "namespace": "b"}),
            ),
            &["not declared in schema", "namespace"],
        ),
        (
            put("/spec/authRef", json!({"kind": "Secret", "name": "a"})),
            &["spec.authRef.kind", "ClusterVaultAuth"],
        ),
        (
            target(json!({"creationPolicy": "Orphan", "deletionPolicy": "Delete"})),
            &["spec.target", "deletionPolicy must be Retain"],
        ),
        (
            target(json!({"creationPolicy": "Merge", "type": "Opaque"})),
            &["spec.target", "Merge", "type cannot be set"],
        ),
        (
            target(json!({"creationPolicy": "Merge", "labels": {"a": "b"}})),
            &["spec.target", "Merge", "labels and annotations"],
        ),
        (
            target(json!({"type": "kubernetes.io/service-account-token"})),
            &["spec.target.type", "cluster credential"],
        ),
        (
            target(json!({"type": "bootstrap.kubernetes.io/token"})),
            &["spec.target.type", "cluster credential"],
        ),
        (
            target(json!({"labels": {"lockstep.dev/x": "y"}})),
            &["spec.target.labels", "operator's own"],
        ),
        (
            target(json!({"annotations": {"lockstep.dev/x": "y"}})),
            &["spec.target.annotations", "operator's own"],
        ),
        (
            target(json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}})),
            &["spec.target.labels", "operator's own"],
        ),
        (target(json!({"name": "Not_A_Name"})), &["spec.target.name"]),
        (
            put("/spec/sources/0/keys", json!({"rename": {"a": "b c"}})),
            &["keys.rename"],
        ),
        (
            put(
                "/spec/rollout",
                json!({"targets": [{"kind": "Pod", "name": "a"}]}),
            ),
            &["spec.rollout.targets", "Deployment"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_login_with_a_mistake_is_refused_in_words_that_help() {
    let kubernetes = json!({"role": "r", "audiences": ["vault"]});
    let put = |pointer: &str, value: Value| with(object("VaultAuth"), pointer, value);
    let cluster = |pointer: &str, value: Value| with(object("ClusterVaultAuth"), pointer, value);
    let away = json!({"name": "a", "key": "b", "namespace": "other"});
    let app_role = json!({"roleId": "r", "secretIdRef": {"name": "a", "key": "b"}});
    let account = json!({"role": "r", "audiences": ["vault"], "serviceAccountRef": {"name": "a", "namespace": "other"}});
    let fixed = |value: Value| {
        with(
            cluster("/spec/identityFrom", json!("Fixed")),
            "/spec/token",
            value,
        )
    };
    let one = "exactly one login method";
    let own = "objects of its own namespace";
    all_refused(vec![
        (
            put("/spec/kubernetes", kubernetes.clone()),
            &[one, "kubernetes, appRole or token"],
        ),
        (put("/spec/token", json!(null)), &[one]),
        (cluster("/spec/kubernetes", kubernetes), &[one]),
        (
            put("/spec/token/secretRef", away.clone()),
            &[own, "ClusterVaultAuth"],
        ),
        (
            with(put("/spec/token", json!(null)), "/spec/kubernetes", account),
            &[own],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/appRole",
                with(app_role.clone(), "/secretIdRef", away.clone()),
            ),
            &[own],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/appRole",
                with(
                    app_role.clone(),
                    "/roleIdRef",
                    json!({"name": "a", "key": "b"}),
                ),
            ),
            &["exactly one of roleId and roleIdRef"],
        ),
        (
            put("/spec/connectionRef/namespace", json!("other")),
            &["not declared in schema", "namespace"],
        ),
        (
            put("/spec/allowedNamespaces", json!({"names": ["*"]})),
            &["not declared in schema", "allowedNamespaces"],
        ),
        (
            cluster("/spec/connectionRef/kind", json!("VaultConnection")),
            &["connectionRef.kind must be ClusterVaultConnection"],
        ),
        (
            cluster("/spec/token/secretRef", away),
            &["identityFrom: Consumer", "set identityFrom: Fixed"],
        ),
        (
            fixed(json!({"secretRef": {"name": "a", "key": "b"}})),
            &["identityFrom: Fixed", "needs a namespace"],
        ),
        (
            cluster("/spec/identityFrom", json!("Somebody")),
            &["spec.identityFrom", "Consumer"],
        ),
        (
            cluster(
                "/spec/allowedNamespaces",
                json!({"selector": {"matchLabels": {}}}),
            ),
            &["matchLabels", "at least 1"],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/kubernetes",
                json!({"role": "r"}),
            ),
            &["spec.kubernetes.audiences", "Required"],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/kubernetes",
                json!({"role": "r", "audiences": []}),
            ),
            &["spec.kubernetes.audiences", "at least 1"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_connection_with_a_mistake_is_refused_in_words_that_help() {
    let put = |pointer: &str, value: Value| with(object("VaultConnection"), pointer, value);
    let cluster = |value: Value| {
        with(
            object("ClusterVaultConnection"),
            "/spec/tls",
            json!({"ca": value}),
        )
    };
    let (here, away) = (
        json!({"name": "a", "key": "b"}),
        json!({"name": "a", "key": "b", "namespace": "other"}),
    );
    all_refused(vec![
        (
            put("/spec/address", json!("vault.example.com:8200")),
            &["spec.address", "https?://"],
        ),
        (
            put("/spec/address", json!("https://user:pass@vault:8200")),
            &["spec.address"],
        ),
        (
            put("/spec/address", json!(null)),
            &["spec.address", "Required"],
        ),
        (put("/spec/timeout", json!("1 min")), &["spec.timeout"]),
        (
            put("/spec/tls", json!({"ca": {"secret": away.clone()}})),
            &["namespace cannot be set on a VaultConnection"],
        ),
        (
            put("/spec/tls", json!({"ca": {"configMap": away}})),
            &["namespace cannot be set on a VaultConnection"],
        ),
        (
            put(
                "/spec/tls",
                json!({"ca": {"secret": here.clone(), "bundle": "x"}}),
            ),
            &["exactly one of secret, configMap and bundle"],
        ),
        (
            put("/spec/tls", json!({"ca": {}})),
            &["exactly one of secret, configMap and bundle"],
        ),
        (
            cluster(json!({"secret": here.clone()})),
            &["namespace is required on a ClusterVaultConnection"],
        ),
        (
            cluster(json!({"configMap": here})),
            &["namespace is required on a ClusterVaultConnection"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_right_is_accepted() {
    let stage = Stage::shared().await;
    let kinds = [
        "VaultAuth",
        "ClusterVaultAuth",
        "VaultConnection",
        "ClusterVaultConnection",
    ];
    for manifest in kinds.map(object).into_iter().chain([vault_secret()]) {
        stage.admit(&manifest).await.unwrap();
    }
}

#[tokio::test]
async fn kubectl_tells_an_unknown_field() {
    let stage = Stage::shared().await;
    let manifest = with(vault_secret(), "/spec/refreshIntervall", json!("5m"));
    let said = stage.apply_yaml(&manifest.to_string()).await.unwrap_err();
    assert!(said.to_string().contains("refreshIntervall"), "{said}");
    let api: Api<VaultSecret> = Api::namespaced(stage.client().await.unwrap(), "default");
    let all = api.list(&ListParams::default()).await.unwrap();
    assert!(all.items.iter().all(|found| found.name_any() != "app"));
}

#[tokio::test]
async fn the_definitions_have_no_complaints() {
    let stage = Stage::shared().await;
    stage.install_crds(&crds()).await.unwrap();
    let found = stage.kubectl(&["get", "crds", "-o", "json"]).await.unwrap();
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let items = found["items"].as_array().unwrap();
    assert_eq!(
        items.len(),
        crds().matches("kind: CustomResourceDefinition").count()
    );
    for crd in items {
        let conditions = crd["status"]["conditions"].as_array().unwrap();
        let told: Vec<_> = conditions
            .iter()
            .map(|condition| {
                (
                    condition["type"].as_str().unwrap(),
                    condition["status"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [("NamesAccepted", "True"), ("Established", "True")],
            "{crd}"
        );
    }
}
