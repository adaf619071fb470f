//! Pure: the schemas as the apiserver would judge them.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{
    crds,
    login::{AppRoleMethod, JwtMethod},
    source::{FindSource, KvSource, SourceSpec},
    vault_auth::{ClusterVaultAuthSpec, VaultAuthSpec},
    vault_connection::{CaSpec, ClusterVaultConnectionSpec, VaultConnectionSpec},
    vault_secret::{TargetSpec, VaultSecret},
};

/// Checks one rule set: each row is a value and the beginning of the message it is refused with, if any.
fn check(validate: impl Fn(&Value) -> Result<(), String>, rows: &[(Value, Option<&str>)]) {
    for (value, expected) in rows {
        match (validate(value), expected) {
            (Ok(()), None) => {}
            (Err(message), Some(expected)) => {
                assert!(message.contains(expected), "{value}: {message}");
            }
            (result, expected) => panic!("{value}: got {result:?}, expected {expected:?}"),
        }
    }
}

macro_rules! rules_of {
    ($type:ty) => {
        |value: &Value| <$type>::validate_cel(value, None).map_err(|errors| errors.to_string())
    };
}

#[test]
fn a_login_has_exactly_one_method() {
    let reference = json!({"kind": "ClusterVaultConnection", "name": "main"});
    let kubernetes = json!({"role": "r", "audiences": ["vault"]});
    let token = json!({"secretRef": {"name": "a", "key": "b"}});
    let rows = [
        (
            json!({"connectionRef": reference, "kubernetes": kubernetes}),
            None,
        ),
        (
            json!({"connectionRef": reference}),
            Some("exactly one login method"),
        ),
        (
            json!({"connectionRef": reference, "kubernetes": kubernetes, "token": token}),
            Some("exactly one login method"),
        ),
    ];
    check(rules_of!(VaultAuthSpec), &rows);
    check(rules_of!(ClusterVaultAuthSpec), &rows);
}

#[test]
fn a_login_of_one_namespace_stays_there() {
    let with = |method: Value| {
        let mut spec = json!({"connectionRef": {"kind": "VaultConnection", "name": "main"}});
        spec.as_object_mut()
            .unwrap()
            .extend(method.as_object().unwrap().clone());
        spec
    };
    let far = json!({"name": "a", "key": "b", "namespace": "other"});
    let near = json!({"name": "a", "key": "b"});
    let refused = Some("a VaultAuth logs in with objects of its own namespace");
    let rows = [
        (with(json!({"token": {"secretRef": near}})), None),
        (with(json!({"token": {"secretRef": far}})), refused),
        (
            with(json!({"appRole": {"roleId": "r", "secretIdRef": far}})),
            refused,
        ),
        (
            with(json!({"appRole": {"roleIdRef": far, "secretIdRef": near}})),
            refused,
        ),
        (
            with(json!({"jwt": {"role": "r", "secretRef": far}})),
            refused,
        ),
        (
            with(json!({"cert": {"secretRef": {"name": "a", "namespace": "b"}}})),
            refused,
        ),
        (
            with(json!({"userPass": {"username": "u", "passwordRef": far}})),
            refused,
        ),
        (
            with(json!({"ldap": {"username": "u", "passwordRef": far}})),
            refused,
        ),
        (
            with(
                json!({"kubernetes": {"role": "r", "audiences": ["v"], "serviceAccountRef": {"name": "a", "namespace": "b"}}}),
            ),
            refused,
        ),
    ];
    check(rules_of!(VaultAuthSpec), &rows);
}

#[test]
fn nothing_is_said_of_tls_where_it_is_not_spoken() {
    let refused = Some("tls: TLS is not spoken to an address that begins with http://");
    let rows = [
        ("https://v", json!({"serverName": "a"}), None),
        ("http://v", json!({}), None),
        ("http://v", json!({"insecureSkipVerify": false}), None),
        ("http://v", json!({"insecureSkipVerify": true}), refused),
        ("http://v", json!({"ca": {"bundle": "x"}}), refused),
        ("http://v", json!({"serverName": "a"}), refused),
        (
            "http://v",
            json!({"clientCertificate": {"name": "a", "namespace": "b"}}),
            refused,
        ),
    ];
    let rows =
        rows.map(|(address, tls, refused)| (json!({"address": address, "tls": tls}), refused));
    check(rules_of!(ClusterVaultConnectionSpec), &rows);
    check(rules_of!(VaultConnectionSpec), &rows[..6]);
}

