//! Who may use whose login, and what a tenant gets at.

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{by, credential, login, tenant};
use crate::support::{Stage, Team};

/// Labels a namespace; null takes the label off.
async fn label(team: &Team<'_>, value: Value) {
    let namespaces: Api<Namespace> = Api::all(team.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"tier": value}}}));
    namespaces
        .patch(&team.namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_tenant_gets_nothing_of_another_team() {
    let stage = Stage::shared().await;
    let (victim, tenant) = (stage.team("victim").await, stage.team("tenant").await);
    victim.put("app", &json!({"k": "canary-theirs"})).await;
    tenant.put("app", &json!({"k": "own"})).await;
    tenant.vault_secret("app", json!({})).await;
    tenant.ready("app").await;
    let kept = tenant.secret_to_the_letter("app").await;
    let kv = json!({"mount": "secret", "path": victim.path("app"), "engineVersion": 2});
    let forged = json!({"sources": [{"name": "main", "kv": kv}]});
    let mark = stage.vault_audit_mark().unwrap();
    tenant.vault_secret("app", forged).await;
    tenant
        .unreachable("app", "Denied", &["source main", "permission denied"])
        .await;
    assert_eq!(tenant.secret_to_the_letter("app").await, kept);

    // Vault knows who asked: the tenant, by its own ServiceAccount.
    let theirs = victim.reads_since(mark);
    assert!(!theirs.is_empty());
    let own = format!("kubernetes-{}-default", tenant.namespace);
    for read in theirs {
        assert_eq!(read.display_name, own);
        assert!(read.error.contains("permission denied"), "{read:?}");
    }
    let log = stage.operator().log_text();
    assert!(!log.contains("canary-theirs"));
}

#[tokio::test]
async fn a_login_of_the_namespace_comes_before_that_of_the_cluster() {
    let stage = Stage::shared().await;
    let team = stage.team("own").await;
    team.put("app", &json!({"k": "one"})).await;
    team.vault_secret("app", json!({})).await;
    team.ready("app").await;
    let missing = json!({"token": {"secretRef": {"name": "absent", "key": "t"}}});
    login(&team, "VaultAuth", "default", missing).await;
    team.unreachable("app", "CredentialUnavailable", &["Secret", "absent"])
        .await;
    login(&team, "VaultAuth", "default", tenant()).await;
    team.put("app", &json!({"k": "two"})).await;
    team.secret_with("app", "k", "two").await;
    team.healed("app").await;
}

#[tokio::test]
async fn a_fixed_identity_is_one_for_all_and_reads_only_what_the_admin_named() {
    let stage = Stage::shared().await;
    let (home, user) = (stage.team("home").await, stage.team("user").await);
    // The identity is that of `home`, so `user` reads what `home` may.
    let auth = format!("{}-fixed", home.namespace);
    let account = json!({"name": "default", "namespace": home.namespace});
    let spec = json!({
        "identityFrom": "Fixed", "allowedNamespaces": {"names": [user.namespace]},
        "kubernetes": {"role": "tenant", "audiences": ["vault"], "serviceAccountRef": account},
    });
    login(&home, "ClusterVaultAuth", &auth, spec).await;
    home.put("app", &json!({"k": "v"})).await;
    let kv = json!({"mount": "secret", "path": home.path("app"), "engineVersion": 2});
    let mut spec = by("ClusterVaultAuth", &auth);
    spec["sources"] = json!([{"name": "main", "kv": kv}]);
    let mark = stage.vault_audit_mark().unwrap();
    user.vault_secret("app", spec.clone()).await;
    user.secret_with("app", "k", "v").await;
    let name = format!("kubernetes-{}-default", home.namespace);
    let reads = home.reads_since(mark);
    assert!(
        reads.iter().all(|read| read.display_name == name),
        "{reads:#?}"
    );

    // Nobody else is let in, not even the namespace the identity comes from.
    home.vault_secret("app", spec).await;
    home.stalled(
        "app",
        "AuthNotAllowed",
        &[&auth, &home.namespace, "spec.allowedNamespaces"],
    )
    .await;
    assert!(home.secret("app").await.is_none());

    // A Secret of a fixed login is followed where it is.
    let vault = stage.vault();
    let rules = format!(
        "path \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
        home.namespace
    );
    vault.policy(&home.namespace, &rules).await.unwrap();
    let token = vault
        .create_token(&[&home.namespace, "default"], "1h")
        .await
        .unwrap();
    let reference = json!({"name": "token", "key": "t", "namespace": home.namespace});
    let spec = json!({
        "identityFrom": "Fixed", "allowedNamespaces": {"names": ["*"]},
        "token": {"secretRef": reference},
    });
    let by_token = format!("{}-token", home.namespace);
    login(&home, "ClusterVaultAuth", &by_token, spec).await;
    let mut spec = by("ClusterVaultAuth", &by_token);
    spec["sources"] = json!([{"name": "main", "kv": {"mount": "secret", "path": home.path("app"), "engineVersion": 2}}]);
    user.vault_secret("token", spec).await;
    user.unreachable(
        "token",
        "CredentialUnavailable",
        &["Secret", &home.namespace],
    )
    .await;
    credential(&home, "token", json!({"t": token})).await;
    user.secret_with("token", "k", "v").await;
    user.healed("token").await;
}

#[tokio::test]
async fn an_allow_list_counts_labels_and_holds_for_the_default_too() {
    let stage = Stage::own().await;
    let team = stage.team("gold").await;
    let mut spec = tenant();
    spec["allowedNamespaces"] = json!({"selector": {"matchLabels": {"tier": "gold"}}});
    login(&team, "ClusterVaultAuth", "default", spec.clone()).await;
    login(&team, "ClusterVaultAuth", "named", spec).await;
    team.put("app", &json!({"k": "one"})).await;
    team.vault_secret(
        "by-default",
        json!({"sources": [{"name": "main", "kv": {"mount": "secret", "path": team.path("app")}}]}),
    )
    .await;
    let mut named = by("ClusterVaultAuth", "named");
    named["sources"] =
        json!([{"name": "main", "kv": {"mount": "secret", "path": team.path("app")}}]);
    team.vault_secret("by-name", named).await;
    let refused = async || {
        let words = ["spec.authRef", "VaultAuth named default", &team.namespace];
        team.stalled("by-default", "NoDefaultAuth", &words).await;
        let words = ["ClusterVaultAuth named", &team.namespace];
        team.stalled("by-name", "AuthNotAllowed", &words).await;
    };
    refused().await;
    label(&team, json!("silver")).await;
    refused().await;
    assert!(team.secret("by-default").await.is_none());
    assert!(team.secret("by-name").await.is_none());

    label(&team, json!("gold")).await;
    for name in ["by-default", "by-name"] {
        team.secret_with(name, "k", "one").await;
        team.healed(name).await;
    }
    // Who loses the right keeps the last good Secret and gets nothing new.
    label(&team, json!(null)).await;
    refused().await;
    team.put("app", &json!({"k": "two"})).await;
    login(&team, "VaultAuth", "own", tenant()).await;
    let mut own = by("VaultAuth", "own");
    own["sources"] = json!([{"name": "main", "kv": {"mount": "secret", "path": team.path("app")}}]);
    team.vault_secret("own", own).await;
    team.secret_with("own", "k", "two").await;
    for name in ["by-default", "by-name"] {
        team.secret_with(name, "k", "one").await;
    }
}
