//! What can be told wrong by itself is told wrong when it is applied, in words that help.

mod clouds;
mod logins;
mod older_schema;
mod vault_secret;

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
