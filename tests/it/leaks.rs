//! No value gets out: not into the log at its most detailed, not into any object, whatever happens to it.

use k8s_openapi::api::core::v1::Secret;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{OPERATOR_NAMESPACE, VaultRoot, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Canary, Front, SOON, Stage, Team, text_of};

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
            if let Some(found) = canary.found_in(text) {
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

/// What Lockstep or the apiserver refuses to write.
async fn refusals(team: &Team<'_>) -> Vec<Canary> {
    let canary = Canary::new("refused");
    let value = canary.text.as_str();
    let rows: [(&str, Value, Option<&str>, &str); 7] = [
        ("key", json!({"not a key!": value}), None, "KeyNotAllowed"),
        (
            "large",
            json!({"a": value.repeat(40_000)}),
            None,
            "TooLarge",
        ),
        (
            "tls",
            json!({"tls.crt": value}),
            Some("kubernetes.io/tls"),
            "TargetInvalid",
        ),
        (
            "docker",
            json!({".dockerconfigjson": value}),
            Some("kubernetes.io/dockerconfigjson"),
            "TargetInvalid",
        ),
        (
            "docker-json",
            json!({".dockerconfigjson": {"auths": value}}),
            Some("kubernetes.io/dockerconfigjson"),
            "",
        ),
        (
            "ssh",
            json!({"other": value}),
            Some("kubernetes.io/ssh-auth"),
            "TargetInvalid",
        ),
        (
            "basic",
            json!({"other": value}),
            Some("kubernetes.io/basic-auth"),
            "TargetInvalid",
        ),
    ];
    for (name, data, type_, _) in &rows {
        team.put(name, data).await;
        let extra = type_.map_or(json!({}), |type_| json!({"target": {"type": type_}}));
        team.vault_secret(name, extra).await;
    }
    let source =
        |name: &str| json!({"name": name, "kv": {"mount": "secret", "path": team.path("docker")}});
    team.vault_secret("twice", json!({"sources": [source("one"), source("two")]}))
        .await;
    for (name, _, _, reason) in &rows {
        if !reason.is_empty() {
            team.condition_is(name, "Stalled", &format!("True {reason}"))
                .await;
        }
    }
    team.condition_is("twice", "Stalled", "True KeyConflict")
        .await;
    vec![canary]
}

/// An admission policy of the cluster may say what it likes, even what it saw.
async fn a_policy_that_quotes(team: &Team<'_>) -> Vec<Canary> {
    let canary = Canary::new("quoted");
    let namespace = &team.namespace;
    team.stage
        .apply_yaml(&format!(
            "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: quotes}}
spec:
  matchConstraints:
    resourceRules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}}]
  validations:
    - expression: \"!has(object.data) || !('quoted' in object.data)\"
      messageExpression: \"'not this: ' + string(object.data.quoted)\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: quotes}}
spec:
  policyName: quotes
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}}}
"
        ))
        .await
        .unwrap();
    // A policy takes effect a little after it was made.
    let dry = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe", "namespace": namespace},
        "data": {"quoted": "cHJvYmU="},
    });
    eventually(SOON, "the policy holds", async || {
        team.stage.apply_yaml(&dry.to_string()).await.is_err()
    })
    .await
    .unwrap();
    team.put("policy", &json!({"quoted": canary.text})).await;
    team.vault_secret("policy", json!({})).await;
    team.condition_is("policy", "Stalled", "True TargetInvalid")
        .await;
    vec![canary]
}

/// A static token and an AppRole, each first good and then refused.
async fn credentials(stage: &Stage) -> Vec<Canary> {
    let [token, secret_id] = ["token", "secretid"].map(Canary::new);
    let vault = stage.vault();
    let static_token = stage.team("token").await;
    let app_role = stage.team("approle").await;
    for team in [&static_token, &app_role] {
        team.allow_reads().await;
    }
    vault
        .write(
            "auth/token/create-orphan",
            &json!({"id": token.text, "policies": [static_token.namespace], "ttl": "1h"}),
        )
        .await
        .unwrap();
    let role_id = app_role_in(&vault, &app_role.namespace, &secret_id.text).await;
    login_with(
        &static_token,
        &token.text,
        json!({"token": {"secretRef": {"name": "login", "key": "value"}}}),
    )
    .await;
    let method =
        json!({"appRole": {"roleId": role_id, "secretIdRef": {"name": "login", "key": "value"}}});
    login_with(&app_role, &secret_id.text, method).await;
    for team in [&static_token, &app_role] {
        team.put("app", &json!({"a": "b"})).await;
        team.vault_secret("app", json!({})).await;
        team.ready("app").await;
    }
    // Another one that Vault does not know, on two lines: it fits neither into a header nor into a role.
    let wrong = Canary::new("wrong");
    for team in [&static_token, &app_role] {
        let value = format!("{}\n{}", wrong.text, wrong.text);
        team.patch::<Secret>("login", json!({"stringData": {"value": value}}))
            .await;
        team.condition_is("app", "SourcesReachable", "False").await;
    }
    for team in [&static_token, &app_role] {
        team.patch::<Secret>("login", json!({"stringData": {"value": wrong.text}}))
            .await;
    }
    eventually(SOON, "refused logins", async || {
        stage
            .operator()
            .log_text()
            .matches("login to Vault failed")
            .count()
            >= 4
    })
    .await
    .unwrap();
    for (team, canary) in [(&static_token, &token), (&app_role, &secret_id)] {
        team.patch::<Secret>("login", json!({"stringData": {"value": canary.text}}))
            .await;
        team.condition_is("app", "SourcesReachable", "True").await;
    }
    vec![token, secret_id, wrong]
}

