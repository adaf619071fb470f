//! Rollouts of Argo, under their real controller.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use lockstep::{
    api::vault_secret::{WorkloadState, WorkloadStatus},
    names::{RESTART_BY, SECRETS_HASH},
};
use lockstep_testbed::{ArgoRollouts, Bed, OPERATOR_NAMESPACE, OperatorOptions, eventually};
use serde_json::{Value, json};

use crate::support::{PATIENCE, SOON, Stage, Team, env_from, options, pod_stamp, settle, workload};

/// A canary that stops with half of the pods until somebody promotes it.
pub(super) fn canary() -> Value {
    json!({"canary": {"maxUnavailable": 1, "steps": [{"setWeight": 50}, {"pause": {}}]}})
}

/// A Rollout of two pods that use the Secret of the same name.
pub(super) fn rollout(name: &str, strategy: &Value) -> Value {
    let mut manifest = workload("Rollout", name, &env_from(&[name]));
    manifest["spec"]["strategy"] = strategy.clone();
    manifest
}

/// The same, restarted by its template.
fn by_template(name: &str, strategy: &Value) -> Value {
    let mut manifest = rollout(name, strategy);
    manifest["metadata"]["annotations"] = json!({RESTART_BY: "template"});
    manifest
}

fn api(team: &Team<'_>) -> Api<DynamicObject> {
    team.workloads("Rollout")
}

/// What its controller and we wrote.
pub(super) async fn data(team: &Team<'_>, name: &str) -> Value {
    let found = api(team).get(name).await.unwrap();
    let mut data = found.data;
    data["annotations"] = json!(found.metadata.annotations.unwrap_or_default());
    data
}

/// As another field manager.
fn somebody() -> PatchParams {
    PatchParams {
        field_manager: Some("kubectl-argo-rollouts".into()),
        ..PatchParams::default()
    }
}

/// Changes it as somebody would.
pub(super) async fn patch(team: &Team<'_>, name: &str, patch: Value) {
    let patch = Patch::Merge(patch);
    api(team).patch(name, &somebody(), &patch).await.unwrap();
}

/// As `kubectl argo rollouts promote` and `abort` do it.
pub(super) async fn patch_status(team: &Team<'_>, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    let api = api(team);
    api.patch_status(name, &somebody(), &patch).await.unwrap();
}

async fn promote(team: &Team<'_>, name: &str) {
    patch_status(team, name, json!({"pauseConditions": null})).await;
}

/// Waits until the status says this about the workload.
async fn becomes(
    team: &Team<'_>,
    name: &str,
    what: &str,
    wanted: impl Fn(&WorkloadStatus) -> bool,
) -> WorkloadStatus {
    eventually(PATIENCE, &format!("{name} is {what}"), async || {
        let found = team.workload_status("app", name).await;
        let fits = found.clone().filter(|status| wanted(status));
        fits.ok_or_else(|| format!("{found:?}"))
    })
    .await
    .unwrap()
}

/// Waits until it is verified with a hash other than `before`; returns the hash.
pub(super) async fn verified(team: &Team<'_>, name: &str, before: Option<&str>) -> String {
    let done = |status: &WorkloadStatus| {
        status.state == WorkloadState::Verified && status.hash.as_deref() != before
    };
    let status = becomes(team, name, "verified", done).await;
    status.hash.unwrap()
}

/// Waits until it is in this state; returns the message.
pub(super) async fn is(team: &Team<'_>, name: &str, state: WorkloadState) -> String {
    let status = becomes(team, name, state.as_str(), |status| status.state == state).await;
    status.message.unwrap_or_default()
}

/// The UIDs of its pods.
pub(super) async fn pods(team: &Team<'_>, name: &str) -> BTreeSet<String> {
    let pods = team.pods(name).await.into_iter();
    pods.filter_map(|pod| pod.metadata.uid).collect()
}

/// Waits until its controller has all pods running and nothing left to do.
pub(super) async fn healthy(team: &Team<'_>, name: &str) {
    eventually(PATIENCE, &format!("{name} is healthy"), async || {
        let data = data(team, name).await;
        let status = &data["status"];
        let healthy = status["phase"] == "Healthy" && status["readyReplicas"] == 2;
        healthy.then_some(()).ok_or_else(|| status.to_string())
    })
    .await
    .unwrap();
}

/// A team whose Secret `app` has a password, with `manifest` in step with it.
pub(super) async fn in_step<'a>(
    stage: &'a Stage,
    prefix: &str,
    manifest: &Value,
) -> (Team<'a>, String) {
    stage.argo_rollouts().await.unwrap();
    let team = stage.team(prefix).await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    // A blue-green one needs it.
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"selector": {"app": "app"}, "ports": [{"port": 80}]},
    }))
    .await;
    team.apply(manifest).await;
    healthy(&team, "app").await;
    let hash = verified(&team, "app", None).await;
    (team, hash)
}

