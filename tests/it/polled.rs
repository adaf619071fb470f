//! Sources that are read again and again: what they give, how soon they follow, and what they refuse.

mod directory;
mod find;
mod static_role;

use lockstep_testbed::KubernetesRole;
use serde_json::{Value, json};

use crate::support::Team;

impl Team<'_> {
    /// From now on this namespace logs in with a policy of its own, which has these rules.
    async fn has_policy(&self, rules: &str) {
        let vault = self.stage.vault();
        vault.policy(&self.namespace, rules).await.unwrap();
        let role = KubernetesRole {
            mount: "kubernetes",
            name: &self.namespace,
            namespaces: &[&self.namespace],
            service_accounts: &["default"],
            policies: &[&self.namespace],
            ttl: "1h",
        };
        vault.kubernetes_role(role).await.unwrap();
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": "default"},
            "spec": {
                "connectionRef": {"kind": "ClusterVaultConnection", "name": "main"},
                "kubernetes": {"role": self.namespace, "audiences": ["vault"]},
            },
        }))
        .await;
    }

    /// Applies a `VaultSecret` with this one source.
    async fn reads_from(&self, name: &str, kind: &str, source: Value) {
        let sources = json!([{"name": "main", kind: source}]);
        self.vault_secret(name, json!({"sources": sources})).await;
    }

    /// The keys of a Secret, sorted, in one text.
    async fn keys_of(&self, name: &str) -> String {
        let secret = self.secret(name).await;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        data.into_keys().collect::<Vec<_>>().join(" ")
    }
}
