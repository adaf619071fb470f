//! No value gets out: not into the log at its most detailed, not into any object, whatever happens to it.

mod trouble;

use k8s_openapi::api::core::v1::Secret;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{OPERATOR_NAMESPACE, eventually};
use serde_json::json;
use sha2::{Digest, Sha256};

use self::trouble::{a_policy_that_quotes, credentials, refusals, strange_answers};
use crate::support::{Canary, SOON, Stage, Team, hex, text_of};

const TRACE: [&str; 2] = ["--log-filter", "trace"];

#[tokio::test]
async fn no_value_is_found_anywhere_but_in_its_secret() {
    let mut stage = Stage::own_with(&TRACE).await;
    let mut canaries = Vec::new();
    {
        let team = stage.team("leaks").await;
        canaries.extend(the_life_of_a_secret(&team).await);
        canaries.extend(refusals(&team).await);
        canaries.extend(a_policy_that_quotes(&team).await);
        canaries.extend(credentials(&stage).await);
        canaries.extend(strange_answers(&stage).await);
        stage.vault().seal().await.unwrap();
        team.condition_is("app", "SourcesReachable", "False Sealed")
            .await;
        stage.vault().unseal().await.unwrap();
    }
    stage.operator().terminate().unwrap();
    stage.start_operator(&TRACE).await;
    eventually(SOON, "the new process has read everything", async || {
        let log = stage.operator().log_text();
        log.matches("logged in to Vault").count() >= 3
    })
    .await
    .unwrap();

    let places = stage.public_places().await;
    for kind in [
        "operator",
        "audit",
        "metrics",
        "\"Secret\"",
        "\"Event\"",
        "\"Pod\"",
        "\"VaultSecret\"",
    ] {
        assert!(
            places.iter().any(|(name, _)| name.contains(kind)),
            "nothing was looked at that is called {kind}"
        );
    }
    let mut leaks = Vec::new();
    for (place, text) in &places {
        for canary in &canaries {
            // What a policy of the cluster says stands in the audit log of the cluster, whoever it says it to.
            let not_ours = canary.text.contains("quoted") && place == "audit.log";
            if let Some(found) = canary.found_in(text).filter(|_| !not_ours) {
                leaks.push(format!("{} in {place}: {found}", canary.text));
            }
        }
    }
    assert!(
        leaks.is_empty(),
        "{} leaks:\n{}",
        leaks.len(),
        leaks.join("\n")
    );
}

/// Created, used by a workload, changed, rolled out, put right, deleted and created again.
async fn the_life_of_a_secret(team: &Team<'_>) -> Vec<Canary> {
    let [plain, nested, pem, binary, second] =
        ["plain", "nested", "pem", "binary", "second"].map(Canary::new);
    let base64 = format!("{}==", binary.text.replace('-', "+"));
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----\n",
        pem.text, pem.text
    );
    let mut data = json!({
        "password": plain.text, "json": {"list": [nested.text, 7, null]}, "key.pem": key, "binary": base64,
    });
    team.put("app", &data).await;
    team.vault_secret("app", json!({})).await;
    let secret = team.secret_with("app", "password", &plain.text).await;
    // The search would find it: it does where the value may be.
    let open = serde_json::to_string(&secret).unwrap();
    for canary in [&plain, &nested, &pem] {
        assert!(
            canary.found_in(&open).is_some(),
            "{} in the Secret",
            canary.text
        );
    }
    assert_eq!(text_of(&secret, "key.pem").as_deref(), Some(key.as_str()));
    team.deployment("app", 2, &["app"]).await;
    team.settled("app").await;
    team.condition_is("app", "RolledOut", "True Verified").await;

    data["password"] = json!(second.text);
    team.put("app", &data).await;
    team.secret_with("app", "password", &second.text).await;
    eventually(SOON, "a stamp", async || team.stamp("app").await)
        .await
        .unwrap();
    team.condition_is("app", "RolledOut", "True Verified").await;
    team.patch::<Secret>("app", json!({"data": {"password": null}}))
        .await;
    team.secret_with("app", "password", &second.text).await;
    team.delete::<Secret>("app").await;
    team.secret_with("app", "password", &second.text).await;
    vec![plain, nested, pem, binary, second]
}

#[tokio::test]
async fn the_rotation_hash_is_keyed_and_a_new_key_restarts_nothing() {
    let mut stage = Stage::own().await;
    let (first, namespace, template) = a_stamped_workload(&stage).await;
    let plain = ["1234", "pin1234", "pin=1234", "{\"pin\":\"1234\"}"];
    for text in plain {
        let digest = hex(&Sha256::digest(text));
        assert!(!first.contains(&digest[..16]), "{first} is that of {text}");
    }

    stage.operator().terminate().unwrap();
    let deleted = stage
        .kubectl(&[
            "-n",
            OPERATOR_NAMESPACE,
            "delete",
            "secret",
            "lockstep-rotation-hash-key",
        ])
        .await
        .unwrap();
    assert!(deleted.status.success());
    stage.start_operator(&[]).await;
    let team = Team {
        stage: &stage,
        namespace,
        client: stage.client().await.unwrap(),
    };
    let second = eventually(SOON, "another hash", async || {
        let now = hash(&team).await;
        (now != first).then_some(now)
    })
    .await
    .unwrap();
    let digest = |hash: &str| hash.split_once(':').unwrap().1.to_owned();
    assert_ne!(digest(&first), digest(&second));

    team.condition_is("app", "RolledOut", "True Verified").await;
    eventually(SOON, "the workload under the new hash", async || {
        let object = team.api::<VaultSecret>().get("app").await.unwrap();
        let rollout = object.status.and_then(|status| status.rollout);
        let seen = rollout.and_then(|rollout| rollout.workloads.first()?.hash.clone());
        seen.is_some() && seen != template.0
    })
    .await
    .unwrap();
    team.condition_is("app", "RolledOut", "True Verified").await;
    assert_eq!(team.template("Deployment", "web").await, template);
}

/// A Secret and a Deployment restarted for it: the rotation hash, the namespace, and the pod template.
async fn a_stamped_workload(stage: &Stage) -> (String, String, (Option<String>, i64)) {
    let team = stage.team("keyed").await;
    team.put("app", &json!({"pin": "0000"})).await;
    // Long enough for the pods to be provably younger than the data.
    team.vault_secret("app", json!({"rollout": {"settle": "5s"}}))
        .await;
    team.ready("app").await;
    team.deployment("web", 1, &["app"]).await;
    team.settled("web").await;
    let before = team.template("Deployment", "web").await;
    team.put("app", &json!({"pin": "1234"})).await;
    team.secret_with("app", "pin", "1234").await;
    eventually(SOON, "the restart", async || {
        team.template("Deployment", "web").await != before
    })
    .await
    .unwrap();
    team.condition_is("app", "RolledOut", "True Verified").await;
    let template = team.template("Deployment", "web").await;
    (hash(&team).await, team.namespace.clone(), template)
}

async fn hash(team: &Team<'_>) -> String {
    let object = team.api::<VaultSecret>().get("app").await.unwrap();
    object.status.unwrap().rotation_hash.unwrap()
}
