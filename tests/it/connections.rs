//! How a connection reaches Vault: mutual TLS, names, headers, namespaces, limits, redirects, addresses.

mod reach;

use std::time::Instant;

use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{VaultKind, eventually};
use serde_json::{Value, json};

use crate::support::{Front, SOON, Stage, Team};

/// Applies a `VaultConnection`, and a `VaultAuth` of the same name that logs in through it.
async fn connection(team: &Team<'_>, name: &str, spec: Value) {
    connection_with_login(team, name, spec, json!({})).await;
}

/// The same with more said about the login.
async fn connection_with_login(team: &Team<'_>, name: &str, spec: Value, login: Value) {
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultConnection",
        "metadata": {"name": name}, "spec": spec,
    }))
    .await;
    let mut auth = json!({
        "connectionRef": {"kind": "VaultConnection", "name": name},
        "kubernetes": {"role": "tenant", "audiences": ["vault"]},
    });
    auth.as_object_mut()
        .unwrap()
        .extend(login.as_object().unwrap().clone());
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth",
        "metadata": {"name": name}, "spec": auth,
    }))
    .await;
}

/// The part of a spec that names the login over a connection.
fn over(name: &str) -> Value {
    json!({"authRef": {"kind": "VaultAuth", "name": name}})
}

/// Waits until the condition Ready of a connection is `wanted`, as `reason: message`, and returns all of it.
async fn told(team: &Team<'_>, name: &str, wanted: &str) -> String {
    let path =
        r#"jsonpath={range .status.conditions[?(@.type=="Ready")]}{.reason}: {.message}{end}"#;
    let arguments = [
        "get",
        "vaultconnection",
        name,
        "-n",
        &team.namespace,
        "-o",
        path,
    ];
    eventually(SOON, &format!("{name} is {wanted}"), async || {
        let output = team.stage.kubectl(&arguments).await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        if said.contains(wanted) {
            Ok(said)
        } else {
            Err(said)
        }
    })
    .await
    .unwrap()
}

async fn tls_secret(team: &Team<'_>, certificate: &str, key: &str) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": certificate, "tls.key": key},
    }))
    .await;
}

#[tokio::test]
async fn vault_is_shown_a_certificate_which_is_read_again_when_its_secret_changes() {
    let stage = Stage::shared().await;
    let team = stage.team("mtls").await;
    team.put("app", &json!({"k": "one"})).await;
    let tls = |more: Value| {
        let mut tls =
            json!({"ca": {"bundle": stage.vault_ca_pem()}, "serverName": "vault.internal"});
        tls.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"address": stage.vault_mutual_tls_address(), "tls": tls})
    };
    connection(&team, "mutual", tls(json!({}))).await;
    told(&team, "mutual", "tls.clientCertificate").await;
    connection(&team, "mutual", tls(json!({"serverName": null}))).await;
    let said = told(&team, "mutual", "not valid for name").await;
    assert!(said.contains("set spec.tls.serverName"), "{said}");
    let stranger = lockstep_testbed::bed::authority::Authority::new("somebody else").unwrap();
    let ca = json!({"ca": {"bundle": stranger.pem()}});
    connection(&team, "mutual", tls(ca)).await;
    told(&team, "mutual", "not from an authority in spec.tls.ca").await;
    let certificate = json!({"clientCertificate": {"name": "client"}});
    connection(&team, "mutual", tls(certificate)).await;
    told(
        &team,
        "mutual",
        "InvalidSpec: spec.tls.clientCertificate: there is no key tls.crt in Secret",
    )
    .await;
    team.vault_secret("app", over("mutual")).await;
    team.stalled("app", "ConnectionUnusable", &["spec.tls.clientCertificate"])
        .await;

    let stranger = stranger.client("lockstep").unwrap();
    tls_secret(&team, &stranger.certificate, &stranger.key).await;
    told(&team, "mutual", "does not accept the client certificate").await;
    let known = stage.vault_authority().client("lockstep").unwrap();
    tls_secret(&team, &known.certificate, &stranger.key).await;
    told(&team, "mutual", "InvalidSpec: spec.tls").await;
    tls_secret(&team, &known.certificate, &known.key).await;
    told(&team, "mutual", "Reachable").await;
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;
}

#[tokio::test]
async fn a_wrong_scheme_is_told() {
    let stage = Stage::shared().await;
    let team = stage.team("scheme").await;
    let (http, https) = (stage.vault_address(), stage.vault_tls_address());
    let plain = http.replace("http://", "https://");
    connection(&team, "plain", json!({"address": plain})).await;
    let address = https.replace("https://", "http://");
    connection(&team, "tls", json!({"address": address})).await;
    told(
        &team,
        "plain",
        "does not speak TLS at this port; use http://",
    )
    .await;
    told(&team, "tls", "speaks TLS at this port; use https://").await;
}

