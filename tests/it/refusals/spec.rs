//! Mistakes in the `VaultSecret` itself, and in what it reads.

use lockstep_testbed::eventually;
use serde_json::{Value, json};

use super::{Mistake, all_hold, good_secrets, made, quiet};
use crate::support::{SOON, Stage, Team};

fn kv(team: &Team<'_>, source: &str, path: &str) -> Value {
    json!({"name": source, "kv": {"mount": "secret", "path": team.path(path)}})
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one entry per mistake")]
async fn a_mistake_in_the_spec_heals_by_its_correction() {
    let stage = Stage::shared().await;
    let team = stage.team("spec").await;
    let sources = |mount: &str, path: &str| json!({"sources": [{"name": "main", "kv": {"mount": mount, "path": path}}]});
    let up = format!("{}/../other", team.namespace);
    let conflict =
        json!({"sources": [kv(&team, "main", "conflict"), kv(&team, "twin", "conflict")]});
    let mut nothing = kv(&team, "main", "nothing");
    nothing["keys"] = json!({"include": ["other"]});
    let absent = |kind: &str| json!({"authRef": {"kind": kind, "name": "nobody"}});
    let mistakes = [
        Mistake::new(
            "interval",
            json!({"refreshInterval": "500ms"}),
            "InvalidSpec",
            &["spec.refreshInterval", "1s"],
        ),
        Mistake::new(
            "path",
            sources("secret", &up),
            "InvalidSpec",
            &["spec.sources[0].kv.path", "'..'"],
        ),
        Mistake::new(
            "mount",
            sources("a//b", "x"),
            "InvalidSpec",
            &["spec.sources[0].kv.mount", "two slashes"],
        ),
        Mistake::new(
            "folder",
            sources("secret", "x/"),
            "InvalidSpec",
            &["spec.sources[0].kv.path", "ends with a slash"],
        ),
        Mistake::new(
            "conflict",
            conflict,
            "KeyConflict",
            &["spec.sources", "key k", "main and twin", "keys"],
        )
        .polled(),
        Mistake::new(
            "nothing",
            json!({"sources": [nothing]}),
            "NoKeys",
            &["spec.sources", "main", "keys.include"],
        )
        .polled(),
        Mistake::new(
            "auth",
            absent("VaultAuth"),
            "AuthNotFound",
            &["spec.authRef", "VaultAuth named nobody", &team.namespace],
        ),
        Mistake::new(
            "cauth",
            absent("ClusterVaultAuth"),
            "AuthNotFound",
            &["spec.authRef", "ClusterVaultAuth named nobody", "create it"],
        ),
    ];
    good_secrets(&team, &mistakes).await;
    made(&team, &mistakes).await;
    for Mistake { name, .. } in &mistakes {
        team.put(name, &json!({"k": "corrected"})).await;
        let sources = json!([kv(&team, "main", name)]);
        let right = json!({"sources": sources, "refreshInterval": "1s"});
        team.vault_secret(name, right).await;
    }
    all_hold(&team, &mistakes, "corrected").await;
}

#[tokio::test]
async fn data_that_fits_no_secret_is_told_and_heals_in_vault() {
    let stage = Stage::shared().await;
    let team = stage.team("data").await;
    let large = "x".repeat(600 * 1024);
    let mistakes = [
        Mistake::new(
            "key",
            json!({}),
            "KeyNotAllowed",
            &["spec.sources[main]", "\"a b\"", "keys.rename"],
        )
        .polled(),
        Mistake::new(
            "large",
            json!({}),
            "TooLarge",
            &["spec.sources", "1048576", "keys.exclude"],
        )
        .polled(),
    ];
    good_secrets(&team, &mistakes).await;
    let before = [
        team.secret_to_the_letter("key").await,
        team.secret_to_the_letter("large").await,
    ];
    team.put("key", &json!({"k": "new", "a b": "canary-91"}))
        .await;
    team.put("large", &json!({"k": "new", "a": large, "b": large}))
        .await;
    for mistake in &mistakes {
        team.stalled(mistake.name, mistake.reason, &mistake.words())
            .await;
    }
    let told = team.condition("key", "Stalled").await.unwrap();
    assert!(!told.contains("canary"), "{told}");
    quiet(&team, &mistakes).await;
    let after = [
        team.secret_to_the_letter("key").await,
        team.secret_to_the_letter("large").await,
    ];
    assert_eq!(after, before);
    for Mistake { name, .. } in &mistakes {
        team.put(name, &json!({"k": "fits"})).await;
    }
    all_hold(&team, &mistakes, "fits").await;
}

#[tokio::test]
async fn a_key_that_is_named_and_not_there_is_told_beside_a_secret_in_step() {
    let stage = Stage::shared().await;
    let team = stage.team("slip").await;
    team.put("app", &json!({"user": "u", "password": "p"}))
        .await;
    let keys = |name: &str| {
        let mut source = kv(&team, "main", "app");
        source["keys"] = json!({"rename": {name: "PASSWORD"}});
        json!({"sources": [source]})
    };
    team.vault_secret("app", keys("pasword")).await;
    team.ready("app").await;
    let told = team.condition_is("app", "Synced", "True InStep").await;
    let words =
        "keys.rename of source main names what is not there: pasword; its keys are: password, user";
    assert!(told.contains(words), "{told}");
    team.secret_with("app", "password", "p").await;
    // Told as long as it is so, and not again and again.
    let mark = stage.audit_mark().await.unwrap();
    team.polled_twice().await;
    let told = team.condition_is("app", "Synced", "True InStep").await;
    assert!(told.contains(words), "{told}");
    let writes = team.writes_since(mark).await;
    assert!(
        writes.iter().all(|write| write.name != "app"),
        "{writes:#?}"
    );

    team.vault_secret("app", keys("password")).await;
    team.secret_with("app", "PASSWORD", "p").await;
    // The status follows the Secret.
    let told = async || match team.condition("app", "Synced").await {
        Some(told) if !told.contains("names what") => Ok(()),
        told => Err(told.unwrap_or_default()),
    };
    eventually(SOON, "nothing is told any more", told)
        .await
        .unwrap();
}
