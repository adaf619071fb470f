//! What is issued to one object alone: real logins of a real PostgreSQL, made by Vault.

mod by_hand;
mod counted;
mod crash_points;
mod deleted;
mod faults;
mod lost;
mod names;
mod outages;
mod policies;
mod waited_for;

use lockstep::api::{vault_auth::VaultAuth, vault_secret::VaultSecret};
use lockstep_testbed::{AuditMark, Bed, VaultRequest, eventually};
use serde_json::json;

use crate::support::{LONG, Role, SOON, Stage, Team, Ttl, env_from, options, workload};

const APP: (&str, &str) = ("Deployment", "app");

/// A Deployment that uses the Secret `app`.
async fn consumer(team: &Team<'_>) {
    team.apply(&workload(APP.0, APP.1, &env_from(&["app"])))
        .await;
}

/// Waits until Vault was asked so often for `path` by others than root since `mark`.
async fn vault_is_asked(stage: &Stage, mark: AuditMark, path: &str, often: usize) {
    eventually(SOON, &format!("{often} of {path}"), async || {
        let asked = |request: &VaultRequest| request.path == path && !request.is_root;
        let seen = stage.vault_audit_since(mark, asked).unwrap().len();
        if seen >= often { Ok(()) } else { Err(seen) }
    })
    .await
    .unwrap();
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

    vault_is_asked(stage, mark, "sys/leases/renew", 3).await;
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
        vault_is_asked(&stage, mark, "sys/leases/lookup", 1).await;
        vault_is_asked(&stage, mark, "auth/token/renew-accessor", 1).await;
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

#[tokio::test]
async fn leases_outlive_the_auth_object_they_were_issued_with() {
    let stage = Stage::shared().await;
    let team = stage.team("orphan").await;
    let role = Role::new(&team, "app", LONG).await;
    let auth_ref = |name| json!({"authRef": {"kind": "VaultAuth", "name": name}});
    let mark = stage.vault_audit_mark().unwrap();
    team.auth("own", "10m").await;
    team.issue("app", &[role.source()], auth_ref("own")).await;
    team.ready("app").await;
    let parent = team.newest_login(mark);
    let mark = stage.vault_audit_mark().unwrap();
    team.auth("other", "10m").await;
    team.put("kv", &json!({"password": "one"})).await;
    team.vault_secret("kv", auth_ref("other")).await;
    team.ready("kv").await;
    let childless = team.newest_login(mark);
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;

    team.delete::<VaultAuth>("own").await;
    team.condition_is("app", "Stalled", "True AuthNotFound")
        .await;
    team.delete::<VaultAuth>("other").await;
    team.token_ends(&childless).await;
    assert!(team.token_lives(&parent).await);
    assert!(team.logs_in(&login).await);

    team.auth("own", "10m").await;
    team.condition_is("app", "Ready", "True").await;
    assert_eq!(role.leases().await, std::slice::from_ref(&lease));
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.token_lives(&parent).await);

    team.delete::<VaultSecret>("app").await;
    team.token_ends(&parent).await;
    assert!(!team.logs_in(&login).await);
}