#[tokio::test]
async fn headers_and_namespaces_go_with_every_request() {
    // There `identity::namespaces` tries namespaces that exist.
    if VaultKind::OpenBao.lacks("a namespace that may be asked for without there being one") {
        return;
    }
    let stage = Stage::shared().await;
    let team = stage.team("headers").await;
    team.put("app", &json!({"k": "v"})).await;
    let front = Front::start(stage.vault_socket().unwrap()).await;
    let address = format!("http://{}", front.address());
    let spec = json!({"address": address, "namespace": "admin", "headers": {"X-Route": "blue"}});
    let login = json!({"namespace": "team"});
    connection_with_login(&team, "front", spec, login).await;
    team.vault_secret("app", over("front")).await;
    let sources = |namespace: &str| {
        let kv = json!({"mount": "secret", "path": team.path("app"), "engineVersion": 2});
        json!({"sources": [{"name": "main", "namespace": namespace, "kv": kv}],
               "authRef": {"kind": "VaultAuth", "name": "front"}})
    };
    team.vault_secret("other", sources("team/inner")).await;
    // Vault without namespaces does not mind the header; what counts is what it is asked.
    let wanted = [
        ("post /v1/auth/kubernetes/login", "admin/team"),
        ("get /v1/sys/internal/ui/mounts/secret", "admin/team"),
        ("get /v1/secret/data/", "admin/team/inner"),
    ];
    eventually(SOON, "all requests", async || {
        let heads = front.heads();
        let missing = wanted.iter().find(|(line, namespace)| {
            let namespace = format!("x-vault-namespace: {namespace}\r\n");
            !heads
                .iter()
                .any(|head| head.starts_with(line) && format!("{head}\r\n").contains(&namespace))
        });
        missing.map_or(Ok(()), |missing| Err(format!("{missing:?} in {heads:?}")))
    })
    .await
    .unwrap();
    for head in front.heads() {
        assert!(head.contains("x-route: blue"), "{head}");
        let is_health = head.starts_with("get /v1/sys/health");
        assert_eq!(head.contains("x-vault-namespace"), !is_health, "{head}");
    }
}

#[tokio::test]
async fn vault_gets_no_more_requests_than_the_limit_and_all_of_them_in_the_end() {
    const PER_SECOND: u32 = 10;
    let stage = Stage::shared().await;
    let team = stage.team("limits").await;
    let front = Front::start(stage.vault_socket().unwrap()).await;
    let address = format!("http://{}", front.address());
    let limits = json!({"requestsPerSecond": PER_SECOND, "maxInFlight": 2});
    connection(
        &team,
        "front",
        json!({"address": address, "limits": limits}),
    )
    .await;
    let start = Instant::now();
    let names: Vec<String> = (0..40).map(|number| format!("app-{number}")).collect();
    for name in &names {
        team.put(name, &json!({"k": name})).await;
    }
    for name in &names {
        team.vault_secret(name, over("front")).await;
    }
    for name in &names {
        team.secret_with(name, "k", name).await;
    }
    let requests = front.requests().len();
    let seconds = start.elapsed().as_secs_f64();
    // The burst, and what urgent requests may take beside it.
    let most = f64::from(PER_SECOND) * seconds + 4.0;
    assert!(
        u32::try_from(requests).is_ok_and(|requests| f64::from(requests) <= most),
        "{requests} in {seconds} s"
    );
    for name in &names {
        team.delete::<VaultSecret>(name).await;
    }
}

#[tokio::test]
async fn a_standby_sends_every_request_on_to_the_active_node() {
    let stage = Stage::shared().await;
    let team = stage.team("standby").await;
    team.put("app", &json!({"k": "one"})).await;
    let standby = Front::start(stage.vault_socket().unwrap()).await;
    let address = format!("http://{}", standby.address());
    // A second redirect is one too many: of two standbys, neither knows better.
    let lost = Front::start(stage.vault_socket().unwrap()).await;
    lost.redirect(&stage.vault_address());
    standby.redirect(&format!("http://{}", lost.address()));
    connection(&team, "standby", json!({"address": address})).await;
    team.vault_secret("app", over("standby")).await;
    told(&team, "standby", "redirect, which is not followed").await;
    team.unreachable("app", "Unavailable", &["not available"])
        .await;
    // Nor does it go anywhere that is not Vault's, or to TLS.
    standby.redirect(&format!("{}/elsewhere?", stage.vault_address()));
    told(&team, "standby", "another path").await;
    standby.redirect("http://169.254.169.254");
    told(&team, "standby", "never spoken to").await;
    standby.redirect(&stage.vault_tls_address());
    told(&team, "standby", "from https to http, or back").await;
    assert!(team.secret("app").await.is_none());

    standby.redirect(&stage.vault_address());
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;
    told(&team, "standby", "Reachable").await;
    let heads = standby.heads();
    assert!(heads.iter().any(|head| head.starts_with("post /v1/auth/")));
    standby.pass_on();
    team.put("app", &json!({"k": "two"})).await;
    team.secret_with("app", "k", "two").await;
}
