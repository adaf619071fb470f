//! Pure: tests.

use serde_json::json;

use super::*;
use crate::api::vault_connection::VaultConnectionSpec;

fn resolved(
    spec: serde_json::Value,
    kind: ConnectionKind,
    allow: bool,
) -> Result<Prepared, Refused> {
    let spec: VaultConnectionSpec = serde_json::from_value(spec).unwrap();
    let id = ConnectionId {
        kind,
        key: ObjectKey::new("shop", "main"),
    };
    let permitted = Permitted {
        insecure_tls: allow,
        reach: Reach::only(&["https://v:*", "http://v:*", "http://169.254.169.254"]).unwrap(),
    };
    resolve(&id, &spec.into(), &permitted)
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn each_refusal_names_its_field() {
    use ConnectionKind::{ClusterVaultConnection as Cluster, VaultConnection as Local};
    let ca = |ca: serde_json::Value| json!({"address": "https://v", "tls": {"ca": ca}});
    let rows = [
        (
            json!({"address": "vault:8200"}),
            Local,
            "spec.address: address must start",
        ),
        (
            json!({"address": "https://other"}),
            Local,
            "spec.address: the operator's --allowed-vault-addresses",
        ),
        (
            json!({"address": "http://169.254.169.254"}),
            Local,
            "spec.address: 169.254.169.254 is link-local",
        ),
        (
            json!({"address": "https://v", "namespace": "a//b"}),
            Local,
            "spec.namespace: namespace contains an empty segment",
        ),
        (
            json!({"address": "https://v", "limits": {"maxInFlight": 0}}),
            Local,
            "spec.limits:",
        ),
        (
            json!({"address": "https://v", "headers": {"X-Vault-TOKEN": "x"}}),
            Local,
            "spec.headers: the operator sets x-vault-token itself",
        ),
        (
            json!({"address": "https://v", "headers": {"Content-MD5": "x"}}),
            Local,
            "spec.headers: the operator sets content-md5 itself",
        ),
        (
            json!({"address": "https://v", "headers": {"a b": "x"}}),
            Local,
            "spec.headers: a name",
        ),
        (
            json!({"address": "https://v", "headers": {"a": "x\ny"}}),
            Local,
            "spec.headers: the value of a",
        ),
        (
            json!({"address": "http://v", "tls": {"serverName": "a"}}),
            Local,
            "spec.tls.serverName: TLS is not spoken",
        ),
        (
            json!({"address": "http://v", "tls": {"ca": {"bundle": "x"}}}),
            Local,
            "spec.tls.ca: TLS is not spoken",
        ),
        (
            json!({"address": "https://v", "tls": {"serverName": "10.0.0.1"}}),
            Local,
            "spec.tls.serverName: it is not a host name",
        ),
        (
            json!({"address": "http://v", "tls": {"clientCertificate": {"name": "a"}}}),
            Local,
            "spec.tls.clientCertificate: TLS is not spoken",
        ),
        (
            json!({"address": "https://v", "tls": {"clientCertificate": {"name": "a", "namespace": "b"}}}),
            Local,
            "spec.tls.clientCertificate: a VaultConnection",
        ),
        (
            json!({"address": "https://v", "tls": {"clientCertificate": {"name": "a"}}}),
            Cluster,
            "spec.tls.clientCertificate: namespace is required",
        ),
        (
            json!({"address": "https://v", "tls": {"insecureSkipVerify": true}}),
            Local,
            "spec.tls.insecureSkipVerify:",
        ),
        (
            json!({"address": "https://v", "timeout": "5m"}),
            Local,
            "spec.timeout:",
        ),
        (ca(json!({})), Local, "spec.tls.ca: exactly one"),
        (
            ca(json!({"bundle": "x", "secret": {"name": "a", "key": "b"}})),
            Local,
            "spec.tls.ca: exactly one",
        ),
        (
            ca(json!({"secret": {"name": "a", "key": "b", "namespace": "other"}})),
            Local,
            "spec.tls.ca: a VaultConnection",
        ),
        (
            ca(json!({"configMap": {"name": "a", "key": "b"}})),
            Cluster,
            "spec.tls.ca: namespace is required",
        ),
    ];
    for (spec, kind, expected) in rows {
        let why = resolved(spec.clone(), kind, false).unwrap_err().to_string();
        assert!(why.starts_with(expected), "{spec}: {why}");
    }
}

#[test]
fn what_is_not_verified_is_told_where_no_tls_is_spoken() {
    let told = |skip: bool| {
        let spec = json!({"address": "http://v", "tls": {"insecureSkipVerify": skip}});
        resolved(spec, ConnectionKind::VaultConnection, true).map_err(|why| why.to_string())
    };
    let why = told(true).unwrap_err();
    assert!(
        why.starts_with("spec.tls.insecureSkipVerify: TLS is not spoken"),
        "{why}"
    );
    assert!(told(false).is_ok());
}

#[test]
fn an_admin_can_allow_insecure_tls() {
    let spec = json!({"address": "https://v", "tls": {"insecureSkipVerify": true}});
    assert!(
        resolved(spec, ConnectionKind::VaultConnection, true)
            .unwrap()
            .insecure_skip_verify
    );
}

#[test]
fn everything_that_was_said_is_taken_over() {
    let spec = json!({
        "address": "https://v", "namespace": "admin/", "headers": {"X-Route": "blue"},
        "limits": {"requestsPerSecond": 5, "maxInFlight": 3},
        "tls": {"serverName": "Vault.Internal", "clientCertificate": {"name": "me"}},
    });
    let prepared = resolved(spec, ConnectionKind::VaultConnection, false).unwrap();
    let namespace = prepared.namespace.as_ref().map(VaultNamespace::as_str);
    assert_eq!(namespace, Some("admin"));
    assert_eq!(prepared.headers.get("x-route").unwrap(), "blue");
    assert!(!format!("{prepared:?}").contains("blue"));
    assert_eq!(prepared.requests_per_second, Some(5));
    assert_eq!(prepared.max_in_flight, 3);
    assert_eq!(prepared.server_name.as_deref(), Some("vault.internal"));
    let certificate = ObjectKey::new("shop", "me");
    assert_eq!(prepared.client_certificate, Some(certificate));
}

#[test]
fn a_connection_depends_on_the_secrets_it_names() {
    let id = ConnectionId {
        kind: ConnectionKind::VaultConnection,
        key: ObjectKey::new("shop", "main"),
    };
    let spec = json!({"address": "https://v", "tls": {
        "ca": {"secret": {"name": "ca", "key": "k"}}, "clientCertificate": {"name": "me"},
    }});
    let spec: VaultConnectionSpec = serde_json::from_value(spec).unwrap();
    let spec = spec.into();
    let depends = |namespace, name| reads(&id, &spec, &ObjectKey::new(namespace, name));
    assert!(depends("shop", "ca") && depends("shop", "me"));
    assert!(!depends("shop", "other") && !depends("other", "me"));
}

#[test]
fn a_secret_of_the_own_namespace_is_found() {
    let spec = json!({"address": "https://v/prefix", "timeout": "5s", "tls": {"ca": {"secret": {"name": "a", "key": "b"}}}});
    let prepared = resolved(spec, ConnectionKind::VaultConnection, false).unwrap();
    assert_eq!(
        prepared.ca,
        Ca::Secret(ObjectKey::new("shop", "a"), "b".into())
    );
    assert_eq!(prepared.timeout, Duration::from_secs(5));
}
