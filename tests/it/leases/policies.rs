//! Leases that Vault's policy does not allow to be kept, or to be revoked.

use lockstep_testbed::{VaultRequest, eventually};
use serde_json::json;

use super::{APP, consumer};
use crate::support::{Credentials, KEEP, LONG, Role, SOON, Stage, Team};

const REVOKE: (&str, &str) = KEEP[0];

#[tokio::test]
async fn a_lease_that_may_not_be_revoked_is_told_and_revoked_once_it_may() {
    let stage = Stage::shared().await;
    let team = stage.team("unrevoked").await;
    let address = stage.vault_socket().unwrap();
    team.of_its_own(address, "1h", &[]).await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    team.restarted_once("app", &before).await;
    let told = team.condition_is("app", "PolicyMissing", "True").await;
    let line = "path \"sys/leases/revoke\" { capabilities = [\"update\"] }";
    assert!(told.contains(line), "{told}");
    assert_eq!(role.leases().await.len(), 2);
    assert!(team.logs_in(&old).await);

    team.may(&[REVOKE]).await;
    team.refused(&old).await;
    role.one_lease().await;
    assert!(team.logs_in(&new).await);
    let healed = async || team.condition("app", "PolicyMissing").await.is_none();
    eventually(SOON, "nothing is missing", healed)
        .await
        .unwrap();
}

const COUNT: usize = 5;

/// `COUNT` objects whose leases the next operator cannot keep; it is started with `arguments`. Says what the stage
/// saw of it, and what the condition `PolicyMissing` told.
async fn unkept(lines: &[(&str, &str)], arguments: &[&str]) -> (Vec<VaultRequest>, String) {
    let mut stage = Stage::own().await;
    let namespace = {
        let team = stage.team("unkept").await;
        team.of_its_own(stage.vault_socket().unwrap(), "60s", lines)
            .await;
        let mut roles = Vec::new();
        for number in 0..COUNT {
            let name = format!("app-{number}");
            let role = Role::new(&team, &name, LONG).await;
            team.issue(&name, &[role.source()], json!({})).await;
            roles.push(role);
        }
        team.all_are("Ready", "True InStep").await;
        team.namespace.clone()
    };
    stage.operator.take().unwrap().kill().unwrap();
    let before = {
        let team = Team::of(&stage, &namespace).await;
        logins(&team).await
    };
    let mark = stage.vault_audit_mark().unwrap();
    stage.start_operator(arguments).await;
    let team = Team::of(&stage, &namespace).await;
    let (mut replaced, mut told) = ([false; COUNT], String::new());
    let all = async || {
        told += &team
            .condition("app-0", "PolicyMissing")
            .await
            .unwrap_or_default();
        for (number, now) in logins(&team).await.iter().enumerate() {
            if !replaced[number] && *now != before[number] {
                replaced[number] = true;
                assert!(team.logs_in(now).await, "the new one works");
                assert!(team.logs_in(&before[number]).await, "the old one, too");
            }
        }
        replaced
            .iter()
            .all(|done| *done)
            .then_some(())
            .ok_or_else(|| format!("{replaced:?}"))
    };
    eventually(SOON, "all are replaced", all).await.unwrap();
    let wanted =
        |request: &VaultRequest| request.path.starts_with("database/creds/") && !request.is_root;
    let issued = stage.vault_audit_since(mark, wanted).unwrap();
    assert_eq!(issued.len(), COUNT, "each once: {issued:#?}");
    let spread = issued[COUNT - 1].time.duration_since(issued[0].time);
    assert!(spread.as_millis() >= 1500, "not all at once: {spread}");
    let all = |request: &VaultRequest| !request.is_root;
    (stage.vault_audit_since(mark, all).unwrap(), told)
}

async fn logins(team: &Team<'_>) -> Vec<Credentials> {
    let mut all = Vec::new();
    for number in 0..COUNT {
        all.push(team.credentials(&format!("app-{number}")).await.unwrap());
    }
    all
}

#[tokio::test]
async fn leases_that_may_not_be_kept_are_replaced_one_after_the_other() {
    let (_, told) = unkept(&[REVOKE], &[]).await;
    let line = "path \"auth/token/renew-accessor\" { capabilities = [\"update\"] }";
    assert!(told.contains(line), "{told}");
}

#[tokio::test]
async fn without_a_session_store_leases_are_replaced_one_after_the_other() {
    let (requests, _) = unkept(&KEEP, &["--session-store=none"]).await;
    let renewed = |request: &VaultRequest| request.path == "auth/token/renew-accessor";
    assert!(!requests.iter().any(renewed));
}
