//! Workloads that cannot be restarted now, or whose restart does not come to its end.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, ResourceQuota},
};
use lockstep::{api::vault_secret::WorkloadState, names::RESTART};
use lockstep_testbed::eventually;
use serde_json::json;

use super::{allow_pods, in_step};
use crate::support::{InStep, SOON, Stage, Team, env_from, settle, workload};

#[tokio::test]
async fn a_paused_deployment_waits_and_is_restarted_once_when_it_is_resumed() {
    let stage = Stage::shared().await;
    let team = stage.team("paused").await;
    let before = in_step(&team, "app", "Deployment").await;
    team.patch::<Deployment>("app", json!({"spec": {"paused": true}}))
        .await;

    team.put("app", &json!({"password": "two"})).await;
    let status = team.workload_is("app", "app", WorkloadState::Paused).await;
    assert!(status.message.unwrap().contains("resumed"));
    team.condition_is("app", "RolledOut", "False Waiting").await;
    team.polled("app").await;
    team.not_restarted(&before).await;

    team.patch::<Deployment>("app", json!({"spec": {"paused": false}}))
        .await;
    let after = team.restarted_once("app", &before).await;
    team.polled("app").await;
    team.not_restarted(&after).await;
}

#[tokio::test]
async fn a_deployment_scaled_to_zero_is_not_restarted_and_comes_back_with_the_new_data() {
    let stage = Stage::shared().await;
    let team = stage.team("zero").await;
    let before = in_step(&team, "app", "Deployment").await;
    team.patch::<Deployment>("app", json!({"spec": {"replicas": 0}}))
        .await;
    team.settled("app").await;

    team.put("app", &json!({"password": "two"})).await;
    let workload = ("Deployment", "app");
    let down = team.in_step("app", workload, Some(&before.hash)).await;
    team.not_restarted(&before).await;
    team.patch::<Deployment>("app", json!({"spec": {"replicas": 2}}))
        .await;
    team.settled("app").await;
    team.polled("app").await;
    let up = team.in_step("app", workload, None).await;
    assert_eq!(up.hash, down.hash);
    team.not_restarted(&before).await;
}

#[tokio::test]
async fn a_restart_that_does_not_come_to_its_end_is_reported_and_verified_once_it_does() {
    let stage = Stage::shared().await;
    let team = stage.team("never").await;
    team.put("app", &json!({"password": "one"})).await;
    let rollout = json!({"settle": "1s", "verifyTimeout": "3s"});
    team.vault_secret("app", json!({"rollout": rollout})).await;
    let mut manifest = workload("Deployment", "app", &env_from(&["app"]));
    let never_ready = "testbed.lockstep.dev/never-ready";
    manifest["spec"]["template"]["metadata"]["annotations"] = json!({never_ready: "true"});
    team.apply(&manifest).await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;

    team.put("app", &json!({"password": "two"})).await;
    let failed = team.workload_is("app", "app", WorkloadState::Failed).await;
    assert_ne!(failed.hash.as_ref(), Some(&before.hash));
    assert_eq!(failed.pods.as_deref(), Some("0/2"));
    let why = "0 of 2 pods are ready with the current data after 3s";
    assert_eq!(failed.message.as_deref(), Some(why));
    let rolled_out = team.condition_is("app", "RolledOut", "False").await;
    assert_eq!(
        rolled_out,
        format!("False RolloutFailed: Deployment app: {why}")
    );

    let annotations = json!({"metadata": {"annotations": {never_ready: null}}});
    team.patch::<Deployment>("app", json!({"spec": {"template": annotations}}))
        .await;
    let after = team
        .in_step("app", ("Deployment", "app"), Some(&before.hash))
        .await;
    assert_eq!(Some(after.hash), failed.hash);
    // One restart by the operator, one by the repair.
    assert_eq!(after.template, before.template + 2);
    team.condition_is("app", "RolledOut", "True Verified").await;
}

