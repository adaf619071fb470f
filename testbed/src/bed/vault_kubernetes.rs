//! Effects: apiserver, Vault — lets Vault ask the bed's apiserver whether a `ServiceAccount` token is good.

use k8s_openapi::api::{
    core::v1::{Namespace, ServiceAccount},
    rbac::v1::{ClusterRoleBinding, RoleRef, Subject},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;

use super::Bed;
use crate::error::BedError;

/// The namespace and the `ServiceAccount` that Vault would have in a real cluster.
const VAULT: &str = "vault";

impl Bed {
    /// Mounts another Kubernetes auth method that trusts this bed's apiserver; `kubernetes` is there from the start.
    pub async fn enable_kubernetes_auth(&self, mount: &str) -> Result<(), BedError> {
        let vault = self.vault();
        vault.enable_auth(mount, "kubernetes").await?;
        let configuration = json!({
            "kubernetes_host": self.plane.access.url,
            "kubernetes_ca_cert": self.plane.access.ca,
            "token_reviewer_jwt": self.service_account_token(VAULT, VAULT, &[]).await?,
            "disable_local_ca_jwt": true,
        });
        // The library knows no reviewer token.
        vault
            .write(&format!("auth/{mount}/config"), &configuration)
            .await?;
        Ok(())
    }

    /// Mounts a Kubernetes secrets engine, which issues tokens of `ServiceAccounts` of this bed's apiserver.
    pub async fn enable_kubernetes_engine(&self, mount: &str) -> Result<(), BedError> {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "vault-issues"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": VAULT, "namespace": VAULT}],
        });
        self.apply_yaml(&binding.to_string()).await?;
        let vault = self.vault();
        vault.enable_engine(mount, "kubernetes").await?;
        let configuration = json!({
            "kubernetes_host": self.plane.access.url,
            "kubernetes_ca_cert": self.plane.access.ca,
            "service_account_jwt": self.service_account_token(VAULT, VAULT, &[]).await?,
            "disable_local_ca_jwt": true,
        });
        let path = format!("{mount}/config");
        vault.write(&path, &configuration).await.map(drop)
    }

    /// Creates Vault's `ServiceAccount`, which may review tokens.
    pub(super) async fn prepare_token_reviewer(&self, client: &Client) -> Result<(), BedError> {
        let metadata = ObjectMeta {
            name: Some(VAULT.to_owned()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata: metadata.clone(),
            ..Namespace::default()
        };
        let account = ServiceAccount {
            metadata: metadata.clone(),
            ..ServiceAccount::default()
        };
        let binding = ClusterRoleBinding {
            metadata,
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "ClusterRole".to_owned(),
                name: "system:auth-delegator".to_owned(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: VAULT.to_owned(),
                namespace: Some(VAULT.to_owned()),
                ..Subject::default()
            }]),
        };
        let create = PostParams::default();
        Api::all(client.clone()).create(&create, &namespace).await?;
        Api::namespaced(client.clone(), VAULT)
            .create(&create, &account)
            .await?;
        Api::all(client.clone()).create(&create, &binding).await?;
        Ok(())
    }
}
