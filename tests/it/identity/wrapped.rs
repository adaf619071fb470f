//! Logins with an AppRole whose secret id comes response-wrapped.

use lockstep::api::vault_auth::VaultAuth;
use lockstep_testbed::VaultRoot;
use serde_json::json;

use super::{by, credential, login, policy};
use crate::support::{Stage, Team};

/// An AppRole of the team's own.
struct Role {
    vault: VaultRoot,
    mount: String,
}

impl Role {
    async fn new(team: &Team<'_>) -> Self {
        policy(team).await;
        let (vault, mount) = (team.stage.vault(), format!("approle-{}", team.namespace));
        vault.enable_auth(&mount, "approle").await.unwrap();
        let role = Self { vault, mount };
        let policies = json!({"token_policies": [team.namespace], "token_ttl": "1h"});
        role.vault.write(&role.path(""), &policies).await.unwrap();
        let id = role.vault.read(&role.path("/role-id")).await.unwrap();
        let app_role = json!({
            "roleId": id["data"]["role_id"], "secretIdWrapped": true,
            "secretIdRef": {"name": "wrapped", "key": "token"},
        });
        let spec = json!({"mount": role.mount, "appRole": app_role});
        login(team, "VaultAuth", "app", spec).await;
        team.put("app", &json!({"k": "one"})).await;
        role
    }

    fn path(&self, rest: &str) -> String {
        format!("auth/{}/role/app{rest}", self.mount)
    }

    /// A new secret id in a wrapping token.
    async fn wrapped(&self) -> String {
        let path = self.path("/secret-id");
        self.vault.wrap(&path, &json!({}), "10m").await.unwrap()
    }
}

#[tokio::test]
async fn a_wrapped_secret_id_is_unwrapped_once_and_logs_in_again_and_again() {
    let stage = Stage::shared().await;
    let team = stage.team("wrapped").await;
    let role = Role::new(&team).await;
    let token = role.wrapped().await;
    credential(&team, "wrapped", json!({"token": token})).await;
    let mark = stage.vault_audit_mark().unwrap();
    team.vault_secret("app", by("VaultAuth", "app")).await;
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;

    // Its token goes, and an edit of the login makes it another one: neither needs the wrapping token again.
    let login_path = format!("auth/{}/login", role.mount);
    let logins = || {
        let logins = team.reads_since(mark).into_iter();
        logins.filter(|request| request.path == login_path).count()
    };
    let mut read = team.reads_since(mark).into_iter();
    let path = format!("secret/data/{}", team.path("app"));
    let read = read.rfind(|request| request.path == path).unwrap();
    role.vault.revoke_accessor(&read.accessor).await.unwrap();
    team.put("app", &json!({"k": "two"})).await;
    team.secret_with("app", "k", "two").await;
    assert_eq!(logins(), 2);
    let mount = json!({"spec": {"mount": format!("{}/", role.mount)}});
    team.patch::<VaultAuth>("app", mount).await;
    team.put("app", &json!({"k": "three"})).await;
    team.secret_with("app", "k", "three").await;
    assert_eq!(logins(), 3);

    let another = role.wrapped().await;
    credential(&team, "wrapped", json!({"token": another})).await;
    team.put("app", &json!({"k": "four"})).await;
    team.secret_with("app", "k", "four").await;
    assert_eq!(logins(), 4);
}

#[tokio::test]
async fn a_wrapping_token_that_was_used_or_is_of_somewhere_else_is_told_as_a_possible_leak() {
    let stage = Stage::shared().await;
    let team = stage.team("unwrapped").await;
    let role = Role::new(&team).await;
    let used = role.wrapped().await;
    role.vault
        .with_token(&used)
        .write("sys/wrapping/unwrap", &json!({}))
        .await
        .unwrap();
    credential(&team, "wrapped", json!({"token": used})).await;
    team.vault_secret("app", by("VaultAuth", "app")).await;
    let place = format!(
        "the wrapping token in key token of Secret {}/wrapped",
        team.namespace
    );
    let leak = [
        place.as_str(),
        "was unwrapped before",
        "somebody else has the secret id",
    ];
    team.unreachable("app", "CredentialUnavailable", &leak)
        .await;

    let content = json!({"secret_id": "canary"});
    let foreign = role
        .vault
        .wrap("sys/wrapping/wrap", &content, "10m")
        .await
        .unwrap();
    credential(&team, "wrapped", json!({"token": foreign})).await;
    let elsewhere = "was made at sys/wrapping/wrap, not at auth/";
    team.tells("app", &["CredentialUnavailable", elsewhere])
        .await;
    // It was not used up.
    let unwrapped = role.vault.with_token(&foreign);
    unwrapped
        .write("sys/wrapping/unwrap", &json!({}))
        .await
        .unwrap();

    credential(&team, "wrapped", json!({"token": role.wrapped().await})).await;
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;
}
