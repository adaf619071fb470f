//! Who logs in to Vault, over which connection, and who may use whose login.

mod certificates;
mod clouds;
mod connections;
mod fences;
mod jwt;
mod methods;
mod namespaces;
mod passwords;
mod tenants;
mod wrapped;

use serde_json::{Value, json};

use crate::support::Team;

/// Applies a `VaultAuth` or `ClusterVaultAuth` that logs in at the shared connection.
async fn login(team: &Team<'_>, kind: &str, name: &str, spec: Value) {
    let mut spec = spec;
    if spec["connectionRef"].is_null() {
        spec["connectionRef"] = json!({"kind": "ClusterVaultConnection", "name": "main"});
    }
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    }))
    .await;
}

/// The Kubernetes method with the role that all tenants share.
fn tenant() -> Value {
    json!({"kubernetes": {"role": "tenant", "audiences": ["vault"]}})
}

/// The part of a spec that names a login.
fn by(kind: &str, name: &str) -> Value {
    json!({"authRef": {"kind": kind, "name": name}})
}

/// Applies a Secret in the namespace.
async fn credential(team: &Team<'_>, name: &str, data: Value) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
    }))
    .await;
}

/// A policy for what the team has in Vault, under the team's name.
async fn policy(team: &Team<'_>) {
    let rules = format!(
        "path \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
        team.namespace
    );
    team.stage
        .vault()
        .policy(&team.namespace, &rules)
        .await
        .unwrap();
}

/// What the `VaultSecret` tells of its login, and the operator of all, is without the credentials that begin so.
async fn tells_no_canary(team: &Team<'_>, name: &str) {
    let told = team.condition(name, "SourcesReachable").await.unwrap();
    assert!(!told.contains("canary-of"), "{told}");
    let log = team.stage.operator().log_text();
    assert!(!log.contains("canary-of"), "a credential is in the log");
}
