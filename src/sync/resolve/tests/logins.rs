//! Pure: which login a `VaultSecret` uses, and whom it lets in.

use super::*;
use crate::sync::resolve::method::SecretKey;

#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn one_row_per_mistake_in_the_login() {
    use AuthKind::{ClusterVaultAuth, VaultAuth};
    let with = |extra: Value| {
        let mut spec = kubernetes();
        put(&mut spec, &extra);
        spec
    };
    let near = json!({"name": "there", "key": "k"});
    let far = json!({"name": "there", "key": "k", "namespace": "ops"});
    let ttl = |ttl: &str| json!({"kubernetes": {"role": "r", "audiences": ["v"], "tokenTTL": ttl}});
    let fixed = |method: Value| {
        let mut spec = json!({"identityFrom": "Fixed", "allowedNamespaces": {"names": ["*"]}});
        put(&mut spec, &method);
        spec
    };
    let connection =
        |kind: &str, name: &str| with(json!({"connectionRef": {"kind": kind, "name": name}}));
    let rows = [
        (
            VaultAuth,
            connection("VaultConnection", "x"),
            "ConnectionNotFound VaultAuth shop/default: spec.connectionRef: there is no VaultConnection named x in namespace shop",
        ),
        (
            VaultAuth,
            connection("ClusterVaultConnection", "x"),
            "ConnectionNotFound VaultAuth shop/default: spec.connectionRef: there is no ClusterVaultConnection named x;",
        ),
        (
            VaultAuth,
            json!({}),
            "AuthUnusable VaultAuth shop/default: spec needs exactly one login method",
        ),
        (
            VaultAuth,
            with(json!({"token": {"secretRef": near}})),
            "AuthUnusable VaultAuth shop/default: spec needs exactly one login method",
        ),
        (
            VaultAuth,
            with(json!({"mount": "a//b"})),
            "AuthUnusable VaultAuth shop/default: spec.mount: mount contains an empty segment",
        ),
        (
            VaultAuth,
            ttl("599s"),
            "AuthUnusable VaultAuth shop/default: spec.kubernetes.tokenTTL must be from 10m to 24h",
        ),
        (
            VaultAuth,
            ttl("25h"),
            "AuthUnusable VaultAuth shop/default: spec.kubernetes.tokenTTL must be from 10m to 24h",
        ),
        (
            VaultAuth,
            json!({"kubernetes": {"role": "r", "audiences": []}}),
            "AuthUnusable VaultAuth shop/default: spec.kubernetes.audiences is empty",
        ),
        (
            VaultAuth,
            json!({"appRole": {"secretIdRef": near}}),
            "AuthUnusable VaultAuth shop/default: spec.appRole needs exactly one of roleId and roleIdRef",
        ),
        (
            VaultAuth,
            json!({"jwt": {"role": "r"}}),
            "AuthUnusable VaultAuth shop/default: spec.jwt needs exactly one of serviceAccountRef and secretRef",
        ),
        (
            VaultAuth,
            json!({"jwt": {"role": "r", "serviceAccountRef": {"name": "a"}}}),
            "AuthUnusable VaultAuth shop/default: spec.jwt.audiences is empty",
        ),
        (
            VaultAuth,
            json!({"userPass": {"username": "..", "passwordRef": near}}),
            "AuthUnusable VaultAuth shop/default: spec.userPass.username: user name contains the segment",
        ),
        (
            VaultAuth,
            json!({"cert": {"secretRef": {"name": "there", "namespace": "ops"}}}),
            "AuthUnusable VaultAuth shop/default: a reference of the login names a namespace",
        ),
        (
            VaultAuth,
            json!({"token": {"secretRef": far}}),
            "AuthUnusable VaultAuth shop/default: a reference of the login names a namespace",
        ),
        (
            ClusterVaultAuth,
            fixed(json!({"token": {"secretRef": near}})),
            "AuthUnusable ClusterVaultAuth default: with identityFrom: Fixed every reference",
        ),
        (
            ClusterVaultAuth,
            fixed(connection("VaultConnection", "own")),
            "AuthUnusable ClusterVaultAuth default: spec.connectionRef.kind must be ClusterVaultConnection",
        ),
    ];
    for (kind, method, expected) in rows {
        let spec = match kind {
            VaultAuth => vault_auth(&method),
            ClusterVaultAuth => cluster_vault_auth(&method),
        };
        let told = refusal(resolved(
            &Cluster::default().with(kind, "default", spec),
            &json!({}),
        ));
        assert!(told.starts_with(expected), "{method}: {told}");
    }
}

