//! Rollouts of Argo that are restarted by time, while something else goes on with them or keeps them from it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use lockstep::{
    api::vault_secret::{VaultSecret, WorkloadState},
    rollout::argo::EVICTS,
};
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use super::{
    argo::{
        canary, data, healthy, in_step, is, patch, patch_status, pods, rollout, undo, verified,
    },
    counted::evictions,
};
use crate::support::{PATIENCE, SOON, Stage, Team};

/// Another image: a new version.
fn image(image: &str) -> Value {
    let containers =
        json!([{"name": "app", "image": image, "envFrom": [{"secretRef": {"name": "app"}}]}]);
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

/// Waits until its controller says this of itself.
async fn phase(team: &Team<'_>, phase: &str, replicas: u64) {
    eventually(PATIENCE, &format!("it is {phase}"), async || {
        let status = data(team, "app").await["status"].clone();
        let fits = status["phase"] == phase && status["readyReplicas"] == replicas;
        fits.then_some(()).ok_or_else(|| status.to_string())
    })
    .await
    .unwrap();
}

/// Puts a new password, and proves that all of `count` pods are replaced for it and the version stays as it was.
async fn all_are_replaced(team: &Team<'_>, password: &str, count: usize, before: &str) -> String {
    let (old, of) = (pods(team, "app").await, versions(team).await);
    assert_eq!(old.len(), count);
    team.put("app", &json!({"password": password})).await;
    let hash = verified(team, "app", Some(before)).await;
    let new = pods(team, "app").await;
    assert_eq!((new.len(), old.intersection(&new).count()), (count, 0));
    assert_eq!(versions(team).await, of);
    hash
}

/// Which version is stable, which is new, which serves, and what holds the new one up.
async fn versions(team: &Team<'_>) -> Vec<Value> {
    let data = data(team, "app").await;
    let fields = [
        "/status/stableRS",
        "/status/currentPodHash",
        "/status/currentStepIndex",
        "/status/blueGreen/activeSelector",
        "/status/pauseConditions",
        "/status/abort",
        "/status/phase",
        "/spec/paused",
    ];
    let value = |path: &&str| data.pointer(path).cloned().unwrap_or_default();
    fields.iter().map(value).collect()
}

#[tokio::test]
async fn a_rollout_that_is_paused_or_was_aborted_is_restarted_by_time_and_stays_as_it_is() {
    let stage = Stage::shared().await;
    let (team, hash) = in_step(stage, "argo-still", &rollout("app", &canary())).await;
    patch(&team, "app", json!({"spec": {"paused": true}})).await;
    phase(&team, "Paused", 2).await;
    let hash = all_are_replaced(&team, "two", 2, &hash).await;

    patch(&team, "app", json!({"spec": {"paused": false}})).await;
    phase(&team, "Healthy", 2).await;
    patch(&team, "app", image("next")).await;
    phase(&team, "Paused", 2).await;
    let hash = all_are_replaced(&team, "three", 2, &hash).await;
    let at = versions(&team).await;
    assert!(at[0] != at[1] && at[2] == json!(1), "{at:?}");

    patch_status(&team, "app", json!({"abort": true})).await;
    phase(&team, "Degraded", 2).await;
    eventually(PATIENCE, "no pod of what was aborted", async || {
        let status = data(&team, "app").await["status"].clone();
        status["updatedReplicas"].as_u64().unwrap_or_default() == 0
    })
    .await
    .unwrap();
    all_are_replaced(&team, "four", 2, &hash).await;
    assert_eq!(versions(&team).await[5], json!(true));
}

#[tokio::test]
async fn a_release_that_waits_for_its_promotion_is_restarted_by_time_and_not_promoted() {
    let stage = Stage::shared().await;
    let strategy = json!({"blueGreen": {"activeService": "app", "autoPromotionEnabled": false}});
    let (team, hash) = in_step(stage, "argo-preview", &rollout("app", &strategy)).await;
    patch(&team, "app", image("next")).await;
    eventually(PATIENCE, "the new version waits", async || {
        let waits = versions(&team).await[4][0]["reason"] == "BlueGreenPause";
        let ready = team.pods("app").await.len() == 4;
        (waits && ready).then_some(())
    })
    .await
    .unwrap();

    all_are_replaced(&team, "two", 4, &hash).await;
    let at = versions(&team).await;
    assert!(at[0] != at[1] && at[0] == at[3], "{at:?}");
}

/// In step; restarts that take longer than three seconds fail.
async fn impatient<'a>(stage: &'a Stage, prefix: &str, manifest: &Value) -> (Team<'a>, String) {
    let (team, hash) = in_step(stage, prefix, manifest).await;
    let rollout = json!({"settle": "1s", "verifyTimeout": "3s"});
    team.patch::<VaultSecret>("app", json!({"spec": {"rollout": rollout}}))
        .await;
    (team, hash)
}

