//! Effects: apiserver. Fetches what a login needs, at the time of the login; nothing is kept.

mod cloud;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Secret, ServiceAccount},
    },
};
use kube::{Api, Client, api::PostParams};
use tokio::time::timeout;

use super::resolve::{
    Login,
    method::{Account, Jwt, Method, RoleId, SecretKey},
};
use crate::{
    cloud::http::Clouds,
    names::ObjectKey,
    sensitive::Sensitive,
    vault::{
        identity::{CredentialError, IdentityKey, IdentityParts, LoginMethod, Remedy, SecretId},
        session::{CredentialSource, Identity},
        transport::Transport,
    },
};

/// How long one request to the apiserver may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The credentials of one login.
struct Credentials {
    client: Client,
    clouds: Arc<Clouds>,
    login: Login,
}

/// The identity that `login` stands for, on the connection that `transport` is.
///
/// `transport_version` changes when the connection does: a token is never sent to another server than
/// the one that issued it.
pub fn identity(
    client: &Client,
    clouds: &Arc<Clouds>,
    login: &Login,
    transport: Arc<Transport>,
    transport_version: u64,
) -> Identity {
    let key = IdentityKey::new(IdentityParts {
        connection: login.connection.to_string(),
        auth: login.auth.clone(),
        subject: login.method.subject(),
        server: transport_version.to_string(),
        revision: format!(
            "{:?} {:?} {}",
            login.auth_version, login.method, login.mount
        ),
    });
    Identity {
        key,
        transport,
        namespace: login.namespace.clone(),
        credentials: Arc::new(Credentials {
            client: client.clone(),
            clouds: Arc::clone(clouds),
            login: login.clone(),
        }),
    }
}

impl CredentialSource for Credentials {
    fn login_method(&self) -> BoxFuture<'_, Result<LoginMethod, CredentialError>> {
        self.fetch().boxed()
    }

    fn advice(&self) -> String {
        self.login.method.advice()
    }

    fn shows_certificate(&self) -> bool {
        matches!(self.login.method, Method::Cert { .. })
    }
}

impl Credentials {
    async fn fetch(&self) -> Result<LoginMethod, CredentialError> {
        let mount = self.login.mount.clone();
        match &self.login.method {
            Method::Kubernetes { role, account }
            | Method::Jwt {
                role,
                jwt: Jwt::Issued(account),
            } => Ok(LoginMethod::Jwt {
                mount,
                role: role.clone(),
                jwt: self.service_account_token(account).await?,
            }),
            Method::Jwt {
                role,
                jwt: Jwt::Read(key),
            } => Ok(LoginMethod::Jwt {
                mount,
                role: role.clone(),
                jwt: self.secret_value(key).await?,
            }),
            Method::AppRole {
                role_id,
                secret_id,
                wrapped,
            } => Ok(LoginMethod::AppRole {
                mount,
                role_id: match role_id {
                    RoleId::Given(role_id) => Sensitive::new(role_id.as_bytes()),
                    RoleId::Read(key) => secret_value(&self.client, key).await?,
                },
                secret_id: self.secret_id(secret_id, *wrapped).await?,
            }),
            Method::Token { token } => Ok(LoginMethod::Token(self.secret_value(token).await?)),
            Method::Cert { role, secret, .. } => Ok(LoginMethod::Certificate {
                mount,
                role: role.clone(),
                certificate: self.certificate(secret).await?,
            }),
            Method::UserPass(login) | Method::Ldap(login) => Ok(LoginMethod::Password {
                mount,
                user: login.user.clone(),
                password: self.secret_value(&login.password).await?,
            }),
            Method::Cloud(login) => self.cloud(mount, login).await,
        }
    }

    async fn secret_id(&self, key: &SecretKey, wrapped: bool) -> Result<SecretId, CredentialError> {
        let value = self.secret_value(key).await?;
        Ok(if wrapped {
            SecretId::Wrapped {
                place: key.to_string(),
                token: value,
            }
        } else {
            SecretId::Plain(value)
        })
    }