#[tokio::test]
async fn a_rollout_is_restarted_once_by_its_restart_time_without_taking_its_steps() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo", &rollout("app", &canary())).await;
    let old = pods(&team, "app").await;
    let template = data(&team, "app").await["status"]["currentPodHash"].clone();

    team.put("app", &json!({"password": "two"})).await;
    let hash = verified(&team, "app", Some(&before)).await;
    let new = pods(&team, "app").await;
    assert_eq!((new.len(), old.intersection(&new).count()), (2, 0));
    let after = data(&team, "app").await;
    assert_eq!(after["annotations"][SECRETS_HASH], json!(hash));
    assert_eq!(after["status"]["restartedAt"], after["spec"]["restartAt"]);
    assert_eq!(after["status"]["currentPodHash"], template);
    team.condition_is("app", "RolledOut", "True Verified: all pods of 1")
        .await;
    team.polled("app").await;
    assert_eq!(pods(&team, "app").await, new);
}

#[tokio::test]
async fn by_its_template_it_takes_its_steps_and_waits_visibly_for_whoever_promotes_it() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo-steps", &by_template("app", &canary())).await;

    team.put("app", &json!({"password": "two"})).await;
    let waits = is(&team, "app", WorkloadState::Waiting).await;
    assert_eq!(waits, "the Rollout is paused at step 2 of 2: promote it");
    team.condition_is("app", "RolledOut", "False Waiting").await;
    assert_eq!(data(&team, "app").await["spec"].get("restartAt"), None);
    promote(&team, "app").await;
    let hash = verified(&team, "app", Some(&before)).await;
    for pod in team.pods("app").await {
        assert_eq!(pod_stamp(&pod), Some(hash.as_str()));
    }
    team.condition_is("app", "RolledOut", "True Verified").await;
}

#[tokio::test]
async fn a_rollout_that_is_aborted_is_failed_and_not_begun_anew_until_it_is_put_right() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo-abort", &by_template("app", &canary())).await;
    team.put("app", &json!({"password": "two"})).await;
    is(&team, "app", WorkloadState::Waiting).await;
    patch_status(&team, "app", json!({"abort": true})).await;
    let why = is(&team, "app", WorkloadState::Failed).await;
    assert!(why.contains("RolloutAborted"), "{why}");
    team.condition_is("app", "RolledOut", "False RolloutFailed")
        .await;

    let stamp = async || {
        let data = data(&team, "app").await;
        data["spec"]["template"]["metadata"]["annotations"][SECRETS_HASH].clone()
    };
    let stamped = stamp().await;
    team.put("app", &json!({"password": "three"})).await;
    let failed = becomes(&team, "app", "failed with newer data", |status| {
        status.state == WorkloadState::Failed && Some(json!(status.hash)) != Some(stamped.clone())
    });
    failed.await;
    assert_eq!(stamp().await, stamped);

    // A pod of the first try has the older data, so it comes to the same step twice.
    patch_status(&team, "app", json!({"abort": false})).await;
    eventually(PATIENCE, "it is promoted and verified", async || {
        let found = team.workload_status("app", "app").await.unwrap();
        if found.state == WorkloadState::Waiting {
            promote(&team, "app").await;
        }
        let done = found.state == WorkloadState::Verified && found.hash != Some(before.clone());
        done.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_blue_green_rollout_by_its_template_waits_for_its_promotion() {
    let stage = Stage::shared().await;
    let strategy = json!({"blueGreen": {
        "activeService": "app", "autoPromotionEnabled": false, "scaleDownDelaySeconds": 1,
    }});
    let (team, before) = in_step(stage, "argo-blue", &by_template("app", &strategy)).await;

    team.put("app", &json!({"password": "two"})).await;
    let waits = is(&team, "app", WorkloadState::Waiting).await;
    assert_eq!(waits, "the new pods are not active yet: promote it");
    promote(&team, "app").await;
    let hash = verified(&team, "app", Some(&before)).await;
    for pod in team.pods("app").await {
        assert_eq!(pod_stamp(&pod), Some(hash.as_str()));
    }
}

#[tokio::test]
async fn a_template_that_stands_in_a_deployment_is_found_there_and_not_changed() {
    let stage = Stage::shared().await;
    stage.argo_rollouts().await.unwrap();
    let team = stage.team("argo-ref").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    let mut lender = workload("Deployment", "lender", &env_from(&["app"]));
    lender["spec"]["replicas"] = json!(0);
    team.apply(&lender).await;
    let lent = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "lender"});
    // Asked for or not, the template is not its own to change.
    let mut borrower = by_template("app", &canary());
    borrower["spec"].as_object_mut().unwrap().remove("template");
    borrower["spec"]["selector"] = json!({"matchLabels": {"app": "lender"}});
    borrower["spec"]["workloadRef"] = lent;
    team.apply(&borrower).await;
    healthy(&team, "app").await;
    let before = verified(&team, "app", None).await;
    let template = team.template("Deployment", "lender").await;
    let old = pods(&team, "lender").await;

    team.put("app", &json!({"password": "two"})).await;
    let hash = verified(&team, "app", Some(&before)).await;
    let new = pods(&team, "lender").await;
    assert_eq!((new.len(), old.intersection(&new).count()), (2, 0));
    assert_eq!(verified(&team, "lender", Some(&before)).await, hash);
    assert_eq!(team.template("Deployment", "lender").await, template);

    // Pods of its own cannot be restarted without a new version of the Rollout.
    let one = json!({"spec": {"replicas": 1}});
    team.patch::<Deployment>("lender", one).await;
    team.settled("lender").await;
    team.put("app", &json!({"password": "three"})).await;
    let waits = is(&team, "lender", WorkloadState::Waiting).await;
    assert!(
        waits.contains("the Rollout app takes its template"),
        "{waits}"
    );
    verified(&team, "app", Some(&hash)).await;
    assert_eq!(team.template("Deployment", "lender").await, template);
}

