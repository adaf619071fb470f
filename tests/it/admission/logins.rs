//! A login or a connection with a mistake.

use serde_json::{Value, json};

use super::{all_refused, object, with};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one entry per mistake")]
async fn a_login_with_a_mistake_is_refused_in_words_that_help() {
    let kubernetes = json!({"role": "r", "audiences": ["vault"]});
    let put = |pointer: &str, value: Value| with(object("VaultAuth"), pointer, value);
    let cluster = |pointer: &str, value: Value| with(object("ClusterVaultAuth"), pointer, value);
    let away = json!({"name": "a", "key": "b", "namespace": "other"});
    let app_role = json!({"roleId": "r", "secretIdRef": {"name": "a", "key": "b"}});
    let account = json!({"role": "r", "audiences": ["vault"], "serviceAccountRef": {"name": "a", "namespace": "other"}});
    let fixed = |value: Value| {
        with(
            cluster("/spec/identityFrom", json!("Fixed")),
            "/spec/token",
            value,
        )
    };
    let one = "exactly one login method";
    let own = "objects of its own namespace";
    all_refused(vec![
        (
            put("/spec/kubernetes", kubernetes.clone()),
            &[
                one,
                "kubernetes, jwt, appRole, cert, token, userPass, ldap, aws, gcp or azure",
            ],
        ),
        (put("/spec/token", json!(null)), &[one]),
        (cluster("/spec/kubernetes", kubernetes), &[one]),
        (
            put("/spec/token/secretRef", away.clone()),
            &[own, "ClusterVaultAuth"],
        ),
        (
            with(put("/spec/token", json!(null)), "/spec/kubernetes", account),
            &[own],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/appRole",
                with(app_role.clone(), "/secretIdRef", away.clone()),
            ),
            &[own],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/appRole",
                with(
                    app_role.clone(),
                    "/roleIdRef",
                    json!({"name": "a", "key": "b"}),
                ),
            ),
            &["exactly one of roleId and roleIdRef"],
        ),
        (
            put("/spec/connectionRef/namespace", json!("other")),
            &["not declared in schema", "namespace"],
        ),
        (
            put("/spec/allowedNamespaces", json!({"names": ["*"]})),
            &["not declared in schema", "allowedNamespaces"],
        ),
        (
            cluster("/spec/connectionRef/kind", json!("VaultConnection")),
            &["connectionRef.kind must be ClusterVaultConnection"],
        ),
        (
            cluster("/spec/token/secretRef", away),
            &["identityFrom: Consumer", "set identityFrom: Fixed"],
        ),
        (
            fixed(json!({"secretRef": {"name": "a", "key": "b"}})),
            &["identityFrom: Fixed", "needs a namespace"],
        ),
        (
            cluster("/spec/identityFrom", json!("Somebody")),
            &["spec.identityFrom", "Consumer"],
        ),
        (
            cluster(
                "/spec/allowedNamespaces",
                json!({"selector": {"matchLabels": {}}}),
            ),
            &["matchLabels", "at least 1"],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/kubernetes",
                json!({"role": "r"}),
            ),
            &["spec.kubernetes.audiences", "Required"],
        ),
        (
            with(
                put("/spec/token", json!(null)),
                "/spec/kubernetes",
                json!({"role": "r", "audiences": []}),
            ),
            &["spec.kubernetes.audiences", "at least 1"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_connection_with_a_mistake_is_refused_in_words_that_help() {
    let put = |pointer: &str, value: Value| with(object("VaultConnection"), pointer, value);
    let cluster = |value: Value| {
        with(
            object("ClusterVaultConnection"),
            "/spec/tls",
            json!({"ca": value}),
        )
    };
    let (here, away) = (
        json!({"name": "a", "key": "b"}),
        json!({"name": "a", "key": "b", "namespace": "other"}),
    );
    all_refused(vec![
        (
            put("/spec/address", json!("vault.example.com:8200")),
            &["spec.address", "https?://"],
        ),
        (
            put("/spec/address", json!("https://user:pass@vault:8200")),
            &["spec.address"],
        ),
        (
            put("/spec/address", json!(null)),
            &["spec.address", "Required"],
        ),
        (put("/spec/timeout", json!("1 min")), &["spec.timeout"]),
        (
            put("/spec/tls", json!({"ca": {"secret": away.clone()}})),
            &["namespace cannot be set on a VaultConnection"],
        ),
        (
            put("/spec/tls", json!({"ca": {"configMap": away}})),
            &["namespace cannot be set on a VaultConnection"],
        ),
        (
            put(
                "/spec/tls",
                json!({"ca": {"secret": here.clone(), "bundle": "x"}}),
            ),
            &["exactly one of secret, configMap and bundle"],
        ),
        (
            put("/spec/tls", json!({"ca": {}})),
            &["exactly one of secret, configMap and bundle"],
        ),
        (
            cluster(json!({"secret": here.clone()})),
            &["namespace is required on a ClusterVaultConnection"],
        ),
        (
            cluster(json!({"configMap": here})),
            &["namespace is required on a ClusterVaultConnection"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn more_mistakes_in_a_connection_are_refused_in_words_that_help() {
    let put = |pointer: &str, value: Value| with(object("VaultConnection"), pointer, value);
    let tls = |kind: &str, value: Value| with(object(kind), "/spec/tls", value);
    let header = |name: &str| put("/spec/headers", json!({name: "x"}));
    let ours: &[&str] = &["the operator sets the headers of the token"];
    let certificate =
        |namespace: Value| json!({"clientCertificate": {"name": "a", "namespace": namespace}});
    all_refused(vec![
        (header("X-Vault-Token"), ours),
        (header("x-vault-NAMESPACE"), ours),
        (header("X-Vault-Request"), ours),
        (header("authorization"), ours),
        (header("Host"), ours),
        (header("Transfer-Encoding"), ours),
        (header("Content-Length"), ours),
        (header("Proxy-Authorization"), ours),
        (
            tls("VaultConnection", certificate(json!("other"))),
            &["tls.clientCertificate: namespace cannot be set"],
        ),
        (
            tls(
                "ClusterVaultConnection",
                json!({"clientCertificate": {"name": "a"}}),
            ),
            &["tls.clientCertificate: namespace is required"],
        ),
        (
            tls("VaultConnection", json!({"serverName": "a b"})),
            &["spec.tls.serverName"],
        ),
        (
            put(
                "/spec",
                json!({"address": "http://vault:8200", "tls": {"serverName": "a"}}),
            ),
            &["TLS is not spoken to an address that begins with http://"],
        ),
        (
            put("/spec/limits", json!({"requestsPerSecond": 0})),
            &[
                "spec.limits.requestsPerSecond",
                "greater than or equal to 1",
            ],
        ),
        (
            put("/spec/limits", json!({"maxInFlight": 2000})),
            &["spec.limits.maxInFlight", "less than or equal to 1024"],
        ),
        (
            with(object("VaultAuth"), "/spec/allowedPaths", json!([])),
            &["spec.allowedPaths", "at least 1"],
        ),
    ])
    .await;
    let stage = crate::support::Stage::shared().await;
    for name in ["X-Route", "X-Vault-Inconsistent", "Cookie", "Hostile"] {
        stage.admit(&header(name)).await.unwrap();
    }
    let right = tls("ClusterVaultConnection", certificate(json!("vault")));
    stage.admit(&right).await.unwrap();
}
