//! New data restarts every workload that uses it, once; nothing else does.

mod argo;
mod by_time;
mod counted;
mod exceptions;
mod friends;
mod killed;
mod pacing;
mod quiet;
mod random;
mod returns;
mod rights;
mod templates;
mod together;
mod visible;

use futures::future::join_all;
use k8s_openapi::api::{core::v1::ResourceQuota, events::v1::Event};
use kube::api::ListParams;
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use crate::support::{InStep, SOON, Stage, Team, env_from, settle, workload};

/// A `VaultSecret` that settles in a second, and a workload that uses its Secret; in step.
async fn in_step(team: &Team<'_>, name: &str, kind: &'static str) -> InStep {
    team.put(name, &json!({"password": "one"})).await;
    team.vault_secret(name, settle("1s")).await;
    team.apply(&workload(kind, name, &env_from(&[name]))).await;
    team.in_step(name, (kind, name), None).await
}

/// A `ResourceQuota` named `full` for so many pods, which counts already.
async fn allow_pods(team: &Team<'_>, most: &str) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"},
        "spec": {"hard": {"pods": most}},
    }))
    .await;
    let counted = async || {
        let quota = team.api::<ResourceQuota>().get("full").await.unwrap();
        quota.status.and_then(|status| status.used).is_some()
    };
    eventually(SOON, "the quota counts", counted).await.unwrap();
}

/// Waits for an event of the workload `name` with this reason and note.
async fn hears(team: &Team<'_>, name: &str, reason: &str, note: &str) {
    eventually(SOON, &format!("the event {reason}: {note}"), async || {
        let events = team
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        events.items.into_iter().any(|event| {
            let about = event.regarding.and_then(|about| about.name);
            about.as_deref() == Some(name)
                && event.reason.as_deref() == Some(reason)
                && event.note.as_deref() == Some(note)
        })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn new_data_restarts_each_kind_of_workload_once_and_it_is_verified_on_the_pods() {
    let stage = Stage::shared().await;
    let team = stage.team("kinds").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    let kinds = [
        ("Deployment", "web"),
        ("StatefulSet", "db"),
        ("DaemonSet", "agent"),
    ];
    for (kind, name) in kinds {
        team.apply(&workload(kind, name, &env_from(&["app"]))).await;
    }
    let before = join_all(kinds.map(|kind| team.in_step("app", kind, None))).await;

    team.put("app", &json!({"password": "two"})).await;
    let after = join_all(before.iter().map(|one| team.restarted_once("app", one))).await;
    team.condition_is("app", "RolledOut", "True Verified: all pods of 3")
        .await;
    team.polled("app").await;
    for one in &after {
        team.not_restarted(one).await;
    }
}

/// One pod spec for each way to use the Secret `app`.
fn users() -> Vec<(&'static str, Value)> {
    let container = json!({"name": "app", "image": "app"});
    let with = |key: &str, value: Value| {
        let mut container = container.clone();
        container[key] = value;
        container
    };
    let one =
        json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "app", "key": "password"}}}]);
    let whole = json!([{"secretRef": {"name": "app"}}]);
    let projected =
        json!({"sources": [{"configMap": {"name": "other"}}, {"secret": {"name": "app"}}]});
    vec![
        ("env", json!({"containers": [with("env", one.clone())]})),
        (
            "env-from",
            json!({"containers": [with("envFrom", whole.clone())]}),
        ),
        (
            "volume",
            json!({"containers": [container], "volumes": [{"name": "v", "secret": {"secretName": "app"}}]}),
        ),
        (
            "projected",
            json!({"containers": [container], "volumes": [{"name": "v", "projected": projected}]}),
        ),
        (
            "init",
            json!({"containers": [container], "initContainers": [{"name": "i", "image": "i", "env": one}]}),
        ),
        (
            "second",
            json!({"containers": [container, {"name": "b", "image": "b", "envFrom": whole}]}),
        ),
    ]
}

#[tokio::test]
async fn every_way_to_use_a_secret_is_discovered() {
    let stage = Stage::shared().await;
    let team = stage.team("uses").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    let users = users();
    let manifest = |name: &str, pod: &Value| {
        let mut manifest = workload("Deployment", name, pod);
        manifest["spec"]["replicas"] = json!(1);
        manifest
    };
    join_all(
        users
            .iter()
            .map(async |(name, pod)| team.apply(&manifest(name, pod)).await),
    )
    .await;
    // Secrets for pulling images are read at each pull, and by no running pod.
    let mut other = env_from(&["apps", "ap"]);
    other["imagePullSecrets"] = json!([{"name": "app"}]);
    team.apply(&manifest("other", &other)).await;
    team.settled("other").await;
    let other = team.template("Deployment", "other").await;
    let users = users.iter().map(|(name, _)| ("Deployment", *name));
    let before = join_all(users.map(|user| team.in_step("app", user, None))).await;

    team.put("app", &json!({"password": "two"})).await;
    join_all(before.iter().map(|one| team.restarted_once("app", one))).await;
    assert_eq!(team.template("Deployment", "other").await, other);
    assert_eq!(team.workload_status("app", "other").await, None);
}

#[tokio::test]
async fn without_discovery_only_the_named_workloads_are_restarted() {
    let stage = Stage::shared().await;
    let team = stage.team("named").await;
    team.put("app", &json!({"password": "one"})).await;
    let targets = json!([{"kind": "StatefulSet", "name": "named"}]);
    let rollout = json!({"settle": "1s", "discover": false, "targets": targets});
    team.vault_secret("app", json!({"rollout": rollout})).await;
    team.deployment("user", 1, &["app"]).await;
    team.deployment("named", 1, &["app"]).await;
    team.apply(&workload("StatefulSet", "named", &env_from(&["other"])))
        .await;
    let before = team.in_step("app", ("StatefulSet", "named"), None).await;

    team.put("app", &json!({"password": "two"})).await;
    // The Deployment of that name has the same label, so its pods are not looked at here.
    let after = team
        .in_step("app", ("StatefulSet", "named"), Some(&before.hash))
        .await;
    assert_eq!(after.template, before.template + 1);
    team.polled("app").await;
    for bystander in ["user", "named"] {
        assert_eq!(team.template("Deployment", bystander).await, (None, 1));
    }
    assert_eq!(team.workload_status("app", "user").await, None);
}
