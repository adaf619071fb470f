//! How many restart at once, and in which order.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, future::join_all};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use lockstep::{
    api::vault_secret::{VaultSecret, WorkloadState},
    names::{EMERGENCY, SECRETS_HASH},
};
use lockstep_testbed::{Bed, eventually};
use serde_json::json;

use crate::support::{InStep, Role, SOON, Stage, Team, Ttl, env_from, options, workload};

/// What a watch saw of the restarts of Deployments.
#[derive(Default)]
struct Seen {
    under_way: BTreeSet<String>,
    most: usize,
    begun: Vec<String>,
    done: Vec<String>,
}

impl Seen {
    fn look(&mut self, deployment: &Deployment, before: &BTreeSet<String>) {
        let name = deployment.metadata.name.clone().unwrap();
        let spec = deployment.spec.as_ref().unwrap();
        let annotations = spec
            .template
            .metadata
            .as_ref()
            .unwrap()
            .annotations
            .as_ref();
        let stamp = annotations.and_then(|all| all.get(SECRETS_HASH));
        if stamp.is_none_or(|stamp| before.contains(stamp)) {
            return;
        }
        let status = deployment.status.clone().unwrap_or_default();
        let all = [
            status.replicas,
            status.updated_replicas,
            status.ready_replicas,
        ];
        let complete = status.observed_generation >= deployment.metadata.generation
            && all.iter().all(|count| *count == spec.replicas);
        if complete {
            if self.under_way.remove(&name) {
                self.done.push(name);
            }
        } else if !self.done.contains(&name) && self.under_way.insert(name.clone()) {
            self.begun.push(name);
        }
        self.most = self.most.max(self.under_way.len());
    }
}

/// Watches the Deployments of the team from now on; those of `before` have not begun.
fn watch(team: &Team<'_>, before: &[InStep]) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let before = before.iter().filter_map(|one| one.stamp.clone()).collect();
    let api: Api<Deployment> = team.api();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut events = watcher(api, watcher::Config::default())
            .applied_objects()
            .boxed();
        while let Some(Ok(deployment)) = events.next().await {
            noted.lock().unwrap().look(&deployment, &before);
        }
    });
    seen
}

#[tokio::test]
async fn forty_workloads_never_restart_more_than_five_at_once_and_all_finish() {
    let mut stage = Stage::own_with(&["--max-concurrent-rollouts=5"]).await;
    let operator = stage.operator.take().unwrap();
    let team = stage.team("fleet").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", json!({"rollout": {"settle": "1s"}}))
        .await;
    team.ready("app").await;
    let names: Vec<_> = (0..40).map(|n| format!("app-{n}")).collect();
    join_all(names.iter().map(|name| team.deployment(name, 1, &["app"]))).await;
    let each = names
        .iter()
        .map(|name| team.in_step("app", ("Deployment", name), None));
    let before = join_all(each).await;

    let seen = watch(&team, &before);
    team.put("app", &json!({"password": "two"})).await;
    eventually(SOON, "a third is done", async || {
        let done = seen.lock().unwrap().done.len();
        if done >= 13 { Ok(()) } else { Err(done) }
    })
    .await
    .unwrap();
    operator.kill().unwrap();
    let again = ["--max-concurrent-rollouts=5", "--leader-election=false"];
    let again = Bed::operator(&stage, &options(again.map(str::to_owned).to_vec())).unwrap();
    again.wait_ready(SOON).await.unwrap();
    join_all(before.iter().map(|one| team.restarted_once("app", one))).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.begun.len(), 40);
    assert!((2..=5).contains(&seen.most), "{} at once", seen.most);
    drop(again);
}

