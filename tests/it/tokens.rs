//! The life of Vault tokens, seen from Vault: who logs in how often, and what nobody notices.

use lockstep::api::vault_auth::VaultAuth;
use lockstep_testbed::{VaultRequest, eventually};
use serde_json::json;

use crate::support::{LONG, Role, SOON, Stage};

#[tokio::test]
async fn a_revoked_token_costs_one_login_for_all_and_nobody_notices() {
    let team = Stage::shared().await.team("revoked").await;
    let start = team.stage.vault_audit_mark().unwrap();
    let names = team.fleet(10).await;
    let issued = team.asked(start, "auth/kubernetes/login");
    assert_eq!(issued.len(), 1, "ten objects share a token: {issued:#?}");
    // A token that is refused in its first seconds is not suspected.
    eventually(SOON, "a token that is six seconds old", async || {
        let reads = team.asked(start, "app-0");
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
            let reads = team.asked(revoked, name);
            let again =
                |read: &&VaultRequest| read.error.is_empty() && read.accessor != issued[0].accessor;
            reads.iter().filter(again).count() >= 2
        })
    })
    .await
    .unwrap();
    let logins = team.asked(revoked, "auth/kubernetes/login");
    assert_eq!(logins.len(), 1, "{logins:#?}");
    assert_eq!(team.writes(mark).await, []);
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
    renewed.fleet(3).await;
    replaced.fleet(3).await;
    let mark = stage.audit_mark().await.unwrap();

    eventually(SOON, "renewals of one, logins of the other", async || {
        let renewals = renewed.asked(start, "auth/token/renew-self").len();
        let logins = replaced.asked(start, "auth/kubernetes/login").len();
        if renewals >= 3 && logins >= 3 {
            Ok(())
        } else {
            Err(format!("{renewals} renewals, {logins} logins"))
        }
    })
    .await
    .unwrap();
    let logins = renewed.asked(start, "auth/kubernetes/login");
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
        assert_eq!(team.writes(mark).await, []);
    }
}

#[tokio::test]
async fn the_token_of_an_auth_object_that_changes_or_goes_is_revoked() {
    let stage = Stage::shared().await;
    let team = stage.team("unused").await;
    let mark = stage.vault_audit_mark().unwrap();
    team.auth("own", "10m").await;
    team.put("app", &json!({"password": "one"})).await;
    let own = json!({"authRef": {"kind": "VaultAuth", "name": "own"}});
    team.vault_secret("app", own).await;
    team.ready("app").await;
    let first = team.newest_login(mark);

    let mark = stage.vault_audit_mark().unwrap();
    team.auth("own", "20m").await;
    team.token_ends(&first).await;
    let second = team.newest_login(mark);
    assert!(team.token_lives(&second).await);

    let mark = stage.vault_audit_mark().unwrap();
    team.delete::<VaultAuth>("own").await;
    team.token_ends(&second).await;
    assert_eq!(team.asked(mark, "auth/kubernetes/login"), []);
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
    team.fleet(COUNT).await;
    let login = format!("auth/{mount}/login");
    let token = team.asked(start, &login)[0].clone();
    let logins = |mark| {
        stage
            .vault_audit_since(mark, |request| request.path == login)
            .unwrap()
    };
    eventually(SOON, "a token that is six seconds old", async || {
        let reads = team.asked(start, "app-0");
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
    team.all_are("SourcesReachable", "False Invalid").await;
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
    team.all_are("Ready", "True LastGood").await;

    team.role_of_its_own(&mount, "1h").await;
    let healed = stage.vault_audit_mark().unwrap();
    team.all_are("SourcesReachable", "True").await;
    let again = logins(healed);
    assert_eq!(again.len(), 1, "{again:#?}");
    // A failed login says nothing about the mount.
    assert_eq!(team.asked(mark, "sys/internal/ui/mounts/secret"), []);
}

#[tokio::test]
async fn an_operator_that_ends_leaves_no_token_but_those_that_leases_depend_on() {
    let mut stage = Stage::own().await;
    let operator = stage.operator.take().unwrap();
    let (reads, holds) = (stage.team("reads").await, stage.team("holds").await);
    let mark = stage.vault_audit_mark().unwrap();
    reads.put("app", &json!({"password": "one"})).await;
    reads.vault_secret("app", json!({})).await;
    reads.ready("app").await;
    let role = Role::new(&holds, "app", LONG).await;
    holds.issue("app", &[role.source()], json!({})).await;
    holds.ready("app").await;
    let login = holds.credentials_other_than("app", None).await;
    let (free, parent) = (reads.newest_login(mark), holds.newest_login(mark));
    assert!(reads.token_lives(&free).await);

    let (status, _) = operator.terminate().unwrap();
    assert!(status.success(), "{status}");
    assert!(!reads.token_lives(&free).await);
    assert!(holds.token_lives(&parent).await);
    assert!(holds.logs_in(&login).await);
}
