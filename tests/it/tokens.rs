//! The life of Vault tokens, seen from Vault: who logs in how often, and what nobody notices.

use lockstep_testbed::{AuditMark, VaultRequest, eventually};
use serde_json::json;

use crate::support::{SOON, Stage, Team};

/// Makes `count` Secrets on as many paths and waits until all are ready.
async fn fleet(team: &Team<'_>, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("app-{number}")).collect();
    for name in &names {
        team.put(name, &json!({"password": "good"})).await;
        team.vault_secret(name, json!({})).await;
    }
    for name in &names {
        team.ready(name).await;
    }
    names
}

/// What the operator asked of Vault for this team, at paths that end like this.
fn asked(team: &Team<'_>, mark: AuditMark, end: &str) -> Vec<VaultRequest> {
    let wanted = |request: &VaultRequest| team.made(request) && request.path.ends_with(end);
    team.stage.vault_audit_since(mark, wanted).unwrap()
}

/// The operator's writes of this team, events excepted.
async fn writes(team: &Team<'_>, mark: AuditMark) -> Vec<lockstep_testbed::ApiRequest> {
    let mut writes = team.stage.writes_by(mark, "lockstep/").await.unwrap();
    writes.retain(|write| write.namespace == team.namespace && write.resource != "events");
    writes
}

#[tokio::test]
async fn a_revoked_token_costs_one_login_for_all_and_nobody_notices() {
    let team = Stage::shared().await.team("revoked").await;
    let start = team.stage.vault_audit_mark().unwrap();
    let names = fleet(&team, 10).await;
    let issued = asked(&team, start, "auth/kubernetes/login");
    assert_eq!(issued.len(), 1, "ten objects share a token: {issued:#?}");
    // A token that is refused in its first seconds is not suspected.
    eventually(SOON, "a token that is six seconds old", async || {
        let reads = asked(&team, start, "app-0");
        let newest = reads.last().map(|read| read.time);
        newest.is_some_and(|time| time.duration_since(issued[0].time).as_secs() >= 6)
    })
    .await
    .unwrap();
    let mark = team.stage.audit_mark().await.unwrap();
    let revoked = team.stage.vault_audit_mark().unwrap();
    team.stage
        .vault()
        .revoke_accessor(&issued[0].accessor)
        .await
        .unwrap();

    eventually(SOON, "two reads of each with another token", async || {
        names.iter().all(|name| {
            let reads = asked(&team, revoked, name);
            let again = |read: &&VaultRequest| {
                read.error.is_empty() && read.accessor != issued[0].accessor
            };
            reads.iter().filter(again).count() >= 2
        })
    })
    .await
    .unwrap();
    let logins = asked(&team, revoked, "auth/kubernetes/login");
    assert_eq!(logins.len(), 1, "{logins:#?}");
    assert_eq!(writes(&team, mark).await, []);
}

/// A token of five seconds is renewed; one that may not live longer than eight is replaced.
#[tokio::test]
async fn a_short_lived_token_is_renewed_or_replaced_before_it_fails() {
    let stage = Stage::shared().await;
    let (renewed, replaced) = (stage.team("renewed").await, stage.team("replaced").await);
    let address = stage.vault_socket().unwrap();
    for team in [&renewed, &replaced] {
        team.role_of_its_own("kubernetes", "5s").await;
        team.logs_in_at(address, "kubernetes", &team.namespace)
            .await;
    }
    let role = format!("auth/kubernetes/role/{}", replaced.namespace);
    stage
        .vault()
        .write(&role, &json!({"token_max_ttl": "8s"}))
        .await
        .unwrap();
    let start = stage.vault_audit_mark().unwrap();
    fleet(&renewed, 3).await;
    fleet(&replaced, 3).await;
    let mark = stage.audit_mark().await.unwrap();

    eventually(SOON, "renewals of one, logins of the other", async || {
        let renewals = asked(&renewed, start, "auth/token/renew-self").len();
        let logins = asked(&replaced, start, "auth/kubernetes/login").len();
        if renewals >= 3 && logins >= 3 {
            Ok(())
        } else {
            Err(format!("{renewals} renewals, {logins} logins"))
        }
    })
    .await
    .unwrap();
    let logins = asked(&renewed, start, "auth/kubernetes/login");
    assert_eq!(logins.len(), 1, "it is renewed, so it need not be replaced");
    let paths = |request: &VaultRequest| {
        [&renewed, &replaced]
            .iter()
            .any(|team| request.path.contains(&team.namespace))
    };
    let reads = stage.vault_audit_since(start, paths).unwrap();
    let failed: Vec<_> = reads
        .iter()
        .filter(|request| !request.is_root && !request.error.is_empty())
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for team in [&renewed, &replaced] {
        assert_eq!(writes(team, mark).await, []);
    }
}

#[tokio::test]
async fn a_login_that_fails_is_tried_again_per_identity_and_not_per_object() {
    const COUNT: usize = 20;
    let stage = Stage::shared().await;
    let team = stage.team("role").await;
    // A mount of its own, so that refused logins can be told from those of others: they name nobody.
    let mount = format!("k-{}", team.namespace);
    stage.enable_kubernetes_auth(&mount).await.unwrap();
    team.role_of_its_own(&mount, "1h").await;
    let address = stage.vault_socket().unwrap();
    team.logs_in_at(address, &mount, &team.namespace).await;
    let start = stage.vault_audit_mark().unwrap();
    fleet(&team, COUNT).await;
    let login = format!("auth/{mount}/login");
    let token = asked(&team, start, &login)[0].clone();
    let logins = |mark| {
        stage
            .vault_audit_since(mark, |request| request.path == login)
            .unwrap()
    };
    eventually(SOON, "a token that is six seconds old", async || {
        let reads = asked(&team, start, "app-0");
        let newest = reads.last().map(|read| read.time);
        newest.is_some_and(|time| time.duration_since(token.time).as_secs() >= 6)
    })
    .await
    .unwrap();

    let role = format!("auth/{mount}/role/{}", team.namespace);
    stage.vault().delete(&role).await.unwrap();
    let mark = stage.vault_audit_mark().unwrap();
    stage
        .vault()
        .revoke_accessor(&token.accessor)
        .await
        .unwrap();
    eventually(SOON, "all objects say so", async || {
        let found = team.conditions("SourcesReachable").await;
        found.iter().all(|text| text.starts_with("False Invalid"))
    })
    .await
    .unwrap();
    let early = logins(mark).len();
    assert!(
        early <= 4,
        "{early} logins until all {COUNT} objects had noticed"
    );
    eventually(SOON, "four logins that failed", async || {
        logins(mark).len() >= 4
    })
    .await
    .unwrap();
    let times: Vec<_> = logins(mark).iter().map(|login| login.time).collect();
    let pauses: Vec<_> = times
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).as_millis())
        .collect();
    assert!(
        pauses[0] >= 450 && pauses[1] >= 900 && pauses[2] >= 1800,
        "{pauses:?}"
    );
    assert!(
        team.conditions("Ready")
            .await
            .iter()
            .all(|text| text == "True LastGood")
    );

    team.role_of_its_own(&mount, "1h").await;
    let healed = stage.vault_audit_mark().unwrap();
    eventually(SOON, "all objects are in step again", async || {
        let found = team.conditions("SourcesReachable").await;
        found.iter().all(|text| text.starts_with("True"))
    })
    .await
    .unwrap();
    let again = logins(healed);
    assert_eq!(again.len(), 1, "{again:#?}");
}
