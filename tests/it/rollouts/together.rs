//! Several changes, one restart.

use std::time::Duration;

use serde_json::json;

use crate::support::{InStep, Stage, Team, env_from, pod_stamp, settle, workload};

const SECRETS: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

/// One Deployment that uses five Secrets; the second one is polled once a minute, the others every two seconds.
async fn five_secrets(team: &Team<'_>) -> InStep {
    for name in SECRETS {
        team.put(name, &json!({"password": "one"})).await;
        let interval = if name == "s1" { "60s" } else { "2s" };
        let spec = json!({"refreshInterval": interval, "rollout": {"settle": "3s"}});
        team.vault_secret(name, spec).await;
        team.ready(name).await;
    }
    team.apply(&workload("Deployment", "app", &env_from(&SECRETS)))
        .await;
    team.in_step("s0", ("Deployment", "app"), None).await
}

/// Rotates all five and expects one restart, after which nothing is left to do.
async fn rotate(team: &Team<'_>, before: &InStep, password: &str, pace: Duration) -> InStep {
    let mut pace = tokio::time::interval(pace);
    for name in SECRETS {
        pace.tick().await;
        team.put(name, &json!({"password": password})).await;
    }
    for name in SECRETS {
        team.secret_with(name, "password", password).await;
    }
    let workload = ("Deployment", "app");
    // Each says the same hash, which stands for all five.
    let after = team.in_step("s0", workload, Some(&before.hash)).await;
    assert_eq!(after.template, before.template + 1);
    for name in SECRETS {
        assert_eq!(
            team.in_step(name, workload, Some(&before.hash)).await,
            after,
            "{name}"
        );
    }
    team.polled("s0").await;
    team.polled("s4").await;
    team.not_restarted(&after).await;
    assert_eq!(team.stamp("app").await, Some(after.hash.clone()));
    after
}

#[tokio::test]
async fn five_secrets_that_change_together_are_one_restart() {
    let stage = Stage::shared().await;
    let team = stage.team("five").await;
    let before = five_secrets(&team).await;
    let after = rotate(&team, &before, "two", Duration::from_millis(1)).await;
    // Less than a second apart, and more than an instant: here timestamps of whole seconds fail.
    rotate(&team, &after, "three", Duration::from_millis(350)).await;
}

#[tokio::test]
async fn the_second_of_two_changes_within_a_second_is_not_lost() {
    let stage = Stage::shared().await;
    let team = stage.team("twice").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("0s")).await;
    team.apply(&workload("Deployment", "app", &env_from(&["app"])))
        .await;
    team.polled("app").await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;

    let mut pace = tokio::time::interval(Duration::from_millis(350));
    for password in ["two", "three"] {
        pace.tick().await;
        team.put("app", &json!({"password": password})).await;
        team.refresh("app", password).await;
    }
    team.secret_with("app", "password", "three").await;
    // By then the second restart has begun.
    team.polled("app").await;
    let after = team
        .in_step("app", ("Deployment", "app"), Some(&before.hash))
        .await;
    assert!(after.template <= before.template + 2);
    for pod in team.pods("app").await {
        assert_eq!(pod_stamp(&pod), Some(after.hash.as_str()));
    }
}

#[tokio::test]
async fn a_secret_that_is_polled_seldom_is_read_again_with_each_change_of_the_others() {
    let stage = Stage::shared().await;
    let team = stage.team("seldom").await;
    for (name, interval) in [("first", "2s"), ("seldom", "1h"), ("last", "2s")] {
        team.put(name, &json!({"password": "one"})).await;
        let spec = json!({"refreshInterval": interval, "rollout": {"settle": "4s"}});
        team.vault_secret(name, spec).await;
    }
    let pod = env_from(&["first", "seldom", "last"]);
    team.apply(&workload("Deployment", "app", &pod)).await;
    team.polled("last").await;
    let before = team.in_step("first", ("Deployment", "app"), None).await;

    let mark = stage.vault_audit_mark().unwrap();
    team.put("first", &json!({"password": "two"})).await;
    team.was_read(mark, "seldom", 1).await;
    for name in ["seldom", "last"] {
        team.put(name, &json!({"password": "two"})).await;
    }
    let after = team.restarted_once("first", &before).await;
    team.secret_with("seldom", "password", "two").await;
    team.polled("last").await;
    team.not_restarted(&after).await;
}

#[tokio::test]
async fn data_that_comes_in_the_second_in_which_its_secret_is_made_is_told_from_the_first() {
    let stage = Stage::shared().await;
    let team = stage.team("birth").await;
    for name in SECRETS {
        team.put(name, &json!({"password": "one"})).await;
        team.vault_secret(name, json!({})).await;
        team.secret_with(name, "password", "one").await;
        team.put(name, &json!({"password": "two"})).await;
        team.refresh(name, "now").await;
        let secret = team.secret_with(name, "password", "two").await.metadata;
        let written = secret.managed_fields.unwrap()[0].time.clone();
        assert!(written > secret.creation_timestamp, "{name}: {written:?}");
    }
}
