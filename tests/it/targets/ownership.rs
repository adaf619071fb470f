//! Whose Secret it is, and what becomes of it.

use k8s_openapi::api::core::v1::Secret;
use lockstep::api::vault_secret::VaultSecret;
use serde_json::json;

use crate::support::{Stage, Team, text_of};

/// Applies a Secret as somebody who does not know of Lockstep.
async fn foreign_secret(team: &Team<'_>, name: &str) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"theirs": "t"},
    }))
    .await;
}

#[tokio::test]
async fn a_foreign_secret_is_not_touched_and_its_name_is_taken_when_it_goes() {
    let stage = Stage::shared().await;
    let team = stage.team("foreign").await;
    foreign_secret(&team, "app").await;
    let before = team.secret_to_the_letter("app").await;
    team.put("app", &json!({"k": "one"})).await;
    team.vault_secret("app", json!({})).await;
    let words = ["spec.target.name", "Secret app", "creationPolicy: Merge"];
    team.stalled("app", "TargetForeign", &words).await;
    team.put("app", &json!({"k": "two"})).await;
    team.polled_twice().await;
    assert_eq!(team.secret_to_the_letter("app").await, before);

    team.delete::<Secret>("app").await;
    let secret = team.secret_with("app", "k", "two").await;
    assert_eq!(text_of(&secret, "theirs"), None);
    team.healed("app").await;
}

#[tokio::test]
async fn of_two_with_one_target_the_second_waits_until_the_first_lets_go() {
    let stage = Stage::shared().await;
    let team = stage.team("two").await;
    team.put("first", &json!({"from": "first"})).await;
    team.put("second", &json!({"from": "second"})).await;
    let target = json!({"target": {"name": "shared", "deletionPolicy": "Retain"}});
    team.vault_secret("first", target.clone()).await;
    let secret = team.secret_with("shared", "from", "first").await;
    team.vault_secret("second", target.clone()).await;
    let words = ["spec.target.name", "Secret shared", "VaultSecret first"];
    team.stalled("second", "TargetTaken", &words).await;
    team.polled_twice().await;
    let still = team.secret_with("shared", "from", "first").await;
    assert_eq!(
        still.metadata.managed_fields,
        secret.metadata.managed_fields
    );
    team.healed("first").await;

    // It lets go by taking another name …
    team.vault_secret("first", json!({"target": {"name": "own"}}))
        .await;
    let secret = team.secret_with("shared", "from", "second").await;
    assert_eq!(secret.metadata.uid, still.metadata.uid);
    team.healed("second").await;

    // … or by going.
    team.vault_secret("first", target).await;
    team.stalled("first", "TargetTaken", &["VaultSecret second"])
        .await;
    team.delete::<VaultSecret>("second").await;
    team.secret_with("shared", "from", "first").await;
    team.healed("first").await;
}

#[tokio::test]
async fn a_renamed_vault_secret_keeps_its_secret_and_restarts_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("rename").await;
    team.put("app", &json!({"k": "v"})).await;
    let kv = json!({"mount": "secret", "path": team.path("app")});
    let spec = json!({
        "sources": [{"name": "main", "kv": kv}], "rollout": {"settle": "0s"},
        "target": {"name": "app", "deletionPolicy": "Retain"},
    });
    team.vault_secret("old", spec.clone()).await;
    team.ready("old").await;
    team.deployment("app", 1, &["app"]).await;
    team.settled("app").await;
    team.condition_is("old", "RolledOut", "True Verified").await;
    let before = (team.secret("app").await.unwrap(), team.status("old").await);
    let generation = team.generation("app").await;

    team.delete::<VaultSecret>("old").await;
    team.vault_secret("new", spec).await;
    team.condition_is("new", "RolledOut", "True Verified").await;
    let after = (team.secret("app").await.unwrap(), team.status("new").await);
    assert_eq!(after.0.metadata.uid, before.0.metadata.uid);
    let annotations = after.0.metadata.annotations.unwrap();
    assert_eq!(annotations["lockstep.dev/vault-secret"], "new");
    assert_eq!(after.1.last_change_time, before.1.last_change_time);
    assert_eq!(after.1.rotation_hash, before.1.rotation_hash);
    assert_eq!(team.generation("app").await, generation);
}

#[tokio::test]
async fn a_secret_that_shall_stay_outlives_its_vault_secret() {
    let stage = Stage::shared().await;
    let team = stage.team("stay").await;
    let targets = [
        ("retained", json!({"deletionPolicy": "Retain"})),
        ("orphan", json!({"creationPolicy": "Orphan"})),
    ];
    for (name, target) in &targets {
        team.put(name, &json!({"k": "v"})).await;
        team.vault_secret(name, json!({"target": target})).await;
    }
    for (name, _) in &targets {
        team.ready(name).await;
        let before = team.secret_to_the_letter(name).await;
        // Without an owner there is nothing the garbage collector could act on.
        assert_eq!(before["metadata"]["ownerReferences"], json!(null), "{name}");
        team.delete::<VaultSecret>(name).await;
        team.polled_twice().await;
        assert_eq!(team.secret_to_the_letter(name).await, before, "{name}");
    }
}