/// As `kubectl argo rollouts undo` does it.
pub(super) async fn undo(team: &Team<'_>, name: &str) {
    let of = ListParams::default().labels(&format!("app={name}"));
    let sets = team.api::<ReplicaSet>().list(&of).await.unwrap();
    let older = |set: &ReplicaSet| {
        let revision = set.metadata.annotations.as_ref()?;
        let revision = revision.get("rollout.argoproj.io/revision")?;
        revision.parse::<u32>().ok()
    };
    let older = sets.items.into_iter().min_by_key(older).unwrap();
    let mut template = serde_json::to_value(older.spec.unwrap().template).unwrap();
    let labels = template["metadata"]["labels"].as_object_mut().unwrap();
    labels.remove("rollouts-pod-template-hash");
    let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    let patch = patch.to_string();
    let arguments = ["patch", "rollout", name, "--type=json", "-p", &patch];
    let arguments = [&arguments[..], &["-n", &team.namespace]].concat();
    assert!(
        team.stage
            .kubectl(&arguments)
            .await
            .unwrap()
            .status
            .success()
    );
}

#[tokio::test]
async fn an_undo_of_a_rollout_is_not_fought_over() {
    let stage = Stage::shared().await;
    let plain = json!({"canary": {}});
    let (team, before) = in_step(stage, "argo-undo", &by_template("app", &plain)).await;
    team.put("app", &json!({"password": "two"})).await;
    let hash = verified(&team, "app", Some(&before)).await;
    let old = pods(&team, "app").await;

    undo(&team, "app").await;
    eventually(PATIENCE, "pods of the older template", async || {
        let new = pods(&team, "app").await;
        (new.len() == 2 && old.is_disjoint(&new)).then_some(())
    })
    .await
    .unwrap();
    healthy(&team, "app").await;
    assert_eq!(verified(&team, "app", None).await, hash);
    let new = pods(&team, "app").await;
    team.polled("app").await;
    assert_eq!(pods(&team, "app").await, new);
    let template = data(&team, "app").await["spec"]["template"].clone();
    assert_eq!(template.pointer("/metadata/annotations"), None);
}

#[tokio::test]
async fn a_restart_that_somebody_else_asked_for_keeps_neither_him_nor_us_from_the_next() {
    let stage = Stage::shared().await;
    let (team, before) = in_step(stage, "argo-again", &rollout("app", &canary())).await;
    team.put("app", &json!({"password": "two"})).await;
    let hash = verified(&team, "app", Some(&before)).await;
    let old = pods(&team, "app").await;

    let newest = team.pods("app").await.into_iter();
    let newest = newest.filter_map(|pod| Some(pod.metadata.creation_timestamp?.0));
    let now = (newest.max().unwrap() + Duration::from_secs(1)).to_string();
    patch(&team, "app", json!({"spec": {"restartAt": now}})).await;
    eventually(PATIENCE, "somebody's restart", async || {
        let new = pods(&team, "app").await;
        (new.len() == 2 && old.is_disjoint(&new)).then_some(())
    })
    .await
    .unwrap();
    healthy(&team, "app").await;
    let new = pods(&team, "app").await;
    team.polled("app").await;
    assert_eq!(verified(&team, "app", None).await, hash);
    assert_eq!(pods(&team, "app").await, new);
    assert_eq!(data(&team, "app").await["spec"]["restartAt"], json!(now));

    team.put("app", &json!({"password": "three"})).await;
    verified(&team, "app", Some(&hash)).await;
    assert!(pods(&team, "app").await.is_disjoint(&new));
}

