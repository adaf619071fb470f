//! Data that comes back, and pod templates that come back.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use lockstep_testbed::eventually;

use crate::support::{InStep, SOON, Stage, Team, env_from, pod_stamp, settle, workload};

/// A Deployment that is in step with the first data of the Secret it uses.
async fn running(team: &Team<'_>, settled: &str) -> InStep {
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle(settled)).await;
    team.ready("app").await;
    team.apply(&workload("Deployment", "app", &env_from(&["app"])))
        .await;
    team.in_step("app", ("Deployment", "app"), None).await
}

#[tokio::test]
async fn data_that_changes_and_changes_back_restarts_what_started_in_between() {
    let stage = Stage::shared().await;
    let team = stage.team("back").await;
    // Long enough for a pod to come between the two changes.
    let before = running(&team, "8s").await;

    team.put("app", &json!({"password": "two"})).await;
    team.secret_with("app", "password", "two").await;
    let old = team.pods("app").await.remove(0).metadata.name.unwrap();
    team.delete::<Pod>(&old).await;
    team.settled("app").await;
    team.put("app", &json!({"password": "one"})).await;
    team.secret_with("app", "password", "one").await;

    let after = team.restarted_once("app", &before).await;
    assert_ne!(after.hash, before.hash);
}

/// As somebody does it; returns when all pods are of the older template.
async fn undo(team: &Team<'_>) {
    let arguments = ["-n", &team.namespace, "rollout", "undo", "deployment/app"];
    let undone = team.stage.kubectl(&arguments).await.unwrap();
    assert!(undone.status.success());
    team.settled("app").await;
}

#[tokio::test]
async fn after_an_undo_the_next_change_restarts_as_ever() {
    let stage = Stage::shared().await;
    let team = stage.team("undone").await;
    let mut before = running(&team, "1s").await;
    for password in ["two", "three"] {
        team.put("app", &json!({"password": password})).await;
        before = team.restarted_once("app", &before).await;
    }
    undo(&team).await;
    // The template carries the hash of the second password again, and it is kubectl's.
    let copied = team.stamp("app").await;
    assert!(copied.is_some() && copied != before.stamp);

    for password in ["four", "five"] {
        team.put("app", &json!({"password": password})).await;
        let hash = Some(before.hash.as_str());
        let after = team.in_step("app", ("Deployment", "app"), hash).await;
        assert_eq!(after.stamp.as_ref(), Some(&after.hash));
        for pod in team.pods("app").await {
            assert_eq!(pod_stamp(&pod), Some(after.hash.as_str()));
        }
        before = after;
    }
}

#[tokio::test]
async fn a_rollout_that_is_undone_is_not_fought_over() {
    let stage = Stage::shared().await;
    let team = stage.team("undo").await;
    let before = running(&team, "1s").await;
    team.put("app", &json!({"password": "two"})).await;
    team.secret_with("app", "password", "two").await;
    team.restarted_once("app", &before).await;

    let mark = stage.audit_mark().await.unwrap();
    undo(&team).await;
    // All pods are new by then, so nothing is restarted, and that is written down.
    eventually(SOON, "the proof on the workload", async || {
        let found = team.workloads("Deployment").get("app").await.unwrap();
        let proof = found
            .metadata
            .annotations?
            .get("lockstep.dev/in-step")
            .cloned();
        let status = team.workload_status("app", "app").await?;
        (proof.is_some() && proof == status.hash).then_some(())
    })
    .await
    .unwrap();
    team.polled("app").await;
    let refused = stage
        .audit_since(mark, |request| {
            request.user_agent.starts_with("lockstep/")
                && request.namespace == team.namespace
                && request.code >= 400
        })
        .await
        .unwrap();
    assert_eq!(refused, []);
    assert_eq!(team.stamp("app").await, None);
}