#[test]
fn a_fixed_login_names_its_namespace_and_a_consumers_does_not() {
    let spec = |identity: Option<&str>, namespace: Option<&str>, connection: &str| {
        let mut spec = json!({
            "connectionRef": {"kind": connection, "name": "main"},
            "token": {"secretRef": {"name": "a", "key": "b"}},
        });
        if let Some(identity) = identity {
            spec["identityFrom"] = json!(identity);
        }
        if let Some(namespace) = namespace {
            spec["token"]["secretRef"]["namespace"] = json!(namespace);
        }
        spec
    };
    let cluster = "ClusterVaultConnection";
    let rows = [
        (spec(None, None, cluster), None),
        (spec(Some("Consumer"), None, cluster), None),
        (spec(Some("Fixed"), Some("vault"), cluster), None),
        (
            spec(None, Some("vault"), cluster),
            Some("identityFrom: Consumer"),
        ),
        (
            spec(Some("Fixed"), None, cluster),
            Some("identityFrom: Fixed"),
        ),
        (
            spec(None, None, "VaultConnection"),
            Some("connectionRef.kind must be ClusterVaultConnection"),
        ),
    ];
    check(rules_of!(ClusterVaultAuthSpec), &rows);
}

#[test]
fn an_app_role_has_one_role_id() {
    let secret = json!({"name": "a", "key": "b"});
    let refused = Some("exactly one of roleId and roleIdRef");
    let rows = [
        (json!({"roleId": "r", "secretIdRef": secret}), None),
        (json!({"roleIdRef": secret, "secretIdRef": secret}), None),
        (json!({"secretIdRef": secret}), refused),
        (
            json!({"roleId": "r", "roleIdRef": secret, "secretIdRef": secret}),
            refused,
        ),
    ];
    check(rules_of!(AppRoleMethod), &rows);
}

#[test]
fn a_jwt_is_of_a_service_account_with_audiences_or_stands_in_a_secret() {
    let secret = json!({"name": "a", "key": "b"});
    let account = json!({"name": "a"});
    let rows = [
        (json!({"secretRef": secret}), None),
        (
            json!({"serviceAccountRef": account, "audiences": ["v"], "tokenTTL": "1h"}),
            None,
        ),
        (json!({}), Some("exactly one of serviceAccountRef")),
        (
            json!({"serviceAccountRef": account, "audiences": ["v"], "secretRef": secret}),
            Some("exactly one of serviceAccountRef"),
        ),
        (
            json!({"serviceAccountRef": account}),
            Some("audiences is required with serviceAccountRef"),
        ),
        (
            json!({"secretRef": secret, "audiences": ["v"]}),
            Some("audiences is required with serviceAccountRef"),
        ),
        (
            json!({"secretRef": secret, "tokenTTL": "1h"}),
            Some("tokenTTL cannot be set"),
        ),
    ];
    check(rules_of!(JwtMethod), &rows);
}

#[test]
fn certificate_authorities_stand_in_one_place_of_the_right_namespace() {
    let reference = json!({"name": "a", "key": "b"});
    let rows = [
        (json!({"bundle": "x"}), None),
        (
            json!({}),
            Some("exactly one of secret, configMap and bundle"),
        ),
        (
            json!({"bundle": "x", "secret": reference}),
            Some("exactly one of secret, configMap and bundle"),
        ),
    ];
    check(rules_of!(CaSpec), &rows);
    let spec = |ca: Value| json!({"address": "https://v", "tls": {"ca": ca}});
    let far = json!({"name": "a", "key": "b", "namespace": "c"});
    let rows = [
        (spec(json!({"secret": reference})), None),
        (
            spec(json!({"configMap": far})),
            Some("namespace cannot be set on a VaultConnection"),
        ),
    ];
    check(rules_of!(VaultConnectionSpec), &rows);
    let rows = [
        (spec(json!({"secret": far})), None),
        (
            spec(json!({"configMap": reference})),
            Some("namespace is required on a ClusterVaultConnection"),
        ),
    ];
    check(rules_of!(ClusterVaultConnectionSpec), &rows);
}