#[tokio::test]
async fn where_the_kind_is_not_installed_that_is_said_and_it_is_seen_when_it_comes() {
    let stage = Stage::own().await;
    let team = stage.team("argo-later").await;
    team.put("app", &json!({"password": "one"})).await;
    let targets =
        json!([{"kind": "Deployment", "name": "web"}, {"kind": "Rollout", "name": "app"}]);
    let rollouts = json!({"rollout": {"settle": "1s", "targets": targets}});
    team.vault_secret("app", rollouts).await;
    team.apply(&workload("Deployment", "web", &env_from(&["app"])))
        .await;
    let before = team.in_step("app", ("Deployment", "web"), None).await;
    team.put("app", &json!({"password": "two"})).await;
    let after = team.restarted_once("app", &before).await;
    let waits = is(&team, "app", WorkloadState::Waiting).await;
    let told = "spec.rollout.targets[1].kind: Argo Rollouts is not installed";
    assert!(waits.starts_with(told), "{waits}");

    stage.argo_rollouts().await.unwrap();
    let missing = becomes(&team, "app", "missing", |status| {
        status
            .message
            .as_ref()
            .is_some_and(|told| told.starts_with("no such Rollout"))
    });
    missing.await;
    team.apply(&rollout("app", &canary())).await;
    healthy(&team, "app").await;
    let hash = verified(&team, "app", None).await;
    let old = pods(&team, "app").await;
    team.put("app", &json!({"password": "three"})).await;
    team.restarted_once("app", &after).await;
    verified(&team, "app", Some(&hash)).await;
    assert!(pods(&team, "app").await.is_disjoint(&old));

    let definition = ["delete", "customresourcedefinition", "rollouts.argoproj.io"];
    assert!(stage.kubectl(&definition).await.unwrap().status.success());
    // The Rollout goes first.
    let gone = becomes(&team, "app", "of no kind", |status| {
        status
            .message
            .as_ref()
            .is_some_and(|message| message.starts_with(told))
    });
    gone.await;
}

/// What the chart grants, and the rule of it without which Rollouts cannot be seen.
const GRANTS: &str = include_str!("../../../config/lockstep.yaml");
const RULE: &str =
    "  - apiGroups: [argoproj.io]\n    resources: [rollouts]\n    verbs: [list, watch, patch]\n";

#[tokio::test]
async fn without_the_right_to_see_rollouts_only_they_are_waited_for() {
    let mut stage = Stage::own_without_operator().await;
    let definition = tokio::task::spawn_blocking(ArgoRollouts::definition).await;
    let definition = definition.unwrap().unwrap();
    stage.install_crds(&definition).await.unwrap();
    let without = GRANTS.replace(RULE, "");
    assert_ne!(without, GRANTS);
    let namespace = include_str!("../../../config/namespace.yaml");
    stage.apply_yaml(namespace).await.unwrap();
    stage.apply_yaml(&without).await.unwrap();
    let kubeconfig = stage.kubeconfig_for(OPERATOR_NAMESPACE, "lockstep");
    let as_chart = OperatorOptions {
        kubeconfig: Some(kubeconfig.await.unwrap()),
        ..options(vec!["--leader-election=false".to_owned()])
    };
    let operator = Bed::operator(&stage, &as_chart).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    stage.operator = Some(operator);
    let team = stage.team("argo-rights").await;
    team.put("app", &json!({"password": "one"})).await;
    let targets = json!([{"kind": "Rollout", "name": "app"}]);
    let named = json!({"rollout": {"settle": "1s", "targets": targets}});
    team.vault_secret("app", named).await;
    team.apply(&workload("Deployment", "web", &env_from(&["app"])))
        .await;
    let before = team.in_step("app", ("Deployment", "web"), None).await;
    team.put("app", &json!({"password": "two"})).await;
    team.restarted_once("app", &before).await;
    let waits = is(&team, "app", WorkloadState::Waiting).await;
    let told = "Rollouts cannot be seen: rollouts.argoproj.io is forbidden";
    assert!(waits.starts_with(told), "{waits}");

    stage.apply_yaml(GRANTS).await.unwrap();
    let missing = becomes(&team, "app", "missing", |status| {
        status
            .message
            .as_ref()
            .is_some_and(|told| told.starts_with("no such Rollout"))
    });
    missing.await;
}
