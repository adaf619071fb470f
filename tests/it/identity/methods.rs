//! Each way to log in.

use kube::{Api, api::PostParams};
use lockstep_testbed::{AuditMark, KubernetesRole, eventually};
use serde_json::{Value, json};

use super::{by, credential, login, policy, tenant};
use crate::support::{SOON, Stage, Team};

/// The names by which Vault knows those who read `name` since `mark`, each once.
fn readers(team: &Team<'_>, mark: AuditMark, name: &str) -> Vec<String> {
    let path = format!("secret/data/{}", team.path(name));
    let mut readers: Vec<_> = team
        .reads_since(mark)
        .into_iter()
        .filter(|read| read.path == path && read.error.is_empty())
        .map(|read| read.display_name)
        .collect();
    readers.sort();
    readers.dedup();
    readers
}

#[tokio::test]
async fn each_namespace_logs_in_as_its_own_service_account_with_a_token_for_vault_alone() {
    let stage = Stage::shared().await;
    let team = stage.team("sa").await;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = team.api();
    let account = serde_json::from_value(json!({"metadata": {"name": "reader"}})).unwrap();
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    policy(&team).await;
    // This role takes tokens of this account alone, and only with the audience `vault`.
    let role = KubernetesRole {
        mount: "kubernetes",
        name: &team.namespace,
        namespaces: &[&team.namespace],
        service_accounts: &["reader"],
        policies: &[&team.namespace],
        ttl: "1h",
    };
    stage.vault().kubernetes_role(role).await.unwrap();
    let kubernetes = |audience: &str| {
        json!({"kubernetes": {
            "role": team.namespace, "audiences": [audience], "serviceAccountRef": {"name": "reader"},
        }})
    };
    login(&team, "VaultAuth", "default", kubernetes("somebody")).await;
    team.put("app", &json!({"k": "v"})).await;
    team.vault_secret("app", json!({})).await;
    team.unreachable("app", "Denied", &["login auth/kubernetes/login"])
        .await;

    let mark = stage.vault_audit_mark().unwrap();
    login(&team, "VaultAuth", "default", kubernetes("vault")).await;
    team.secret_with("app", "k", "v").await;
    team.healed("app").await;
    let name = format!("kubernetes-{}-reader", team.namespace);
    assert_eq!(readers(&team, mark, "app"), [name]);
}

#[tokio::test]
async fn an_app_role_logs_in_and_again_when_its_secret_id_changes() {
    let stage = Stage::shared().await;
    let team = stage.team("approle").await;
    policy(&team).await;
    let mount = format!("approle-{}", team.namespace);
    let vault = stage.vault();
    vault.enable_auth(&mount, "approle").await.unwrap();
    let role = format!("auth/{mount}/role/app");
    let policies = json!({"token_policies": [team.namespace], "token_ttl": "1h"});
    vault.write(&role, &policies).await.unwrap();
    let role_id = vault.read(&format!("{role}/role-id")).await.unwrap();
    let role_id = role_id["data"]["role_id"].as_str().unwrap().to_owned();
    let new_secret_id = async || {
        let answer = vault.write(&format!("{role}/secret-id"), &json!({})).await;
        answer.unwrap()["data"].clone()
    };
    let first = new_secret_id().await;
    // An editor's newline at the end is no part of it.
    let with_newline = format!("{}\n", first["secret_id"].as_str().unwrap());
    let ids = json!({"role": role_id, "secret": with_newline});
    credential(&team, "ids", ids).await;
    let secret_id = json!({"name": "ids", "key": "secret"});
    let inline = json!({"roleId": role_id, "secretIdRef": secret_id});
    let by_ref = json!({"roleIdRef": {"name": "ids", "key": "role"}, "secretIdRef": secret_id});
    for (name, app_role) in [("inline", inline), ("by-ref", by_ref)] {
        let spec = json!({"mount": mount, "appRole": app_role});
        login(&team, "VaultAuth", name, spec).await;
        team.put(name, &json!({"k": "one"})).await;
        team.vault_secret(name, by("VaultAuth", name)).await;
    }
    for name in ["inline", "by-ref"] {
        team.secret_with(name, "k", "one").await;
        team.healed(name).await;
    }

    // The new secret id is used without a restart, and the old one need not work any more.
    let second = new_secret_id().await;
    let gone = json!({"secret_id": first["secret_id"]});
    vault
        .write(&format!("{role}/secret-id/destroy"), &gone)
        .await
        .unwrap();
    let mark = stage.vault_audit_mark().unwrap();
    let ids = json!({"role": role_id, "secret": second["secret_id"]});
    credential(&team, "ids", ids).await;
    for name in ["inline", "by-ref"] {
        team.put(name, &json!({"k": "two"})).await;
        team.secret_with(name, "k", "two").await;
    }
    let logins: Vec<_> = team
        .reads_since(mark)
        .into_iter()
        .filter(|request| request.path == format!("auth/{mount}/login"))
        .collect();
    assert_eq!(logins.len(), 2, "{logins:#?}");
    assert!(logins.iter().all(|login| login.error.is_empty()));
}