/// Three Deployments in the waves data, api and web, in step, each of one pod.
async fn waves(team: &Team<'_>, extra: &[(&str, serde_json::Value)]) -> Vec<InStep> {
    team.put("app", &json!({"password": "one"})).await;
    let waves = json!({"byLabel": "tier", "order": ["data", "api"]});
    let mut rollout = json!({"settle": "1s", "waves": waves});
    for (field, value) in extra {
        rollout[*field] = value.clone();
    }
    team.vault_secret("app", json!({"rollout": rollout})).await;
    team.ready("app").await;
    for tier in ["web", "api", "data"] {
        let mut manifest = workload("Deployment", tier, &env_from(&["app"]));
        manifest["metadata"]["labels"] = json!({"tier": tier});
        team.apply(&manifest).await;
    }
    join_all(["data", "api", "web"].map(|tier| team.in_step("app", ("Deployment", tier), None)))
        .await
}

#[tokio::test]
async fn a_wave_begins_when_the_one_before_is_done() {
    let stage = Stage::shared().await;
    let team = stage.team("waves").await;
    let before = waves(&team, &[]).await;

    let seen = watch(&team, &before);
    team.put("app", &json!({"password": "two"})).await;
    join_all(before.iter().map(|one| team.restarted_once("app", one))).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.begun, ["data", "api", "web"]);
    assert_eq!(seen.most, 1, "two waves at once");
}

#[tokio::test]
async fn a_wave_that_fails_stops_those_after_it_until_it_is_put_right_or_in_an_emergency() {
    let stage = Stage::shared().await;
    let team = stage.team("broken-wave").await;
    let before = waves(&team, &[("verifyTimeout", json!("3s"))]).await;
    let never_ready = |value: serde_json::Value| json!({"spec": {"template": {"metadata": {"annotations": {"testbed.lockstep.dev/never-ready": value}}}}});
    team.patch::<Deployment>("data", never_ready(json!("true")))
        .await;

    team.put("app", &json!({"password": "two"})).await;
    team.workload_is("app", "data", WorkloadState::Failed).await;
    let stopped = team.workload_is("app", "api", WorkloadState::Waiting).await;
    let why = "stopped: Deployment data of the wave data failed, and comes before";
    eventually(SOON, why, async || {
        let status = team.workload_status("app", "api").await.unwrap();
        if status.message.as_deref() == Some(why) {
            Ok(())
        } else {
            Err(format!("{:?}", status.message))
        }
    })
    .await
    .unwrap();
    assert_eq!(stopped.pods, None);
    team.polled("app").await;
    team.not_restarted(&before[1]).await;
    team.not_restarted(&before[2]).await;

    team.annotate("app", EMERGENCY, "INC-4711").await;
    let api = team.restarted_once("app", &before[1]).await;
    let web = team.restarted_once("app", &before[2]).await;
    team.patch::<VaultSecret>(
        "app",
        json!({"metadata": {"annotations": {EMERGENCY: null}}}),
    )
    .await;

    team.put("app", &json!({"password": "three"})).await;
    team.workload_is("app", "api", WorkloadState::Waiting).await;
    team.patch::<Deployment>("data", never_ready(serde_json::Value::Null))
        .await;
    team.restarted_once("app", &api).await;
    team.restarted_once("app", &web).await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}

/// A window that opens in so many minutes, counted from the one of `now`, for a minute.
fn window(now: jiff::Timestamp, minutes: i64) -> serde_json::Value {
    let opens = now + jiff::SignedDuration::from_mins(minutes);
    let minute = opens.to_zoned(jiff::tz::TimeZone::UTC).minute();
    json!([{"schedule": format!("{minute} * * * *"), "duration": "1m"}])
}

