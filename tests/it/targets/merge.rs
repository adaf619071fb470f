//! Keys that are merged into somebody else's Secret.

use k8s_openapi::api::core::v1::Secret;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use crate::support::{SOON, Stage, Team, text_of};

fn merging() -> Value {
    json!({"target": {"creationPolicy": "Merge"}})
}

/// A Secret of somebody else with one key, a type, a label and an annotation.
async fn their_secret(team: &Team<'_>, name: &str) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.org/theirs",
        "metadata": {"name": name, "labels": {"l": "theirs"}, "annotations": {"a": "theirs"}},
        "stringData": {"theirs": "t"},
    }))
    .await;
}

/// What is not ours in the Secret.
fn theirs(secret: &Secret) -> Value {
    let metadata = &secret.metadata;
    json!({
        "uid": metadata.uid,
        "type": secret.type_,
        "labels": metadata.labels,
        "owners": metadata.owner_references,
        "annotation": metadata.annotations.as_ref().and_then(|all| all.get("a")),
        "key": text_of(secret, "theirs"),
    })
}

#[tokio::test]
async fn merging_waits_for_the_secret_and_then_adds_keys_and_nothing_else() {
    let stage = Stage::shared().await;
    let team = stage.team("merge").await;
    team.put("app", &json!({"a": "1", "b": "2"})).await;
    team.vault_secret("app", merging()).await;
    let words = ["spec.target.name", "Secret app", "creationPolicy: Merge"];
    team.stalled("app", "TargetMissing", &words).await;
    assert!(team.secret("app").await.is_none());

    their_secret(&team, "app").await;
    let merged = team.secret_with("app", "b", "2").await;
    team.healed("app").await;
    let before = json!({
        "uid": merged.metadata.uid, "type": "example.org/theirs", "labels": {"l": "theirs"},
        "owners": null, "annotation": "theirs", "key": "t",
    });
    assert_eq!(theirs(&merged), before);
    assert_eq!(merged.data.as_ref().unwrap().len(), 3);

    // What Vault no longer has goes, and only that.
    team.put("app", &json!({"a": "3"})).await;
    let merged = team.secret_with("app", "a", "3").await;
    assert_eq!(theirs(&merged), before);
    assert_eq!(text_of(&merged, "b"), None);
}

#[tokio::test]
async fn a_key_of_somebody_else_is_not_taken_when_merging() {
    let stage = Stage::shared().await;
    let team = stage.team("conflict").await;
    their_secret(&team, "app").await;
    let before = team.secret_to_the_letter("app").await;
    team.put("app", &json!({"theirs": "canary-5f2c", "ours": "o"}))
        .await;
    team.vault_secret("app", merging()).await;
    let words = ["spec.target.name", "its key theirs", "keys.rename"];
    team.stalled("app", "TargetConflict", &words).await;
    assert_eq!(team.secret_to_the_letter("app").await, before);
    let told = team.condition("app", "Stalled").await.unwrap();
    assert!(!told.contains("canary"), "{told}");

    let kv = json!({"mount": "secret", "path": team.path("app")});
    let keys = json!({"rename": {"theirs": "renamed"}});
    let sources = json!([{"name": "main", "kv": kv, "keys": keys}]);
    let target = json!({"creationPolicy": "Merge"});
    team.vault_secret("app", json!({"sources": sources, "target": target}))
        .await;
    let merged = team.secret_with("app", "renamed", "canary-5f2c").await;
    assert_eq!(text_of(&merged, "theirs").as_deref(), Some("t"));
    team.healed("app").await;
}

#[tokio::test]
async fn a_merged_key_changed_by_hand_stays_so_until_the_hand_lets_go() {
    let stage = Stage::shared().await;
    let team = stage.team("mergehand").await;
    their_secret(&team, "app").await;
    team.put("app", &json!({"ours": "o"})).await;
    team.vault_secret("app", merging()).await;
    team.secret_with("app", "ours", "o").await;
    team.ready("app").await;

    team.patch::<Secret>("app", json!({"stringData": {"ours": "by hand"}}))
        .await;
    team.stalled("app", "TargetConflict", &["ours", "somebody"])
        .await;
    team.secret_with("app", "ours", "by hand").await;

    team.patch::<Secret>("app", json!({"data": {"ours": null}}))
        .await;
    team.secret_with("app", "ours", "o").await;
    team.healed("app").await;
}

#[tokio::test]
async fn merged_keys_go_or_stay_with_the_vault_secret_as_asked() {
    let stage = Stage::shared().await;
    let team = stage.team("mergedel").await;
    for (name, policy) in [("goes", "Delete"), ("stays", "Retain")] {
        their_secret(&team, name).await;
        team.put(name, &json!({"ours": "o"})).await;
        let target = json!({"creationPolicy": "Merge", "deletionPolicy": policy});
        team.vault_secret(name, json!({"target": target})).await;
    }
    for name in ["goes", "stays"] {
        team.secret_with(name, "ours", "o").await;
        team.ready(name).await;
    }
    let stays = team.secret_to_the_letter("stays").await;
    let before = theirs(&team.secret("goes").await.unwrap());
    team.delete::<VaultSecret>("stays").await;
    team.delete::<VaultSecret>("goes").await;
    eventually(SOON, "our key goes", async || {
        let secret = team.secret("goes").await.unwrap();
        text_of(&secret, "ours").is_none()
    })
    .await
    .unwrap();
    let left = team.secret("goes").await.unwrap();
    assert_eq!(theirs(&left), before);
    assert_eq!(left.data.unwrap().len(), 1);
    let annotations = left.metadata.annotations.unwrap();
    assert!(!annotations.keys().any(|name| name.contains("lockstep")));
    assert_eq!(team.secret_to_the_letter("stays").await, stays);
}

#[tokio::test]
async fn what_was_merged_into_never_becomes_ours() {
    let stage = Stage::shared().await;
    let team = stage.team("stays").await;
    team.put("app", &json!({"a": "1"})).await;
    their_secret(&team, "app").await;
    team.vault_secret("app", merging()).await;
    let merged = team.secret_with("app", "a", "1").await;
    team.ready("app").await;

    team.vault_secret("app", json!({"target": {"creationPolicy": "Owner"}}))
        .await;
    team.stalled("app", "TargetForeign", &["Secret app"]).await;
    let kept = team.secret("app").await.unwrap();
    assert_eq!(theirs(&kept), theirs(&merged));

    // Not even when the one that merged is gone: its mark stays, and says whose the Secret is.
    team.delete::<VaultSecret>("app").await;
    team.put("other", &json!({"a": "2"})).await;
    team.vault_secret("other", json!({"target": {"name": "app"}}))
        .await;
    team.stalled("other", "TargetForeign", &["Secret app"])
        .await;
    let kept = team.secret("app").await.unwrap();
    assert_eq!(theirs(&kept), theirs(&merged));
}
