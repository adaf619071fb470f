//! Effects: apiserver, Vault — what most objects lean on: a login for everybody, and a database behind Vault.

use serde_json::json;

use super::Bed;
use crate::{
    error::BedError,
    vault::{AUDIENCE, KubernetesRole},
};

/// What Vault runs in PostgreSQL for each login it makes.
const CREATE_LOGIN: &str =
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";

impl Bed {
    /// Writes a role of the Kubernetes auth method, and the `ClusterVaultConnection` and default `ClusterVaultAuth` with
    /// which every namespace logs in as its own `ServiceAccount` `default`. The CRDs must be there; `policies` say
    /// what it may do, and `ttl` for how long Vault grants a token.
    pub async fn login_for_everybody(
        &self,
        role: &str,
        policies: &[&str],
        ttl: &str,
    ) -> Result<(), BedError> {
        let role = KubernetesRole {
            mount: "kubernetes",
            name: role,
            namespaces: &["*"],
            service_accounts: &["default"],
            policies,
            ttl,
        };
        self.vault().kubernetes_role(role).await?;
        self.apply_yaml(&login(&self.vault_address(), role.name))
            .await
    }

    /// Mounts Vault's database engine at `database`, in front of this bed's PostgreSQL, unless that is done.
    ///
    /// When two tests do so at the same time, one may come back before the other has configured it.
    pub async fn database_engine(&self) -> Result<(), BedError> {
        let postgres = self.postgres().await?;
        let vault = self.vault();
        let mounts = vault.read("sys/mounts").await?;
        if mounts.pointer("/data/database~1").is_some() {
            return Ok(());
        }
        let (username, password) = postgres.credentials();
        // Somebody else may be faster: then it is there.
        drop(vault.enable_engine("database", "database").await);
        let connection = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
            "connection_url": postgres.vault_url(), "username": username, "password": password,
        });
        vault.write("database/config/main", &connection).await?;
        Ok(())
    }

    /// Writes a role of that engine. Its leases live for `default_ttl` until they are renewed, and for `max_ttl` in all.
    pub async fn database_role(
        &self,
        name: &str,
        default_ttl: &str,
        max_ttl: &str,
    ) -> Result<(), BedError> {
        let body = json!({
            "db_name": "main", "default_ttl": default_ttl, "max_ttl": max_ttl,
            "creation_statements": CREATE_LOGIN,
        });
        let path = format!("database/roles/{name}");
        self.vault().write(&path, &body).await?;
        Ok(())
    }
}

fn login(vault: &str, role: &str) -> String {
    format!(
        "
apiVersion: lockstep.dev/v1alpha1
kind: ClusterVaultConnection
metadata: {{name: main}}
spec: {{address: '{vault}'}}
---
apiVersion: lockstep.dev/v1alpha1
kind: ClusterVaultAuth
metadata: {{name: default}}
spec:
  connectionRef: {{kind: ClusterVaultConnection, name: main}}
  kubernetes: {{role: {role}, audiences: [{AUDIENCE}]}}
  allowedNamespaces: {{names: ['*']}}
"
    )
}
