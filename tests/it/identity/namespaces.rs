//! Namespaces of Vault, which OpenBao has and the free edition of Vault does not.

use lockstep_testbed::VaultKind;
use serde_json::{Value, json};

use super::{credential, login};
use crate::support::{Stage, Team};

/// Makes the Vault namespace `path` with a KV store `secret/` that holds `value` at `app`.
async fn namespace(team: &Team<'_>, path: &str, value: &str) {
    let vault = team.stage.vault();
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let requests = [
        (format!("{parent}/sys/namespaces/{name}"), json!({})),
        (
            format!("{path}/sys/mounts/secret"),
            json!({"type": "kv", "options": {"version": "1"}}),
        ),
        (format!("{path}/secret/app"), json!({"k": value})),
    ];
    for (path, body) in requests {
        let path = path.trim_start_matches('/');
        vault.write(path, &body).await.unwrap();
    }
}

/// Makes a user of the Vault namespace `path` who may read there and in its namespace `child`.
async fn user(team: &Team<'_>, path: &str) {
    let rules = ["secret/app", "child/secret/app", "sys/internal/ui/mounts/*"]
        .map(|path| format!("path \"{path}\" {{ capabilities = [\"read\"] }}"))
        .join("\n");
    let requests = [
        ("sys/policies/acl/app", json!({"policy": rules})),
        ("sys/auth/userpass", json!({"type": "userpass"})),
        (
            "auth/userpass/users/app",
            json!({"password": "correct-horse", "token_policies": ["app"]}),
        ),
    ];
    for (suffix, body) in requests {
        let path = format!("{path}/{suffix}");
        team.stage.vault().write(&path, &body).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_of_a_namespace_reads_there_and_below() {
    if VaultKind::Vault.lacks("namespaces in its free edition") {
        return;
    }
    let stage = Stage::shared().await;
    let team = stage.team("namespaces").await;
    let own = team.namespace.clone();
    let child = format!("{own}/child");
    namespace(&team, &own, "own").await;
    namespace(&team, &child, "below").await;
    user(&team, &own).await;

    credential(&team, "password", json!({"p": "correct-horse"})).await;
    let password = json!({"name": "password", "key": "p"});
    let method = json!({"username": "app", "passwordRef": password});
    let spec = json!({"namespace": own, "userPass": method});
    login(&team, "VaultAuth", "default", spec).await;
    let kv = json!({"mount": "secret", "path": "app"});
    let source = |namespace: Option<&str>| -> Value {
        let mut source = json!({"name": "main", "kv": kv});
        if let Some(namespace) = namespace {
            source["namespace"] = namespace.into();
        }
        json!({"sources": [source]})
    };
    team.vault_secret("own", source(None)).await;
    team.vault_secret("below", source(Some(&child))).await;
    team.secret_with("own", "k", "own").await;
    team.secret_with("below", "k", "below").await;

    // It is told of the namespace alone, and nobody else waits for it.
    let lock = |verb| format!("sys/namespaces/api-lock/{verb}/{own}");
    let vault = stage.vault();
    vault.write(&lock("lock"), &json!({})).await.unwrap();
    let told = ["locked by an administrator"];
    team.unreachable("own", "Unavailable", &told).await;
    let other = stage.team("beside").await;
    other.put("app", &json!({"k": "v"})).await;
    other.vault_secret("app", json!({})).await;
    other.ready("app").await;
    vault.write(&lock("unlock"), &json!({})).await.unwrap();
    team.healed("own").await;
}
