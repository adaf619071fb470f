//! Pure: how to log in, checked, with the objects that are needed for it.

use std::{fmt, time::Duration};

use super::{Lookup, cloud::CloudLogin};
use crate::{
    api::{
        duration::GoDuration,
        login::{
            AppRoleMethod, CertMethod, JwtMethod, KubernetesMethod, LoginMethods, PasswordMethod,
            TokenMethod, method_names,
        },
        refs::{SecretKeyRef, SecretRef, ServiceAccountRef},
        vault_auth::IdentityFrom,
    },
    names::ObjectKey,
    vault::path::UserName,
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
    /// With a token of a ServiceAccount that the apiserver confirms.
    Kubernetes {
        /// Role of the auth method.
        role: String,
        /// Whose token.
        account: Account,
    },
    /// With a role id and a secret id.
    AppRole {
        /// The role id, or where it stands.
        role_id: RoleId,
        /// Where the secret id stands.
        secret_id: SecretKey,
        /// Whether that is a wrapping token.
        wrapped: bool,
    },
    /// With a token as it is.
    Token {
        /// Where the token stands.
        token: SecretKey,
    },
    /// With a JWT.
    Jwt {
        /// Role of the auth method.
        role: String,
        /// Whose token, or where one stands.
        jwt: Jwt,
    },
    /// With a TLS client certificate.
    Cert {
        /// Role of the auth method.
        role: Option<String>,
        /// The Secret with the certificate and its key.
        secret: ObjectKey,
        /// Version of the Secret; `None` when it does not exist.
        version: Option<String>,
    },
    /// With a password that Vault keeps.
    UserPass(Password),
    /// With a password that a directory server checks.
    Ldap(Password),
    /// With an identity of a cloud.
    Cloud(CloudLogin),
}

/// A ServiceAccount, and what its token is to be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// The ServiceAccount.
    pub key: ObjectKey,
    /// Audiences of its token.
    pub audiences: Vec<String>,
    /// Lifetime of its token.
    pub ttl: Duration,
}

/// Where a JWT comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Jwt {
    /// From the apiserver.
    Issued(Account),
    /// From a Secret.
    Read(SecretKey),
}

/// A user and where his password stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Password {
    /// The user.
    pub user: UserName,
    /// Where the password stands.
    pub password: SecretKey,
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

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} of Secret {}", self.key, self.secret)
    }
}

impl Method {
    /// Where it is mounted when nothing is said.
    pub fn usual_mount(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::AppRole { .. } => "approle",
            Self::Token { .. } => "token",
            Self::Jwt { .. } => "jwt",
            Self::Cert { .. } => "cert",
            Self::UserPass(_) => "userpass",
            Self::Ldap(_) => "ldap",
            Self::Cloud(login) => login.usual_mount(),
        }
    }

    /// Who logs in, for messages.
    pub fn subject(&self) -> String {
        match self {
            Self::Kubernetes { account, .. }
            | Self::Jwt {
                jwt: Jwt::Issued(account),
                ..
            } => format!("ServiceAccount {}", account.key),
            Self::AppRole {
                secret_id: SecretKey { secret, .. },
                ..
            }
            | Self::Token {
                token: SecretKey { secret, .. },
            }
            | Self::Jwt {
                jwt: Jwt::Read(SecretKey { secret, .. }),
                ..
            }
            | Self::Cert { secret, .. } => format!("Secret {secret}"),
            Self::UserPass(Password { user, .. }) | Self::Ldap(Password { user, .. }) => {
                format!("user {user}")
            }
            Self::Cloud(login) => login.subject(),
        }
    }

    /// What to look at when Vault refuses the login: fields of the auth object, objects, and what is in Vault.
    pub fn advice(&self) -> String {
        match self {
            Self::Kubernetes { role, account } => format!(
                "check spec.kubernetes: role {role} must exist and take ServiceAccount {} and one of the audiences {}",
                account.key,
                account.audiences.join(", ")
            ),
            Self::AppRole {
                secret_id, wrapped, ..
            } => {
                let what = if *wrapped {
                    "the secret id that was wrapped in"
                } else {
                    "the secret id in"
                };
                format!(
                    "check spec.appRole: the role id must be right, and {what} {secret_id} neither expired nor used up nor another role's"
                )
            }
            Self::Token { token } => format!(
                "check spec.token: {token} must be a living token that may use auth/token/lookup-self"
            ),
            Self::Jwt {
                role,
                jwt: Jwt::Issued(account),
            } => format!(
                "check spec.jwt: role {role} must exist and take ServiceAccount {} (its sub) and one of the audiences {}, and the mount must trust the issuer of the cluster",
                account.key,
                account.audiences.join(", ")
            ),
            Self::Jwt {
                role,
                jwt: Jwt::Read(key),
            } => format!(
                "check spec.jwt: role {role} must exist and take the JWT in {key}: its issuer, audience and claims, and it must not have expired"
            ),
            Self::Cert { role, secret, .. } => format!(
                "check spec.cert: {} must take the certificate in key tls.crt of Secret {secret}, and it must not have expired",
                role.as_ref()
                    .map_or_else(|| "a role".to_owned(), |role| format!("role {role}"))
            ),
            Self::UserPass(login) => advice_on_password("userPass", login),
            Self::Ldap(login) => advice_on_password("ldap", login),
            Self::Cloud(login) => login.advice(),
        }
    }
}

