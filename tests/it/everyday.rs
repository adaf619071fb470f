//! A Secret is created, kept, repaired and deleted.

use k8s_openapi::api::core::v1::Secret;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::eventually;
use serde_json::json;

use crate::support::{GARBAGE, Stage};

#[tokio::test]
async fn a_secret_follows_vault_and_is_repaired_and_deleted() {
    let stage = Stage::shared().await;
    let team = stage.team("life").await;
    team.put("app", &json!({"user": "u", "password": "one"}))
        .await;
    team.vault_secret("app", json!({})).await;
    let first = team.secret_with("app", "password", "one").await;
    assert_eq!(first.data.as_ref().unwrap().len(), 2);
    assert_eq!(first.type_.as_deref(), Some("Opaque"));
    team.ready("app").await;

    team.put("app", &json!({"user": "u", "password": "two"}))
        .await;
    let second = team.secret_with("app", "password", "two").await;
    assert_eq!(first.metadata.uid, second.metadata.uid);

    team.patch::<Secret>("app", json!({"stringData": {"password": "by hand"}}))
        .await;
    team.secret_with("app", "password", "two").await;

    team.patch::<Secret>("app", json!({"data": {"user": null}}))
        .await;
    team.secret_with("app", "user", "u").await;

    team.delete::<Secret>("app").await;
    let again = team.secret_with("app", "password", "two").await;
    assert_ne!(again.metadata.uid, second.metadata.uid);

    team.delete::<VaultSecret>("app").await;
    eventually(
        GARBAGE,
        "the Secret goes with its VaultSecret",
        async || team.secret("app").await.is_none(),
    )
    .await
    .unwrap();
}
