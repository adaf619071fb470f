//! What people see of restarts: columns, metrics, conditions and events.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ResourceQuota},
    events::v1::Event,
};
use kube::api::ListParams;
use lockstep::{
    api::vault_secret::{VaultSecret, WorkloadState},
    names::SECRETS_HASH,
};
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use super::{allow_pods, in_step};
use crate::support::{LONG, Pki, Role, SOON, Stage, Team, env_from, settle, workload};

/// The cells of the only `VaultSecret` of the namespace as `kubectl get -o wide` prints them, by heading.
async fn columns(team: &Team<'_>) -> BTreeMap<String, String> {
    let arguments = ["get", "vsec", "-n", &team.namespace, "-o", "wide"];
    let output = team.stage.kubectl(&arguments).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let heads: Vec<_> = lines[0].split_whitespace().collect();
    let starts = heads.iter().map(|head| lines[0].find(head).unwrap());
    let starts: Vec<_> = starts.chain([usize::MAX]).collect();
    let cell = |index: usize| {
        let end = starts[index + 1].min(lines[1].len());
        lines[1][starts[index]..end].trim().to_owned()
    };
    let cells = heads.iter().enumerate();
    cells
        .map(|(index, head)| ((*head).to_owned(), cell(index)))
        .collect()
}

/// Waits until the column `head` is `wanted`.
async fn column_is(team: &Team<'_>, head: &str, wanted: &str) {
    eventually(SOON, &format!("{head} is {wanted}"), async || {
        let all = columns(team).await;
        if all[head] == wanted {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_wide_list_shows_the_target_when_it_expires_and_how_far_restarts_are() {
    let stage = Stage::shared().await;
    let team = stage.team("wide").await;
    let (role, pki) = (Role::new(&team, "app", LONG).await, Pki::new(&team).await);
    let certificate = pki.source(json!({"ttl": "2h"}));
    let rollout = json!({"rollout": {"settle": "1s"}, "target": {"name": "pair"}});
    team.issue("app", &[role.source(), certificate], rollout)
        .await;
    team.ready("app").await;
    column_is(&team, "ROLLOUT", "").await;
    let all = columns(&team).await;
    assert_eq!(all["TARGET"], "pair");
    let sources = team.status("app").await.sources;
    let ends = sources[1].lease_expires.as_ref().unwrap().0;
    assert_eq!(all["EXPIRES"].parse::<jiff::Timestamp>().unwrap(), ends);

    for name in ["one", "two"] {
        team.deployment(name, 1, &["pair"]).await;
    }
    column_is(&team, "ROLLOUT", "2/2 Verified").await;
    let targets = json!([{"kind": "Deployment", "name": "three"}]);
    let rollout = json!({"spec": {"rollout": {"targets": targets}}});
    team.patch::<VaultSecret>("app", rollout).await;
    column_is(&team, "ROLLOUT", "1/3 Waiting").await;
}

#[tokio::test]
async fn metrics_count_a_restart_from_the_change_to_the_last_pod() {
    let stage = Stage::own().await;
    let team = stage.team("metrics").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    // Pods that are younger than the data by some seconds are in step however late they are looked at.
    team.polled("app").await;
    team.apply(&workload("Deployment", "app", &env_from(&["app"])))
        .await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;
    let kind = "{kind=Deployment}";
    let none = stage.samples().await;
    for family in ["requested", "started", "verified"] {
        let name = format!("rollouts_{family}_total{kind}");
        assert_eq!(none.get(&name), None, "{name}");
    }

    team.put("app", &json!({"password": "two"})).await;
    team.restarted_once("app", &before).await;
    let found = eventually(SOON, "a restart that was counted", async || {
        let found = stage.samples().await;
        let counted = found
            .get(&format!("rollouts_verified_total{kind}"))
            .copied();
        (counted == Some(1.0)).then_some(found)
    })
    .await
    .unwrap();
    let told = |name: &str| found.get(name).copied();
    for name in [
        "rollouts_requested_total",
        "rollouts_started_total",
        "change_to_verified_seconds_count",
        "rollout_duration_seconds_count",
    ] {
        assert_eq!(told(&format!("{name}{kind}")), Some(1.0), "{name}");
    }
    assert_eq!(told(&format!("rollouts_failed_total{kind}")), None);
    // The settle window and the lag of kubelets are part of the one, and not of the other.
    let all = told(&format!("change_to_verified_seconds_sum{kind}")).unwrap();
    let restart = told(&format!("rollout_duration_seconds_sum{kind}")).unwrap();
    assert!(all >= restart + 1.0, "{all} of which {restart}");
    assert!(all < SOON.as_secs_f64(), "{all}");
    assert_eq!(told("workloads{state=Verified}"), Some(1.0));
    assert_eq!(told("workloads{state=Failed}"), Some(0.0));
}

#[tokio::test]
async fn waves_that_fit_no_workload_are_named_until_one_has_the_label() {
    let stage = Stage::shared().await;
    let team = stage.team("no-wave").await;
    team.put("app", &json!({"password": "one"})).await;
    // Nothing is reported because Vault was read again.
    let waves = |label: &str| json!({"refreshInterval": "1h", "rollout": {"settle": "1s", "waves": {"byLabel": label, "order": ["data", "api"]}}});
    team.vault_secret("app", waves("tier")).await;
    // Its workloads may come later.
    let quiet = "True NothingToRestart: no workload is restarted for the Secret";
    assert_eq!(team.condition_is("app", "RolledOut", quiet).await, quiet);
    let deployment = async |name: &str, tier: &str| {
        let mut manifest = workload("Deployment", name, &env_from(&["app"]));
        manifest["metadata"]["labels"] = json!({"tier": tier});
        team.apply(&manifest).await;
    };
    deployment("data", "data").await;
    let told = "True Verified: all pods of 1 workload(s) run with the current data; spec.rollout.waves.order[1]: no workload of this VaultSecret has the label tier=api";
    assert_eq!(team.condition_is("app", "RolledOut", told).await, told);
    team.ready("app").await;

    deployment("api", "web").await;
    let told = told.replace("1 workload", "2 workload");
    assert_eq!(team.condition_is("app", "RolledOut", &told).await, told);
    team.patch::<Deployment>("api", json!({"metadata": {"labels": {"tier": "api"}}}))
        .await;
    let gone = async || {
        let told = team.condition("app", "RolledOut").await.unwrap();
        if told.ends_with("run with the current data") {
            Ok(())
        } else {
            Err(told)
        }
    };
    eventually(SOON, "nothing to remark", gone).await.unwrap();

    team.vault_secret("app", waves("teir")).await;
    let told = "True Verified: all pods of 2 workload(s) run with the current data; spec.rollout.waves.byLabel: no workload of this VaultSecret has the label teir";
    team.condition_is("app", "RolledOut", told).await;
    team.ready("app").await;
}

#[tokio::test]
async fn a_stateful_set_and_a_daemon_set_whose_pods_are_refused_say_why_until_they_are_not() {
    let stage = Stage::shared().await;
    let team = stage.team("refused").await;
    team.put("app", &json!({"password": "one"})).await;
    let rollout = json!({"settle": "1s", "verifyTimeout": "3s"});
    team.vault_secret("app", json!({"rollout": rollout})).await;
    let kinds = [("StatefulSet", "db"), ("DaemonSet", "agent")];
    let mut before = Vec::new();
    for (kind, name) in kinds {
        team.apply(&workload(kind, name, &env_from(&["app"]))).await;
        before.push(team.in_step("app", (kind, name), None).await);
    }
    allow_pods(&team, "1").await;

    team.put("app", &json!({"password": "two"})).await;
    for (_, name) in kinds {
        let failed = team.workload_is("app", name, WorkloadState::Failed).await;
        let message = failed.message.unwrap();
        let words = "after 3s: a new pod is forbidden: exceeded quota: full, requested: pods=1";
        assert!(message.contains(words), "{message}");
    }
    team.patch::<ResourceQuota>("full", json!({"spec": {"hard": {"pods": "99"}}}))
        .await;
    for one in &before {
        // Their controllers try again ever more seldom.
        verified_within(&team, &one.name, Duration::from_mins(2)).await;
        team.restarted_once("app", one).await;
    }
    team.condition_is("app", "RolledOut", "True Verified").await;
}

async fn verified_within(team: &Team<'_>, name: &str, patience: Duration) {
    eventually(patience, &format!("{name} is verified"), async || {
        let found = team.workload_status("app", name).await.unwrap();
        if found.state == WorkloadState::Verified {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_conflict_over_a_workload_that_another_operator_made_names_the_owner() {
    let stage = Stage::shared().await;
    let team = stage.team("owned").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "boss"}}))
        .await;
    let boss = team.api::<ConfigMap>().get("boss").await.unwrap();
    let mut manifest = workload("Deployment", "app", &env_from(&["app"]));
    manifest["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "boss", "uid": boss.metadata.uid, "controller": true,
    }]);
    // The old pods run on for five seconds, so the stamp is gone before they are.
    let template = &mut manifest["spec"]["template"]["metadata"];
    template["annotations"] = json!({"testbed.lockstep.dev/slow": "true"});
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0}});
    team.apply(&manifest).await;
    team.settled("app").await;
    team.in_step("app", ("Deployment", "app"), None).await;

    team.put("app", &json!({"password": "two"})).await;
    for _ in [1, 2] {
        let stamped = async || team.stamp("app").await.is_some();
        eventually(SOON, "a stamp", stamped).await.unwrap();
        let template = json!({"metadata": {"annotations": {SECRETS_HASH: null}}});
        team.patch::<Deployment>("app", json!({"spec": {"template": template}}))
            .await;
    }
    let failed = team.workload_is("app", "app", WorkloadState::Failed).await;
    let message = failed.message.unwrap();
    let words = "; ConfigMap boss owns the workload: have it leave lockstep.dev/secrets-hash";
    assert!(
        message.starts_with("RestartConflict: ") && message.contains(words),
        "{message}"
    );
}

