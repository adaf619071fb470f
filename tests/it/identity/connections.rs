//! Over which connection: certificate authorities, and the engines behind it.

use serde_json::{Value, json};

use super::{by, credential, login, tenant};
use crate::support::{Stage, Team, text_of};

/// A connection over TLS with this certificate authority, and a login over it with the same name.
async fn connection(team: &Team<'_>, name: &str, ca: Value) {
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultConnection", "metadata": {"name": name},
        "spec": {"address": team.stage.vault_tls_address(), "tls": {"ca": ca}},
    }))
    .await;
    let mut spec = tenant();
    spec["connectionRef"] = json!({"kind": "VaultConnection", "name": name});
    login(team, "VaultAuth", name, spec).await;
}

#[tokio::test]
async fn a_certificate_authority_is_taken_from_a_secret_a_config_map_or_the_spec() {
    let stage = Stage::shared().await;
    let team = stage.team("tls").await;
    let pem = stage.vault_ca_pem();
    credential(&team, "ca", json!({"ca.crt": pem})).await;
    team.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": pem},
    }))
    .await;
    let key = json!({"name": "ca", "key": "ca.crt"});
    let all = [
        ("bundle", json!({"bundle": pem})),
        ("secret", json!({"secret": key})),
        ("configmap", json!({"configMap": key})),
    ];
    for (name, ca) in &all {
        connection(&team, name, ca.clone()).await;
        team.put(name, &json!({"k": "v"})).await;
        team.vault_secret(name, by("VaultAuth", name)).await;
    }
    for (name, _) in &all {
        team.secret_with(name, "k", "v").await;
        team.healed(name).await;
    }
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_spoken_to_until_the_secret_names_the_right_one() {
    let stage = Stage::shared().await;
    let team = stage.team("wrongca").await;
    let other = lockstep_testbed::bed::authority::Authority::new("somebody else").unwrap();
    credential(&team, "ca", json!({"ca.crt": other.pem()})).await;
    let ca = json!({"secret": {"name": "ca", "key": "ca.crt"}});
    connection(&team, "tls", ca).await;
    team.put("app", &json!({"k": "one"})).await;
    let mark = stage.vault_audit_mark().unwrap();
    team.vault_secret("app", by("VaultAuth", "tls")).await;
    team.unreachable("app", "Unreachable", &["source main", "cannot be reached"])
        .await;
    team.polled_twice().await;
    let path = format!("secret/data/{}", team.path("app"));
    assert!(team.reads_since(mark).iter().all(|read| read.path != path));
    assert!(team.secret("app").await.is_none());

    credential(&team, "ca", json!({"ca.crt": stage.vault_ca_pem()})).await;
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;

    // It is noticed the other way round, too, and the last good Secret stays.
    credential(&team, "ca", json!({"ca.crt": other.pem()})).await;
    team.unreachable("app", "Unreachable", &["cannot be reached"])
        .await;
    team.secret_with("app", "k", "one").await;
    team.condition_is("app", "Ready", "True LastGood").await;
}

#[tokio::test]
async fn both_versions_of_the_kv_engine_are_read_told_or_found_out_and_a_version_can_be_pinned() {
    let stage = Stage::shared().await;
    let team = stage.team("kv").await;
    let vault = stage.vault();
    let v1 = format!("v1-{}", team.namespace);
    let options = json!({"type": "kv", "options": {"version": "1"}});
    vault
        .write(&format!("sys/mounts/{v1}"), &options)
        .await
        .unwrap();
    let rules = format!(
        "path \"{v1}/*\" {{ capabilities = [\"read\"] }}\npath \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
        team.namespace
    );
    vault.policy(&team.namespace, &rules).await.unwrap();
    let token = vault
        .create_token(&[&team.namespace, "default"], "1h")
        .await
        .unwrap();
    credential(&team, "token", json!({"t": token})).await;
    let token = json!({"token": {"secretRef": {"name": "token", "key": "t"}}});
    login(&team, "VaultAuth", "default", token).await;
    let first = json!({"text": "one", "number": 7, "nested": {"a": [1]}});
    vault.write(&format!("{v1}/a/app"), &first).await.unwrap();
    team.put("app", &first).await;
    team.put("app", &json!({"text": "two"})).await;
    let kv = |mount: &str, path: &str, more: Value| {
        let mut kv = json!({"mount": mount, "path": path});
        for (key, value) in more.as_object().unwrap() {
            kv[key] = value.clone();
        }
        json!({"sources": [{"name": "main", "kv": kv}]})
    };
    let path = team.path("app");
    let rows = [
        ("v1-found", kv(&v1, "a/app", json!({})), "one"),
        (
            "v1-told",
            kv(&v1, "a/app", json!({"engineVersion": 1})),
            "one",
        ),
        ("v2-found", kv("secret", &path, json!({})), "two"),
        (
            "v2-told",
            kv("secret", &path, json!({"engineVersion": 2})),
            "two",
        ),
        (
            "v2-pinned",
            kv("secret", &path, json!({"version": 1})),
            "one",
        ),
    ];
    for (name, spec, _) in &rows {
        team.vault_secret(name, spec.clone()).await;
    }
    for (name, _, value) in &rows {
        let secret = team.secret_with(name, "text", value).await;
        team.healed(name).await;
        let version = team.status(name).await.sources[0].version;
        let wanted = match *name {
            "v2-pinned" => Some(1),
            name if name.starts_with("v2") => Some(2),
            _ => None,
        };
        assert_eq!(version, wanted, "{name}");
        if *value == "one" {
            assert_eq!(text_of(&secret, "number").as_deref(), Some("7"), "{name}");
            let nested = text_of(&secret, "nested");
            assert_eq!(nested.as_deref(), Some(r#"{"a":[1]}"#), "{name}");
        }
    }
    let pinned = kv(&v1, "a/app", json!({"version": 1}));
    team.vault_secret("v1-pinned", pinned).await;
    let words = ["is a version 1 engine", "remove version"];
    team.unreachable("v1-pinned", "Refused", &words).await;
    team.put("app", &json!({"text": "three"})).await;
    team.secret_with("v2-found", "text", "three").await;
    team.secret_with("v2-pinned", "text", "one").await;
}
