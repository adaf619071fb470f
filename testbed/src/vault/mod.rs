//! Effects: network — a thin client of the bed's Vault with the rights of root.

pub(crate) mod server;

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use vaultrs::{
    api::auth::kubernetes::requests::CreateKubernetesRoleRequest,
    auth::kubernetes,
    client::{VaultClient, VaultClientSettingsBuilder},
    kv2, sys, token,
};

use crate::{
    error::BedError,
    eventually::{NotYet, eventually},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The audience of `ServiceAccount` tokens for Vault.
pub const AUDIENCE: &str = "vault";

/// Acts on Vault with one token, root's unless said otherwise.
///
/// It holds no connection, so it can be kept and used from any runtime.
#[derive(Clone)]
pub struct VaultRoot {
    address: String,
    token: String,
    unseal_key: String,
}

/// Who may log in with a role of the Kubernetes auth method, and what they get.
#[derive(Debug, Clone, Copy)]
pub struct KubernetesRole<'a> {
    /// The auth mount, usually `kubernetes`.
    pub mount: &'a str,
    /// The name of the role.
    pub name: &'a str,
    /// The namespaces of the service accounts; `*` for all.
    pub namespaces: &'a [&'a str],
    /// Their names; `*` for all.
    pub service_accounts: &'a [&'a str],
    /// The policies of the token.
    pub policies: &'a [&'a str],
    /// How long the token lives, like `10m`.
    pub ttl: &'a str,
}

impl VaultRoot {
    pub(crate) const fn new(address: String, token: String, unseal_key: String) -> Self {
        Self {
            address,
            token,
            unseal_key,
        }
    }

    /// Where it speaks plain HTTP.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The token it uses.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// A client of the `vaultrs` library, for what is not here. It belongs to the runtime it is used in.
    pub fn library(&self) -> Result<VaultClient, BedError> {
        client(&self.address, &self.token)
    }

    /// `GET`: the whole answer.
    pub async fn read(&self, path: &str) -> Result<Value, BedError> {
        self.request(Method::GET, path, None).await
    }

    /// `POST`: the whole answer, null when there is none.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Value, BedError> {
        self.request(Method::POST, path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), BedError> {
        self.request(Method::DELETE, path, None).await.map(drop)
    }

    /// Any other request, `LIST` included; the path is without `/v1/`.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, BedError> {
        self.send(method, path, body, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        header: Option<(&str, &str)>,
    ) -> Result<Value, BedError> {
        let failed = |source| BedError::VaultRequest {
            method: method.to_string(),
            path: path.to_owned(),
            source,
        };
        let url = format!("{}/v1/{path}", self.address);
        // No root certificates are needed for plain HTTP, and reading the system's takes longer than the request.
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .tls_certs_only([])
            .build()
            .map_err(failed)?;
        let mut request = http
            .request(method.clone(), url)
            .header("X-Vault-Token", &self.token);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.text().await.map_err(failed)?;
        if status.is_success() {
            Ok(serde_json::from_str(&body).unwrap_or(Value::Null))
        } else {
            Err(BedError::VaultRefused {
                method: method.to_string(),
                path: path.to_owned(),
                status: status.as_u16(),
                body,
            })
        }
    }

    /// `POST`: a token that wraps the answer for `ttl`, like `10m`, and can be unwrapped once.
    pub async fn wrap(&self, path: &str, body: &Value, ttl: &str) -> Result<String, BedError> {
        let wrapped = Some(("X-Vault-Wrap-TTL", ttl));
        let answer = self.send(Method::POST, path, Some(body), wrapped).await?;
        let token = answer.pointer("/wrap_info/token").and_then(Value::as_str);
        token
            .map(str::to_owned)
            .ok_or(BedError::Shape("the wrapping token"))
    }

    /// Writes a new version to a KV version 2 mount and returns its number.
    pub async fn kv_put(
        &self,
        mount: &str,
        path: &str,
        data: &impl Serialize,
    ) -> Result<u64, BedError> {
        Ok(kv2::set(&self.library()?, mount, path, data).await?.version)
    }

    /// Mounts a secrets engine.
    pub async fn enable_engine(&self, mount: &str, engine: &str) -> Result<(), BedError> {
        Ok(sys::mount::enable(&self.library()?, mount, engine, None).await?)
    }