#[tokio::test]
async fn pods_that_are_only_replaced_by_hand_are_waited_for() {
    let stage = Stage::shared().await;
    let team = stage.team("by-hand").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    let mut manifest = workload("StatefulSet", "app", &env_from(&["app"]));
    manifest["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    team.apply(&manifest).await;
    let before = team.in_step("app", ("StatefulSet", "app"), None).await;

    team.put("app", &json!({"password": "two"})).await;
    let waiting = team.workload_is("app", "app", WorkloadState::Waiting).await;
    assert!(waiting.message.unwrap().contains("OnDelete"));
    team.condition_is("app", "RolledOut", "False Waiting").await;
    for name in ["app-0", "app-1"] {
        team.delete::<Pod>(name).await;
    }
    team.restarted_once("app", &before).await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}

#[tokio::test]
async fn a_target_that_does_not_exist_is_waited_for() {
    let stage = Stage::shared().await;
    let team = stage.team("absent").await;
    team.put("app", &json!({"password": "one"})).await;
    let targets = json!([{"kind": "Deployment", "name": "absent"}]);
    let rollout = json!({"settle": "1s", "targets": targets});
    team.vault_secret("app", json!({"rollout": rollout})).await;
    let waiting = team
        .workload_is("app", "absent", WorkloadState::Waiting)
        .await;
    let why = "no such Deployment: create it, or take it out of spec.rollout.targets";
    assert_eq!(waiting.message.as_deref(), Some(why));
    let told = team.condition_is("app", "RolledOut", "False Waiting").await;
    assert!(told.contains(why), "{told}");

    team.deployment("absent", 1, &["other"]).await;
    team.in_step("app", ("Deployment", "absent"), None).await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}

/// A Deployment of two pods in step; restarts that take longer than three seconds fail.
async fn impatient(team: &Team<'_>) -> InStep {
    team.put("app", &json!({"password": "one"})).await;
    let rollout = json!({"settle": "1s", "verifyTimeout": "3s"});
    team.vault_secret("app", json!({"rollout": rollout})).await;
    team.apply(&workload("Deployment", "app", &env_from(&["app"])))
        .await;
    team.in_step("app", ("Deployment", "app"), None).await
}

#[tokio::test]
async fn a_restart_that_a_quota_stops_says_so_and_goes_on_without_it() {
    let stage = Stage::shared().await;
    let team = stage.team("quota").await;
    let before = impatient(&team).await;
    allow_pods(&team, "2").await;

    team.put("app", &json!({"password": "two"})).await;
    let failed = team.workload_is("app", "app", WorkloadState::Failed).await;
    let message = failed.message.unwrap();
    assert!(message.contains("exceeded quota: full"), "{message}");
    team.delete::<ResourceQuota>("full").await;
    team.in_step("app", ("Deployment", "app"), Some(&before.hash))
        .await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}

#[tokio::test]
async fn pods_that_crash_with_the_new_data_are_named_until_they_do_not() {
    let stage = Stage::shared().await;
    let team = stage.team("crashing").await;
    let before = impatient(&team).await;
    let crash = |value: serde_json::Value| json!({"spec": {"template": {"metadata": {"annotations": {"testbed.lockstep.dev/crash-loop": value}}}}});
    team.put("app", &json!({"password": "two"})).await;
    team.patch::<Deployment>("app", crash(json!("true"))).await;
    let words = "container app: ends again and again, with exit code 1";
    eventually(SOON, words, async || {
        let status = team.workload_status("app", "app").await;
        let found = format!("{status:?}");
        if found.contains(words) {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await
    .unwrap();
    team.patch::<Deployment>("app", crash(serde_json::Value::Null))
        .await;
    team.in_step("app", ("Deployment", "app"), Some(&before.hash))
        .await;
}

#[tokio::test]
async fn a_workload_that_says_never_is_left_alone_and_one_that_reloads_is_restarted_for_its_environment()
 {
    let stage = Stage::shared().await;
    let team = stage.team("opt-out").await;
    let before = in_step(&team, "app", "Deployment").await;
    let mounts = json!({
        "containers": [{"name": "app", "image": "app"}],
        "volumes": [{"name": "v", "secret": {"secretName": "app"}}],
    });
    for (name, pod, restart) in [
        ("never", env_from(&["app"]), "never"),
        ("mounts", mounts, "env"),
        ("env", env_from(&["app"]), "env"),
    ] {
        let mut manifest = workload("Deployment", name, &pod);
        manifest["metadata"]["annotations"] = json!({RESTART: restart});
        team.apply(&manifest).await;
        team.settled(name).await;
    }
    let env = team.in_step("app", ("Deployment", "env"), None).await;
    let left = [
        team.template("Deployment", "never").await,
        team.template("Deployment", "mounts").await,
    ];

    team.put("app", &json!({"password": "two"})).await;
    team.restarted_once("app", &before).await;
    team.restarted_once("app", &env).await;
    team.condition_is("app", "RolledOut", "True Verified: all pods of 2")
        .await;
    let still = [
        team.template("Deployment", "never").await,
        team.template("Deployment", "mounts").await,
    ];
    assert_eq!(still, left);
}
