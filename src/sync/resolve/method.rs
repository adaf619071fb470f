//! Pure: how to log in, checked, with the objects that are needed for it.

use std::time::Duration;

use super::{Lookup, cloud::CloudLogin};
use crate::{
    api::{
        duration::GoDuration,
        login::{AppRoleMethod, KubernetesMethod, LoginMethods, TokenMethod, method_names},
        refs::{SecretKeyRef, ServiceAccountRef},
        vault_auth::IdentityFrom,
    },
    names::ObjectKey,
};

/// The ServiceAccount that logs in when none is named.
const DEFAULT: &str = "default";

/// Vault's and the apiserver's shortest useful lifetime of a ServiceAccount token (TokenRequest refuses less).
const MIN_SERVICE_ACCOUNT_TOKEN: Duration = Duration::from_mins(10);

/// Longest lifetime asked for; anything a login needs is over in seconds.
const MAX_SERVICE_ACCOUNT_TOKEN: Duration = Duration::from_hours(24);

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// With a token of a ServiceAccount.
    Kubernetes {
        /// Role of the auth method.
        role: String,
        /// The ServiceAccount.
        service_account: ObjectKey,
        /// Audiences of its token.
        audiences: Vec<String>,
        /// Lifetime of its token.
        ttl: Duration,
    },
    /// With a role id and a secret id.
    AppRole {
        /// The role id, or where it stands.
        role_id: RoleId,
        /// Where the secret id stands.
        secret_id: SecretKey,
    },
    /// With a token as it is.
    Token {
        /// Where the token stands.
        token: SecretKey,
    },
    /// With an identity of a cloud.
    Cloud(CloudLogin),
}

/// A role id, or where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoleId {
    /// The role id itself; it is no secret.
    Given(String),
    /// In a Secret.
    Read(SecretKey),
}

/// One key of one Secret as of one version, so that a changed Secret is another login.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretKey {
    /// The Secret.
    pub secret: ObjectKey,
    /// The key in it.
    pub key: String,
    /// Version of the Secret; `None` when it does not exist.
    pub version: Option<String>,
}

impl Method {
    /// Where it is mounted when nothing is said.
    pub fn usual_mount(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::AppRole { .. } => "approle",
            Self::Token { .. } => "token",
            Self::Cloud(login) => login.usual_mount(),
        }
    }

    /// Who logs in, for messages.
    pub fn subject(&self) -> String {
        match self {
            Self::Kubernetes {
                service_account, ..
            } => format!("ServiceAccount {service_account}"),
            Self::AppRole {
                secret_id: secret, ..
            }
            | Self::Token { token: secret } => format!("Secret {}", secret.secret),
            Self::Cloud(login) => login.subject(),
        }
    }
}

/// In which namespace the objects of a login are, and what is known of them.
pub(super) struct Home<'a, L> {
    pub(super) identity_from: IdentityFrom,
    pub(super) consumer: &'a str,
    pub(super) lookup: &'a L,
}

impl<L: Lookup> Home<'_, L> {
    /// The one method that is set, or what is wrong with it.
    pub(super) fn method(&self, methods: &LoginMethods) -> Result<Method, String> {
        let LoginMethods {
            kubernetes,
            app_role,
            token,
            aws,
            gcp,
            azure,
        } = methods;
        let found = [
            kubernetes.as_ref().map(|method| self.kubernetes(method)),
            app_role.as_ref().map(|method| self.app_role(method)),
            token.as_ref().map(|method| self.token(method)),
            aws.as_ref().map(|method| self.aws(method)),
            gcp.as_ref().map(|method| self.gcp(method)),
            azure.as_ref().map(|method| self.azure(method)),
        ];
        let mut found = found.into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(method), None) => method,
            (_, _) => Err(format!(
                "spec needs exactly one login method: {}",
                method_names()
            )),
        }
    }

    fn kubernetes(&self, method: &KubernetesMethod) -> Result<Method, String> {
        let ttl = method
            .token_ttl
            .as_ref()
            .map_or(MIN_SERVICE_ACCOUNT_TOKEN, GoDuration::as_duration);
        if !(MIN_SERVICE_ACCOUNT_TOKEN..=MAX_SERVICE_ACCOUNT_TOKEN).contains(&ttl) {
            return Err("spec.kubernetes.tokenTTL must be from 10m to 24h".to_owned());
        }
        if method.audiences.is_empty() {
            return Err(
                "spec.kubernetes.audiences is empty; name the audience Vault expects".to_owned(),
            );
        }
        Ok(Method::Kubernetes {
            role: method.role.clone(),
            service_account: self.service_account(method.service_account_ref.as_ref())?,
            audiences: method.audiences.clone(),
            ttl,
        })
    }

    fn app_role(&self, method: &AppRoleMethod) -> Result<Method, String> {
        let role_id = match (&method.role_id, &method.role_id_ref) {
            (Some(role_id), None) => RoleId::Given(role_id.clone()),
            (None, Some(reference)) => RoleId::Read(self.secret(reference)?),
            (Some(_), Some(_)) | (None, None) => {
                return Err("spec.appRole needs exactly one of roleId and roleIdRef".to_owned());
            }
        };
        let secret_id = self.secret(&method.secret_id_ref)?;
        Ok(Method::AppRole { role_id, secret_id })
    }

    fn token(&self, method: &TokenMethod) -> Result<Method, String> {
        let token = self.secret(&method.secret_ref)?;
        Ok(Method::Token { token })
    }

    fn service_account(&self, named: Option<&ServiceAccountRef>) -> Result<ObjectKey, String> {
        let namespace = self.namespace(named.and_then(|account| account.namespace.as_deref()))?;
        let name = named.map_or(DEFAULT, |account| &account.name);
        Ok(ObjectKey::new(namespace, name))
    }

    pub(super) fn secret(&self, reference: &SecretKeyRef) -> Result<SecretKey, String> {
        let namespace = self.namespace(reference.namespace.as_deref())?;
        let secret = ObjectKey::new(namespace, &reference.name);
        Ok(SecretKey {
            version: self.lookup.secret_version(&secret),
            key: reference.key.clone(),
            secret,
        })
    }

    /// A tenant must not choose a namespace, and a fixed login must not depend on the tenant.
    pub(super) fn namespace(&self, named: Option<&str>) -> Result<String, String> {
        match (self.identity_from, named) {
            (IdentityFrom::Consumer, None) => Ok(self.consumer.to_owned()),
            (IdentityFrom::Fixed, Some(namespace)) => Ok(namespace.to_owned()),
            (IdentityFrom::Consumer, Some(_)) => {
                Err("a reference of the login names a namespace; remove it, or use a ClusterVaultAuth with identityFrom: Fixed".to_owned())
            }
            (IdentityFrom::Fixed, None) => {
                Err("with identityFrom: Fixed every reference of the login needs a namespace".to_owned())
            }
        }
    }
}