#[tokio::test]
async fn a_restart_waits_for_its_window_also_if_the_operator_is_restarted_meanwhile() {
    let mut stage = Stage::own().await;
    let operator = stage.operator.take().unwrap();
    let team = stage.team("window").await;
    team.put("app", &json!({"password": "one"})).await;
    let rollout = |windows| json!({"rollout": {"settle": "1s", "windows": windows}});
    team.vault_secret("app", rollout(json!([]))).await;
    team.ready("app").await;
    team.deployment("app", 1, &["app"]).await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;
    let pods = team.pods("app").await;
    let now = pods[0].metadata.creation_timestamp.as_ref().unwrap().0;
    team.vault_secret("app", rollout(window(now, 2))).await;
    team.ready("app").await;

    team.put("app", &json!({"password": "two"})).await;
    team.secret_with("app", "password", "two").await;
    let waiting = team.workload_is("app", "app", WorkloadState::Waiting).await;
    let message = waiting.message.unwrap();
    let opens: jiff::Timestamp = message
        .strip_prefix("window opens at ")
        .unwrap()
        .parse()
        .unwrap();
    team.condition_is("app", "RolledOut", "False Waiting").await;
    operator.kill().unwrap();
    let again = ["--leader-election=false".to_owned()];
    let again = Bed::operator(&stage, &options(again.to_vec())).unwrap();
    again.wait_ready(SOON).await.unwrap();
    team.workload_is("app", "app", WorkloadState::Waiting).await;
    team.not_restarted(&before).await;

    let patience = std::time::Duration::from_mins(3);
    eventually(patience, "it is restarted", async || {
        let status = team.workload_status("app", "app").await.unwrap();
        if status.state == WorkloadState::Verified {
            Ok(())
        } else {
            Err(status.state.as_str())
        }
    })
    .await
    .unwrap();
    let after = team.restarted_once("app", &before).await;
    let pods = team.pods("app").await;
    let made = pods[0].metadata.creation_timestamp.as_ref().unwrap().0;
    assert!(made >= opens, "{made} is before {opens}");
    drop((again, after));
}

#[tokio::test]
async fn a_window_that_cannot_be_used_is_named_and_the_last_good_secret_stays() {
    let stage = Stage::shared().await;
    let team = stage.team("no-window").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", json!({"rollout": {"settle": "1s"}}))
        .await;
    team.ready("app").await;
    let rollout = |window| json!({"rollout": {"settle": "1s", "windows": [window]}});
    for (window, words) in [
        (
            json!({"schedule": "0 25 * * *", "duration": "1h"}),
            "schedule: \"0 25 * * *\" is not a schedule",
        ),
        (
            json!({"schedule": "0 2 30 2 *", "duration": "1h"}),
            "schedule: \"0 2 30 2 *\" is at no time",
        ),
        (
            json!({"schedule": "0 2 * * *", "duration": "1h", "timeZone": "Europe/Nowhere"}),
            "timeZone: \"Europe/Nowhere\"",
        ),
    ] {
        team.vault_secret("app", rollout(window)).await;
        let told = format!("True InvalidSpec: spec.rollout.windows[0].{words}");
        team.condition_is("app", "Stalled", &told).await;
        team.secret_with("app", "password", "one").await;
    }
    team.vault_secret(
        "app",
        rollout(json!({"schedule": "* * * * *", "duration": "1h"})),
    )
    .await;
    team.ready("app").await;
}

#[tokio::test]
async fn what_ends_before_the_window_opens_is_replaced_in_the_pods_before() {
    let stage = Stage::shared().await;
    let team = stage.team("early").await;
    let short = Ttl {
        default: "30s",
        max: "30s",
    };
    let role = Role::new(&team, "app", short).await;
    team.issue(
        "app",
        &[role.source()],
        json!({"rollout": {"settle": "1s"}}),
    )
    .await;
    team.ready("app").await;
    let made = team
        .secret("app")
        .await
        .unwrap()
        .metadata
        .creation_timestamp;
    let windows = window(made.unwrap().0, 30);
    let rollout = json!({"rollout": {"settle": "1s", "windows": windows}});
    team.issue("app", &[role.source()], rollout).await;
    team.deployment("app", 1, &["app"]).await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;
    let first = team.credentials("app").await.unwrap();

    team.credentials_other_than("app", Some(&first)).await;
    team.restarted_once("app", &before).await;
    let log = stage.operator().log_text();
    let told = format!("{}/Deployment/app", team.namespace);
    let early = |line: &&str| line.contains(&told) && line.contains("before a window opens");
    assert!(log.lines().any(|line| early(&line)));
}
