//! An object that was written under another schema disturbs nobody, loses nothing, and can be mended.

use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::ApiResource,
};
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{ApiRequest, AuditMark, eventually};
use serde_json::{Value, json};

use crate::support::{SOON, Stage, Team, crds};

/// The definitions with nothing checked in any spec.
fn loose_crds() -> String {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let loose = lockstep::api::crds().into_iter().map(|crd| {
        let mut crd = serde_json::to_value(crd).unwrap();
        let version = &mut crd["spec"]["versions"][0];
        version["schema"]["openAPIV3Schema"]["properties"]["spec"] = anything.clone();
        // What is not in the schema cannot be selected by.
        version["selectableFields"] = json!([]);
        crd.to_string()
    });
    loose.collect::<Vec<_>>().join("\n---\n")
}

/// Applies a manifest as soon as the apiserver works with the other schema.
async fn apply_at_last(team: &Team<'_>, mut manifest: Value) {
    manifest["metadata"]["namespace"] = json!(team.namespace);
    let text = manifest.to_string();
    eventually(SOON, "the other schema holds", async || {
        team.stage.apply_yaml(&text).await
    })
    .await
    .unwrap();
}

/// A `VaultSecret` that no schema of ours ever allowed.
fn broken(team: &Team<'_>, name: &str) -> Value {
    let kv = json!({"mount": 7, "path": team.path(name)});
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret", "metadata": {"name": name},
        "spec": {"refreshInterval": "2s", "sources": [{"name": "main", "kv": kv}]},
    })
}

#[tokio::test]
async fn an_object_of_an_older_schema_is_told_and_mended_and_disturbs_nobody() {
    let mut stage = Stage::own().await;
    let namespace = {
        let team = stage.team("older").await;
        for name in ["good", "was-good", "new"] {
            team.put(name, &json!({"k": "one"})).await;
        }
        team.vault_secret("good", json!({})).await;
        team.vault_secret("was-good", json!({})).await;
        team.ready("good").await;
        team.ready("was-good").await;
        team.namespace.clone()
    };
    stage.operator = None;
    let team = Team::of(&stage, &namespace).await;
    written_under_a_loose_schema(&team).await;
    let kept = team.secret_to_the_letter("was-good").await;
    drop(team);

    // It starts with all of them there.
    let mark = stage.audit_mark().await.unwrap();
    stage.start_operator(&[]).await;
    let team = Team::of(&stage, &namespace).await;
    all_told(&team).await;
    for value in ["two", "three"] {
        team.put("good", &json!({"k": value})).await;
        team.secret_with("good", "k", value).await;
    }
    assert_eq!(team.secret_to_the_letter("was-good").await, kept);
    assert!(team.secret("new").await.is_none());
    little_written_since(&team, mark).await;

    // A correction mends it; the apiserver applies nothing server-side to such an object.
    for name in ["was-good", "new"] {
        team.put(name, &json!({"k": "mended"})).await;
        correct(&team, name).await;
        team.secret_with(name, "k", "mended").await;
        team.healed(name).await;
    }
    let uid = team.secret_to_the_letter("was-good").await["metadata"]["uid"].clone();
    assert_eq!(uid, kept["metadata"]["uid"]);
}

/// Replaces the object as `kubectl edit` does.
async fn correct(team: &Team<'_>, name: &str) {
    let resource = ApiResource::erase::<VaultSecret>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(team.client.clone(), &team.namespace, &resource);
    let write = async || {
        let mut object = api.get(name).await?;
        object.data["spec"]["sources"][0]["kv"]["mount"] = json!("secret");
        api.replace(name, &PostParams::default(), &object).await
    };
    // A status may be written in between.
    eventually(SOON, "the correction", write).await.unwrap();
}

/// Creates what the definitions do not let in, and brings them back as they are.
async fn written_under_a_loose_schema(team: &Team<'_>) {
    team.stage.install_crds(&loose_crds()).await.unwrap();
    for name in ["was-good", "new"] {
        apply_at_last(team, broken(team, name)).await;
    }
    let odd = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "odd"}, "spec": spec,
        })
    };
    apply_at_last(team, odd("VaultAuth", json!({"connectionRef": "main"}))).await;
    let address = json!({"address": ["https://vault:8200"]});
    apply_at_last(team, odd("VaultConnection", address)).await;

    team.stage.install_crds(&crds()).await.unwrap();
    let mut another = broken(team, "another");
    another["metadata"]["namespace"] = json!(team.namespace);
    let refused = async || team.stage.admit(&another).await.is_err();
    eventually(SOON, "the schema holds again", refused)
        .await
        .unwrap();
}

/// Each says in its status what is wrong with it, and so does what depends on it.
async fn all_told(team: &Team<'_>) {
    for name in ["was-good", "new"] {
        let told = team.told_of("vaultsecrets", name).await;
        let field = "Undecodable: spec.sources[0].kv.mount: ";
        assert!(told.starts_with(field), "{told}");
        let remedy = "expected a string; correct it with kubectl edit";
        assert!(told.contains(remedy), "{told}");
    }
    let odd = team.told_of("vaultconnections", "odd").await;
    assert!(odd.contains("spec.address"), "{odd}");
    let odd = team.told_of("vaultauths", "odd").await;
    assert!(odd.contains("spec.connectionRef"), "{odd}");
    let through = json!({"authRef": {"kind": "VaultAuth", "name": "odd"}});
    team.vault_secret("user", through).await;
    team.stalled("user", "AuthUnusable", &["odd", "spec.connectionRef"])
        .await;
}

/// Nothing is tried again and again.
async fn little_written_since(team: &Team<'_>, mark: AuditMark) {
    let writes = team.writes_since(mark).await;
    for (resource, name) in [
        ("vaultsecrets", "was-good"),
        ("vaultsecrets", "new"),
        ("vaultauths", "odd"),
        ("vaultconnections", "odd"),
    ] {
        let about = |write: &&ApiRequest| write.name == name && write.resource == resource;
        let about: Vec<_> = writes.iter().filter(about).collect();
        assert!(about.len() <= 2, "{name}: {about:#?}");
    }
}
