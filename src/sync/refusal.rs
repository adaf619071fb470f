//! Pure: what we will not do, and what the user can do about it.
//!
//! A refusal is not an error: it waits for somebody to change an object, and is not retried meanwhile.

use crate::{
    api::refs::{AuthKind, ConnectionKind},
    view::Undecodable,
};

/// Why a `VaultSecret` is not acted on.
///
/// The message names the field, what is wrong with it and what to do; never a value from Vault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object was written under another schema.
    #[error("{}: {}; correct it with kubectl edit or kubectl replace (the apiserver cannot apply server-side to such an object)", .0.field, .0.why)]
    Undecodable(Undecodable),
    /// A field of the spec cannot be used as it is.
    #[error("{field}: {why}")]
    InvalidSpec {
        /// Path of the field.
        field: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// No `authRef`, and no default that this namespace may use.
    #[error(
        "spec.authRef: it is not set, and there is neither a VaultAuth named default in namespace {namespace} nor a ClusterVaultAuth named default that allows this namespace; create one or set spec.authRef"
    )]
    NoDefaultAuth {
        /// Namespace of the `VaultSecret`.
        namespace: String,
    },
    /// The auth object named is not there.
    #[error("spec.authRef: there is no {} named {name}{}; create it or correct the reference", auth_kind(*.kind), in_namespace(.namespace.as_deref()))]
    AuthNotFound {
        /// Kind of the reference.
        kind: AuthKind,
        /// Name of the reference.
        name: String,
        /// Namespace searched, if the kind has one.
        namespace: Option<String>,
    },
    /// The ClusterVaultAuth does not allow the namespace.
    #[error(
        "spec.authRef: ClusterVaultAuth {name} does not allow namespace {namespace}; add it to spec.allowedNamespaces there"
    )]
    AuthNotAllowed {
        /// Name of the ClusterVaultAuth.
        name: String,
        /// Namespace of the `VaultSecret`.
        namespace: String,
    },
    /// The login is not for this path.
    #[error(
        "spec.sources[{source_name}]: {auth} is not for the path {path}: no pattern of its spec.allowedPaths matches; correct the path, or have a pattern added there"
    )]
    PathNotAllowed {
        /// Name of the source.
        source_name: String,
        /// The path in Vault.
        path: String,
        /// Which auth object.
        auth: String,
    },
    /// The auth object is itself unusable.
    #[error("{auth}: {why}")]
    AuthUnusable {
        /// Which auth object.
        auth: String,
        /// What is wrong with it.
        why: String,
    },
    /// The connection the auth object names is not there.
    #[error("{auth}: spec.connectionRef: there is no {} named {name}{}; create it or correct the reference", connection_kind(*.kind), in_namespace(.namespace.as_deref()))]
    ConnectionNotFound {
        /// Which auth object.
        auth: String,
        /// Kind of the reference.
        kind: ConnectionKind,
        /// Name of the reference.
        name: String,
        /// Namespace searched, if the kind has one.
        namespace: Option<String>,
    },
    /// The connection is itself unusable.
    #[error("{connection}: {why}")]
    ConnectionUnusable {
        /// Which connection.
        connection: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key is not one Kubernetes allows.
    #[error(
        "spec.sources[{source_name}]: key {key:?} is not allowed in a Secret (letters, digits, '-', '_' and '.', at most 253); rename it under keys.rename or leave it out under keys.exclude"
    )]
    KeyNotAllowed {
        /// Name of the source.
        source_name: String,
        /// The key, shortened.
        key: String,
    },
    /// Two sources give the same key.
    #[error(
        "spec.sources: key {key} comes from both {first} and {second}; rename or exclude it in one of them under keys"
    )]
    KeyConflict {
        /// The key.
        key: String,
        /// Name of the source that gave it first.
        first: String,
        /// Name of the other one.
        second: String,
    },
    /// Two values of one source get the same key.
    #[error(
        "spec.sources[{source_name}]: key {key} comes from both {first} and {second}; rename one of them under keys, or leave it out there or with find.match"
    )]
    KeyConflictWithin {
        /// Name of the source.
        source_name: String,
        /// The key.
        key: String,
        /// What the value that gave it first is called in Vault.
        first: String,
        /// What the other one is called.
        second: String,
    },
    /// No key is left.
    #[error("spec.sources: nothing is left to write: {why}")]
    NoKeys {
        /// Which sources gave nothing, and why.
        why: String,
    },
    /// More than a Secret can hold.
    #[error(
        "spec.sources: together they hold {bytes} bytes, more than the {limit} a Secret can hold; leave keys out under keys.exclude or split the VaultSecret"
    )]
    TooLarge {
        /// Bytes there are.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A Secret of that name belongs to somebody else.
    #[error(
        "spec.target.name: Secret {name} exists and was not created by Lockstep, so it is not overwritten; choose another name, delete that Secret, or set creationPolicy: Merge to add keys to it"
    )]
    TargetForeign {
        /// Name of the Secret.
        name: String,
    },
    /// Another `VaultSecret` writes that Secret.
    #[error("spec.target.name: Secret {name} is kept by VaultSecret {other}; choose another name")]
    TargetTaken {
        /// Name of the Secret.
        name: String,
        /// Name of the other `VaultSecret`.
        other: String,
    },
    /// There is nothing to merge into.
    #[error(
        "spec.target.name: there is no Secret {name} to merge into (creationPolicy: Merge); create it or use creationPolicy: Owner"
    )]
    TargetMissing {
        /// Name of the Secret.
        name: String,
    },
    /// The apiserver says that somebody else owns a field we would write.
    #[error(
        "spec.target.name: Secret {name}: {why}; remove the key there, or rename it here under keys.rename"
    )]
    TargetConflict {
        /// Name of the Secret.
        name: String,
        /// The apiserver's words: field and field manager.
        why: String,
    },
    /// Somebody else changes what was issued for the Secret, again and again.
    #[error(
        "spec.target.name: Secret {name}: {how} again and again, and each time what Vault issued is lost; it is issued anew, but at most once an hour in the end; have whoever does it leave this Secret alone, or choose another name"
    )]
    TargetFoughtOver {
        /// Name of the Secret.
        name: String,
        /// What happens, with the key and the field manager if they are known.
        how: String,
    },
    /// The apiserver refuses the Secret as it would be.
    #[error("spec.target: the apiserver refuses Secret {name}: {why}")]
    TargetInvalid {
        /// Name of the Secret.
        name: String,
        /// The apiserver's words about the fields, without any value.
        why: String,
    },
}