#[test]
fn a_login_that_does_not_decode_is_told_and_not_passed_over() {
    let mut cluster = default_cluster();
    let undecodable = Undecodable {
        field: "spec.mount".into(),
        why: "invalid type".into(),
    };
    cluster.auths.insert(
        (AuthKind::VaultAuth, key(AuthKind::VaultAuth, "default")),
        view(Err(undecodable)),
    );
    let cluster = cluster.with(
        AuthKind::ClusterVaultAuth,
        "default",
        cluster_vault_auth(&json!({"allowedNamespaces": {"names": ["*"]}})),
    );
    let told = refusal(resolved(&cluster, &json!({})));
    assert_eq!(
        told,
        "AuthUnusable VaultAuth shop/default: spec.mount: invalid type"
    );
}

#[test]
fn an_allow_list_lets_in_whom_it_names_or_selects_and_nobody_else() {
    let rows = [
        (json!(null), false),
        (json!({}), false),
        (json!({"names": []}), false),
        (json!({"names": ["shop"]}), true),
        (json!({"names": ["*"]}), true),
        (json!({"names": ["sho", "shop2", "sh*"]}), false),
        (json!({"selector": {"matchLabels": {"tier": "gold"}}}), true),
        (
            json!({"selector": {"matchLabels": {"tier": "gold", "a": "b"}}}),
            false,
        ),
        (
            json!({"selector": {"matchLabels": {"tier": "silver"}}}),
            false,
        ),
        // The schema does not let this in; should it ever, it must not mean everybody.
        (json!({"selector": {"matchLabels": {}}}), false),
        (
            json!({"names": ["other"], "selector": {"matchLabels": {"tier": "gold"}}}),
            true,
        ),
    ];
    for (allowed, expected) in rows {
        let mut spec = kubernetes();
        if !allowed.is_null() {
            put(&mut spec, &json!({"allowedNamespaces": allowed}));
        }
        let mut cluster = Cluster::default().with(
            AuthKind::ClusterVaultAuth,
            "default",
            cluster_vault_auth(&spec),
        );
        cluster.labels = [("tier".to_owned(), "gold".to_owned())].into();
        let named = json!({"authRef": {"kind": "ClusterVaultAuth", "name": "default"}});
        for (extra, reason) in [(json!({}), "NoDefaultAuth"), (named, "AuthNotAllowed")] {
            match resolved(&cluster, &extra) {
                Ok(_) => assert!(expected, "{allowed} {extra}"),
                Err(refusal) => {
                    assert_eq!((expected, refusal.reason()), (false, reason), "{allowed}");
                }
            }
        }
    }
}

#[test]
fn the_default_of_the_namespace_comes_before_that_of_the_cluster() {
    let open = json!({"allowedNamespaces": {"names": ["*"]}, "mount": "of-cluster"});
    let mut of_cluster = kubernetes();
    put(&mut of_cluster, &open);
    let cluster = Cluster::default().with(
        AuthKind::ClusterVaultAuth,
        "default",
        cluster_vault_auth(&of_cluster),
    );
    let mount = |cluster: &Cluster| resolved(cluster, &json!({})).unwrap().login.mount;
    assert_eq!(mount(&cluster).as_str(), "of-cluster");
    let both = cluster.with(AuthKind::VaultAuth, "default", vault_auth(&kubernetes()));
    assert_eq!(mount(&both).as_str(), "kubernetes");
    let neither = refusal(resolved(&Cluster::default(), &json!({})));
    assert!(
        neither.starts_with("NoDefaultAuth spec.authRef:"),
        "{neither}"
    );
}

#[test]
fn references_of_a_login_are_those_of_the_consumer_or_the_fixed_ones() {
    let token = |reference: Value| json!({"token": {"secretRef": reference}});
    let mut fixed = token(json!({"name": "there", "key": "k", "namespace": "ops"}));
    put(
        &mut fixed,
        &json!({"identityFrom": "Fixed", "allowedNamespaces": {"names": ["shop"]}}),
    );
    let mut consumer = token(json!({"name": "there", "key": "k"}));
    put(
        &mut consumer,
        &json!({"allowedNamespaces": {"names": ["shop"]}}),
    );
    for (spec, namespace) in [(fixed, "ops"), (consumer, "shop")] {
        let cluster = Cluster::default().with(
            AuthKind::ClusterVaultAuth,
            "default",
            cluster_vault_auth(&spec),
        );
        let login = resolved(&cluster, &json!({})).unwrap().login;
        let secret = ObjectKey::new(namespace, "there");
        let token = SecretKey {
            version: Some(format!("{secret} 7")),
            key: "k".into(),
            secret,
        };
        assert_eq!(login.method, Method::Token { token });
    }
}

