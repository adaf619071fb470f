//! Logins with identities of clouds. The clouds are stand-ins that answer as their documentation says; Vault is real.
//!
//! Vault's Google and Azure methods ask the clouds for their keys at addresses that cannot be set, so there Vault's JWT
//! method takes their place: it takes the same request, and checks signature, audience and subject of the same token.

mod aws;
mod azure;
mod gcp;
mod signer;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{by, credential, login};
use crate::support::{Answer, Asked, Stage, StandIn, Team};

/// A stage whose operator finds these services at `cloud`.
async fn stage(cloud: &StandIn, services: &[&str]) -> Stage {
    let flags = services
        .iter()
        .map(|service| format!("--cloud-endpoint={service}={}", cloud.url()));
    let flags: Vec<_> = flags.collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    Stage::own_with(&flags).await
}

/// Makes a `ServiceAccount` with these annotations.
async fn account(team: &Team<'_>, name: &str, annotations: Value) {
    let account = json!({"metadata": {"name": name, "annotations": annotations}});
    let account: ServiceAccount = serde_json::from_value(account).unwrap();
    let params = PostParams::default();
    team.api().create(&params, &account).await.unwrap();
}

/// Makes a `VaultSecret` called `name` that reads by the `VaultAuth` of that name.
async fn reads_by(team: &Team<'_>, name: &str, spec: Value) {
    login(team, "VaultAuth", name, spec).await;
    team.put(name, &json!({"k": name})).await;
    team.vault_secret(name, by("VaultAuth", name)).await;
}

/// Waits until the `VaultSecret` of that name holds what is in Vault.
async fn synced(team: &Team<'_>, name: &str) {
    // First, because it says why if it does not.
    team.condition_is(name, "SourcesReachable", "True").await;
    team.secret_with(name, "k", name).await;
    team.healed(name).await;
}

/// A JSON answer.
fn answer(status: u16, body: &Value) -> Answer {
    (status, "application/json", body.to_string())
}

/// The claims of a token, which is not checked.
fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// The token is one of this `ServiceAccount`, for this audience alone, and a short one.
fn is_token_of(jwt: &str, team: &Team<'_>, name: &str, audience: &str) {
    let claims = claims(jwt);
    let subject = format!("system:serviceaccount:{}:{name}", team.namespace);
    assert_eq!(claims["sub"], json!(subject));
    assert_eq!(claims["aud"], json!([audience]));
    let lives = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(lives, 600);
}

/// The requests with this first line.
fn with_line<'a>(asked: &'a [Asked], line: &str) -> Vec<&'a Asked> {
    let found = asked.iter().filter(|asked| asked.line == line);
    found.collect()
}