    /// A token for Vault alone (TokenRequest API, KEP-1205).
    async fn service_account_token(&self, account: &Account) -> Result<Sensitive, CredentialError> {
        let Account {
            key: account,
            audiences,
            ttl,
        } = account;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audiences.clone(),
                expiration_seconds: i64::try_from(ttl.as_secs()).ok(),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let issued = timeout(
            LIMIT,
            api.create_token_request(&account.name, &PostParams::default(), &request),
        )
        .await;
        match issued {
            Ok(Ok(TokenRequest {
                status: Some(status),
                ..
            })) => Ok(Sensitive::new(status.token)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(edit(format!(
                "there is no ServiceAccount {account}; create it or correct the reference"
            ))),
            Ok(Err(kube::Error::Api(status))) => Err(retry(format!(
                "no token for ServiceAccount {account}: the apiserver says {} ({})",
                status.reason, status.code
            ))),
            Ok(Ok(_)) => Err(retry(format!(
                "no token for ServiceAccount {account}: the answer holds none"
            ))),
            Ok(Err(_)) | Err(_) => Err(retry(format!(
                "no token for ServiceAccount {account}: the apiserver cannot be reached"
            ))),
        }
    }

    /// One value of one Secret, without white space at its ends: an editor's newline is no part of a token.
    async fn secret_value(&self, key: &SecretKey) -> Result<Sensitive, CredentialError> {
        secret_value(&self.client, key).await
    }

    /// Certificate and key of a Secret that is laid out like the type `kubernetes.io/tls`, one behind the other.
    async fn certificate(&self, secret: &ObjectKey) -> Result<Sensitive, CredentialError> {
        let mut data = secret_data(&self.client, secret).await?;
        let certificate = value_of(&mut data, secret, "tls.crt")?;
        let key = value_of(&mut data, secret, "tls.key")?;
        Ok(Sensitive::new(
            [certificate.expose(), key.expose()].join(&b"\n"[..]),
        ))
    }
}

type Data = BTreeMap<String, ByteString>;

/// One value of one Secret, without white space at its ends: an editor's newline is no part of a token.
pub(super) async fn secret_value(
    client: &Client,
    key: &SecretKey,
) -> Result<Sensitive, CredentialError> {
    let SecretKey {
        secret,
        key,
        version: _,
    } = key;
    value_of(&mut secret_data(client, secret).await?, secret, key)
}

/// The data of a Secret.
async fn secret_data(client: &Client, secret: &ObjectKey) -> Result<Data, CredentialError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &secret.namespace);
    match timeout(LIMIT, api.get_opt(&secret.name)).await {
        Ok(Ok(Some(found))) => Ok(found.data.unwrap_or_default()),
        Ok(Ok(None)) => Err(edit(format!(
            "there is no Secret {secret}; create it or correct the reference"
        ))),
        Ok(Err(kube::Error::Api(status))) => Err(retry(format!(
            "cannot read Secret {secret}: the apiserver says {} ({})",
            status.reason, status.code
        ))),
        Ok(Err(_)) | Err(_) => Err(retry(format!(
            "cannot read Secret {secret}: the apiserver cannot be reached"
        ))),
    }
}

fn value_of(data: &mut Data, secret: &ObjectKey, key: &str) -> Result<Sensitive, CredentialError> {
    let value = data.remove(key).map(|bytes| Sensitive::new(bytes.0));
    let value = value.ok_or_else(|| {
        edit(format!(
            "Secret {secret} has no key {key}; add it or correct the reference"
        ))
    })?;
    let trimmed = value.expose().trim_ascii();
    if trimmed.is_empty() {
        return Err(edit(format!("key {key} of Secret {secret} is empty")));
    }
    Ok(Sensitive::new(trimmed))
}

fn edit(message: String) -> CredentialError {
    CredentialError {
        message,
        remedy: Remedy::Edit,
    }
}

fn retry(message: String) -> CredentialError {
    CredentialError {
        message,
        remedy: Remedy::Retry,
    }
}
