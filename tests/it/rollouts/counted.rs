//! So many restarts, and not one more.

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use kube::api::ListParams;
use lockstep_testbed::ApiRequest;
use serde_json::json;
use std::time::{Duration, Instant};

use crate::support::{Stage, env_from, settle, workload};

const SECRETS: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

const WORKLOADS: [(&str, &str); 3] = [
    ("Deployment", "web"),
    ("StatefulSet", "db"),
    ("DaemonSet", "agent"),
];

#[tokio::test]
async fn five_secrets_of_three_workloads_changed_within_a_second_are_three_restarts() {
    let stage = Stage::shared().await;
    let team = stage.team("fifteen").await;
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
        team.condition_is(name, "RolledOut", "True Verified: all pods of 3")
            .await;
    }
    team.polled("s0").await;
    for one in &after {
        team.not_restarted(one).await;
    }
    let stamped = |request: &ApiRequest| {
        request.namespace == team.namespace && request.group == "apps" && request.is_write()
    };
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    assert_eq!(writes.iter().filter(|write| stamped(write)).count(), 3);
    // One template from before and one from the restart.
    let sets = team.api::<ReplicaSet>().list(&of("web")).await.unwrap();
    assert_eq!(sets.items.len(), 2);
    for name in ["db", "agent"] {
        let all = team.api::<ControllerRevision>();
        let revisions = all.list(&of(name)).await.unwrap();
        assert_eq!(revisions.items.len(), 2, "{name}");
    }
}

fn of(app: &str) -> ListParams {
    ListParams::default().labels(&format!("app={app}"))
}
