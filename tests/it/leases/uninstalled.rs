//! `lockstep uninstall`: everything that was issued is revoked, and it is said what was not.

use std::process::Output;

use lockstep::names::FINALIZER;
use lockstep_testbed::{Bed, OPERATOR_NAMESPACE, eventually};
use serde_json::json;

use crate::support::{KEEP, LONG, Pki, Role, SOON, Stage, Team, options};

const ELECTED: &str = "--leader-election=true";
const END_TOKENS: (&str, &str) = ("auth/token/revoke-accessor", "\"update\"");

/// Its exit code, what it told, and its log.
async fn uninstall(stage: &Stage, flags: &[&str]) -> (Option<i32>, String) {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_lockstep"))
        .args(["uninstall", "--namespace", OPERATOR_NAMESPACE])
        .args(flags)
        .env("KUBECONFIG", stage.kubeconfig())
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = run.await.unwrap();
    let log = String::from_utf8(stderr).unwrap();
    let told = String::from_utf8(stdout).unwrap();
    (status.code(), format!("{told}\n{log}"))
}

/// A lease of the team, and the token it was issued with.
async fn issued(team: &Team<'_>, paths: &[(&str, &str)]) -> String {
    let mark = team.stage.vault_audit_mark().unwrap();
    let address = team.stage.vault_socket().unwrap();
    team.of_its_own(address, "1h", paths).await;
    let role = Role::new(team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    team.newest_login(mark)
}

async fn has_finalizer(team: &Team<'_>, name: &str) -> bool {
    let object = team
        .api::<lockstep::api::vault_secret::VaultSecret>()
        .get(name)
        .await
        .unwrap();
    let finalizers = object.metadata.finalizers.unwrap_or_default();
    finalizers.iter().any(|name| name == FINALIZER)
}

#[tokio::test]
async fn uninstalling_revokes_what_the_policies_allow_and_tells_what_is_left() {
    let stage = Stage::own_with(&[ELECTED]).await;
    let (may, may_not) = (stage.team("may").await, stage.team("may-not").await);
    let freed = issued(&may, &[KEEP[0], END_TOKENS]).await;
    let kept = issued(&may_not, &[]).await;
    let login = may.credentials_other_than("app", None).await;
    let other = may_not.credentials_other_than("app", None).await;
    assert!(may.logs_in(&login).await && may_not.logs_in(&other).await);

    // The operator runs, and would have everything issued anew.
    let (code, told) = uninstall(&stage, &[ELECTED]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(!may.logs_in(&login).await);
    assert!(!may.token_lives(&freed).await);
    assert!(!has_finalizer(&may, "app").await);
    assert!(may_not.logs_in(&other).await);
    assert!(may_not.token_lives(&kept).await);
    assert!(has_finalizer(&may_not, "app").await);
    let lease = may_not.recorded_lease("app").await.unwrap();
    for line in [
        format!("{}/app: revoked 1, left 0\n", may.namespace),
        format!("{}/app: revoked 0, left 1\n", may_not.namespace),
        format!("{}/app: lease {lease} is left: ", may_not.namespace),
        format!("the token with accessor {kept} is left"),
        "path \"auth/token/revoke-accessor\"".to_owned(),
    ] {
        assert!(told.contains(&line), "no {line:?} in {told}");
    }
    assert_eq!(
        may.credentials("app").await,
        Some(login),
        "no other is issued"
    );

    // A token takes its leases along.
    may_not.may(&[END_TOKENS]).await;
    let (code, told) = uninstall(&stage, &["--leader-election=false"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(!may_not.token_lives(&kept).await);
    may_not.refused(&other).await;
    assert!(!has_finalizer(&may_not, "app").await);
}

#[tokio::test]
async fn uninstalling_revokes_stored_tokens_without_a_policy() {
    const STORED: &str = "--session-store=secret";
    let stage = Stage::own_with(&[ELECTED, STORED]).await;
    let (team, reads) = (stage.team("stored").await, stage.team("reads").await);
    let mark = stage.vault_audit_mark().unwrap();
    reads.put("app", &json!({"k": "v"})).await;
    reads.vault_secret("app", json!({})).await;
    reads.ready("app").await;
    let holds_nothing = reads.newest_login(mark);
    let token = issued(&team, &[]).await;
    let login = team.credentials_other_than("app", None).await;
    let (code, told) = uninstall(&stage, &[ELECTED, STORED]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(!team.token_lives(&token).await);
    assert!(!reads.token_lives(&holds_nothing).await);
    team.refused(&login).await;
    assert!(!has_finalizer(&team, "app").await);
    assert_eq!(super::stored::stored(&stage).await.len(), 0);
}

/// Nobody asks Vault whether a certificate is revoked, so what is revoked must not stand in the record.
#[tokio::test]
async fn an_operator_that_follows_replaces_certificates_that_uninstalling_revoked() {
    let mut stage = Stage::own().await;
    let mut operator = stage.operator.take().unwrap();
    let flags = ["--leader-election=false"];
    let team = stage.team("revoked").await;
    let (ends, stays) = (Pki::new(&team).await, Pki::without_revocation(&team).await);
    for (name, pki, revoke) in [("ends", &ends, true), ("stays", &stays, false)] {
        let source = pki.source(json!({"revoke": revoke}));
        team.issue(name, &[source], json!({})).await;
        team.ready(name).await;
    }
    let revoked = team.recorded_serial("ends").await.unwrap();
    let kept = team.recorded_serial("stays").await;
    operator.kill().unwrap();
    let (_, told) = uninstall(&stage, &flags).await;
    assert!(ends.is_revoked(&revoked).await, "{told}");
    assert_eq!(team.recorded_serial("stays").await, kept);

    operator = Bed::operator(&stage, &options(flags.map(str::to_owned).to_vec())).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    eventually(SOON, "another certificate", async || {
        let serial = team.recorded_serial("ends").await;
        serial.filter(|serial| *serial != revoked)
    })
    .await
    .unwrap();
    assert_eq!(team.recorded_serial("stays").await, kept);
    assert!(has_finalizer(&team, "ends").await);
}

/// A record that somebody else wrote must not end what it names.
#[tokio::test]
async fn uninstalling_revokes_nothing_that_a_forged_record_names() {
    let mut stage = Stage::own().await;
    let operator = stage.operator.take().unwrap();
    let (victim, forger) = (stage.team("victim").await, stage.team("forger").await);
    let token = issued(&victim, &[KEEP[0], END_TOKENS]).await;
    issued(&forger, &[KEEP[0], END_TOKENS]).await;
    let login = victim.credentials_other_than("app", None).await;
    operator.kill().unwrap();
    let record = victim
        .secret("app")
        .await
        .unwrap()
        .metadata
        .annotations
        .unwrap();
    let record = &record[lockstep::names::HOLDINGS];
    let patch = json!({"metadata": {"annotations": {lockstep::names::HOLDINGS: record}}});
    forger
        .patch::<k8s_openapi::api::core::v1::Secret>("app", patch)
        .await;
    victim.may(&[]).await;
    let (code, told) = uninstall(&stage, &["--leader-election=false"]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(victim.token_lives(&token).await);
    assert!(victim.logs_in(&login).await);
}
