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
async fn who_watches_the_connection_is_told_when_it_begins_to_fail_and_when_that_is_over() {
    let clock = Clock::stop();
    let vault = TestVault::start();
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let settings = TransportSettings {
        turned: Turned::tell(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }),
        ..TransportSettings::new(vault.address().clone())
    };
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    let turns = || told.load(std::sync::atomic::Ordering::Relaxed);
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    send(&transport).await.unwrap();
    assert_eq!(turns(), 0, "at rest nothing is told");
    vault.model().sealed = true;
    fail(&transport).await;
    fail(&transport).await;
    clock.advance(transport.gate_reopens_in().unwrap()).await;
    fail(&transport).await;
    assert_eq!(turns(), 1, "an outage is told once");
    vault.model().sealed = false;
    clock.advance(transport.gate_reopens_in().unwrap()).await;
    send(&transport).await.unwrap();
    send(&transport).await.unwrap();
    assert_eq!(turns(), 2);
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

/// Two servers: the first sends every read to the second.
fn standby() -> (TestVault, TestVault) {
    let (standby, active) = (TestVault::start(), TestVault::start());
    let location = format!("{}/v1/secret/data/a%20b", active.address());
    standby.model().location = Some(location);
    standby.put("secret/data/a%20b", 307, "");
    (standby, active)
}

#[tokio::test]
async fn a_standby_is_followed_to_the_active_node_once() {
    let (standby, active) = standby();
    active.put("secret/data/a%20b", 200, &kv2("x", 1));
    let transport = standby.transport();
    for _ in 0..2 {
        send(&transport).await.unwrap();
    }
    assert_eq!(active.count("GET secret/data/a%20b"), 2);

    // The active node became a standby too, and each points at the other.
    active.put("secret/data/a%20b", 307, "");
    let location = format!("{}/v1/secret/data/a%20b", standby.address());
    active.model().location = Some(location);
    let error = fail(&transport).await;
    assert_eq!(error.kind, VaultErrorKind::Unavailable);
    assert_eq!(standby.count("GET secret/data/a%20b"), 3);
    assert_eq!(active.count("GET secret/data/a%20b"), 3);
}

