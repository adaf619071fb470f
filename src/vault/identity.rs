//! Pure: who logs in, and with what.

use std::fmt;
use std::sync::Arc;

use super::error::VaultError;
use super::path::{MountPath, UserName};
use super::request::Request;
use crate::cloud::{aws::CallerIdentity, azure::Machine};
use crate::sensitive::Sensitive;

/// Names one identity at one Vault. Two requests with equal keys share a token, so the key holds
/// everything the token depends on, down to the versions of the objects it was read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityKey(Arc<IdentityParts>);

/// The parts of an [`IdentityKey`]. No part may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityParts {
    /// Which Vault.
    pub connection: String,
    /// Changes with the server behind it, and with whom it is trusted to be; not shown.
    pub server: String,
    /// Which auth object describes the login.
    pub auth: String,
    /// Who logs in by it.
    pub subject: String,
    /// Versions of all of these; not shown.
    pub revision: String,
}

impl IdentityKey {
    /// The key of these parts.
    pub fn new(parts: IdentityParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Everything the token depends on.
    pub(super) fn login(&self) -> [String; 5] {
        let IdentityParts {
            connection,
            server,
            auth,
            subject,
            revision,
        } = &*self.0;
        [connection, server, auth, subject, revision].map(Clone::clone)
    }

    /// Where it may be sent.
    pub(super) fn server(&self) -> [String; 2] {
        [&self.0.connection, &self.0.server].map(Clone::clone)
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdentityParts {
            connection,
            server: _,
            auth,
            subject,
            revision: _,
        } = &*self.0;
        write!(f, "{subject} by {auth} at {connection}")
    }
}

/// What to log in with.
#[derive(Debug, Clone)]
pub enum LoginMethod {
    /// A Kubernetes or JWT auth method.
    Jwt {
        /// Where the method is mounted.
        mount: MountPath,
        /// The role.
        role: String,
        /// The token to show.
        jwt: Sensitive,
    },
    /// An AppRole auth method.
    AppRole {
        /// Where the method is mounted.
        mount: MountPath,
        /// The role id.
        role_id: Sensitive,
        /// The secret id.
        secret_id: SecretId,
    },
    /// A userpass or LDAP auth method.
    Password {
        /// Where the method is mounted.
        mount: MountPath,
        /// Whose password it is.
        user: UserName,
        /// The password.
        password: Sensitive,
    },
    /// A TLS certificate auth method.
    Certificate {
        /// Where the method is mounted.
        mount: MountPath,
        /// The role; without one Vault tries all that take the certificate.
        role: Option<String>,
        /// PEM of the certificate, what it was signed with, and its key.
        certificate: Sensitive,
    },
    /// An AWS auth method, type `iam`.
    Aws {
        /// Where the method is mounted.
        mount: MountPath,
        /// The role.
        role: String,
        /// Tells who signed it.
        identity: CallerIdentity,
    },
    /// An Azure auth method.
    Azure {
        /// Where the method is mounted.
        mount: MountPath,
        /// The role.
        role: String,
        /// The access token to show.
        jwt: Sensitive,
        /// What the role may be bound to.
        machine: Machine,
    },
    /// No login: a Vault token made by someone else. It is renewed if it can be, and never revoked.
    /// Its policies must allow `auth/token/lookup-self`, as Vault's default policy does.
    Token(Sensitive),
}

/// A secret id as it was handed over.
#[derive(Debug, Clone)]
pub enum SecretId {
    /// As it is.
    Plain(Sensitive),
    /// Response-wrapped.
    Wrapped {
        /// Where the wrapping token was found, for people: `key k of Secret shop/login`.
        place: String,
        /// The wrapping token. It works once.
        token: Sensitive,
    },
}

/// What a login method comes down to.
#[derive(Debug)]
pub(super) enum LoginStep {
    /// Send this.
    Send(Request),
    /// Send this password: each try with a wrong one brings its user nearer to being locked out.
    SendPassword(Request),
    /// Send this over a connection with a client certificate of its own.
    SendCertified(Request, Sensitive),
    /// Unwrap the secret id first.
    Unwrap {
        mount: MountPath,
        role_id: Sensitive,
        place: String,
        token: Sensitive,
    },
    /// It is a token already.
    Adopt(Sensitive),
}

impl LoginMethod {
    pub(super) fn step(self) -> Result<LoginStep, VaultError> {
        match self {
            Self::Jwt { mount, role, jwt } => {
                Request::jwt_login(&mount, &role, &jwt).map(LoginStep::Send)
            }
            Self::AppRole {
                mount,
                role_id,
                secret_id: SecretId::Plain(secret_id),
            } => Request::app_role_login(&mount, &role_id, &secret_id).map(LoginStep::Send),
            Self::AppRole {
                mount,
                role_id,
                secret_id: SecretId::Wrapped { place, token },
            } => Ok(LoginStep::Unwrap {
                mount,
                role_id,
                place,
                token,
            }),
            Self::Password {
                mount,
                user,
                password,
            } => Request::password_login(&mount, &user, &password).map(LoginStep::SendPassword),
            Self::Certificate {
                mount,
                role,
                certificate,
            } => Request::certificate_login(&mount, role.as_deref())
                .map(|request| LoginStep::SendCertified(request, certificate)),
            Self::Aws {
                mount,
                role,
                identity,
            } => Request::aws_login(&mount, &role, &identity).map(LoginStep::Send),
            Self::Azure {
                mount,
                role,
                jwt,
                machine,
            } => Request::azure_login(&mount, &role, &jwt, &machine).map(LoginStep::Send),
            Self::Token(token) => Ok(LoginStep::Adopt(token)),
        }
    }
}

/// The credential for a login could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CredentialError {
    /// For people; without any value.
    pub message: String,
    /// Whether it heals on its own.
    pub remedy: Remedy,
}

/// What helps against a [`CredentialError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Trying again.
    Retry,
    /// Only an edit by the user: tried again rarely.
    Edit,
}
