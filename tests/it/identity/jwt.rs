//! Logins with a JWT: from the apiserver, and from a Secret.

use std::fs;

use serde_json::{Value, json};

use super::{by, credential, login, policy, tells_no_canary};
use crate::support::{Stage, Team};

/// Mounts a JWT method that trusts the cluster's issuer, with a role for the ServiceAccount `default` of the team
/// and the audience `vault`; returns the mount.
async fn mounted(team: &Team<'_>) -> String {
    policy(team).await;
    let (vault, mount) = (team.stage.vault(), format!("jwt-{}", team.namespace));
    vault.enable_auth(&mount, "jwt").await.unwrap();
    let key = fs::read_to_string(team.stage.directory().join("service-accounts.pub")).unwrap();
    let issuer = "https://kubernetes.default.svc";
    let config = json!({"jwt_validation_pubkeys": key, "bound_issuer": issuer});
    vault
        .write(&format!("auth/{mount}/config"), &config)
        .await
        .unwrap();
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "bound_subject": format!("system:serviceaccount:{}:default", team.namespace),
        "token_policies": [team.namespace],
        "token_ttl": "1h",
    });
    vault
        .write(&format!("auth/{mount}/role/app"), &role)
        .await
        .unwrap();
    mount
}

fn issued(mount: &str, role: &str, audience: &str) -> Value {
    let jwt =
        json!({"role": role, "audiences": [audience], "serviceAccountRef": {"name": "default"}});
    json!({"mount": mount, "jwt": jwt})
}

#[tokio::test]
async fn a_jwt_of_the_service_account_logs_in_if_role_and_audience_are_right() {
    let stage = Stage::shared().await;
    let team = stage.team("jwt").await;
    let mount = mounted(&team).await;
    team.put("app", &json!({"k": "v"})).await;
    login(
        &team,
        "VaultAuth",
        "default",
        issued(&mount, "nobody", "vault"),
    )
    .await;
    team.vault_secret("app", json!({})).await;
    let account = format!("ServiceAccount {}/default", team.namespace);
    let wrong_role = [
        "role \"nobody\" could not be found",
        "check spec.jwt",
        "check spec.mount",
    ];
    team.unreachable("app", "Invalid", &wrong_role).await;

    login(&team, "VaultAuth", "default", issued(&mount, "app", "else")).await;
    let wrong_audience = [
        "Invalid",
        "audience",
        "check spec.jwt: role app",
        &account,
        "else",
    ];
    team.tells("app", &wrong_audience).await;

    login(
        &team,
        "VaultAuth",
        "default",
        issued(&mount, "app", "vault"),
    )
    .await;
    team.secret_with("app", "k", "v").await;
    team.healed("app").await;
}

#[tokio::test]
async fn a_jwt_in_a_secret_logs_in_and_one_that_is_none_is_told_without_its_text() {
    let stage = Stage::shared().await;
    let team = stage.team("jwtsecret").await;
    let mount = mounted(&team).await;
    credential(&team, "jwt", json!({"token": "canary-of-a-jwt"})).await;
    let jwt = json!({"role": "app", "secretRef": {"name": "jwt", "key": "token"}});
    login(
        &team,
        "VaultAuth",
        "app",
        json!({"mount": mount, "jwt": jwt}),
    )
    .await;
    team.put("app", &json!({"k": "v"})).await;
    team.vault_secret("app", by("VaultAuth", "app")).await;
    let place = format!("key token of Secret {}/jwt", team.namespace);
    team.unreachable("app", "Invalid", &["check spec.jwt", &place])
        .await;
    tells_no_canary(&team, "app").await;

    let token = stage
        .service_account_token(&team.namespace, "default", &["vault"])
        .await
        .unwrap();
    credential(&team, "jwt", json!({"token": token})).await;
    team.secret_with("app", "k", "v").await;
    team.healed("app").await;
}