#[test]
fn a_source_has_one_kind_and_a_pinned_version_a_versioned_engine() {
    check(
        rules_of!(SourceSpec),
        &[
            (
                json!({"name": "a"}),
                Some("each source needs exactly one kind"),
            ),
            (json!({"name": "a", "find": {"mount": "m"}}), None),
            (
                json!({"name": "a", "find": {"mount": "m"}, "staticRole": {"mount": "m", "role": "r"}}),
                Some("each source needs exactly one kind"),
            ),
        ],
    );
    check(
        rules_of!(FindSource),
        &[
            (
                json!({"mount": "m", "recursive": true, "maxDepth": 2}),
                None,
            ),
            (
                json!({"mount": "m", "maxDepth": 2}),
                Some("set recursive: true"),
            ),
            (
                json!({"mount": "m", "recursive": false, "maxDepth": 2}),
                Some("set recursive: true"),
            ),
        ],
    );
    let kv = |engine: Option<i32>, version: Option<i32>| json!({"mount": "m", "path": "p", "engineVersion": engine, "version": version});
    let without_null = |value: Value| {
        let kept = value
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|(_, value)| !value.is_null());
        Value::Object(kept.collect())
    };
    let rows = [
        (without_null(kv(None, None)), None),
        (without_null(kv(Some(2), Some(7))), None),
        (without_null(kv(None, Some(7))), None),
        (
            without_null(kv(Some(1), Some(7))),
            Some("version needs a version 2 engine"),
        ),
    ];
    check(rules_of!(KvSource), &rows);
}

#[test]
fn policies_of_a_target_do_not_contradict_each_other() {
    let rows = [
        (
            json!({"creationPolicy": "Owner", "deletionPolicy": "Retain", "type": "Opaque"}),
            None,
        ),
        (
            json!({"creationPolicy": "Orphan", "deletionPolicy": "Delete"}),
            Some("deletionPolicy must be Retain"),
        ),
        (
            json!({"creationPolicy": "Merge", "type": "Opaque"}),
            Some("its type cannot be set"),
        ),
        (
            json!({"creationPolicy": "Merge", "labels": {"a": "b"}}),
            Some("labels and annotations cannot be set"),
        ),
        (
            json!({"labels": {"lockstep.dev/x": "y"}}),
            Some("the operator's own"),
        ),
        (
            json!({"annotations": {"lockstep.dev/x": "y"}}),
            Some("the operator's own"),
        ),
        (
            json!({"type": "kubernetes.io/service-account-token"}),
            Some("cluster credential"),
        ),
    ];
    check(rules_of!(TargetSpec), &rows);
}

/// Every object schema names its properties: a typo is an unknown field, not a value that is silently kept.
#[test]
fn no_schema_accepts_unknown_fields_or_sets_defaults() {
    fn walk(node: &Value, path: &str, found: &mut Vec<String>) {
        match node {
            Value::Object(map) => {
                if map.contains_key("x-kubernetes-preserve-unknown-fields") {
                    found.push(format!("{path} keeps unknown fields"));
                }
                if map.contains_key("default") && !path.ends_with("/status") {
                    found.push(format!("{path} has a default"));
                }
                for (key, child) in map {
                    walk(child, &format!("{path}/{key}"), found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    for crd in crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        walk(&schema, &crd.spec.names.kind, &mut found);
    }
    // What an engine wants to be asked with is known to the engine alone.
    found.retain(|path| !path.contains("/dynamic/properties/parameters "));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn lists_of_objects_are_maps_by_name() {
    let crd = serde_json::to_value(VaultSecret::crd()).unwrap();
    let spec = crd
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .unwrap();
    assert_eq!(
        spec.pointer("/sources/x-kubernetes-list-type"),
        Some(&json!("map"))
    );
    assert_eq!(
        spec.pointer("/sources/x-kubernetes-list-map-keys"),
        Some(&json!(["name"]))
    );
    assert_eq!(
        spec.pointer("/rollout/properties/targets/x-kubernetes-list-map-keys"),
        Some(&json!(["kind", "name"]))
    );
}

#[test]
fn a_new_object_counts_as_not_observed() {
    for crd in crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let default = schema.pointer("/openAPIV3Schema/properties/status/default");
        assert_eq!(
            default,
            Some(&json!({"observedGeneration": -1})),
            "{}",
            crd.spec.names.kind
        );
    }
}
