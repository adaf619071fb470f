//! `--session-store=secret`: the next operator process goes on with the tokens of the one before.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use lockstep::{api::vault_secret::VaultSecret, session_store::SECRET};
use lockstep_testbed::{AuditMark, OPERATOR_NAMESPACE, VaultRequest, eventually};
use serde_json::json;

use super::{APP, consumer, vault_is_asked};
use crate::support::{KEEP, LONG, Role, SOON, Stage, Team};

const STORED: [&str; 1] = ["--session-store=secret"];
/// Nothing that keeps tokens alive: only what was replaced may be revoked.
const REVOKE: (&str, &str) = KEEP[0];

/// The stored tokens by their accessors.
pub(super) async fn stored(stage: &Stage) -> BTreeMap<String, String> {
    let api: Api<Secret> = Api::namespaced(stage.client().await.unwrap(), OPERATOR_NAMESPACE);
    let secret = api.get_opt(SECRET).await.unwrap();
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let tokens = data.into_iter().map(|(name, token)| {
        let accessor = name.splitn(3, '.').nth(2).unwrap().to_owned();
        (accessor, String::from_utf8(token.0).unwrap())
    });
    tokens.collect()
}

/// The one that is stored: its accessor, and the token.
async fn one_stored(stage: &Stage) -> (String, String) {
    let what = "one token is stored";
    eventually(SOON, what, async || {
        let mut tokens = stored(stage).await;
        match tokens.len() {
            1 => Ok(tokens.pop_first().unwrap()),
            count => Err(count),
        }
    })
    .await
    .unwrap()
}

/// Waits until the operator has looked its token and its lease up; it asked Vault for nothing else, and wrote nothing.
async fn only_looked_up(stage: &Stage, mark: AuditMark, writes: AuditMark) {
    let lookups = ["auth/token/lookup-self", "sys/leases/lookup"];
    vault_is_asked(stage, mark, lookups[0], 1).await;
    vault_is_asked(stage, mark, lookups[1], 2).await;
    let others = |request: &VaultRequest| {
        !request.is_root
            && !request.path.starts_with("sys/health")
            && !lookups.contains(&request.path.as_str())
    };
    let asked = stage.vault_audit_since(mark, others).unwrap();
    assert!(asked.is_empty(), "{asked:#?}");
    assert_eq!(stage.writes_by(writes, "lockstep/").await.unwrap(), []);
}

#[tokio::test]
async fn an_operator_that_stores_its_token_goes_on_with_it_and_needs_no_policy() {
    let mut stage = Stage::own_with(&STORED).await;
    let mut operator = stage.operator.take().unwrap();
    let namespace = {
        let team = stage.team("stored").await;
        team.of_its_own(stage.vault_socket().unwrap(), "1h", &[REVOKE])
            .await;
        team.namespace.clone()
    };
    let (before, login, token);
    {
        let team = Team::of(&stage, &namespace).await;
        let role = Role::new(&team, "app", LONG).await;
        team.issue("app", &[role.source()], json!({})).await;
        team.ready("app").await;
        consumer(&team).await;
        before = team.in_step("app", APP, None).await;
        login = team.credentials_other_than("app", None).await;
        token = one_stored(&stage).await;
    }
    for kill in [true, false] {
        if kill {
            operator.kill().unwrap();
        } else {
            assert!(operator.terminate().unwrap().0.success());
        }
        let mark = stage.vault_audit_mark().unwrap();
        let writes = stage.audit_mark().await.unwrap();
        stage.start_operator(&STORED).await;
        operator = stage.operator.take().unwrap();
        only_looked_up(&stage, mark, writes).await;
        let team = Team::of(&stage, &namespace).await;
        assert_eq!(team.credentials("app").await, Some(login.clone()));
        assert_eq!(team.condition("app", "PolicyMissing").await, None);
        team.not_restarted(&before).await;
        assert_eq!(one_stored(&stage).await, token);
    }

    // A token that ended meanwhile costs one login.
    operator.kill().unwrap();
    stage.vault().revoke_accessor(&token.0).await.unwrap();
    let mark = stage.vault_audit_mark().unwrap();
    stage.start_operator(&STORED).await;
    let team = Team::of(&stage, &namespace).await;
    let new = team.credentials_other_than("app", Some(&login)).await;
    assert!(team.logs_in(&new).await);
    team.restarted_once("app", &before).await;
    let logins = team.asked(mark, "auth/kubernetes/login");
    assert_eq!(logins.len(), 1, "{logins:#?}");
    let second = one_stored(&stage).await;
    assert_ne!(second, token);
    nowhere_else(&stage, &[token.1, second.1]).await;

    // With the last object that uses it, the token goes.
    team.delete::<VaultSecret>("app").await;
    team.token_ends(&second.0).await;
    eventually(SOON, "none is stored", async || {
        let left = stored(&stage).await.len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await
    .unwrap();
}

/// The tokens are not found in the log, in what is served, in audit logs, or in any object.
async fn nowhere_else(stage: &Stage, tokens: &[String]) {
    let places = stage.public_places().await;
    assert!(places.len() > 20, "{}", places.len());
    for (place, text) in &places {
        for token in tokens {
            let encoded = STANDARD_NO_PAD.encode(token);
            let found = [token, &encoded[..encoded.len() - 3]].map(|form| text.contains(form));
            assert_eq!(found, [false, false], "a token is in {place}");
        }
    }
}

/// What a login that was edited had issued goes on, too: its token is stored for as long as something depends on it.
#[tokio::test]
async fn a_stored_token_of_an_edited_login_is_kept_for_its_leases_and_not_used_again() {
    let mut stage = Stage::own_with(&STORED).await;
    let namespace = {
        let team = stage.team("stored-edited").await;
        team.of_its_own(stage.vault_socket().unwrap(), "20s", &[REVOKE])
            .await;
        team.namespace.clone()
    };
    let login = {
        let team = Team::of(&stage, &namespace).await;
        let role = Role::new(&team, "app", LONG).await;
        team.issue("app", &[role.source()], json!({})).await;
        team.ready("app").await;
        team.credentials_other_than("app", None).await
    };
    let (old, _) = one_stored(&stage).await;
    stage.operator.take().unwrap().kill().unwrap();
    Team::of(&stage, &namespace)
        .await
        .patch::<lockstep::api::vault_auth::VaultAuth>(
            "default",
            json!({"spec": {"kubernetes": {"tokenTTL": "20m"}}}),
        )
        .await;
    let mark = stage.vault_audit_mark().unwrap();
    stage.start_operator(&STORED).await;
    let team = Team::of(&stage, &namespace).await;
    let renewed =
        |request: &VaultRequest| request.path == "auth/token/renew-self" && request.accessor == old;
    eventually(SOON, "the old token is renewed twice", async || {
        let seen = stage.vault_audit_since(mark, renewed).unwrap().len();
        if seen >= 2 { Ok(()) } else { Err(seen) }
    })
    .await
    .unwrap();
    let logins = team.asked(mark, "auth/kubernetes/login");
    assert_eq!(logins.len(), 1, "the edited login: {logins:#?}");
    let both = stored(&stage).await;
    assert_eq!(both.len(), 2, "{:?}", both.keys());
    assert!(both.contains_key(&old));
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
    assert_eq!(team.condition("app", "PolicyMissing").await, None);
}