#[tokio::test]
async fn a_budget_that_allows_no_eviction_is_told_and_the_restart_goes_on_without_it() {
    let stage = Stage::shared().await;
    let (team, before) = impatient(stage, "argo-budget", &rollout("app", &canary())).await;
    team.apply(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "none"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "app"}}},
    }))
    .await;
    eventually(SOON, "the budget counts", async || {
        let budget = team.api::<PodDisruptionBudget>().get("none").await.unwrap();
        budget
            .status
            .is_some_and(|status| status.current_healthy == 2)
    })
    .await
    .unwrap();
    let old = pods(&team, "app").await;

    team.put("app", &json!({"password": "two"})).await;
    let why = is(&team, "app", WorkloadState::Failed).await;
    let told = format!("0 of 2 pods are ready with the current data after 3s: {EVICTS}");
    assert_eq!(why, told);
    assert_eq!(pods(&team, "app").await, old);
    team.delete::<PodDisruptionBudget>("none").await;
    verified(&team, "app", Some(&before)).await;
    assert!(pods(&team, "app").await.is_disjoint(&old));
}

/// Says of a pod what its kubelet would, when it begins or ceases to be ready.
async fn set_ready(team: &Team<'_>, pod: &Pod, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let conditions =
        json!([{"type": "Ready", "status": status}, {"type": "ContainersReady", "status": status}]);
    let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
    let api = team.api::<Pod>();
    api.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test]
async fn pods_that_are_not_ready_hold_up_a_restart_by_time_which_is_told_until_they_are() {
    let stage = Stage::shared().await;
    let (team, before) = impatient(stage, "argo-unready", &rollout("app", &canary())).await;
    let old = team.pods("app").await;
    set_ready(&team, &old[0], false).await;
    phase(&team, "Progressing", 1).await;

    team.put("app", &json!({"password": "two"})).await;
    let why = is(&team, "app", WorkloadState::Failed).await;
    let told = format!("0 of 2 pods are ready with the current data after 3s: {EVICTS}");
    assert_eq!(why, told);
    let uids = |pods: &[Pod]| pods.iter().map(ResourceExt::uid).collect::<BTreeSet<_>>();
    assert_eq!(uids(&team.pods("app").await), uids(&old));
    set_ready(&team, &old[0], true).await;
    verified(&team, "app", Some(&before)).await;
    assert!(uids(&team.pods("app").await).is_disjoint(&uids(&old)));
}

/// A Rollout whose pods need five seconds to become ready.
fn slow() -> Value {
    let mut manifest = rollout("app", &canary());
    let slow = json!({"testbed.lockstep.dev/slow": "true"});
    manifest["spec"]["template"]["metadata"]["annotations"] = slow;
    manifest
}

