//! A workload whose pods provably run the current data is left running; one that cannot prove it is restarted.

use k8s_openapi::api::apps::v1::Deployment;
use lockstep::{
    api::vault_secret::{VaultSecret, WorkloadState},
    names::{IN_STEP, SECRETS_HASH},
};
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use crate::support::{SOON, Stage, Team, env_from, settle, workload};

const APP: (&str, &str) = ("Deployment", "app");

/// Waits until a pod that is made now is provably later than the data of the Secret: some seconds.
async fn data_gets_old(team: &Team<'_>, name: &str) {
    let mark = team.stage.vault_audit_mark().unwrap();
    team.was_read(mark, name, 4).await;
}

/// The `VaultSecret` `app`, ready, whose data is some seconds old.
async fn old_data(team: &Team<'_>) {
    team.put("app", &json!({"password": "one"})).await;
    let target = json!({"deletionPolicy": "Retain"});
    let spec = json!({"rollout": {"settle": "1s"}, "target": target});
    team.vault_secret("app", spec).await;
    team.ready("app").await;
    data_gets_old(team, "app").await;
}

/// Asserts that the Deployment is in step, and nobody but its owner ever changed its template.
async fn left_running(team: &Team<'_>, name: &'static str, template: i64) {
    let found = team.in_step("app", ("Deployment", name), None).await;
    team.settled(name).await;
    team.polled("app").await;
    let now = team.template("Deployment", name).await;
    assert_eq!(now, (None, template), "{name}");
    let annotations = team.api::<Deployment>().get(name).await.unwrap().metadata;
    assert_eq!(annotations.annotations.unwrap()[IN_STEP], found.hash);
}

#[tokio::test]
async fn a_deployment_that_is_younger_than_the_data_is_left_running() {
    let stage = Stage::shared().await;
    let team = stage.team("younger").await;
    old_data(&team).await;
    team.deployment("app", 2, &["app"]).await;
    left_running(&team, "app", 1).await;
}

#[tokio::test]
async fn a_secret_that_is_added_to_a_deployment_restarts_it_no_second_time() {
    let stage = Stage::shared().await;
    let team = stage.team("added").await;
    old_data(&team).await;
    team.deployment("app", 2, &[]).await;
    team.settled("app").await;
    team.deployment("app", 2, &["app"]).await;
    left_running(&team, "app", 2).await;
}

#[tokio::test]
async fn pods_that_run_when_their_secret_is_taken_over_are_left_running_if_they_are_younger() {
    let stage = Stage::shared().await;
    let team = stage.team("over").await;
    old_data(&team).await;
    team.delete::<VaultSecret>("app").await;
    let gone = async || {
        team.api::<VaultSecret>()
            .get_opt("app")
            .await
            .unwrap()
            .is_none()
    };
    eventually(SOON, "the VaultSecret is gone", gone)
        .await
        .unwrap();
    team.deployment("app", 2, &["app"]).await;
    team.settled("app").await;
    team.vault_secret("app", settle("1s")).await;
    left_running(&team, "app", 1).await;
}

#[tokio::test]
async fn pods_that_are_older_than_the_data_are_restarted() {
    let stage = Stage::shared().await;
    let team = stage.team("older").await;
    team.deployment("app", 2, &["app"]).await;
    team.settled("app").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    let restarted = team.in_step("app", APP, None).await;
    team.polled("app").await;
    assert_eq!(restarted.stamp.as_ref(), Some(&restarted.hash));
    assert_eq!(restarted.template, 2);
    team.not_restarted(&restarted).await;
}

#[tokio::test]
async fn what_is_applied_together_for_the_first_time_is_not_restarted() {
    let stage = Stage::shared().await;
    let team = stage.team("gitops").await;
    let manifest = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": if kind == "VaultSecret" { "lockstep.dev/v1alpha1" } else { "apps/v1" },
            "kind": kind, "metadata": {"name": name, "namespace": team.namespace}, "spec": spec,
        })
    };
    team.put("app", &json!({"password": "one"})).await;
    let deployment = |name| {
        let spec = workload("Deployment", name, &env_from(&["app"]))["spec"].clone();
        manifest("Deployment", name, spec)
    };
    let source = json!({"name": "main", "kv": {"mount": "secret", "path": team.path("app")}});
    let spec = json!({"refreshInterval": "2s", "sources": [source], "rollout": {"settle": "1s"}});
    // Before and after: some tools apply kinds they do not know last, others go by the alphabet.
    let all = [
        deployment("a"),
        deployment("b"),
        manifest("VaultSecret", "app", spec),
        deployment("c"),
        deployment("d"),
    ];
    let text = all.map(|one| one.to_string()).join("\n---\n");
    stage.apply_yaml(&text).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        left_running(&team, name, 1).await;
    }
}