    /// Mounts a KV version 2 store.
    pub async fn enable_kv2(&self, mount: &str) -> Result<(), BedError> {
        self.write(
            &format!("sys/mounts/{mount}"),
            &json!({"type": "kv", "options": {"version": "2"}}),
        )
        .await?;
        self.kv2_is_usable(mount).await?;
        Ok(())
    }

    /// Mounts an auth method.
    pub async fn enable_auth(&self, mount: &str, method: &str) -> Result<(), BedError> {
        Ok(sys::auth::enable(&self.library()?, mount, method, None).await?)
    }

    /// Writes a policy in Vault's policy language.
    pub async fn policy(&self, name: &str, rules: &str) -> Result<(), BedError> {
        Ok(sys::policy::set(&self.library()?, name, rules).await?)
    }

    /// Writes a role of the Kubernetes auth method, for tokens with the audience [`AUDIENCE`].
    pub async fn kubernetes_role(&self, role: KubernetesRole<'_>) -> Result<(), BedError> {
        let KubernetesRole {
            mount,
            name,
            namespaces,
            service_accounts,
            policies,
            ttl,
        } = role;
        let mut request = CreateKubernetesRoleRequest::builder();
        request
            .bound_service_account_namespaces(owned(namespaces))
            .bound_service_account_names(owned(service_accounts))
            .token_policies(owned(policies))
            .token_ttl(ttl)
            .audience(AUDIENCE);
        Ok(kubernetes::role::create(&self.library()?, mount, name, Some(&mut request)).await?)
    }

    /// Logs in with the Kubernetes auth method and returns the client with the token that was issued.
    pub async fn kubernetes_login(
        &self,
        mount: &str,
        role: &str,
        jwt: &str,
    ) -> Result<Self, BedError> {
        let issued = kubernetes::login(&client(&self.address, "")?, mount, role, jwt).await?;
        Ok(self.with_token(&issued.client_token))
    }

    /// Issues a token with these policies, a lifetime like `10m`, and no parent.
    pub async fn create_token(&self, policies: &[&str], ttl: &str) -> Result<String, BedError> {
        let body = json!({"policies": policies, "ttl": ttl});
        let answer = self.write("auth/token/create-orphan", &body).await?;
        let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
        token
            .map(str::to_owned)
            .ok_or(BedError::Shape("the issued token"))
    }

    /// The ids of the leases that live whose ids begin with `path`, like `database/creds/app`.
    pub async fn leases(&self, path: &str) -> Result<Vec<String>, BedError> {
        let list = Method::from_bytes(b"LIST").map_err(|_| BedError::Shape("a method"))?;
        let listed = self
            .request(list, &format!("sys/leases/lookup/{path}"), None)
            .await;
        let listed = match listed {
            // An empty list is not found.
            Err(BedError::VaultRefused { status: 404, .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let keys = listed.pointer("/data/keys").and_then(Value::as_array);
        let keys = keys.ok_or(BedError::Shape("a list of leases"))?;
        Ok(keys
            .iter()
            .filter_map(Value::as_str)
            .map(|key| format!("{path}/{key}"))
            .collect())
    }

    /// Revokes the token with this accessor and everything it leased.
    pub async fn revoke_accessor(&self, accessor: &str) -> Result<(), BedError> {
        Ok(token::revoke_accessor(&self.library()?, accessor).await?)
    }

    /// Seals it: from now on it answers 503.
    pub async fn seal(&self) -> Result<(), BedError> {
        Ok(sys::seal(&self.library()?).await?)
    }

    /// Unseals it, and returns when it is active.
    pub async fn unseal(&self) -> Result<(), BedError> {
        sys::unseal(&self.library()?, Some(self.unseal_key.clone()), None, None).await?;
        let active = async || self.read("sys/health").await;
        eventually(TIMEOUT, "an active Vault", active).await?;
        Ok(())
    }

    /// Right after it is mounted, a KV version 2 store answers "upgrading" for a moment.
    async fn kv2_is_usable(&self, mount: &str) -> Result<(), NotYet> {
        eventually(TIMEOUT, "a usable KV store", async || {
            self.read(&format!("{mount}/config")).await
        })
        .await
        .map(drop)
    }
}

/// A client of the library with nothing taken from the environment.
pub(crate) fn client(address: &str, token: &str) -> Result<VaultClient, BedError> {
    let settings = VaultClientSettingsBuilder::default()
        .address(address)
        .token(token)
        .ca_certs(Vec::new())
        .identity(None)
        .verify(true)
        .timeout(Some(TIMEOUT))
        .build()?;
    Ok(VaultClient::new(settings)?)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
