//! Pure: what becomes of a spec, and which mistakes are told how.

mod clouds;
mod logins;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::vault_auth::AuthSpec, sync::resolve::source::Ask, vault::place::Place, view::Undecodable,
};

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
        rotate: None,
        emergency: false,
        finalizer: false,
        deleted: None,
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
            json!({"rollout": {"verifyTimeout": "0s"}}),
            "InvalidSpec spec.rollout.verifyTimeout: it is shorter than 1s",
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

/// One source, and the refusal after `InvalidSpec spec.sources[0]`.
fn check_sources<const N: usize>(rows: [(Value, &str); N]) {
    for (mut source, expected) in rows {
        source["name"] = json!("main");
        let told = refusal(resolved(&default_cluster(), &json!({"sources": [source]})));
        let expected = format!("InvalidSpec spec.sources[0]{expected}");
        assert!(told.starts_with(&expected), "{source}: {told}");
    }
}

#[test]
fn one_row_per_mistake_in_a_source() {
    let kv = |kv: Value| json!({"kv": kv});
    check_sources([
        (json!({}), ": each source needs exactly one kind"),
        (
            kv(json!({"mount": "", "path": "a"})),
            ".kv.mount: mount is empty",
        ),
        (
            kv(json!({"mount": "s", "path": "a/../b"})),
            ".kv.path: path contains the segment",
        ),
        (
            kv(json!({"mount": "s", "path": "a/"})),
            ".kv.path: path ends with a slash",
        ),
        (
            kv(json!({"mount": "s", "path": "a", "engineVersion": 3})),
            ".kv.engineVersion: it must be 1 or 2",
        ),
        (
            kv(json!({"mount": "s", "path": "a", "engineVersion": 1, "version": 4})),
            ".kv.version: a version 1 engine keeps no versions",
        ),
        (
            json!({"kv": {"mount": "s", "path": "a"}, "find": {"mount": "s"}}),
            ": each source needs exactly one kind",
        ),
    ]);
}

#[test]
fn one_row_per_mistake_in_a_source_of_many_or_of_a_role() {
    let find = |find: Value| json!({"find": find});
    let role = |role: Value| json!({"staticRole": role});
    check_sources([
        (
            find(json!({"mount": "s", "match": "flag-("})),
            ".find.match: it is not a regular expression: unclosed group",
        ),
        (
            find(json!({"mount": "s", "path": "/"})),
            ".find.path: path is empty",
        ),
        (
            find(json!({"mount": "s", "maxDepth": 2})),
            ".find.maxDepth: it says how deep to go into folders; set recursive",
        ),
        (
            find(json!({"mount": "s", "recursive": true, "maxDepth": 65})),
            ".find.maxDepth: it must be from 1 to 64",
        ),
        (
            find(json!({"mount": "s", "maxSecrets": 1001})),
            ".find.maxSecrets: it must be from 1 to 1000",
        ),
        (
            role(json!({"mount": "db", "role": "a/"})),
            ".staticRole.role: path ends with a slash",
        ),
        (
            role(json!({"mount": "db", "role": "a", "checkInterval": "4s"})),
            ".staticRole.checkInterval: it is shorter than 5s",
        ),
    ]);
}

#[test]
fn a_search_has_limits_although_none_are_set() {
    let find = |find: Value| {
        let resolved = resolved(
            &default_cluster(),
            &json!({"sources": [{"name": "all", "find": find}]}),
        );
        let source = resolved.unwrap().sources.remove(0);
        let Ask::Read(Place::Find(place)) = source.ask else {
            panic!("{source:?}");
        };
        place
    };
    let plain = find(json!({"mount": "secret", "path": "shop/"}));
    assert_eq!(plain.folder.unwrap().as_str(), "shop");
    assert_eq!((plain.depth, plain.most), (0, 100));
    let deep = find(json!({"mount": "secret", "recursive": true, "maxSecrets": 7}));
    assert_eq!((deep.folder, deep.depth, deep.most), (None, u32::MAX, 7));
    let bounded = find(json!({"mount": "secret", "recursive": true, "maxDepth": 3}));
    assert_eq!(bounded.depth, 3);
}

#[test]
fn a_static_role_is_checked_more_often_than_it_is_refreshed() {
    for (interval, every) in [(None, 60), (Some("5s"), 5), (Some("1h"), 3600)] {
        let mut role = json!({"mount": "database", "role": "app"});
        if let Some(interval) = interval {
            role["checkInterval"] = json!(interval);
        }
        let sources = json!({"sources": [{"name": "db", "staticRole": role}]});
        let source = resolved(&default_cluster(), &sources)
            .unwrap()
            .sources
            .remove(0);
        assert_eq!(source.every, Some(Duration::from_secs(every)));
    }
}
