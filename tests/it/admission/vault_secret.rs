//! A `VaultSecret` with a mistake.

use serde_json::{Value, json};

use super::{all_refused, vault_secret, with};

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one entry per mistake")]
async fn a_vault_secret_with_a_mistake_is_refused_in_words_that_help() {
    let put = |pointer: &str, value: Value| with(vault_secret(), pointer, value);
    let target = |value: Value| put("/spec/target", value);
    let kv = "/spec/sources/0/kv";
    let pki = |extra: Value| {
        let mut pki = json!({"mount": "pki", "role": "web", "commonName": "a.example.com"});
        for (key, value) in extra.as_object().unwrap() {
            pki[key] = value.clone();
        }
        put("/spec/sources", json!([{"name": "main", "pki": pki}]))
    };
    let twice = json!([
        {"name": "main", "kv": {"mount": "secret", "path": "a"}},
        {"name": "main", "kv": {"mount": "secret", "path": "b"}},
    ]);
    all_refused(vec![
        (
            put("/spec/refreshInterval", json!("5 minutes")),
            &["spec.refreshInterval", "ns|us|ms|s|m|h|d"],
        ),
        (
            put("/spec/refreshInterval", json!(300)),
            &["spec.refreshInterval", "string"],
        ),
        (
            put("/spec/refreshIntervall", json!("5m")),
            &["not declared in schema", "refreshIntervall"],
        ),
        (
            put("/spec/sources/0/kv/mnt", json!("x")),
            &["not declared in schema", "mnt"],
        ),
        (
            put("/spec/sources", json!([])),
            &["spec.sources", "at least 1"],
        ),
        (
            put("/spec/sources", json!(null)),
            &["spec.sources", "Required"],
        ),
        (put("/spec/sources", twice), &["sources", "duplicate"]),
        (
            put(kv, json!(null)),
            &["spec.sources[0]", "exactly one kind: set one of kv"],
        ),
        (
            put(
                "/spec/sources/0/dynamic",
                json!({"path": "database/creds/app"}),
            ),
            &["spec.sources[0]", "exactly one kind"],
        ),
        (
            pki(json!({"commonName": null})),
            &["sources[0].pki", "a certificate needs a name"],
        ),
        (
            pki(json!({"keySource": "Vault", "keyType": "Ed25519"})),
            &[
                "sources[0].pki",
                "keyType is for keys that the operator makes",
            ],
        ),
        (
            pki(json!({"keyType": "Rsa1024"})),
            &["keyType", "Rsa2048", "EcdsaP256"],
        ),
        (
            pki(json!({"role": "a/../b"})),
            &["sources[0].pki.role", "should match"],
        ),
        (
            pki(json!({"keystores": {}})),
            &["keystores", "set pkcs12 or jks"],
        ),
        (
            put("/spec/sources/0/renewAt", json!("67%")),
            &["spec.sources[0]", "renewAt is for what ends"],
        ),
        (
            put("/spec/sources/0/find", json!({"mount": "secret"})),
            &["spec.sources[0]", "exactly one kind"],
        ),
        (
            put(
                "/spec/sources",
                json!([{"name": "main", "find": {"mount": "secret", "maxDepth": 2}}]),
            ),
            &["spec.sources[0].find", "set recursive: true"],
        ),
        (
            put(
                "/spec/sources",
                json!([{"name": "main", "find": {"mount": "secret", "maxSecrets": 1001}}]),
            ),
            &["find.maxSecrets", "1000"],
        ),
        (
            put(
                "/spec/sources",
                json!([{"name": "main", "staticRole": {"mount": "database"}}]),
            ),
            &["staticRole.role", "Required"],
        ),
        (
            put("/spec/sources/0/kv/engineVersion", json!(3)),
            &["engineVersion", "2"],
        ),
        (
            with(
                put("/spec/sources/0/kv/version", json!(7)),
                "/spec/sources/0/kv/engineVersion",
                json!(1),
            ),
            &[
                "spec.sources[0].kv",
                "remove version, or set engineVersion: 2",
            ],
        ),
        (
            put(
                "/spec/authRef",
                json!({"kind": "VaultAuth", "name": "a", "namespace": "b"}),
            ),
            &["not declared in schema", "namespace"],
        ),
        (
            put("/spec/authRef", json!({"kind": "Secret", "name": "a"})),
            &["spec.authRef.kind", "ClusterVaultAuth"],
        ),
        (
            target(json!({"creationPolicy": "Orphan", "deletionPolicy": "Delete"})),
            &["spec.target", "deletionPolicy must be Retain"],
        ),
        (
            target(json!({"creationPolicy": "Merge", "type": "Opaque"})),
            &["spec.target", "Merge", "type cannot be set"],
        ),
        (
            target(json!({"creationPolicy": "Merge", "labels": {"a": "b"}})),
            &["spec.target", "Merge", "labels and annotations"],
        ),
        (
            target(json!({"type": "kubernetes.io/service-account-token"})),
            &["spec.target.type", "cluster credential"],
        ),
        (
            target(json!({"type": "bootstrap.kubernetes.io/token"})),
            &["spec.target.type", "cluster credential"],
        ),
        (
            target(json!({"labels": {"lockstep.dev/x": "y"}})),
            &["spec.target.labels", "operator's own"],
        ),
        (
            target(json!({"annotations": {"lockstep.dev/x": "y"}})),
            &["spec.target.annotations", "operator's own"],
        ),
        (
            target(json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}})),
            &["spec.target.labels", "operator's own"],
        ),
        (target(json!({"name": "Not_A_Name"})), &["spec.target.name"]),
        (
            put("/spec/sources/0/keys", json!({"rename": {"a": "b c"}})),
            &["keys.rename"],
        ),
        (
            put(
                "/spec/rollout",
                json!({"targets": [{"kind": "Pod", "name": "a"}]}),
            ),
            &["spec.rollout.targets", "Deployment"],
        ),
        (
            put("/spec/rollout", json!({"settle": "-1s"})),
            &["spec.rollout.settle"],
        ),
        (
            put(
                "/spec/rollout",
                json!({"windows": [{"schedule": "0 2 * * *"}]}),
            ),
            &["spec.rollout.windows[0].duration", "Required"],
        ),
        (
            put(
                "/spec/rollout",
                json!({"waves": {"byLabel": "a tier", "order": ["a"]}}),
            ),
            &["spec.rollout.waves.byLabel"],
        ),
        (
            put(
                "/spec/rollout",
                json!({"waves": {"byLabel": "tier", "order": []}}),
            ),
            &["spec.rollout.waves.order", "at least 1"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_duration_that_is_too_long_is_refused_with_the_longest_and_its_form() {
    let interval = |text: &str| with(vault_secret(), "/spec/refreshInterval", json!(text));
    let ttl = |text: &str| {
        let pki = json!({"mount": "pki", "role": "r", "commonName": "a", "ttl": text});
        let source = json!({"name": "main", "pki": pki});
        with(vault_secret(), "/spec/sources", json!([source]))
    };
    let words: &[&str] = &["at most 366d (8784h), written as 90s, 5m, 1h30m or 30d"];
    all_refused(vec![
        (interval("9000h"), &["spec.refreshInterval"]),
        (interval("9000h"), words),
        (interval("367d"), words),
        (interval("1h400d"), words),
        (ttl("9000h"), &["spec.sources[0].pki.ttl"]),
        (ttl("9000h"), words),
    ])
    .await;
    let stage = crate::support::Stage::shared().await;
    for text in ["8784h", "366d", "0366d", "1.5d", "12h30d", "1h30m", "500ms"] {
        stage.admit(&ttl(text)).await.unwrap();
    }
}
