//! What Vault refuses: the last good Secret stays, Vault is spared, and it heals there.

use lockstep_testbed::KubernetesRole;
use serde_json::{Value, json};

use crate::support::{Stage, Team};

/// A login of this namespace, through the Kubernetes auth method mounted at `mount`.
async fn login(team: &Team<'_>, name: &str, mount: &str, kubernetes: Value) {
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": name},
        "spec": {
            "connectionRef": {"kind": "ClusterVaultConnection", "name": "main"},
            "mount": mount, "kubernetes": kubernetes,
        },
    }))
    .await;
}

fn through(name: &str) -> Value {
    json!({"authRef": {"kind": "VaultAuth", "name": name}})
}

/// What stays when `wrong` replaces a good spec.
async fn goes_wrong(team: &Team<'_>, name: &str, wrong: Value) -> Value {
    team.put(name, &json!({"k": "good"})).await;
    team.vault_secret(name, json!({})).await;
    team.secret_with(name, "k", "good").await;
    team.ready(name).await;
    let kept = team.secret_to_the_letter(name).await;
    team.vault_secret(name, wrong).await;
    kept
}

#[tokio::test]
async fn a_login_vault_refuses_is_told_tried_rarely_and_heals() {
    let stage = Stage::shared().await;
    let team = stage.team("role").await;
    let mount = format!("k8s-{}", team.namespace);
    stage.enable_kubernetes_auth(&mount).await.unwrap();
    let kubernetes = json!({"role": "reader", "audiences": ["vault"]});
    login(&team, "role", &mount, kubernetes).await;
    let vault_mark = stage.vault_audit_mark().unwrap();
    let kept = goes_wrong(&team, "app", through("role")).await;
    team.unreachable(
        "app",
        "Invalid",
        &["source main", &mount, "invalid role name"],
    )
    .await;
    let mark = stage.audit_mark().await.unwrap();
    team.polled_twice().await;
    let logins = team.reads_since(vault_mark);
    let logins: Vec<_> = logins
        .iter()
        .filter(|login| login.path.starts_with("auth/"))
        .collect();
    assert!((1..=6).contains(&logins.len()), "{logins:#?}");
    let writes = team.writes_since(mark).await;
    assert!(
        writes.iter().all(|write| write.name != "app"),
        "{writes:#?}"
    );
    assert_eq!(team.secret_to_the_letter("app").await, kept);

    let role = KubernetesRole {
        mount: &mount,
        name: "reader",
        namespaces: &[&team.namespace],
        service_accounts: &["default"],
        policies: &["reader"],
        ttl: "1h",
    };
    let path = format!(
        "path \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
        team.namespace
    );
    stage.vault().policy("reader", &path).await.unwrap();
    stage.vault().kubernetes_role(role).await.unwrap();
    team.put("app", &json!({"k": "new"})).await;
    team.secret_with("app", "k", "new").await;
    team.healed("app").await;
}

#[tokio::test]
async fn a_service_account_or_secret_that_is_missing_for_the_login_is_named() {
    let stage = Stage::shared().await;
    let team = stage.team("account").await;
    let kubernetes = |account: &str| json!({"role": "tenant", "audiences": ["vault"], "serviceAccountRef": {"name": account}});
    login(&team, "account", "kubernetes", kubernetes("nobody")).await;
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": "token"},
        "spec": {
            "connectionRef": {"kind": "ClusterVaultConnection", "name": "main"},
            "token": {"secretRef": {"name": "credential", "key": "token"}},
        },
    }))
    .await;
    let kept = goes_wrong(&team, "account", through("account")).await;
    let kept_token = goes_wrong(&team, "token", through("token")).await;
    let reason = "CredentialUnavailable";
    team.unreachable(
        "account",
        reason,
        &["ServiceAccount", "nobody", "create it"],
    )
    .await;
    team.unreachable("token", reason, &["Secret", "credential", "create it"])
        .await;
    let mark = stage.audit_mark().await.unwrap();
    team.polled_twice().await;
    let ours = |request: &lockstep_testbed::ApiRequest| {
        request.namespace == team.namespace
            && request.user_agent.starts_with("lockstep/")
            && request.name != "fence"
    };
    let asked = stage.audit_since(mark, ours).await.unwrap();
    let asked: Vec<_> = asked
        .iter()
        .filter(|request| request.resource != "events")
        .collect();
    assert!(asked.len() <= 4, "{asked:#?}");
    assert_eq!(team.secret_to_the_letter("account").await, kept);
    assert_eq!(team.secret_to_the_letter("token").await, kept_token);

    team.put("account", &json!({"k": "new"})).await;
    team.put("token", &json!({"k": "new"})).await;
    login(&team, "account", "kubernetes", kubernetes("default")).await;
    let value = stage.vault().create_token(&["root"], "1h").await.unwrap();
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credential"}, "stringData": {"token": value},
    }))
    .await;
    for name in ["account", "token"] {
        team.secret_with(name, "k", "new").await;
        team.healed(name).await;
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_or_was_deleted_keeps_the_last_good_secret() {
    let stage = Stage::shared().await;
    let team = stage.team("paths").await;
    let kv = |mount: &str, path: &str| json!({"sources": [{"name": "main", "kv": {"mount": mount, "path": team.path(path)}}]});
    let absent = goes_wrong(&team, "absent", kv("secret", "nothing-here")).await;
    let mount = goes_wrong(&team, "mount", kv("no-such-mount", "x")).await;
    let deleted = goes_wrong(&team, "deleted", json!({})).await;
    let data = format!("secret/data/{}", team.path("deleted"));
    stage.vault().delete(&data).await.unwrap();
    team.unreachable(
        "absent",
        "NotFound",
        &["source main", "nothing-here", "404"],
    )
    .await;
    team.unreachable(
        "mount",
        "Denied",
        &["source main", "no-such-mount", "engineVersion"],
    )
    .await;
    team.unreachable(
        "deleted",
        "VersionDeleted",
        &["source main", "version 1 was deleted"],
    )
    .await;
    // Nothing changed in its spec, and the Secret is as good as before.
    team.condition_is("deleted", "Ready", "True LastGood").await;
    let mark = stage.vault_audit_mark().unwrap();
    team.polled_twice().await;
    let reads = team.reads_since(mark);
    for path in ["nothing-here", "no-such-mount", "deleted"] {
        let reads: Vec<_> = reads
            .iter()
            .filter(|read| read.path.contains(path))
            .collect();
        assert!(reads.len() <= 6, "{reads:#?}");
    }
    for (name, kept) in [("absent", absent), ("mount", mount), ("deleted", deleted)] {
        assert_eq!(team.secret_to_the_letter(name).await, kept, "{name}");
    }

    team.put("nothing-here", &json!({"k": "new"})).await;
    team.put("deleted", &json!({"k": "new"})).await;
    team.put("mount", &json!({"k": "new"})).await;
    team.vault_secret("mount", json!({})).await;
    for name in ["absent", "mount", "deleted"] {
        team.secret_with(name, "k", "new").await;
        team.healed(name).await;
    }
}