impl Refusal {
    /// The word that log, event, condition and metric print.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "Undecodable",
            Self::InvalidSpec { .. } => "InvalidSpec",
            Self::NoDefaultAuth { .. } => "NoDefaultAuth",
            Self::AuthNotFound { .. } => "AuthNotFound",
            Self::AuthNotAllowed { .. } => "AuthNotAllowed",
            Self::PathNotAllowed { .. } => "PathNotAllowed",
            Self::AuthUnusable { .. } => "AuthUnusable",
            Self::ConnectionNotFound { .. } => "ConnectionNotFound",
            Self::ConnectionUnusable { .. } => "ConnectionUnusable",
            Self::KeyNotAllowed { .. } => "KeyNotAllowed",
            Self::KeyConflict { .. } | Self::KeyConflictWithin { .. } => "KeyConflict",
            Self::NoKeys { .. } => "NoKeys",
            Self::TooLarge { .. } => "TooLarge",
            Self::TargetForeign { .. } => "TargetForeign",
            Self::TargetTaken { .. } => "TargetTaken",
            Self::TargetMissing { .. } => "TargetMissing",
            Self::TargetConflict { .. } | Self::TargetFoughtOver { .. } => "TargetConflict",
            Self::TargetInvalid { .. } => "TargetInvalid",
        }
    }

    /// Whether it may end by a change in Vault, of which no event tells: then the sources are still polled.
    pub fn may_heal_in_vault(&self) -> bool {
        matches!(
            self,
            Self::KeyNotAllowed { .. }
                | Self::KeyConflict { .. }
                | Self::KeyConflictWithin { .. }
                | Self::NoKeys { .. }
                | Self::TooLarge { .. }
                | Self::TargetInvalid { .. }
        )
    }
}

fn auth_kind(kind: AuthKind) -> &'static str {
    match kind {
        AuthKind::VaultAuth => "VaultAuth",
        AuthKind::ClusterVaultAuth => "ClusterVaultAuth",
    }
}

fn connection_kind(kind: ConnectionKind) -> &'static str {
    match kind {
        ConnectionKind::VaultConnection => "VaultConnection",
        ConnectionKind::ClusterVaultConnection => "ClusterVaultConnection",
    }
}

fn in_namespace(namespace: Option<&str>) -> String {
    namespace
        .map(|namespace| format!(" in namespace {namespace}"))
        .unwrap_or_default()
}