#[tokio::test]
async fn the_token_and_the_body_go_along_with_a_redirect() {
    let (standby, active) = standby();
    active.model().tokens.insert(CANARY.to_owned());
    active.put("secret/data/a%20b", 200, &kv2("x", 1));
    let transport = standby.transport();
    let token = Sensitive::new(CANARY);
    standby.model().tokens.insert(CANARY.to_owned());
    transport.send(&read(), Some(&token)).await.unwrap();

    let mount = MountPath::parse("kubernetes").unwrap();
    let login = Request::jwt_login(&mount, "app", &token).unwrap();
    standby.model().location = Some(format!("{}/v1/auth/kubernetes/login", active.address()));
    standby.put("auth/kubernetes/login", 307, "");
    let answer = transport.send(&login, None).await.unwrap();
    assert!(answer.login().is_ok());
    assert_eq!(active.model().last_body, login.body().unwrap().expose());
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_not_followed() {
    let (standby, active) = standby();
    standby.model().location = Some(format!("{}/v1/secret/data/b", active.address()));
    let error = fail(&standby.transport()).await;
    assert_eq!(error.kind, VaultErrorKind::Unavailable);
    assert!(
        error.detail.ends_with("because it names another path"),
        "{error}"
    );
    standby.model().location = Some(format!("{}/v1/secret/data/a%20b", active.address()));
    let settings = TransportSettings {
        reach: Reach::only(&[standby.address().to_string()]).unwrap(),
        ..TransportSettings::new(standby.address())
    };
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    let error = fail(&transport).await;
    assert!(
        error.detail.contains("--allowed-vault-addresses"),
        "{error}"
    );
    assert!(active.model().seen.is_empty());
}

#[tokio::test]
async fn another_redirect_is_not_followed() {
    let (standby, active) = standby();
    standby.put("secret/data/a%20b", 302, "");
    let error = fail(&standby.transport()).await;
    assert_eq!(error.kind, VaultErrorKind::Invalid);
    assert!(active.model().seen.is_empty());
}

#[tokio::test]
async fn namespaces_are_below_that_of_the_connection_but_health_is_not() {
    let vault = TestVault::start();
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    let health = Request::health();
    vault.put(&health.target(), 200, "{}");
    let namespace = |text: &str| Some(VaultNamespace::parse(text).unwrap());
    let settings = TransportSettings {
        namespace: namespace("admin"),
        headers: [("x-route", "blue"), ("x-vault-request", "no")]
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect(),
        ..TransportSettings::new(vault.address())
    };
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    let sent = |name: &str| vault.model().last_headers.get(name).cloned();
    for (request, expected) in [
        (read(), Some("admin")),
        (read().in_namespace(namespace("team")), Some("admin/team")),
        (health, None),
    ] {
        transport.send(&request, None).await.unwrap();
        let found = sent("x-vault-namespace");
        assert_eq!(
            found.as_ref().map(|value| value.to_str().unwrap()),
            expected
        );
        assert_eq!(sent("x-route").unwrap(), "blue");
        assert_eq!(sent("x-vault-request").unwrap(), "true", "ours wins");
    }
}

#[tokio::test]
async fn a_name_that_leads_to_a_metadata_service_is_refused() {
    // The resolver is asked for the host of the address, because the URL has another one.
    let settings = TransportSettings {
        server_name: Some("vault.internal".to_owned()),
        ..TransportSettings::new(VaultAddress::parse("http://169.254.169.254:1").unwrap())
    };
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    for _ in 0..2 {
        let error = fail(&transport).await;
        assert_eq!(error.kind, VaultErrorKind::Refused, "{error}");
        assert!(error.detail.starts_with("169.254.169.254"), "{error}");
        assert!(error.detail.contains("never spoken to"), "{error}");
    }
}

#[tokio::test]
async fn a_server_is_found_under_the_address_and_called_by_its_name() {
    let vault = TestVault::start();
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    let settings = TransportSettings {
        server_name: Some("vault.internal".to_owned()),
        ..TransportSettings::new(vault.address())
    };
    let port = vault.address().port();
    let transport = Transport::new(settings, Arc::new(Metrics::default())).unwrap();
    send(&transport).await.unwrap();
    let host = vault.model().last_headers.get("host").cloned().unwrap();
    assert_eq!(host, format!("vault.internal:{port}"));
}

#[tokio::test]
async fn tls_where_there_is_none_is_told() {
    let vault = TestVault::start();
    let transport = transport(&vault.address().to_string().replace("http", "https"));
    let error = fail(&transport).await;
    assert_eq!(error.kind, VaultErrorKind::Unreachable);
    assert!(
        error.detail.starts_with("the server does not speak TLS"),
        "{error}"
    );
}

fn limited(vault: &TestVault, per_second: u32) -> Transport {
    let settings = TransportSettings {
        requests_per_second: Some(per_second),
        max_in_flight: 1000,
        ..TransportSettings::new(vault.address())
    };
    Transport::new(settings, Arc::new(Metrics::default())).unwrap()
}

#[tokio::test]
async fn requests_beyond_the_rate_wait_and_an_urgent_one_goes_first() {
    let clock = Clock::stop();
    let vault = TestVault::start();
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    let transport = Arc::new(limited(&vault, 1));
    let reads: Vec<_> = (0..5)
        .map(|_| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move { send(&transport).await.is_ok() })
        })
        .collect();
    let seen = || vault.count("GET secret/data/a%20b");
    clock.wait_until("the first", || seen() == 1).await;
    // The server refuses it for want of a token; what counts is that it came.
    let renewal = {
        let transport = Arc::clone(&transport);
        tokio::spawn(async move { transport.send(&Request::token_renew(), None).await })
    };
    clock
        .wait_until("the renewal", || {
            vault.count("POST auth/token/renew-self") == 1
        })
        .await;
    renewal.await.unwrap().unwrap_err();
    assert_eq!(seen(), 1, "the reads still wait");
    // The renewal has used up the share of the first second. Timers are late by up to a millisecond.
    let second = Duration::from_millis(1001);
    clock.advance(second).await;
    tokio::task::yield_now().await;
    assert_eq!(seen(), 1);
    for expected in 2..=5 {
        clock.advance(second).await;
        clock.wait_until("the next", || seen() == expected).await;
    }
    for read in reads {
        assert!(read.await.unwrap());
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_while_it_waits_takes_nothing() {
    let clock = Clock::stop();
    let vault = TestVault::start();
    vault.put("secret/data/a%20b", 200, &kv2("x", 1));
    let transport = limited(&vault, 1);
    send(&transport).await.unwrap();
    for _ in 0..10 {
        let mut given_up = std::pin::pin!(send(&transport));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
    }
    clock.advance(Duration::from_secs(1)).await;
    send(&transport).await.unwrap();
    assert_eq!(vault.count("GET secret/data/a%20b"), 2);
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
        assert!(error.detail.starts_with("tls.ca"), "{error}");
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_refused_and_not_shown() {
    let authority = lockstep_testbed::bed::authority::Authority::new("a").unwrap();
    let (one, other) = (
        authority.client("one").unwrap(),
        authority.client("other").unwrap(),
    );
    for (pem, usable) in [
        (String::new(), false),
        (CANARY.to_owned(), false),
        (one.certificate.clone(), false),
        (one.key.clone(), false),
        (format!("{}{}", one.certificate, other.key), false),
        (format!("{}{}", one.certificate, one.key), true),
    ] {
        let settings = TransportSettings {
            client_certificate: Some(Sensitive::new(pem)),
            ..TransportSettings::new(VaultAddress::parse("https://localhost").unwrap())
        };
        match Transport::new(settings, Arc::new(Metrics::default())) {
            Ok(transport) => assert!(usable, "{transport:?}"),
            Err(error) => {
                assert!(!usable, "{error}");
                assert_eq!(error.kind, VaultErrorKind::Refused);
                assert!(error.detail.contains("tls.clientCertificate"), "{error}");
                assert!(!error.detail.contains(CANARY), "{error}");
            }
        }
    }
}
