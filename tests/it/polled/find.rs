//! Many secrets of a KV engine in one Secret.

use lockstep_testbed::eventually;
use serde_json::{Value, json};

use crate::support::{SOON, Stage, Team};

/// A tenant that may list and read what is its own, but `hidden`.
async fn team<'a>(stage: &'a Stage, prefix: &str) -> Team<'a> {
    let team = stage.team(prefix).await;
    let namespace = &team.namespace;
    team.has_policy(&format!(
        r#"
path "secret/metadata/{namespace}/*" {{ capabilities = ["list"] }}
path "secret/data/{namespace}/*" {{ capabilities = ["read"] }}
path "secret/data/{namespace}/all/hidden" {{ capabilities = ["deny"] }}
"#
    ))
    .await;
    team
}

/// What is below the folder `all` of the team, whose names match.
fn below_all(team: &Team<'_>, pattern: &str) -> Value {
    json!({"mount": "secret", "path": team.path("all/"), "match": pattern, "recursive": true})
}

async fn keys_are(team: &Team<'_>, name: &str, wanted: &str) {
    eventually(SOON, &format!("{name} holds {wanted}"), async || {
        let keys = team.keys_of(name).await;
        if keys == wanted { Ok(()) } else { Err(keys) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_found_below_a_folder_becomes_one_secret_and_follows() {
    let stage = Stage::shared().await;
    let team = team(stage, "find").await;
    for name in [
        "all/flag-a",
        "all/eu/flag-b",
        "all/eu/deep/flag-c",
        "all/other",
    ] {
        team.put(name, &json!({"on": name})).await;
    }
    team.reads_from("flags", "find", below_all(&team, "(^|/)flag-"))
        .await;
    keys_are(&team, "flags", "eu-deep-flag-c_on eu-flag-b_on flag-a_on").await;
    team.secret_with("flags", "eu-flag-b_on", "all/eu/flag-b")
        .await;
    let status = serde_json::to_value(team.status("flags").await.sources).unwrap();
    assert_eq!(status, json!([{"name": "main", "kind": "Find"}]));

    team.put("all/flag-d", &json!({"on": "d", "off": "e"}))
        .await;
    let deleted = format!("secret/data/{}", team.path("all/eu/flag-b"));
    stage.vault().delete(&deleted).await.unwrap();
    keys_are(
        &team,
        "flags",
        "eu-deep-flag-c_on flag-a_on flag-d_off flag-d_on",
    )
    .await;
    let top = json!({"mount": "secret", "path": team.path("all"), "match": "^flag-"});
    team.reads_from("flags", "find", top).await;
    keys_are(&team, "flags", "flag-a_on flag-d_off flag-d_on").await;
    team.healed("flags").await;
}

#[tokio::test]
async fn what_cannot_all_be_read_leaves_the_last_good_secret() {
    let stage = Stage::shared().await;
    let team = team(stage, "findbad").await;
    team.put("all/flag-a", &json!({"on": "1"})).await;
    for name in ["many", "denied", "clash"] {
        team.reads_from(name, "find", below_all(&team, "^flag-"))
            .await;
        team.ready(name).await;
    }
    let kept = team.secret_to_the_letter("denied").await["data"].clone();
    for number in 0..101 {
        team.put(&format!("all/many/x-{number}"), &json!({"on": "1"}))
            .await;
    }
    team.put("all/hidden", &json!({"on": "1"})).await;
    for name in ["all/eu/x", "all/eu-x"] {
        team.put(name, &json!({"on": "1"})).await;
    }
    let mark = stage.vault_audit_mark().unwrap();
    team.reads_from("many", "find", below_all(&team, "^many/"))
        .await;
    team.reads_from("denied", "find", below_all(&team, "^hidden$"))
        .await;
    team.reads_from("clash", "find", below_all(&team, "^eu"))
        .await;
    let words = [
        "101 secrets or more",
        "the limit is 100",
        "raise maxSecrets",
    ];
    team.unreachable("many", "TooMany", &words).await;
    team.unreachable("denied", "Denied", &["read secret/data/", "all/hidden"])
        .await;
    team.stalled("clash", "KeyConflict", &["eu-x_on", "eu-x/on", "eu/x/on"])
        .await;
    let reads = team.reads_since(mark);
    assert!(
        !reads.iter().any(|read| read.path.contains("all/many/x-")),
        "{reads:#?}"
    );
    for name in ["many", "denied", "clash"] {
        assert_eq!(
            team.secret_to_the_letter(name).await["data"],
            kept,
            "{name}"
        );
    }
    let mut raised = below_all(&team, "^many/");
    raised["maxSecrets"] = json!(101);
    team.reads_from("many", "find", raised).await;
    team.secret_with("many", "many-x-100_on", "1").await;
    team.healed("many").await;
}

#[tokio::test]
async fn a_wrong_engine_version_or_a_path_of_the_api_is_explained() {
    let stage = Stage::shared().await;
    let team = team(stage, "version").await;
    let kv = |path: String, version: Option<i32>| json!({"mount": "secret", "path": path, "engineVersion": version});
    team.reads_from("old", "kv", kv(team.path("x"), Some(1)))
        .await;
    team.reads_from("api", "kv", kv(format!("data/{}", team.path("x")), Some(2)))
        .await;
    let words = ["mount secret is a version 2 engine", "set engineVersion: 2"];
    team.unreachable("old", "Denied", &words).await;
    team.unreachable("api", "Denied", &["leave out data/"])
        .await;
}
