//! So many restarts, and not one more.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use kube::api::ListParams;
use lockstep_testbed::{ApiRequest, AuditMark};
use serde_json::json;
use std::time::{Duration, Instant};

use crate::support::{Stage, Team, env_from, settle, workload};

const SECRETS: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

const WORKLOADS: [(&str, &str); 4] = [
    ("Deployment", "web"),
    ("StatefulSet", "db"),
    ("DaemonSet", "agent"),
    ("Rollout", "shop"),
];

#[tokio::test]
async fn five_secrets_of_four_workloads_changed_within_a_second_are_four_restarts() {
    let stage = Stage::shared().await;
    stage.argo_rollouts().await.unwrap();
    let team = stage.team("twenty").await;
    for name in SECRETS {
        team.put(name, &json!({"password": "one"})).await;
        team.vault_secret(name, settle("3s")).await;
        team.ready(name).await;
    }
    let pod = env_from(&SECRETS);
    for (kind, name) in WORKLOADS {
        team.apply(&workload(kind, name, &pod)).await;
    }
    let before = join_all(WORKLOADS.map(|one| team.in_step("s4", one, None))).await;
    team.polled("s4").await;
    let mark = stage.audit_mark().await.unwrap();

    let start = Instant::now();
    let two = json!({"password": "two"});
    join_all(SECRETS.map(|name| team.put(name, &two))).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    for name in SECRETS {
        team.secret_with(name, "password", "two").await;
    }
    let after = join_all(before.iter().map(|one| team.restarted_once("s4", one))).await;
    for name in SECRETS {
        team.condition_is(name, "RolledOut", "True Verified: all pods of 4")
            .await;
    }
    team.polled("s0").await;
    for one in &after {
        team.not_restarted(one).await;
    }
    let stamped = |request: &ApiRequest| {
        let is_workload = ["apps", "argoproj.io"].contains(&request.group.as_str());
        request.namespace == team.namespace && is_workload && request.is_write()
    };
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    assert_eq!(writes.iter().filter(|write| stamped(write)).count(), 4);
    // One template from before and one from the restart.
    let sets = team.api::<ReplicaSet>().list(&of("web")).await.unwrap();
    assert_eq!(sets.items.len(), 2);
    for name in ["db", "agent"] {
        let all = team.api::<ControllerRevision>();
        let revisions = all.list(&of(name)).await.unwrap();
        assert_eq!(revisions.items.len(), 2, "{name}");
    }
    // No other template, and each of its two pods evicted once.
    let sets = team.api::<ReplicaSet>().list(&of("shop")).await.unwrap();
    assert_eq!(sets.items.len(), 1);
    assert_eq!(evictions(&team, mark).await.len(), 2);
}

/// The pods that were evicted since then, as often as they were.
pub(super) async fn evictions(team: &Team<'_>, mark: AuditMark) -> Vec<String> {
    let evicted = |request: &ApiRequest| {
        let ours = request.namespace == team.namespace && request.code < 300;
        ours && request.subresource == "eviction"
    };
    let all = team.stage.audit_since(mark, evicted).await.unwrap();
    all.into_iter().map(|request| request.name).collect()
}

fn of(app: &str) -> ListParams {
    ListParams::default().labels(&format!("app={app}"))
}