fn advice_on_password(field: &str, login: &Password) -> String {
    format!(
        "check spec.{field}: user {} must exist, and {} be the password",
        login.user, login.password
    )
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
            jwt,
            cert,
            user_pass,
            ldap,
            aws,
            gcp,
            azure,
        } = methods;
        let found = [
            kubernetes.as_ref().map(|method| self.kubernetes(method)),
            app_role.as_ref().map(|method| self.app_role(method)),
            token.as_ref().map(|method| self.token(method)),
            jwt.as_ref().map(|method| self.jwt(method)),
            cert.as_ref().map(|method| self.cert(method)),
            user_pass
                .as_ref()
                .map(|method| self.password("userPass", method).map(Method::UserPass)),
            ldap.as_ref()
                .map(|method| self.password("ldap", method).map(Method::Ldap)),
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
        let account = self.account(
            "kubernetes",
            method.service_account_ref.as_ref(),
            &method.audiences,
            method.token_ttl.as_ref(),
        )?;
        Ok(Method::Kubernetes {
            role: method.role.clone(),
            account,
        })
    }

    fn jwt(&self, method: &JwtMethod) -> Result<Method, String> {
        let jwt = match (&method.service_account_ref, &method.secret_ref) {
            (Some(account), None) => {
                let ttl = method.token_ttl.as_ref();
                Jwt::Issued(self.account("jwt", Some(account), &method.audiences, ttl)?)
            }
            (None, Some(reference)) => Jwt::Read(self.secret(reference)?),
            (Some(_), Some(_)) | (None, None) => {
                return Err(
                    "spec.jwt needs exactly one of serviceAccountRef and secretRef".to_owned(),
                );
            }
        };
        Ok(Method::Jwt {
            role: method.role.clone(),
            jwt,
        })
    }

    fn cert(&self, method: &CertMethod) -> Result<Method, String> {
        let SecretRef { name, namespace } = &method.secret_ref;
        let secret = ObjectKey::new(self.namespace(namespace.as_deref())?, name);
        Ok(Method::Cert {
            role: method.role.clone(),
            version: self.lookup.secret_version(&secret),
            secret,
        })
    }

    fn password(&self, field: &str, method: &PasswordMethod) -> Result<Password, String> {
        let user = UserName::parse(&method.username);
        Ok(Password {
            user: user.map_err(|error| format!("spec.{field}.username: {error}"))?,
            password: self.secret(&method.password_ref)?,
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
        Ok(Method::AppRole {
            role_id,
            secret_id,
            wrapped: method.secret_id_wrapped.unwrap_or_default(),
        })
    }

    fn token(&self, method: &TokenMethod) -> Result<Method, String> {
        let token = self.secret(&method.secret_ref)?;
        Ok(Method::Token { token })
    }

    fn account(
        &self,
        field: &str,
        named: Option<&ServiceAccountRef>,
        audiences: &[String],
        ttl: Option<&GoDuration>,
    ) -> Result<Account, String> {
        let ttl = ttl.map_or(MIN_SERVICE_ACCOUNT_TOKEN, GoDuration::as_duration);
        if !(MIN_SERVICE_ACCOUNT_TOKEN..=MAX_SERVICE_ACCOUNT_TOKEN).contains(&ttl) {
            return Err(format!("spec.{field}.tokenTTL must be from 10m to 24h"));
        }
        if audiences.is_empty() {
            return Err(format!(
                "spec.{field}.audiences is empty; name the audience Vault expects"
            ));
        }
        let namespace = self.namespace(named.and_then(|account| account.namespace.as_deref()))?;
        let name = named.map_or(DEFAULT, |account| &account.name);
        Ok(Account {
            key: ObjectKey::new(namespace, name),
            audiences: audiences.to_vec(),
            ttl,
        })
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
