//! Pure: who logs in to which Vault, and whether that is allowed.

use std::{sync::Arc, time::Duration};

use super::{ConnectionId, Login, Lookup, Method, RoleId, SecretKey};
use crate::{
    api::{
        duration::GoDuration,
        refs::{AuthKind, AuthRef, ConnectionKind, SecretKeyRef},
        vault_auth::{AllowedNamespaces, AppRoleMethod, AuthSpec, IdentityFrom, KubernetesMethod},
    },
    names::ObjectKey,
    sync::refusal::Refusal,
    vault::path::MountPath,
    view::AuthView,
};

/// Name of the auth objects that are used when none is named.
const DEFAULT: &str = "default";

/// Vault's and the apiserver's shortest useful lifetime of a ServiceAccount token (TokenRequest refuses less).
const MIN_SERVICE_ACCOUNT_TOKEN: Duration = Duration::from_mins(10);

/// Longest lifetime asked for; anything a login needs is over in seconds.
const MAX_SERVICE_ACCOUNT_TOKEN: Duration = Duration::from_hours(24);

pub(super) fn login(
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
