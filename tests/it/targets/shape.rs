//! Name, type, metadata and keys of the Secret.

use k8s_openapi::api::core::v1::Secret;
use lockstep_testbed::eventually;
use serde_json::json;

use crate::support::{SOON, Stage, text_of};

#[tokio::test]
async fn the_secret_has_the_name_type_labels_and_annotations_asked_for() {
    let stage = Stage::shared().await;
    let team = stage.team("shape").await;
    let login = json!({"username": "u", "password": "p"});
    team.put("app", &login).await;
    let target = json!({
        "name": "login", "type": "kubernetes.io/basic-auth",
        "labels": {"tier": "web"}, "annotations": {"example.org/note": "hello"},
    });
    team.vault_secret("app", json!({"target": target})).await;
    let secret = team.secret_with("login", "password", "p").await;
    team.ready("app").await;
    let (labels, annotations) = (secret.metadata.labels.unwrap(), secret.metadata.annotations);
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));
    assert_eq!(labels["tier"], "web");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "lockstep");
    let annotations = annotations.unwrap();
    assert_eq!(annotations["example.org/note"], "hello");
    assert_eq!(annotations["lockstep.dev/vault-secret"], "app");
    assert_eq!(team.status("app").await.target.as_deref(), Some("login"));
    assert!(team.secret("app").await.is_none());
}

#[tokio::test]
async fn keys_of_several_sources_are_selected_renamed_and_merged() {
    let stage = Stage::shared().await;
    let team = stage.team("keys").await;
    let all = json!({"user": "u", "pass": "p", "pass_hint": "h", "note": "n"});
    team.put("db", &all).await;
    team.put("api", &json!({"token": "t", "note": "m"})).await;
    let kv = |name: &str| json!({"mount": "secret", "path": team.path(name)});
    let db_keys = json!({
        "include": ["user", "pass*"], "exclude": ["*_hint"],
        "prefix": "DB_", "rename": {"user": "LOGIN"},
    });
    let sources = json!([
        {"name": "db", "kv": kv("db"), "keys": db_keys},
        {"name": "api", "kv": kv("api"), "keys": {"exclude": ["note"]}},
    ]);
    team.vault_secret("app", json!({"sources": sources})).await;
    let secret = team.secret_with("app", "token", "t").await;
    let data: Vec<_> = secret.data.as_ref().unwrap().keys().collect();
    assert_eq!(data, ["DB_pass", "LOGIN", "token"]);
    assert_eq!(text_of(&secret, "LOGIN").as_deref(), Some("u"));
    assert_eq!(text_of(&secret, "DB_pass").as_deref(), Some("p"));
    team.ready("app").await;
    let listed = team.status("app").await.sources;
    let names: Vec<_> = listed.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["db", "api"]);

    // A key that is gone in Vault goes from the Secret, too.
    team.put("api", &json!({"other": "o"})).await;
    let secret = team.secret_with("app", "other", "o").await;
    assert_eq!(text_of(&secret, "token"), None);
}