/// The notes of the events about pods that are not restarted.
async fn left_out(team: &Team<'_>) -> Vec<String> {
    let events = team.api::<Event>().list(&ListParams::default()).await;
    let about = events.unwrap().items.into_iter().filter(|event| {
        let object = event.regarding.as_ref();
        event.reason.as_deref() == Some("NotRestarted")
            && object.and_then(|object| object.kind.as_deref()) == Some("VaultSecret")
    });
    about.filter_map(|event| event.note).collect()
}

#[tokio::test]
async fn pods_that_nothing_restarts_are_named_once_after_a_change() {
    let stage = Stage::shared().await;
    let team = stage.team("left-out").await;
    let before = in_step(&team, "app", "Deployment").await;
    team.vault_secret(
        "named",
        json!({"target": {"name": "other"}, "rollout": {"discover": false}}),
    )
    .await;
    team.put("named", &json!({"password": "one"})).await;
    let mut pod = env_from(&["app", "other"]);
    pod["restartPolicy"] = json!("Always");
    let bare = |name: &str, pod: &Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod});
    team.secret_with("other", "password", "one").await;
    team.apply(&bare("shell", &pod)).await;
    team.apply(&bare("quiet", &env_from(&["none"]))).await;
    team.apply(&json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "lone"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "lone"}},
            "template": {"metadata": {"labels": {"app": "lone"}}, "spec": pod},
        },
    }))
    .await;
    let made = async || team.pods("lone").await.len() == 2;
    eventually(SOON, "two pods of the ReplicaSet", made)
        .await
        .unwrap();

    for name in ["app", "named"] {
        team.put(name, &json!({"password": "two"})).await;
    }
    team.restarted_once("app", &before).await;
    let notes = eventually(SOON, "an event", async || {
        let notes = left_out(&team).await;
        (!notes.is_empty()).then_some(notes)
    })
    .await
    .unwrap();
    let told = "not restarted for the new data of Secret app: Pod shell, ReplicaSet lone. If they read it only at their start, they go on with older data until they end";
    assert_eq!(notes, [told]);
    team.polled("app").await;
    assert_eq!(left_out(&team).await.len(), 1);
}
