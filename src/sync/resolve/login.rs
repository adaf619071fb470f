//! Pure: who logs in to which Vault, and whether that is allowed.

use std::sync::Arc;

use super::{
    ConnectionId, Login, Lookup,
    fence::Fence,
    method::{Home, Method},
};
use crate::{
    api::{
        refs::{AuthKind, AuthRef, ConnectionKind},
        vault_auth::{AllowedNamespaces, AuthSpec},
    },
    names::ObjectKey,
    sync::refusal::Refusal,
    vault::path::{MountPath, VaultNamespace},
    view::AuthView,
};

/// Name of the auth objects that are used when none is named.
const DEFAULT: &str = "default";

pub(super) fn login(
    object: &ObjectKey,
    reference: Option<&AuthRef>,
    lookup: &impl Lookup,
) -> Result<(Login, Fence), Refusal> {
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
) -> Result<(Login, Fence), Refusal> {
    let auth = format!("{kind:?} {key}");
    let spec = view
        .spec
        .as_ref()
        .map_err(|undecodable| Refusal::AuthUnusable {
            auth: auth.clone(),
            why: format!("{}: {}", undecodable.field, undecodable.why),
        })?;
    let connection = connection(&auth, kind, namespace, spec, lookup)?;
    let home = Home {
        identity_from: spec.identity_from,
        consumer: namespace,
        lookup,
    };
    let unusable = |why| Refusal::AuthUnusable {
        auth: auth.clone(),
        why,
    };
    let method = home.method(&spec.methods).map_err(unusable)?;
    let mount = mount(spec, &method).map_err(unusable)?;
    let vault_namespace = spec.namespace.as_deref().map(VaultNamespace::parse);
    let vault_namespace = vault_namespace
        .transpose()
        .map_err(|error| unusable(format!("spec.namespace: {error}")))?;
    let fence = Fence::new(&auth, spec.allowed_paths.as_deref(), namespace).map_err(unusable)?;
    let login = Login {
        connection,
        auth_version: (view.uid.clone(), view.generation),
        namespace: vault_namespace,
        mount,
        method,
        auth,
    };
    Ok((login, fence))
}

fn mount(spec: &AuthSpec, method: &Method) -> Result<MountPath, String> {
    let mount = spec
        .mount
        .as_deref()
        .unwrap_or_else(|| method.usual_mount());
    MountPath::parse(mount).map_err(|error| format!("spec.mount: {error}"))
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