async fn app_role_in(vault: &VaultRoot, role: &str, secret_id: &str) -> String {
    vault.enable_auth("approle", "approle").await.unwrap();
    let path = format!("auth/approle/role/{role}");
    vault
        .write(&path, &json!({"token_policies": [role]}))
        .await
        .unwrap();
    vault
        .write(
            &format!("{path}/custom-secret-id"),
            &json!({"secret_id": secret_id}),
        )
        .await
        .unwrap();
    let answer = vault.read(&format!("{path}/role-id")).await.unwrap();
    answer["data"]["role_id"].as_str().unwrap().to_owned()
}

/// The namespace logs in by `method` with a credential that is in Secret `login`.
async fn login_with(team: &Team<'_>, credential: &str, method: Value) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "stringData": {"value": credential},
    }))
    .await;
    let mut spec = method;
    spec["connectionRef"] = json!({"kind": "ClusterVaultConnection", "name": "main"});
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": "default"}, "spec": spec,
    }))
    .await;
}

/// Whatever comes back for a read: it is no data, and none of it is shown.
async fn strange_answers(stage: &Stage) -> Vec<Canary> {
    let canary = Canary::new("echo");
    let value = &canary.text;
    let team = stage.team("echo").await;
    let front = Front::start(stage.vault_socket().unwrap()).await;
    team.logs_in_at(front.address(), "kubernetes", "tenant")
        .await;
    team.put("app", &json!({"a": "b"})).await;
    team.vault_secret("app", json!({})).await;
    team.ready("app").await;
    let html = format!("<html><body>{value}</body></html>");
    let answers = [
        ("502 Bad Gateway", "text/html", html.clone()),
        ("200 OK", "text/html", html.clone()),
        ("403 Forbidden", "text/html", html),
        (
            "200 OK",
            "application/json",
            format!("{{\"data\": \"{value}\"}}"),
        ),
        (
            "200 OK",
            "application/json",
            format!(
                "{{\"data\": {{\"data\": \"{value}\", \"metadata\": {{\"version\": \"{value}\"}}}}}}"
            ),
        ),
        (
            "200 OK",
            "application/json",
            format!("{{\"data\": {{\"data\": {{\"a\": \"{value}\", "),
        ),
        (
            "404 Not Found",
            "application/json",
            format!("{{\"errors\": [], \"data\": {{\"keys\": [\"{value}\"]}}}}"),
        ),
    ];
    for (status, content_type, body) in answers {
        let seen = front.requests().len();
        front.answer(status, content_type, &body);
        eventually(SOON, &format!("a read that got {status}"), async || {
            front.requests().len() > seen
        })
        .await
        .unwrap();
        team.condition_is("app", "SourcesReachable", "False").await;
    }
    front.pass_on();
    team.condition_is("app", "SourcesReachable", "True").await;
    vec![canary]
}

#[tokio::test]
async fn the_rotation_hash_is_keyed_and_a_new_key_restarts_nothing() {
    let mut stage = Stage::own().await;
    let (first, namespace, generation);
    {
        let team = stage.team("keyed").await;
        team.put("app", &json!({"pin": "1234"})).await;
        team.vault_secret("app", json!({})).await;
        team.ready("app").await;
        team.deployment("app", 2, &["app"]).await;
        team.condition_is("app", "RolledOut", "True Verified").await;
        first = hash(&team).await;
        generation = team.generation("app").await;
        namespace = team.namespace.clone();
    }
    let plain = ["1234", "pin1234", "pin=1234", "{\"pin\":\"1234\"}"];
    for text in plain {
        let digest: String = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
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
    assert_eq!(team.generation("app").await, generation);
}

async fn hash(team: &Team<'_>) -> String {
    let object = team.api::<VaultSecret>().get("app").await.unwrap();
    object.status.unwrap().rotation_hash.unwrap()
}