/// Takes the stamp out of the template, as a tool does that knows nothing of it.
async fn take_stamp_away(team: &Team<'_>) {
    let template = json!({"metadata": {"annotations": {SECRETS_HASH: null}}});
    team.patch::<Deployment>("app", json!({"spec": {"template": template}}))
        .await;
}

#[tokio::test]
async fn a_stamp_that_is_taken_away_after_the_restart_is_not_fought_for() {
    let stage = Stage::shared().await;
    let team = stage.team("away").await;
    old_data(&team).await;
    team.deployment("app", 2, &["app"]).await;
    let before = team.in_step("app", APP, None).await;
    team.put("app", &json!({"password": "two"})).await;
    let stamped = team.restarted_once("app", &before).await;

    take_stamp_away(&team).await;
    team.settled("app").await;
    team.polled("app").await;
    let after = team.in_step("app", APP, None).await;
    assert_eq!(after.hash, stamped.hash);
    assert_eq!(after.stamp, None);
    assert_eq!(after.template, stamped.template + 1);
}

/// Takes the stamp away as soon as it is there, twice; `more` is changed with it. Returns what is reported.
async fn fight(team: &Team<'_>, more: impl Fn(u32) -> Value) -> Option<String> {
    old_data(team).await;
    // The old pods run on for five seconds, so the stamp is gone before they are.
    let mut manifest = workload(APP.0, APP.1, &env_from(&["app"]));
    let template = &mut manifest["spec"]["template"]["metadata"];
    template["annotations"] = json!({"testbed.lockstep.dev/slow": "true"});
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0}});
    team.apply(&manifest).await;
    team.settled("app").await;
    let before = team.in_step("app", APP, None).await;

    team.put("app", &json!({"password": "two"})).await;
    for round in [1, 2] {
        let stamped = async || team.stamp("app").await.is_some();
        eventually(SOON, "a stamp", stamped).await.unwrap();
        let mut spec = more(round);
        spec["template"] = json!({"metadata": {"annotations": {SECRETS_HASH: null}}});
        team.patch::<Deployment>("app", json!({"spec": spec})).await;
    }
    let status = team.workload_is("app", "app", WorkloadState::Failed).await;
    team.condition_is("app", "RolledOut", "False RolloutFailed")
        .await;
    team.polled("app").await;
    let now = team.template(APP.0, APP.1).await;
    assert_eq!(now, (None, before.template + 4));
    status.message
}

#[tokio::test]
async fn a_stamp_that_is_taken_away_again_and_again_is_reported_with_who_does_it() {
    let stage = Stage::shared().await;
    let team = stage.team("fight").await;
    let message = fight(&team, |round| json!({"revisionHistoryLimit": 3 + round})).await;
    let expected = "RestartConflict: the field manager somebody twice took away the annotation that restarts the pods";
    assert_eq!(message.as_deref(), Some(expected));
}

#[tokio::test]
async fn nobody_is_accused_of_taking_the_stamp_away_without_a_trace() {
    let stage = Stage::shared().await;
    let team = stage.team("trace").await;
    let message = fight(&team, |_| json!({})).await;
    let expected = "RestartConflict: another field manager twice took away the annotation that restarts the pods";
    assert_eq!(message.as_deref(), Some(expected));
}

#[tokio::test]
async fn a_stamp_that_belongs_to_somebody_else_is_left_to_them_and_reported() {
    let stage = Stage::shared().await;
    let team = stage.team("theirs").await;
    old_data(&team).await;
    let mut manifest = workload(APP.0, APP.1, &env_from(&["app"]));
    let template = &mut manifest["spec"]["template"]["metadata"];
    template["annotations"] = json!({SECRETS_HASH: "theirs"});
    team.apply(&manifest).await;
    let before = team.in_step("app", APP, None).await;

    team.put("app", &json!({"password": "two"})).await;
    let status = team.workload_is("app", "app", WorkloadState::Failed).await;
    let message =
        "RestartConflict: the field manager testbed holds the annotation that restarts the pods";
    assert_eq!(status.message.as_deref(), Some(message));
    team.polled("app").await;
    team.not_restarted(&before).await;
    assert_eq!(before.stamp.as_deref(), Some("theirs"));
}