#[tokio::test]
async fn metadata_changed_by_hand_is_put_back_and_that_of_others_is_left_alone() {
    let stage = Stage::shared().await;
    let team = stage.team("hand").await;
    team.put("app", &json!({"k": "v"})).await;
    let target = json!({"labels": {"tier": "web"}, "annotations": {"note": "ours"}});
    team.vault_secret("app", json!({"target": target})).await;
    team.ready("app").await;

    let by_hand = json!({"metadata": {
        "labels": {"tier": "gold", "theirs": "l", "app.kubernetes.io/managed-by": "me"},
        "annotations": {"note": null, "theirs": "a", "lockstep.dev/vault-secret": "other"},
    }});
    team.patch::<Secret>("app", by_hand).await;
    eventually(SOON, "the metadata as it was", async || {
        let metadata = team.secret("app").await.unwrap().metadata;
        let (labels, annotations) = (metadata.labels.unwrap(), metadata.annotations.unwrap());
        assert_eq!(labels["theirs"], "l");
        assert_eq!(annotations["theirs"], "a");
        let found = [
            labels.get("tier"),
            labels.get("app.kubernetes.io/managed-by"),
            annotations.get("note"),
            annotations.get("lockstep.dev/vault-secret"),
        ]
        .map(|value| value.map(String::as_str));
        let wanted = ["web", "lockstep", "ours", "app"].map(Some);
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn labels_changed_in_the_spec_are_one_write_and_no_restart() {
    let stage = Stage::shared().await;
    let team = stage.team("labels").await;
    team.put("app", &json!({"k": "one"})).await;
    let spec =
        |tier: &str| json!({"target": {"labels": {"tier": tier}}, "rollout": {"settle": "0s"}});
    team.vault_secret("app", spec("web")).await;
    team.ready("app").await;
    team.deployment("app", 1, &["app"]).await;
    team.settled("app").await;
    team.condition_is("app", "RolledOut", "True Verified").await;
    let (before, generation) = (team.status("app").await, team.generation("app").await);

    let mark = stage.audit_mark().await.unwrap();
    team.vault_secret("app", spec("gold")).await;
    team.observed("app").await;
    let writes = team.writes_since(mark).await;
    let to_secret = writes.iter().filter(|write| write.resource == "secrets");
    assert_eq!(to_secret.count(), 1, "{writes:#?}");
    let labels = team.secret("app").await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["tier"], "gold");
    let after = team.status("app").await;
    assert_eq!(after.last_change_time, before.last_change_time);
    assert_eq!(after.rotation_hash, before.rotation_hash);

    // Only the change of data restarts, and once.
    team.put("app", &json!({"k": "two"})).await;
    eventually(SOON, "the restart", async || {
        team.generation("app").await > generation
    })
    .await
    .unwrap();
    team.settled("app").await;
    team.condition_is("app", "RolledOut", "True Verified").await;
    assert_eq!(team.generation("app").await, generation + 1);
    let changed = team.status("app").await;
    assert_ne!(changed.last_change_time, before.last_change_time);
}

#[tokio::test]
async fn another_type_is_refused_with_a_clear_word_and_the_secret_stays() {
    let stage = Stage::shared().await;
    let team = stage.team("type").await;
    team.put("app", &json!({"username": "u", "password": "p"}))
        .await;
    team.vault_secret("app", json!({})).await;
    team.ready("app").await;
    let before = team.secret_to_the_letter("app").await;

    let target = json!({"type": "kubernetes.io/basic-auth"});
    team.vault_secret("app", json!({"target": target})).await;
    team.stalled(
        "app",
        "TargetInvalid",
        &["spec.target", "type", "immutable"],
    )
    .await;
    assert_eq!(team.secret_to_the_letter("app").await, before);

    // Under a new name it is no problem.
    let target = json!({"type": "kubernetes.io/basic-auth", "name": "typed"});
    team.vault_secret("app", json!({"target": target})).await;
    let typed = team.secret_with("typed", "username", "u").await;
    assert_eq!(typed.type_.as_deref(), Some("kubernetes.io/basic-auth"));
    team.healed("app").await;
}

#[tokio::test]
async fn a_secret_the_apiserver_refuses_is_told_with_the_field_and_without_a_value() {
    let stage = Stage::shared().await;
    let team = stage.team("invalid").await;
    team.put("app", &json!({"tls.crt": "canary-77"})).await;
    let target = |value| json!({"target": value});
    let tls = target(json!({"type": "kubernetes.io/tls"}));
    team.vault_secret("app", tls.clone()).await;
    team.stalled("app", "TargetInvalid", &["spec.target", "data[tls.key]"])
        .await;
    team.put("label", &json!({"k": "canary-77"})).await;
    let label = target(json!({"labels": {"a b": "c"}}));
    team.vault_secret("label", label).await;
    team.stalled(
        "label",
        "TargetInvalid",
        &["metadata.labels", "alphanumeric"],
    )
    .await;
    for name in ["app", "label"] {
        let told = team.condition(name, "Stalled").await.unwrap();
        assert!(!told.contains("canary"), "{told}");
        assert!(team.secret(name).await.is_none());
    }
    let mark = stage.audit_mark().await.unwrap();
    team.polled_twice().await;
    let writes = team.writes_since(mark).await;
    assert!(
        writes
            .iter()
            .all(|write| write.name == "fence" || write.resource == "events"),
        "{writes:#?}"
    );
    team.vault_secret("label", target(json!({"labels": {"ab": "c"}})))
        .await;
    team.healed("label").await;
    // What is missing comes from Vault.
    team.put("app", &json!({"tls.crt": "c", "tls.key": "k"}))
        .await;
    team.secret_with("app", "tls.key", "k").await;
    team.healed("app").await;
}
