//! Logins of a directory whose passwords Vault changes in place, tried against the directory they are for.

use std::time::Duration;

use lockstep_testbed::Ldap;
use serde_json::json;

use super::static_role::{CHECK, TICK, changed, last_rotation, login, static_role, told_since};
use crate::support::{Stage, Team};

/// What the user's password is until Vault takes him over.
const BEFORE: &str = "before";

/// A tenant with an LDAP engine of its own, mounted under the name of its namespace, and `app`, a user of the directory
/// and a static role in Vault; gives the user's distinguished name, too.
async fn team<'a>(stage: &'a Stage, prefix: &str, period: &str) -> (Team<'a>, &'a Ldap, String) {
    let team = stage.team(prefix).await;
    let (mount, vault) = (&team.namespace, stage.vault());
    team.has_policy(&format!(
        r#"path "{mount}/static-cred/app" {{ capabilities = ["read"] }}"#
    ))
    .await;
    let directory = stage.ldap().await.unwrap();
    let dn = directory.add_user(mount, BEFORE).await.unwrap();
    vault.enable_engine(mount, "ldap").await.unwrap();
    let (manager, password) = directory.manager();
    let config = json!({
        "url": directory.url(), "schema": "openldap", "userdn": directory.user_dn(),
        "binddn": manager, "bindpass": password,
    });
    vault
        .write(&format!("{mount}/config"), &config)
        .await
        .unwrap();
    let role = json!({"dn": dn, "username": mount, "rotation_period": period});
    vault
        .write(&format!("{mount}/static-role/app"), &role)
        .await
        .unwrap();
    (team, directory, dn)
}

#[tokio::test]
async fn a_password_of_a_directory_changed_by_hand_shows_within_one_check() {
    let stage = Stage::shared().await;
    let (team, directory, dn) = team(stage, "ldapbyhand", "24h").await;
    static_role(&team, "5s").await;
    team.ready("app").await;
    let (user, first) = login(&team).await.unwrap();
    assert_eq!(user, team.namespace);
    assert_eq!(team.keys_of("app").await, "dn password username");
    assert!(directory.lets_in(&dn, &first).await.unwrap());
    assert!(!directory.lets_in(&dn, BEFORE).await.unwrap());
    let before = last_rotation(&team).await;

    let rotate = format!("{}/rotate-role/app", team.namespace);
    stage.vault().write(&rotate, &json!({})).await.unwrap();
    let (second, took) = changed(&team, &first).await;
    assert!(took < CHECK + Duration::from_secs(2), "{took:?}");
    assert!(directory.lets_in(&dn, &second).await.unwrap());
    assert!(!directory.lets_in(&dn, &first).await.unwrap());
    told_since(&team, &before).await;
}

#[tokio::test]
async fn a_password_of_a_directory_is_followed_when_vault_changes_it() {
    let stage = Stage::shared().await;
    let period = Duration::from_secs(12);
    let (team, directory, dn) = team(stage, "ldapclock", "12s").await;
    static_role(&team, "1h").await;
    team.ready("app").await;
    let (_, first) = login(&team).await.unwrap();
    let (second, _) = changed(&team, &first).await;
    assert!(directory.lets_in(&dn, &second).await.unwrap());
    assert!(!directory.lets_in(&dn, &first).await.unwrap());
    let (third, took) = changed(&team, &second).await;
    assert!(took < period + TICK + Duration::from_secs(5), "{took:?}");
    assert!(directory.lets_in(&dn, &third).await.unwrap());
    assert!(!directory.lets_in(&dn, &second).await.unwrap());
}
