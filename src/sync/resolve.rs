//! Pure: from what the user wrote to values that cannot be wrong. All checks of a `VaultSecret` are here.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use super::refusal::Refusal;
use crate::{
    api::{
        duration::GoDuration,
        refs::{AuthKind, AuthRef, ConnectionKind, SecretKeyRef},
        vault_auth::{AllowedNamespaces, AppRoleMethod, AuthSpec, IdentityFrom, KubernetesMethod},
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

/// Vault's and the apiserver's shortest useful lifetime of a ServiceAccount token (TokenRequest refuses less).
const MIN_SERVICE_ACCOUNT_TOKEN: Duration = Duration::from_mins(10);

/// Longest lifetime asked for; anything a login needs is over in seconds.
const MAX_SERVICE_ACCOUNT_TOKEN: Duration = Duration::from_hours(24);

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
        login: login(object, spec.auth_ref.as_ref(), lookup)?,
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

/// Name of the auth objects that are used when none is named.
const DEFAULT: &str = "default";

fn login(
    object: &ObjectKey,
    reference: Option<&AuthRef>,
    lookup: &impl Lookup,
) -> Result<Login, Refusal> {
    let namespace = object.namespace.as_str();
    let (kind, key, view) = match reference {
        Some(AuthRef { kind, name }) => named_auth(namespace, *kind, name, lookup)?,
        None => default_auth(namespace, lookup)?,
    };
    login_of(kind, &key, &view, namespace, lookup)
}

/// Checks an auth object by itself, as far as that is possible without a consumer.
pub fn check_auth(
    kind: AuthKind,
    key: &ObjectKey,
    view: &AuthView,
    lookup: &impl Lookup,
) -> Result<(), Refusal> {
    login_of(kind, key, view, &key.namespace, lookup).map(|_| ())
}

fn login_of(
    kind: AuthKind,
    key: &ObjectKey,
    view: &AuthView,
    namespace: &str,
    lookup: &impl Lookup,
) -> Result<Login, Refusal> {
    let auth = format!("{kind:?} {key}");
    let spec = view
        .spec
        .as_ref()
        .map_err(|undecodable| Refusal::AuthUnusable {
            auth: auth.clone(),
            why: format!("{}: {}", undecodable.field, undecodable.why),
        })?;
    let connection = connection(&auth, kind, namespace, spec, lookup)?;
    let (mount, method) = method(&auth, spec, namespace, lookup)?;
    Ok(Login {
        connection,
        auth_version: (view.uid.clone(), view.generation),
        mount,
        method,
        auth,
    })
}

type FoundAuth = (AuthKind, ObjectKey, Arc<AuthView>);

fn named_auth(
    namespace: &str,
    kind: AuthKind,
    name: &str,
    lookup: &impl Lookup,
) -> Result<FoundAuth, Refusal> {
    let (key, searched) = match kind {
        AuthKind::VaultAuth => (ObjectKey::new(namespace, name), Some(namespace.to_owned())),
        AuthKind::ClusterVaultAuth => (ObjectKey::cluster(name), None),
    };
    let view = lookup
        .auth(kind, &key)
        .ok_or_else(|| Refusal::AuthNotFound {
            kind,
            name: name.to_owned(),
            namespace: searched,
        })?;
    if !allows(&view, namespace, lookup) {
        return Err(Refusal::AuthNotAllowed {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        });
    }
    Ok((kind, key, view))
}

/// The allow-list holds for the default too: one that does not allow the namespace is as good as absent.
fn default_auth(namespace: &str, lookup: &impl Lookup) -> Result<FoundAuth, Refusal> {
    [
        (AuthKind::VaultAuth, ObjectKey::new(namespace, DEFAULT)),
        (AuthKind::ClusterVaultAuth, ObjectKey::cluster(DEFAULT)),
    ]
    .into_iter()
    .find_map(|(kind, key)| {
        let view = lookup.auth(kind, &key)?;
        allows(&view, namespace, lookup).then_some((kind, key, view))
    })
    .ok_or_else(|| Refusal::NoDefaultAuth {
        namespace: namespace.to_owned(),
    })
}

/// Whether objects of `namespace` may use this login. An undecodable one is reported later, not hidden here.
fn allows(view: &AuthView, namespace: &str, lookup: &impl Lookup) -> bool {
    let Ok(spec) = &view.spec else {
        return true;
    };
    let Some(AllowedNamespaces { names, selector }) = &spec.allowed_namespaces else {
        return true;
    };
    if names.iter().any(|name| name == "*" || name == namespace) {
        return true;
    }
    let Some(selector) = selector
        .as_ref()
        .filter(|selector| !selector.match_labels.is_empty())
    else {
        return false;
    };
    lookup.namespace(namespace).is_some_and(|found| {
        selector
            .match_labels
            .iter()
            .all(|(label, value)| found.labels.get(label) == Some(value))
    })
}

fn connection(
    auth: &str,
    auth_kind: AuthKind,
    namespace: &str,
    spec: &AuthSpec,
    lookup: &impl Lookup,
) -> Result<ConnectionId, Refusal> {
    let reference = &spec.connection_ref;
    if auth_kind == AuthKind::ClusterVaultAuth && reference.kind == ConnectionKind::VaultConnection
    {
        return Err(Refusal::AuthUnusable {
            auth: auth.to_owned(),
            why: "spec.connectionRef.kind must be ClusterVaultConnection".to_owned(),
        });
    }
    let (key, searched) = match reference.kind {
        ConnectionKind::VaultConnection => (
            ObjectKey::new(namespace, &reference.name),
            Some(namespace.to_owned()),
        ),
        ConnectionKind::ClusterVaultConnection => (ObjectKey::cluster(&reference.name), None),
    };
    if !lookup.has_connection(reference.kind, &key) {
        return Err(Refusal::ConnectionNotFound {
            auth: auth.to_owned(),
            kind: reference.kind,
            name: reference.name.clone(),
            namespace: searched,
        });
    }
    Ok(ConnectionId {
        kind: reference.kind,
        key,
    })
}

fn method(
    auth: &str,
    spec: &AuthSpec,
    consumer: &str,
    lookup: &impl Lookup,
) -> Result<(MountPath, Method), Refusal> {
    let home = Home {
        identity_from: spec.identity_from,
        consumer,
    };
    let found = match (&spec.kubernetes, &spec.app_role, &spec.token) {
        (Some(kubernetes), None, None) => home
            .kubernetes(kubernetes)
            .map(|method| ("kubernetes", method)),
        (None, Some(app_role), None) => home
            .app_role(app_role, lookup)
            .map(|method| ("approle", method)),
        (None, None, Some(token)) => {
            let token = home.secret(&token.secret_ref, lookup);
            token.map(|token| ("token", Method::Token { token }))
        }
        _ => Err("spec needs exactly one login method: kubernetes, appRole or token".to_owned()),
    };
    let mounted = found.and_then(|(usual_mount, method)| {
        let mount = MountPath::parse(spec.mount.as_deref().unwrap_or(usual_mount));
        Ok((
            mount.map_err(|error| format!("spec.mount: {error}"))?,
            method,
        ))
    });
    mounted.map_err(|why| Refusal::AuthUnusable {
        auth: auth.to_owned(),
        why,
    })
}

/// In which namespace the objects of a login are.
struct Home<'a> {
    identity_from: IdentityFrom,
    consumer: &'a str,
}

impl Home<'_> {
    /// A tenant must not choose a namespace, and a fixed login must not depend on the tenant.
    fn namespace(&self, named: Option<&str>) -> Result<String, String> {
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

    fn kubernetes(&self, method: &KubernetesMethod) -> Result<Method, String> {
        let account = method.service_account_ref.as_ref();
        let namespace = self.namespace(account.and_then(|account| account.namespace.as_deref()))?;
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
            service_account: ObjectKey::new(
                namespace,
                account.map_or(DEFAULT, |account| &account.name),
            ),
            audiences: method.audiences.clone(),
            ttl,
        })
    }

    fn app_role(&self, method: &AppRoleMethod, lookup: &impl Lookup) -> Result<Method, String> {
        let role_id = match (&method.role_id, &method.role_id_ref) {
            (Some(role_id), None) => RoleId::Given(role_id.clone()),
            (None, Some(reference)) => RoleId::Read(self.secret(reference, lookup)?),
            (Some(_), Some(_)) | (None, None) => {
                return Err("spec.appRole needs exactly one of roleId and roleIdRef".to_owned());
            }
        };
        let secret_id = self.secret(&method.secret_id_ref, lookup)?;
        Ok(Method::AppRole { role_id, secret_id })
    }

    fn secret(&self, reference: &SecretKeyRef, lookup: &impl Lookup) -> Result<SecretKey, String> {
        let secret = ObjectKey::new(
            self.namespace(reference.namespace.as_deref())?,
            &reference.name,
        );
        Ok(SecretKey {
            version: lookup.secret_version(&secret),
            key: reference.key.clone(),
            secret,
        })
    }
}

#[cfg(test)]
mod tests;
