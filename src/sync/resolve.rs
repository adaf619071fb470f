//! Pure: from what the user wrote to values that cannot be wrong. All checks of a `VaultSecret` are here.

pub mod cloud;
pub mod fence;
pub mod login;
pub mod method;
pub mod source;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use self::{method::Method, source::Source};
use super::refusal::Refusal;
use crate::{
    api::{
        refs::{AuthKind, ConnectionKind},
        vault_secret::{CreationPolicy, DeletionPolicy, RolloutSpec, TargetSpec, VaultSecretSpec},
    },
    names::ObjectKey,
    rollout::{bind::SHORTEST_TIMEOUT, window::Windows},
    vault::path::{MountPath, VaultNamespace},
    view::{AuthView, NamespaceView},
};

/// Shortest refresh interval; below it a mistyped unit would be a load test.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What resolving needs to know of other objects, all from memory.
pub trait Lookup {
    /// The auth object of this kind and key.
    fn auth(&self, kind: AuthKind, key: &ObjectKey) -> Option<Arc<AuthView>>;
    /// Whether there is a connection of this kind and key.
    fn has_connection(&self, kind: ConnectionKind, key: &ObjectKey) -> bool;
    /// The namespace.
    fn namespace(&self, name: &str) -> Option<Arc<NamespaceView>>;
    /// What changes whenever the Secret does. `None` when it does not exist.
    fn secret_version(&self, key: &ObjectKey) -> Option<String>;
}

/// A `VaultSecret` that can be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Whom to read as.
    pub login: Login,
    /// How old the data may get.
    pub interval: Duration,
    /// What to read.
    pub sources: Vec<Source>,
    /// What to write.
    pub target: Target,
}

/// The Secret to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who creates it.
    pub creation: CreationPolicy,
    /// What becomes of it.
    pub deletion: DeletionPolicy,
}

/// Identifies a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Its kind.
    pub kind: ConnectionKind,
    /// Its namespace and name.
    pub key: ObjectKey,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.key)
    }
}

/// One identity in Vault: everything that makes two logins different.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Login {
    /// The connection to log in through.
    pub connection: ConnectionId,
    /// The auth object, for messages.
    pub auth: String,
    /// UID and generation of the auth object: an edit is another login.
    pub auth_version: (String, i64),
    /// The Vault namespace of the login, below that of the connection.
    pub namespace: Option<VaultNamespace>,
    /// Where the auth method is mounted.
    pub mount: MountPath,
    /// How to log in.
    pub method: Method,
}

impl Login {
    /// Whether the token comes from somebody else, and is not Lockstep's to revoke.
    pub fn is_given(&self) -> bool {
        matches!(self.method, Method::Token { .. })
    }
}

/// Resolves one `VaultSecret`, or says what the user has to change.
pub fn resolve(
    object: &ObjectKey,
    spec: &VaultSecretSpec,
    lookup: &impl Lookup,
    default_interval: Duration,
) -> Result<Resolved, Refusal> {
    let interval = interval(spec, default_interval)?;
    let sources = spec
        .sources
        .iter()
        .enumerate()
        .map(|(index, source)| source::resolve(index, source, object, lookup))
        .collect::<Result<Vec<_>, _>>()?;
    if sources.is_empty() {
        return Err(invalid(
            "spec.sources",
            "it is empty; name at least one source",
        ));
    }
    if let Some(spec) = &spec.rollout {
        rollout(spec)?;
    }
    let (login, fence) = login::login(object, spec.auth_ref.as_ref(), lookup)?;
    let sources = sources.into_iter().map(|source| fence.admit(source));
    Ok(Resolved {
        interval,
        sources: sources.collect::<Result<_, _>>()?,
        target: target(object, spec.target.as_ref()),
        login,
    })
}

fn invalid(field: impl Into<String>, why: impl fmt::Display) -> Refusal {
    Refusal::InvalidSpec {
        field: field.into(),
        why: why.to_string(),
    }
}

fn interval(spec: &VaultSecretSpec, default: Duration) -> Result<Duration, Refusal> {
    let Some(interval) = &spec.refresh_interval else {
        return Ok(default);
    };
    if interval.as_duration() < MIN_INTERVAL {
        return Err(invalid(
            "spec.refreshInterval",
            "it is shorter than 1s; use 1s or more",
        ));
    }
    Ok(interval.as_duration())
}

fn rollout(spec: &RolloutSpec) -> Result<(), Refusal> {
    Windows::from_spec(&spec.windows).map_err(|error| invalid(error.field, error.why))?;
    let timeout = spec.verify_timeout.as_ref();
    if timeout.is_some_and(|timeout| timeout.as_duration() < SHORTEST_TIMEOUT) {
        return Err(invalid(
            "spec.rollout.verifyTimeout",
            "it is shorter than 1s, so that every restart would count as failed; use 1s or more, such as 10m",
        ));
    }
    Ok(())
}

fn target(object: &ObjectKey, spec: Option<&TargetSpec>) -> Target {
    let TargetSpec {
        name,
        type_,
        labels,
        annotations,
        creation_policy,
        deletion_policy: _,
    } = spec.cloned().unwrap_or_default();
    let creation = creation_policy.unwrap_or_default();
    Target {
        name: name.unwrap_or_else(|| object.name.clone()),
        type_,
        labels,
        annotations,
        creation,
        deletion: deletion(spec),
    }
}

/// Whether the Secret stays when its `VaultSecret` goes.
pub fn retains(spec: &VaultSecretSpec) -> bool {
    deletion(spec.target.as_ref()) == DeletionPolicy::Retain
}

fn deletion(spec: Option<&TargetSpec>) -> DeletionPolicy {
    let creation = spec.and_then(|spec| spec.creation_policy);
    let deletion = spec.and_then(|spec| spec.deletion_policy);
    deletion.unwrap_or_else(|| match creation.unwrap_or_default() {
        CreationPolicy::Owner => DeletionPolicy::Delete,
        CreationPolicy::Merge | CreationPolicy::Orphan => DeletionPolicy::Retain,
    })
}

/// The name of the Secret a `VaultSecret` writes.
pub fn target_name<'a>(object: &'a ObjectKey, spec: &'a VaultSecretSpec) -> &'a str {
    let named = spec
        .target
        .as_ref()
        .and_then(|target| target.name.as_deref());
    named.unwrap_or(&object.name)
}

#[cfg(test)]
mod tests;