#[test]
fn each_method_is_mounted_where_vault_mounts_it_and_knows_the_version_of_its_secret() {
    let key = json!({"name": "there", "key": "k"});
    let password = json!({"username": "deploy", "passwordRef": key});
    for (method, mount) in [
        (json!({"jwt": {"role": "r", "secretRef": key}}), "jwt"),
        (
            json!({"appRole": {"roleId": "r", "secretIdRef": key}}),
            "approle",
        ),
        (json!({"cert": {"secretRef": {"name": "there"}}}), "cert"),
        (json!({"userPass": password}), "userpass"),
        (json!({"ldap": password}), "ldap"),
    ] {
        let cluster = Cluster::default().with(AuthKind::VaultAuth, "default", vault_auth(&method));
        let login = resolved(&cluster, &json!({})).unwrap().login;
        assert_eq!(login.mount.as_str(), mount);
        assert!(format!("{login:?}").contains("shop/there 7"), "{login:?}");
    }
}

#[test]
fn a_changed_auth_object_or_secret_is_another_login() {
    let login = |cluster: &Cluster| resolved(cluster, &json!({})).unwrap().login;
    let before = login(&default_cluster());
    assert_eq!(before, login(&default_cluster()));
    let mut edited = default_cluster();
    let slot = edited.auths.values_mut().next().unwrap();
    *slot = Arc::new(AuthView {
        generation: 2,
        ..AuthView::clone(slot)
    });
    assert_ne!(before, login(&edited));
}

#[test]
fn the_fence_of_a_default_login_holds_too() {
    let fenced = |paths: Value| {
        let mut spec = kubernetes();
        put(&mut spec, &json!({"allowedPaths": paths}));
        put(&mut spec, &json!({"allowedNamespaces": {"names": ["*"]}}));
        spec
    };
    let named = json!({"authRef": {"kind": "ClusterVaultAuth", "name": "default"}});
    for (kind, extra) in [
        (AuthKind::ClusterVaultAuth, json!({})),
        (AuthKind::ClusterVaultAuth, named),
        (AuthKind::VaultAuth, json!({})),
    ] {
        let cluster = |paths: Value| {
            let auth = match kind {
                AuthKind::VaultAuth => vault_auth(&fenced(paths)),
                AuthKind::ClusterVaultAuth => cluster_vault_auth(&fenced(paths)),
            };
            Cluster::default().with(kind, "default", auth)
        };
        let inside = json!(["secret/data/app", "secret/data/{{namespace}}/*"]);
        assert!(resolved(&cluster(inside), &extra).is_ok());
        let outside = refusal(resolved(
            &cluster(json!(["secret/data/{{namespace}}/*"])),
            &extra,
        ));
        assert!(
            outside.starts_with("PathNotAllowed spec.sources[main]: "),
            "{outside}"
        );
        let wrong = refusal(resolved(&cluster(json!(["/v1/secret"])), &extra));
        assert!(
            wrong.contains("spec.allowedPaths[0]: it starts with a slash"),
            "{wrong}"
        );
    }
}

#[test]
fn a_login_and_a_source_have_a_namespace_of_vault() {
    let mut spec = kubernetes();
    put(&mut spec, &json!({"namespace": "team/"}));
    let cluster = Cluster::default().with(AuthKind::VaultAuth, "default", vault_auth(&spec));
    let source = |namespace: &str| {
        let kv = json!({"mount": "secret", "path": "app"});
        json!({"sources": [{"name": "main", "namespace": namespace, "kv": kv}]})
    };
    let found = resolved(&cluster, &source("team/dev")).unwrap();
    assert_eq!(found.login.namespace.unwrap().as_str(), "team");
    let Ask::Read(Place::Kv(place)) = &found.sources[0].ask else {
        panic!("it is another kind");
    };
    assert_eq!(place.namespace.as_ref().unwrap().as_str(), "team/dev");
    let told = refusal(resolved(&cluster, &source("a//b")));
    assert!(
        told.starts_with("InvalidSpec spec.sources[0].namespace: "),
        "{told}"
    );
    put(&mut spec, &json!({"namespace": "../b"}));
    let cluster = Cluster::default().with(AuthKind::VaultAuth, "default", vault_auth(&spec));
    let told = refusal(resolved(&cluster, &json!({})));
    assert!(
        told.contains("VaultAuth shop/default: spec.namespace: "),
        "{told}"
    );
}
