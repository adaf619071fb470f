//! Effects: loopback HTTP — what goes over the wire, and when it does not.

use futures::future::join_all;

use super::*;
use crate::vault::path::{MountPath, SecretPath, VaultNamespace};
use crate::vault::request::KvVersion;
use crate::vault::testing::{CANARY, Clock, TestVault, kv2};

fn read() -> Request {
    let mount = MountPath::parse("secret").unwrap();
    Request::kv2_read(&mount, &SecretPath::parse("a b").unwrap(), None)
}

fn transport(address: &str) -> Transport {
    let settings = TransportSettings::new(VaultAddress::parse(address).unwrap());
    Transport::new(settings, Arc::new(Metrics::default())).unwrap()
}

async fn send(transport: &Transport) -> Result<Response, VaultError> {
    transport.send(&read(), None).await
}

async fn fail(transport: &Transport) -> VaultError {
    send(transport).await.unwrap_err()
}

#[tokio::test]
async fn a_request_carries_its_headers_below_the_prefix() {
    let vault = TestVault::start();
    vault.put("/prefix/v1/secret/data/a%20b", 200, &kv2("x", 1));
    vault.model().tokens.insert(CANARY.to_owned());
    let transport = transport(&format!("{}/prefix/", vault.address()));
    let namespace = VaultNamespace::parse("admin/team").unwrap();
    let request = read().in_namespace(Some(namespace));
    let answer = transport
        .send(&request, Some(&Sensitive::new(CANARY)))
        .await
        .unwrap();
    assert_eq!(answer.kv(KvVersion::V2).unwrap().version, Some(1));
    let headers = vault.model().last_headers.clone();
    for (name, value) in [
        ("x-vault-token", CANARY),
        ("x-vault-namespace", "admin/team"),
        ("x-vault-request", "true"),
        (
            "user-agent",
            concat!("lockstep/", env!("CARGO_PKG_VERSION")),
        ),
    ] {
        assert_eq!(headers.get(name).unwrap(), value);
    }
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_refused_and_not_shown() {
    let vault = TestVault::start();
    let token = Sensitive::new(format!("{CANARY}\n"));
    let error = vault
        .transport()
        .send(&read(), Some(&token))
        .await
        .unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Refused);
    assert!(error.detail.starts_with("the token holds characters"));
    assert!(!format!("{error:?}").contains(CANARY));
    assert!(vault.model().seen.is_empty());
}

#[tokio::test]
async fn while_vault_is_sealed_it_is_left_alone() {
    let clock = Clock::stop();
    let vault = TestVault::start();
    let transport = vault.transport();
    vault.model().sealed = true;
    let first = fail(&transport).await;
    assert_eq!(
        (first.kind, first.held_back),
        (VaultErrorKind::Sealed, false)
    );
    for _ in 0..10 {
        let next = fail(&transport).await;
        assert_eq!((next.kind, next.held_back), (VaultErrorKind::Sealed, true));
        assert_eq!(next.detail, first.detail);
    }
    assert_eq!(vault.count("GET secret/data/a%20b"), 1);

    vault.model().sealed = false;
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    clock.advance(transport.gate_reopens_in().unwrap()).await;
    send(&transport).await.unwrap();
    assert_eq!(transport.gate_reopens_in(), None);
}