/// Waits until it is asked to be restarted; returns for which time.
async fn asked(team: &Team<'_>) -> String {
    eventually(PATIENCE, "a restart is asked for", async || {
        let asked = data(team, "app").await["spec"]["restartAt"].clone();
        asked.as_str().map(str::to_owned)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_new_version_during_a_restart_by_time_leaves_no_pod_with_older_data() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo-next", &slow()).await;
    let old = pods(&team, "app").await;
    team.put("app", &json!({"password": "two"})).await;
    let time = asked(&team).await;
    // It stops with one pod of the new version and one of the old.
    patch(&team, "app", image("next")).await;

    verified(&team, "app", Some(&before)).await;
    assert_eq!(asked(&team).await, time);
    for pod in team.pods("app").await {
        let created = pod.metadata.creation_timestamp.unwrap().0;
        assert!(created >= time.parse().unwrap());
    }
    let new = pods(&team, "app").await;
    assert_eq!((new.len(), old.intersection(&new).count()), (2, 0));
    let at = versions(&team).await;
    assert!(at[0] != at[1], "it is not promoted: {at:?}");
    team.polled("app").await;
    assert_eq!(pods(&team, "app").await, new);
}

#[tokio::test]
async fn a_restart_by_time_that_is_called_done_and_is_not_is_asked_for_once_more() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo-done", &slow()).await;
    let old = pods(&team, "app").await;
    team.put("app", &json!({"password": "two"})).await;
    let first = asked(&team).await;
    // Its controller does nothing more for this time.
    patch_status(&team, "app", json!({"restartedAt": first})).await;

    verified(&team, "app", Some(&before)).await;
    assert!(pods(&team, "app").await.is_disjoint(&old));
    let [first, second] =
        [first, asked(&team).await].map(|time| time.parse::<Timestamp>().unwrap());
    assert_eq!(second.duration_since(first).as_secs(), 1);
}

#[tokio::test]
async fn pods_that_an_autoscaler_adds_during_a_restart_by_time_do_not_repeat_it() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo-scale", &slow()).await;
    let old: BTreeSet<_> = team
        .pods("app")
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let mark = stage.audit_mark().await.unwrap();
    team.put("app", &json!({"password": "two"})).await;
    eventually(PATIENCE, "the first pod is evicted", async || {
        evictions(&team, mark).await.len() == 1
    })
    .await
    .unwrap();
    let scale = [
        "scale",
        "rollout",
        "app",
        "--replicas=4",
        "-n",
        &team.namespace,
    ];
    assert!(stage.kubectl(&scale).await.unwrap().status.success());

    let time = asked(&team).await;
    verified(&team, "app", Some(&before)).await;
    let new = pods(&team, "app").await;
    assert_eq!(new.len(), 4);
    team.polled("app").await;
    assert_eq!(pods(&team, "app").await, new);
    assert_eq!(asked(&team).await, time);
    let evicted = evictions(&team, mark).await;
    assert_eq!((evicted.len(), evicted.into_iter().collect()), (2, old));
}

#[tokio::test]
async fn an_undo_of_a_rollout_that_is_restarted_by_time_restarts_nothing() {
    let stage = Stage::shared().await;
    let plain = json!({"canary": {}});
    let (team, before) = in_step(stage, "argo-back", &rollout("app", &plain)).await;
    patch(&team, "app", image("next")).await;
    healthy(&team, "app").await;
    team.put("app", &json!({"password": "two"})).await;
    let hash = verified(&team, "app", Some(&before)).await;
    let (time, old) = (asked(&team).await, pods(&team, "app").await);
    let mark = stage.audit_mark().await.unwrap();

    undo(&team, "app").await;
    eventually(PATIENCE, "pods of the older version", async || {
        let new = pods(&team, "app").await;
        (new.len() == 2 && old.is_disjoint(&new)).then_some(())
    })
    .await
    .unwrap();
    healthy(&team, "app").await;
    team.polled("app").await;
    assert_eq!(verified(&team, "app", None).await, hash);
    assert_eq!(asked(&team).await, time);
    assert_eq!(evictions(&team, mark).await, [""; 0]);
    all_are_replaced(&team, "three", 2, &hash).await;
}
