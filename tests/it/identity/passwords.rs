//! Logins with a user name and a password: one that Vault keeps, and one that a directory server checks.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{by, credential, login, policy, tells_no_canary};
use crate::support::{Stage, Team};

/// A VaultSecret whose login with `method` needs the password in Secret `password`: refused with a wrong one, and
/// then let in with the right one.
async fn only_the_right_password_logs_in(
    team: &Team<'_>,
    method: &str,
    mount: &str,
    user: &str,
    right: &str,
) {
    let password = json!({"name": "password", "key": "p"});
    let spec: Value = json!({"mount": mount, method: {"username": user, "passwordRef": password}});
    login(team, "VaultAuth", "app", spec).await;
    credential(team, "password", json!({"p": "canary-of-a-password"})).await;
    team.put("app", &json!({"k": "v"})).await;
    team.vault_secret("app", by("VaultAuth", "app")).await;
    let check = format!("check spec.{method}: user {user} must exist, and key p of Secret");
    team.unreachable(
        "app",
        "Invalid",
        &[&format!("auth/{mount}/login/{user}"), &check],
    )
    .await;
    tells_no_canary(team, "app").await;

    let without = json!({"data": {"p": null, "password": "cGFzcw=="}});
    team.patch::<Secret>("password", without).await;
    let told = ["login", "has no key p; add it"];
    team.unreachable("app", "CredentialUnavailable", &told)
        .await;

    credential(team, "password", json!({"p": right})).await;
    team.secret_with("app", "k", "v").await;
    team.healed("app").await;
}

#[tokio::test]
async fn a_user_of_vault_logs_in_with_his_password() {
    let stage = Stage::shared().await;
    let team = stage.team("userpass").await;
    policy(&team).await;
    let (vault, mount) = (stage.vault(), format!("userpass-{}", team.namespace));
    vault.enable_auth(&mount, "userpass").await.unwrap();
    let user = json!({"password": "correct-horse", "token_policies": [team.namespace]});
    vault
        .write(&format!("auth/{mount}/users/checkout"), &user)
        .await
        .unwrap();
    only_the_right_password_logs_in(&team, "userPass", &mount, "checkout", "correct-horse").await;
}

/// Mounts LDAP for the team with the directory at `url`; returns the mount.
async fn directory_at(team: &Team<'_>, url: &str) -> String {
    let (vault, mount) = (team.stage.vault(), format!("ldap-{}", team.namespace));
    let mounts = vault.read("sys/auth").await.unwrap();
    if mounts["data"][format!("{mount}/")].is_null() {
        vault.enable_auth(&mount, "ldap").await.unwrap();
    }
    let directory = team.stage.ldap().await.unwrap();
    let (bind_dn, bind_password) = directory.search();
    let config = json!({
        "url": url, "userdn": directory.user_dn(), "userattr": "cn",
        "binddn": bind_dn, "bindpass": bind_password, "token_policies": [team.namespace],
    });
    vault
        .write(&format!("auth/{mount}/config"), &config)
        .await
        .unwrap();
    mount
}

#[tokio::test]
async fn a_user_of_a_directory_logs_in_with_his_password() {
    let stage = Stage::shared().await;
    let team = stage.team("ldap").await;
    policy(&team).await;
    let directory = stage.ldap().await.unwrap();
    let mount = directory_at(&team, &directory.url()).await;
    let (user, password) = directory.user();
    only_the_right_password_logs_in(&team, "ldap", &mount, user, password).await;
}

#[tokio::test]
async fn a_directory_that_comes_back_is_asked_soon() {
    let stage = Stage::shared().await;
    let team = stage.team("nodirectory").await;
    policy(&team).await;
    let mount = directory_at(&team, "ldap://127.0.0.1:1").await;
    let (user, password) = stage.ldap().await.unwrap().user();
    credential(&team, "password", json!({"p": password})).await;
    let reference = json!({"name": "password", "key": "p"});
    let method = json!({"username": user, "passwordRef": reference});
    login(
        &team,
        "VaultAuth",
        "app",
        json!({"mount": mount, "ldap": method}),
    )
    .await;
    team.put("app", &json!({"k": "v"})).await;
    team.vault_secret("app", by("VaultAuth", "app")).await;
    team.unreachable("app", "Unavailable", &["connect", "127.0.0.1:1"])
        .await;
    directory_at(&team, &stage.ldap().await.unwrap().url()).await;
    team.secret_with("app", "k", "v").await;
    team.healed("app").await;
}
