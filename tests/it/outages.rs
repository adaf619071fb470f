//! Vault and the apiserver as a whole go away and come back: no storm meanwhile, no herd afterwards, nothing lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use lockstep_testbed::{Bed, Component, Fault, FaultProxy, OperatorOptions, eventually};
use serde_json::json;

use crate::support::{Front, GARBAGE, Good, SOON, Stage, Team, most_within, options};

const SECOND: Duration = Duration::from_secs(1);

/// The resource version of every Secret of the team.
async fn versions(team: &Team<'_>) -> BTreeMap<String, String> {
    let secrets = team
        .api::<Secret>()
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    let versions = secrets.items.into_iter().map(|secret| {
        let metadata = secret.metadata;
        (metadata.name.unwrap(), metadata.resource_version.unwrap())
    });
    versions.collect()
}

#[tokio::test]
async fn a_sealed_vault_is_asked_a_handful_of_times_and_not_overrun_when_it_is_back() {
    const COUNT: usize = 60;
    let stage = Stage::own().await;
    let front = Front::start(stage.vault_socket().unwrap()).await;
    let team = stage.team("herd").await;
    team.logs_in_at(front.address(), "kubernetes", "tenant")
        .await;
    team.fleet(COUNT).await;
    let before = versions(&team).await;
    // The steady state: every path was read three times more.
    let quiet = front.requests().len();
    eventually(GARBAGE, "three rounds of reads", async || {
        front.requests().len() >= quiet + 3 * COUNT
    })
    .await
    .unwrap();
    let steady = most_within(&front.requests()[quiet..], SECOND);
    let (mark, vault_mark) = (
        stage.audit_mark().await.unwrap(),
        stage.vault_audit_mark().unwrap(),
    );

    stage.vault().seal().await.unwrap();
    let sealed = Instant::now();
    team.all_are("SourcesReachable", "False Sealed").await;
    let probes = front.requests().len();
    eventually(SOON, "two more probes", async || {
        front.requests().len() >= probes + 2
    })
    .await
    .unwrap();
    let outage: Vec<Instant> = since(&front, sealed);
    let length = sealed.elapsed();
    assert!(length > 4 * SECOND, "probes in {length:?}");
    // What was in flight, then probes of the gate and of the connection's health.
    assert!(
        outage.len() < 40,
        "{} requests in {length:?}, {steady} a second before",
        outage.len()
    );

    stage.vault().unseal().await.unwrap();
    let unsealed = Instant::now();
    team.all_are("SourcesReachable", "True").await;
    team.all_are("Ready", "True InStep").await;
    let recovery = since(&front, unsealed);
    let fullest = most_within(&recovery, SECOND);
    assert!(
        fullest <= 2 * steady,
        "{fullest} requests in a second after the outage, {steady} before"
    );

    assert_eq!(versions(&team).await, before);
    assert_eq!(team.asked(vault_mark, "/login"), []);
    let writes = team.writes(mark).await;
    assert!(writes.iter().all(|write| write.subresource == "status"));
    for name in before.keys() {
        let count = writes.iter().filter(|write| write.name == *name).count();
        assert!(count <= 2, "{count} status writes for {name}");
    }
}

fn since(front: &Front, start: Instant) -> Vec<Instant> {
    let mut requests = front.requests();
    requests.retain(|request| *request >= start);
    requests
}

#[tokio::test]
async fn a_vault_that_is_away_for_too_long_makes_the_secret_stale_but_keeps_it() {
    let stage = Stage::own_with(&["--staleness-budget", "2s"]).await;
    let team = stage.team("stale").await;
    let good = Good::make(&team, "app").await;
    let mark = stage.vault_audit_mark().unwrap();
    stage.component(Component::Vault).kill().unwrap();
    team.condition_is("app", "SourcesReachable", "False Unreachable")
        .await;
    connection_is(&stage, "False Unreachable").await;
    team.condition_is("app", "Ready", "False Stale").await;
    good.assert_untouched().await;

    stage.restart_vault().await.unwrap();
    team.condition_is("app", "SourcesReachable", "True Reachable")
        .await;
    connection_is(&stage, "True Reachable").await;
    team.condition_is("app", "Ready", "True InStep").await;
    good.assert_untouched().await;
    assert_eq!(
        team.asked(mark, "/login"),
        [],
        "the token outlives the process"
    );

    team.put("app", &json!({"password": "after it"})).await;
    team.secret_with("app", "password", "after it").await;
}

/// What was seen at a VaultSecret is told of its connection soon, not at the next look of the minute.
async fn connection_is(stage: &Stage, wanted: &str) {
    let ready =
        r#"jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason}{end}"#;
    let arguments = ["get", "clustervaultconnection", "main", "-o", ready];
    eventually(5 * SECOND, "the connection follows", async || {
        let output = stage.kubectl(&arguments).await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        if said == wanted { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_apiserver_that_goes_and_comes_back_costs_no_write_and_nothing_is_missed() {
    let mut stage = Stage::own().await;
    // The same operator, behind a proxy that can cut its watches.
    let proxy = FaultProxy::start(stage.apiserver_socket().unwrap()).unwrap();
    let through = OperatorOptions {
        kubeconfig: Some(stage.kubeconfig_through(proxy.address()).unwrap()),
        ..options(vec!["--leader-election=false".to_owned()])
    };
    stage.operator = None;
    let operator = Bed::operator(&stage, &through).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    stage.operator = Some(operator);
    let team = stage.team("api").await;
    let good = Good::make(&team, "app").await;
    let steady = Good::make(&team, "steady").await;
    let mark = stage.audit_mark().await.unwrap();

    stage.restart_apiserver().await.unwrap();
    watches_again(&team, "first").await;
    good.assert_untouched().await;
    let mut restart = team.writes(mark).await;
    restart.retain(|write| write.name != "first");
    assert_eq!(restart, [], "a restart of the apiserver costs no write");

    proxy.set(Fault::Refuse);
    eventually(SOON, "no connection", async || proxy.connections() == 0)
        .await
        .unwrap();
    team.put("app", &json!({"password": "meanwhile"})).await;
    team.delete::<Secret>("app").await;
    let vault_mark = stage.vault_audit_mark().unwrap();
    let path = format!("secret/data/{}", team.path("app"));
    eventually(SOON, "Vault is read meanwhile", async || {
        let reads = stage.vault_audit_since(vault_mark, |request| {
            request.path == path && team.made(request)
        });
        !reads.unwrap().is_empty()
    })
    .await
    .unwrap();
    assert_eq!(stage.operator().exit_status(), None);
    proxy.set(Fault::Pass);
    team.secret_with("app", "password", "meanwhile").await;
    watches_again(&team, "second").await;
    steady.assert_untouched().await;
    team.patch::<Secret>("app", json!({"stringData": {"password": "by hand"}}))
        .await;
    team.secret_with("app", "password", "meanwhile").await;
    team.condition_is("app", "Ready", "True InStep").await;
}

/// Returns when the operator sees what happens to `VaultSecrets` and to Secrets: a new one is created, and one that is
/// changed by hand is put right.
async fn watches_again(team: &Team<'_>, name: &str) {
    team.put(name, &json!({"password": "seen"})).await;
    team.vault_secret(name, json!({})).await;
    team.secret_with(name, "password", "seen").await;
    team.patch::<Secret>(name, json!({"stringData": {"password": "by hand"}}))
        .await;
    team.secret_with(name, "password", "seen").await;
    team.ready(name).await;
}
