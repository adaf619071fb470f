//! What is issued to one object alone: real logins of a real PostgreSQL, made by Vault.

mod crash_points;

use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{Bed, eventually};
use serde_json::json;

use crate::support::{LONG, Role, SOON, Stage, Team, Ttl, env_from, options, workload};

const APP: (&str, &str) = ("Deployment", "app");

/// A Deployment that uses the Secret `app`.
async fn consumer(team: &Team<'_>) {
    team.apply(&workload(APP.0, APP.1, &env_from(&["app"])))
        .await;
}

#[tokio::test]
async fn a_lease_is_renewed_and_its_login_goes_on_working() {
    let stage = Stage::shared().await;
    let team = stage.team("renewed").await;
    let short = Ttl {
        default: "6s",
        max: "1h",
    };
    let role = Role::new(&team, "app", short).await;
    let mark = stage.vault_audit_mark().unwrap();
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    assert!(team.logs_in(&login).await);
    let lease = role.one_lease().await;
    assert_eq!(
        team.recorded_lease("app").await.as_deref(),
        Some(lease.as_str())
    );

    eventually(SOON, "it is renewed three times", async || {
        let renewals = stage
            .vault_audit_since(mark, |request| {
                request.path == "sys/leases/renew" && !request.is_root
            })
            .unwrap();
        if renewals.len() >= 3 {
            Ok(())
        } else {
            Err(renewals.len())
        }
    })
    .await
    .unwrap();
    assert_eq!(role.leases().await, [lease], "nothing else was issued");
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
}

#[tokio::test]
async fn a_lease_that_ends_is_replaced_before_and_revoked_after_the_rollout() {
    let stage = Stage::shared().await;
    let team = stage.team("replaced").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    let first = role.one_lease().await;

    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&new).await);
    let after = team.restarted_once("app", &before).await;
    assert!(team.logs_in(&new).await);
    team.refused(&old).await;
    let second = role.one_lease().await;
    assert_ne!(first, second);
    assert_eq!(team.recorded_lease("app").await, Some(second));
    team.polled_twice().await;
    team.not_restarted(&after).await;
}

#[tokio::test]
async fn a_new_operator_keeps_every_lease_and_restarts_nothing() {
    let mut stage = Stage::own().await;
    let operator = stage.operator.take().unwrap();
    let team = stage.team("kept").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;

    let mut operator = operator;
    for kill in [true, false] {
        if kill {
            operator.kill().unwrap();
        } else {
            assert!(operator.terminate().unwrap().0.success());
        }
        let mark = stage.vault_audit_mark().unwrap();
        let writes = stage.audit_mark().await.unwrap();
        operator = Bed::operator(&stage, &options(vec!["--leader-election=false".into()])).unwrap();
        operator.wait_ready(SOON).await.unwrap();
        eventually(SOON, "the lease is looked up", async || {
            let seen = stage
                .vault_audit_since(mark, |request| request.path == "sys/leases/lookup")
                .unwrap();
            if seen.is_empty() {
                Err("not yet")
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
        eventually(SOON, "the old token is renewed", async || {
            let seen = stage
                .vault_audit_since(mark, |request| request.path == "auth/token/renew-accessor")
                .unwrap();
            if seen.is_empty() {
                Err("not yet")
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
        assert_eq!(role.leases().await, std::slice::from_ref(&lease));
        assert_eq!(team.credentials("app").await, Some(login.clone()));
        team.not_restarted(&before).await;
        assert_eq!(stage.writes_by(writes, "lockstep/").await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_deleted_object_takes_its_lease_with_it() {
    let stage = Stage::shared().await;
    let team = stage.team("deleted").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    role.one_lease().await;
    team.delete::<VaultSecret>("app").await;
    eventually(SOON, "the object is gone", async || {
        if team.exists("app").await {
            Err("it is there")
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    assert_eq!(role.leases().await, Vec::<String>::new());
    assert!(!team.logs_in(&login).await);
}

#[tokio::test]
async fn an_edit_that_asks_nothing_else_of_vault_issues_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("edited").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;

    let mut source = role.source();
    source["renewAt"] = json!("50%");
    source["keys"] = json!({"rename": {"username": "USER", "password": "PASS"}});
    team.issue("app", &[source], json!({"refreshInterval": "20s"}))
        .await;
    team.secret_with("app", "USER", &login.username).await;
    team.secret_with("app", "PASS", &login.password).await;
    team.ready("app").await;
    assert_eq!(role.leases().await, [lease]);
}

#[tokio::test]
async fn sources_of_several_kinds_share_one_secret_and_keep_their_own_clocks() {
    let stage = Stage::shared().await;
    let team = stage.team("several").await;
    let role = Role::new(&team, "app", LONG).await;
    team.put("app", &json!({"flag": "one"})).await;
    let kv = json!({"name": "kv", "kv": {"mount": "secret", "path": team.path("app")}});
    let extra = json!({"refreshInterval": "2s"});
    team.issue("app", &[kv, role.source()], extra).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;

    team.put("app", &json!({"flag": "two"})).await;
    team.secret_with("app", "flag", "two").await;
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert_eq!(role.leases().await, [lease]);

    // A source that fails keeps its keys, and does not keep the others from being issued anew.
    team.stage
        .vault()
        .delete(&format!("secret/metadata/{}", team.path("app")))
        .await
        .unwrap();
    team.condition_is("app", "SourcesReachable", "False NotFound")
        .await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&login)).await;
    assert!(team.logs_in(&new).await);
    team.secret_with("app", "flag", "two").await;
}

#[tokio::test]
async fn a_lease_revoked_behind_our_back_is_noticed_and_replaced() {
    let stage = Stage::shared().await;
    let team = stage.team("behind").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let old = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;
    let body = json!({"lease_id": lease, "sync": true});
    stage
        .vault()
        .write("sys/leases/revoke", &body)
        .await
        .unwrap();
    assert!(!team.logs_in(&old).await);
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&new).await);
    assert_eq!(role.leases().await.len(), 1);
}
