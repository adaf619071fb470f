//! Pure: what becomes of a spec, and which mistakes are told how.

mod clouds;
mod logins;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::{api::vault_auth::AuthSpec, view::Undecodable};

/// A cluster with these auth objects, connections and namespace labels, by kind and key.
#[derive(Default)]
struct Cluster {
    auths: HashMap<(AuthKind, ObjectKey), Arc<AuthView>>,
    labels: BTreeMap<String, String>,
}

impl Lookup for Cluster {
    fn auth(&self, kind: AuthKind, key: &ObjectKey) -> Option<Arc<AuthView>> {
        self.auths.get(&(kind, key.clone())).cloned()
    }

    fn has_connection(&self, kind: ConnectionKind, key: &ObjectKey) -> bool {
        match kind {
            ConnectionKind::VaultConnection => *key == ObjectKey::new("shop", "own"),
            ConnectionKind::ClusterVaultConnection => *key == ObjectKey::cluster("main"),
        }
    }

    fn namespace(&self, name: &str) -> Option<Arc<NamespaceView>> {
        let labels = self.labels.clone();
        (name == "shop").then(|| Arc::new(NamespaceView { labels }))
    }

    fn secret_version(&self, key: &ObjectKey) -> Option<String> {
        (key.name == "there").then(|| format!("{key} 7"))
    }
}

impl Cluster {
    /// With an auth object called `name` besides; it is in the namespace `shop` if its kind has one.
    fn with(mut self, kind: AuthKind, name: &str, spec: AuthSpec) -> Self {
        let spec = Ok(Arc::new(spec));
        self.auths.insert((kind, key(kind, name)), view(spec));
        self
    }
}

fn key(kind: AuthKind, name: &str) -> ObjectKey {
    match kind {
        AuthKind::VaultAuth => ObjectKey::new("shop", name),
        AuthKind::ClusterVaultAuth => ObjectKey::cluster(name),
    }
}

fn view(spec: Result<Arc<AuthSpec>, Undecodable>) -> Arc<AuthView> {
    Arc::new(AuthView {
        uid: "u".into(),
        generation: 1,
        spec,
        status: Arc::default(),
        refresh: None,
    })
}

/// An auth object of one namespace: `method` goes on top of a reference to the connection `main`.
fn vault_auth(method: &Value) -> AuthSpec {
    let spec: crate::api::vault_auth::VaultAuthSpec =
        serde_json::from_value(auth_json(method)).unwrap();
    spec.into()
}

fn cluster_vault_auth(method: &Value) -> AuthSpec {
    let spec: crate::api::vault_auth::ClusterVaultAuthSpec =
        serde_json::from_value(auth_json(method)).unwrap();
    spec.into()
}

fn auth_json(method: &Value) -> Value {
    let mut spec = json!({"connectionRef": {"kind": "ClusterVaultConnection", "name": "main"}});
    put(&mut spec, method);
    spec
}

/// Puts the members of `extra` into `base`.
fn put(base: &mut Value, extra: &Value) {
    let (Value::Object(base), Value::Object(extra)) = (base, extra) else {
        return;
    };
    base.extend(extra.clone());
}

fn kubernetes() -> Value {
    json!({"kubernetes": {"role": "r", "audiences": ["vault"]}})
}

/// Resolves the `VaultSecret` shop/app: `extra` goes on top of one source.
fn resolved(cluster: &Cluster, extra: &Value) -> Result<Resolved, Refusal> {
    let mut spec = json!({"sources": [{"name": "main", "kv": {"mount": "secret", "path": "app"}}]});
    put(&mut spec, extra);
    let spec = serde_json::from_value(spec).unwrap();
    resolve(
        &ObjectKey::new("shop", "app"),
        &spec,
        cluster,
        Duration::from_mins(5),
    )
}

/// Reason and message of the refusal.
fn refusal(result: Result<Resolved, Refusal>) -> String {
    let refusal = result.unwrap_err();
    format!("{} {refusal}", refusal.reason())
}

fn default_cluster() -> Cluster {
    Cluster::default().with(AuthKind::VaultAuth, "default", vault_auth(&kubernetes()))
}

#[test]
fn nothing_but_a_source_needs_to_be_said() {
    let resolved = resolved(&default_cluster(), &json!({})).unwrap();
    assert_eq!(resolved.interval, Duration::from_mins(5));
    assert_eq!(resolved.target.name, "app");
    assert_eq!(resolved.target.creation, CreationPolicy::Owner);
    assert_eq!(resolved.target.deletion, DeletionPolicy::Delete);
    assert_eq!(resolved.login.mount.as_str(), "kubernetes");
    assert!(matches!(
        resolved.login.method,
        Method::Kubernetes { account, .. }
            if account.key == ObjectKey::new("shop", "default") && account.ttl == Duration::from_mins(10)
    ));
}

#[test]
fn one_row_per_mistake_in_the_vault_secret() {
    let kv = |kv: Value| json!({"sources": [{"name": "main", "kv": kv}]});
    let rows = [
        (
            json!({"refreshInterval": "999ms"}),
            "InvalidSpec spec.refreshInterval: it is shorter than 1s",
        ),
        (
            json!({"sources": []}),
            "InvalidSpec spec.sources: it is empty",
        ),
        (
            json!({"sources": [{"name": "main"}]}),
            "InvalidSpec spec.sources[0].kv: each source needs exactly one kind",
        ),
        (
            kv(json!({"mount": "", "path": "a"})),
            "InvalidSpec spec.sources[0].kv.mount: mount is empty",
        ),
        (
            kv(json!({"mount": "s", "path": "a/../b"})),
            "InvalidSpec spec.sources[0].kv.path: path contains the segment",
        ),
        (
            kv(json!({"mount": "s", "path": "a/"})),
            "InvalidSpec spec.sources[0].kv.path: path ends with a slash",
        ),
        (
            kv(json!({"mount": "s", "path": "a", "engineVersion": 3})),
            "InvalidSpec spec.sources[0].kv.engineVersion: it must be 1 or 2",
        ),
        (
            kv(json!({"mount": "s", "path": "a", "engineVersion": 1, "version": 4})),
            "InvalidSpec spec.sources[0].kv.version: a version 1 engine keeps no versions",
        ),
        (
            json!({"authRef": {"kind": "VaultAuth", "name": "x"}}),
            "AuthNotFound spec.authRef: there is no VaultAuth named x in namespace shop",
        ),
        (
            json!({"authRef": {"kind": "ClusterVaultAuth", "name": "x"}}),
            "AuthNotFound spec.authRef: there is no ClusterVaultAuth named x; create it",
        ),
    ];
    for (extra, expected) in rows {
        let told = refusal(resolved(&default_cluster(), &extra));
        assert!(told.starts_with(expected), "{extra}: {told}");
    }
}
