//! What was replaced, and is still in use.

use k8s_openapi::api::apps::v1::Deployment;
use lockstep::api::vault_secret::WorkloadState;
use serde_json::json;

use super::{APP, consumer, vault_is_asked};
use crate::support::{Role, Stage, Ttl};

#[tokio::test]
async fn what_a_paused_deployment_runs_with_is_renewed_until_it_goes_on() {
    let stage = Stage::shared().await;
    let team = stage.team("pausedlease").await;
    let short = Ttl {
        default: "6s",
        max: "1h",
    };
    let role = Role::new(&team, "app", short).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    let pause = |paused: bool| json!({"spec": {"paused": paused}});
    team.patch::<Deployment>("app", pause(true)).await;

    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    team.workload_is("app", "app", WorkloadState::Paused).await;
    let mark = stage.vault_audit_mark().unwrap();
    // Two leases of six seconds, of which each is renewed every four: both would have ended.
    vault_is_asked(stage, mark, "sys/leases/renew", 6).await;
    assert_eq!(role.leases().await.len(), 2);
    assert!(team.logs_in(&old).await && team.logs_in(&new).await);
    team.not_restarted(&before).await;

    // Suspended, it is kept as well.
    let suspended = json!({"suspend": true});
    team.issue("app", &[role.source()], suspended).await;
    let mark = stage.vault_audit_mark().unwrap();
    vault_is_asked(stage, mark, "sys/leases/renew", 6).await;
    assert!(team.logs_in(&old).await && team.logs_in(&new).await);

    team.issue("app", &[role.source()], json!({"suspend": false}))
        .await;
    team.patch::<Deployment>("app", pause(false)).await;
    team.restarted_once("app", &before).await;
    team.refused(&old).await;
    role.one_lease().await;
    assert!(team.logs_in(&new).await);
}
