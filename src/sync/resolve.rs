//! Pure: from what the user wrote to values that cannot be wrong. All checks of a `VaultSecret` are here.

pub mod cloud;
pub mod login;
pub mod method;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use self::method::Method;
use super::refusal::Refusal;
use crate::{
    api::{
        refs::{AuthKind, ConnectionKind},
        vault_secret::{
            CreationPolicy, DeletionPolicy, KeysSpec, KvSource, SourceSpec, TargetSpec,
            VaultSecretSpec,
        },
    },
    names::ObjectKey,
    vault::{
        path::{MountPath, SecretPath},
        readings,
        request::KvVersion,
    },
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

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Where the engine is mounted.
    pub mount: MountPath,
    /// Path below the mount.
    pub path: SecretPath,
    /// Version of the engine, if the user said.
    pub engine: Option<KvVersion>,
    /// Version of the secret, if pinned.
    pub version: Option<u64>,
    /// Which keys to take, and under which names.
    pub keys: KeysSpec,
}

impl Source {
    /// Where it is, as the shared reads know it.
    pub fn place(&self) -> readings::Source {
        readings::Source {
            namespace: None,
            mount: self.mount.clone(),
            path: self.path.clone(),
            engine: self.engine,
            version: self.version,
        }
    }
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
    /// Where the auth method is mounted.
    pub mount: MountPath,
    /// How to log in.
    pub method: Method,
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
        .map(|(index, source)| resolve_source(index, source))
        .collect::<Result<Vec<_>, _>>()?;
    if sources.is_empty() {
        return Err(invalid(
            "spec.sources",
            "it is empty; name at least one source",
        ));
    }
    Ok(Resolved {
        interval,
        sources,
        target: target(object, spec.target.as_ref()),
        login: login::login(object, spec.auth_ref.as_ref(), lookup)?,
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

fn resolve_source(index: usize, source: &SourceSpec) -> Result<Source, Refusal> {
    let SourceSpec { name, kv, keys } = source;
    let field = |rest: &str| format!("spec.sources[{index}].{rest}");
    let Some(KvSource {
        mount,
        path,
        engine_version,
        version,
    }) = kv
    else {
        return Err(invalid(
            field("kv"),
            "each source needs exactly one kind; set kv",
        ));
    };
    let engine = match engine_version {
        None => None,
        Some(1) => Some(KvVersion::V1),
        Some(2) => Some(KvVersion::V2),
        Some(_) => return Err(invalid(field("kv.engineVersion"), "it must be 1 or 2")),
    };
    if version.is_some() && engine == Some(KvVersion::V1) {
        return Err(invalid(
            field("kv.version"),
            "a version 1 engine keeps no versions; remove it",
        ));
    }
    Ok(Source {
        name: name.clone(),
        mount: MountPath::parse(mount).map_err(|error| invalid(field("kv.mount"), error))?,
        path: SecretPath::parse(path).map_err(|error| invalid(field("kv.path"), error))?,
        engine,
        version: version.map(i64::unsigned_abs),
        keys: keys.clone().unwrap_or_default(),
    })
}

fn target(object: &ObjectKey, spec: Option<&TargetSpec>) -> Target {
    let TargetSpec {
        name,
        type_,
        labels,
        annotations,
        creation_policy,
        deletion_policy,
    } = spec.cloned().unwrap_or_default();
    let creation = creation_policy.unwrap_or_default();
    Target {
        name: name.unwrap_or_else(|| object.name.clone()),
        type_,
        labels,
        annotations,
        creation,
        deletion: deletion_policy.unwrap_or(match creation {
            CreationPolicy::Owner => DeletionPolicy::Delete,
            CreationPolicy::Merge | CreationPolicy::Orphan => DeletionPolicy::Retain,
        }),
    }
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