#[tokio::test]
async fn after_an_outage_one_probe_goes_first() {
    let clock = Clock::stop();
    let vault = TestVault::start();
    let transport = vault.transport();
    vault.model().sealed = true;
    fail(&transport).await;
    clock.advance(Duration::from_secs(1)).await;
    vault.model().seen.clear();
    let results = join_all((0..20).map(|_| send(&transport))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(vault.model().seen.len(), 1);
}

#[tokio::test]
async fn a_probe_that_is_given_up_does_not_block_the_next() {
    let clock = Clock::stop();
    let vault = TestVault::start();
    let transport = vault.transport();
    vault.model().sealed = true;
    fail(&transport).await;
    clock.advance(Duration::from_secs(1)).await;
    {
        let mut given_up = std::pin::pin!(send(&transport));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        assert!(fail(&transport).await.held_back, "the probe is under way");
    }
    assert!(!fail(&transport).await.held_back);
}

#[tokio::test]
async fn health_is_asked_even_when_the_gate_is_closed() {
    let vault = TestVault::start();
    let transport = vault.transport();
    vault.model().sealed = true;
    fail(&transport).await;
    let request = Request::health();
    let body = r#"{"initialized":true,"sealed":true,"standby":true,"version":"1.21.0"}"#;
    vault.put(&request.target(), 200, body);
    let health = transport.send(&request, None).await.unwrap();
    assert!(health.health().unwrap().sealed);
    assert!(fail(&transport).await.held_back, "health does not open it");
}

#[tokio::test]
async fn a_quota_on_one_path_leaves_the_others_alone() {
    let vault = TestVault::start();
    let transport = vault.transport();
    let quota = r#"{"errors":["request path \"secret/data/noisy\": rate limit quota exceeded"]}"#;
    vault.put("secret/data/noisy", 429, quota);
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    let mount = MountPath::parse("secret").unwrap();
    let noisy = Request::kv2_read(&mount, &SecretPath::parse("noisy").unwrap(), None);
    let error = transport.send(&noisy, None).await.unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Throttled);
    send(&transport).await.unwrap();

    vault.put("secret/data/noisy", 429, "slow down");
    transport.send(&noisy, None).await.unwrap_err();
    assert!(fail(&transport).await.held_back, "a proxy limits all paths");
}

#[tokio::test]
async fn an_address_without_a_vault_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let transport = transport(&address);
    let error = fail(&transport).await;
    assert_eq!(error.kind, VaultErrorKind::Unreachable);
    assert!(error.detail.contains("refused"), "{error}");
    assert!(fail(&transport).await.held_back);
}

#[tokio::test]
async fn a_vault_that_does_not_answer_is_unreachable() {
    let vault = TestVault::start();
    vault.model().delay = Duration::from_millis(500);
    let settings = TransportSettings {
        timeout: Duration::from_millis(50),
        ..TransportSettings::new(vault.address())
    };
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    let error = fail(&transport).await;
    assert_eq!(error.kind, VaultErrorKind::Unreachable);
    assert_eq!(error.detail, "no answer in time");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let vault = TestVault::start();
    vault.put("secret/data/a%20b", 307, "");
    let error = fail(&vault.transport()).await;
    assert_eq!(error.kind, VaultErrorKind::Unavailable);
    assert_eq!(vault.model().seen.len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read() {
    let vault = TestVault::start();
    let large = kv2(&"x".repeat(MAX_BODY), 1);
    vault.put("secret/data/a%20b", 200, &large);
    let error = fail(&vault.transport()).await;
    assert_eq!(error.kind, VaultErrorKind::Invalid);
    assert_eq!(error.detail, "the answer is too large");
    vault.put("secret/data/a%20b", 200, &kv2(&"x".repeat(MAX_BODY / 2), 1));
    let answer = send(&vault.transport()).await.unwrap();
    let data = answer.kv(KvVersion::V2).unwrap();
    assert_eq!(data.entries["k"].len(), MAX_BODY / 2);
}

#[tokio::test]
async fn requests_in_flight_are_limited() {
    let vault = TestVault::start();
    vault.model().delay = Duration::from_millis(20);
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    let settings = TransportSettings {
        max_in_flight: 3,
        ..TransportSettings::new(vault.address())
    };
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    let results = join_all((0..12).map(|_| send(&transport))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(vault.most_in_flight(), 3);
}

#[test]
fn a_ca_that_is_not_pem_is_refused() {
    for ca in [
        "",
        "not PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let settings = TransportSettings {
            ca: Some(ca.as_bytes().to_vec()),
            ..TransportSettings::new(VaultAddress::parse("https://localhost").unwrap())
        };
        let error = Transport::new(settings, Arc::new(Metrics::default())).unwrap_err();
        assert_eq!(error.kind, VaultErrorKind::Refused, "{ca}");
    }
}
