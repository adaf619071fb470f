//! What is no change of the data restarts nothing.

use k8s_openapi::api::core::v1::Secret;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{ApiRequest, eventually};
use serde_json::json;

use super::in_step;
use crate::support::{SOON, Stage};

#[tokio::test]
async fn metadata_in_vault_and_equal_data_in_a_new_version_write_and_restart_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("equal").await;
    let before = in_step(&team, "app", "Deployment").await;
    let secret = team.secret("app").await.unwrap();
    let mark = stage.audit_mark().await.unwrap();

    let metadata = format!("secret/metadata/{}", team.path("app"));
    let custom = json!({"custom_metadata": {"owner": "somebody"}});
    stage.vault().write(&metadata, &custom).await.unwrap();
    team.put("app", &json!({"password": "one"})).await;
    eventually(SOON, "the status names the new version", async || {
        let object = team.api::<VaultSecret>().get("app").await.unwrap();
        let sources = object.status.unwrap().sources;
        sources[0].version == Some(2)
    })
    .await
    .unwrap();
    team.polled("app").await;
    assert_eq!(team.secret("app").await.unwrap(), secret);
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    let ours = |write: &&ApiRequest| write.namespace == team.namespace;
    let written: Vec<_> = writes.iter().filter(ours).collect();
    // The status, with the number of the version, and nothing else.
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(written[0].subresource, "status");
    team.not_restarted(&before).await;
}

#[tokio::test]
async fn labels_and_annotations_of_the_secret_restart_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("labels").await;
    let before = in_step(&team, "app", "Deployment").await;

    let target = json!({"labels": {"tier": "web"}, "annotations": {"note": "n"}});
    team.patch::<VaultSecret>("app", json!({"spec": {"target": target}}))
        .await;
    eventually(SOON, "a Secret with the label", async || {
        let labels = team.secret("app").await?.metadata.labels?;
        (labels.get("tier")? == "web").then_some(())
    })
    .await
    .unwrap();
    team.polled("app").await;
    team.not_restarted(&before).await;
    let status = team.workload_status("app", "app").await.unwrap();
    assert_eq!(status.hash, Some(before.hash));
}

#[tokio::test]
async fn a_secret_that_is_put_right_restarts_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("repair").await;
    let before = in_step(&team, "app", "Deployment").await;

    let by_hand = json!({"stringData": {"password": "by hand", "more": "by hand"}});
    team.patch::<Secret>("app", by_hand).await;
    team.secret_with("app", "password", "one").await;
    team.polled("app").await;
    team.not_restarted(&before).await;

    team.delete::<Secret>("app").await;
    team.secret_with("app", "password", "one").await;
    team.polled("app").await;
    team.not_restarted(&before).await;
    team.condition_is("app", "RolledOut", "True").await;
}
