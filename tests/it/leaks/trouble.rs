//! What goes wrong around values: each function makes it happen and returns what must not be seen of it.

use k8s_openapi::api::core::v1::Secret;
use lockstep_testbed::{VaultRoot, eventually};
use serde_json::{Value, json};

use crate::support::{Canary, Front, SOON, Stage, Team};

/// What Lockstep or the apiserver refuses to write.
pub async fn refusals(team: &Team<'_>) -> Vec<Canary> {
    let canary = Canary::new("refused");
    let value = canary.text.as_str();
    let rows: [(&str, Value, Option<&str>, &str); 6] = [
        ("key", json!({"not a key!": value}), None, "KeyNotAllowed"),
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
    for (name, _, _, reason) in &rows {
        if !reason.is_empty() {
            team.condition_is(name, "Stalled", &format!("True {reason}"))
                .await;
        }
    }
    refused_together(team, value).await;
    vec![canary]
}

/// Two sources that are refused only together.
async fn refused_together(team: &Team<'_>, value: &str) {
    let source =
        |name: &str| json!({"name": name, "kv": {"mount": "secret", "path": team.path("docker")}});
    team.vault_secret("twice", json!({"sources": [source("one"), source("two")]}))
        .await;
    team.condition_is("twice", "Stalled", "True KeyConflict")
        .await;
    team.put("large", &json!({"a": value.repeat(17_000)})).await;
    let part = |name: &str| {
        json!({
            "name": name, "keys": {"prefix": name},
            "kv": {"mount": "secret", "path": team.path("large")},
        })
    };
    team.vault_secret("large", json!({"sources": [part("one"), part("two")]}))
        .await;
    team.condition_is("large", "Stalled", "True TooLarge").await;
}

/// An admission policy of the cluster may say what it likes, even what it saw.
pub async fn a_policy_that_quotes(team: &Team<'_>) -> Vec<Canary> {
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
pub async fn credentials(stage: &Stage) -> Vec<Canary> {
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
pub async fn strange_answers(stage: &Stage) -> Vec<Canary> {
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