#[tokio::test]
async fn a_token_is_used_as_it_is_and_never_revoked() {
    let stage = Stage::shared().await;
    let team = stage.team("token").await;
    policy(&team).await;
    let vault = stage.vault();
    let token = vault
        .create_token(&[&team.namespace, "default"], "1h")
        .await
        .unwrap();
    credential(&team, "token", json!({"t": token})).await;
    let spec = json!({"token": {"secretRef": {"name": "token", "key": "t"}}});
    login(&team, "VaultAuth", "static", spec).await;
    team.put("app", &json!({"k": "one"})).await;
    team.vault_secret("app", by("VaultAuth", "static")).await;
    team.secret_with("app", "k", "one").await;

    let other = vault
        .create_token(&[&team.namespace, "default"], "1h")
        .await
        .unwrap();
    let itself = vault.with_token(&other);
    let looked_up = itself.read("auth/token/lookup-self").await.unwrap();
    let accessor = looked_up["data"]["accessor"].clone();
    let mark = stage.vault_audit_mark().unwrap();
    credential(&team, "token", json!({"t": other})).await;
    eventually(SOON, "a read with the new token", async || {
        let reads = team.reads_since(mark);
        reads.iter().any(|read| accessor == read.accessor.as_str())
    })
    .await
    .unwrap();
    team.put("app", &json!({"k": "two"})).await;
    team.secret_with("app", "k", "two").await;
    team.healed("app").await;

    credential(&team, "token", json!({"t": "hvs.none"})).await;
    let place = format!("key t of Secret {}/token", team.namespace);
    team.unreachable("app", "Denied", &["check spec.token", &place])
        .await;
    let itself = vault.with_token(&token);
    itself.read("auth/token/lookup-self").await.unwrap();
}

#[tokio::test]
async fn objects_of_one_identity_share_one_login_and_one_read_of_one_path() {
    let stage = Stage::shared().await;
    let team = stage.team("shared").await;
    let mount = format!("k8s-{}", team.namespace);
    stage.enable_kubernetes_auth(&mount).await.unwrap();
    policy(&team).await;
    let role = KubernetesRole {
        mount: &mount,
        name: "tenant",
        namespaces: &[&team.namespace],
        service_accounts: &["default"],
        policies: &[&team.namespace],
        ttl: "1h",
    };
    stage.vault().kubernetes_role(role).await.unwrap();
    let mut spec = tenant();
    spec["mount"] = json!(mount);
    login(&team, "VaultAuth", "default", spec).await;
    team.put("one", &json!({"k": "v"})).await;
    let kv = json!({"mount": "secret", "path": team.path("one"), "engineVersion": 2});
    let spec = json!({"refreshInterval": "1h", "sources": [{"name": "main", "kv": kv}]});
    let mark = stage.vault_audit_mark().unwrap();
    let names: Vec<_> = (0..12).map(|number| format!("app-{number}")).collect();
    for name in &names {
        team.vault_secret(name, spec.clone()).await;
    }
    for name in &names {
        team.secret_with(name, "k", "v").await;
    }
    let paths: Vec<_> = team
        .reads_since(mark)
        .into_iter()
        .map(|request| request.path)
        .collect();
    let wanted: [Value; 2] = [
        json!(format!("auth/{mount}/login")),
        json!(format!("secret/data/{}", team.path("one"))),
    ];
    assert_eq!(json!(paths), json!(wanted));
}
