//! Effects: DNS, TLS. Makes the HTTP client of a connection: whom it trusts, and which addresses it reaches.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::error::{VaultError, VaultErrorKind};
use super::path::VaultAddress;
use super::reach::{self, NotAllowed};
use super::request::Request;
use super::transport::TransportSettings;

/// A Vault that does not take a connection in this time is away, whatever the request may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than most refresh intervals are apart at any size, shorter than idle limits of load balancers.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// A dead HTTP/2 connection is noticed by then, even when no request waits on it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A client and the URL it speaks to one server under.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The server as the client knows it: with the name of its certificate for a host.
    pub(super) address: VaultAddress,
    /// The client.
    pub(super) http: reqwest::Client,
}

/// A client that reaches `address` with everything else as the settings say; nothing is sent.
///
/// The error's detail begins with the name of the setting that cannot be used.
pub(super) fn dial(
    settings: &TransportSettings,
    address: &VaultAddress,
) -> Result<Line, VaultError> {
    let refused = |detail: &str| VaultError::refused("connect", &address.to_string(), detail);
    // The name that is verified and asked for (SNI) is that of the URL, so the URL gets the server's
    // name, and the resolver is told where that server really is.
    let (called, resolver) = match &settings.server_name {
        None => (address.clone(), Resolver { host: None }),
        Some(name) => (
            address
                .called(name)
                .map_err(|_| refused("tls.serverName: it is not a host name"))?,
            Resolver {
                host: Some(bare_host(address)),
            },
        ),
    };
    let mut builder = reqwest::Client::builder()
        // A redirect would carry the token to another host; the one that is followed is checked first.
        .redirect(reqwest::redirect::Policy::none())
        // Retries are decided above, where it is known what may be repeated.
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(settings.max_in_flight.max(1))
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .dns_resolver(resolver)
        .tls_version_min(reqwest::tls::Version::TLS_1_2)
        .tls_danger_accept_invalid_certs(settings.insecure_skip_verify);
    if let Some(pem) = &settings.ca {
        let certificates = reqwest::Certificate::from_pem_bundle(pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())
            .ok_or_else(|| refused("tls.ca: it holds no PEM certificate"))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(pem) = &settings.client_certificate {
        let identity = reqwest::Identity::from_pem(pem.expose()).map_err(|_| {
            refused("tls.clientCertificate: it is not a PEM certificate with its PEM key")
        })?;
        builder = builder.identity(identity);
    }
    let http = builder.build().map_err(|error| {
        let setting = match &settings.client_certificate {
            Some(_) => "tls.ca or tls.clientCertificate",
            None => "tls.ca",
        };
        refused(&format!("{setting}: {}", chain(&error.without_url())))
    })?;
    Ok(Line {
        address: called,
        http,
    })
}

/// The host without the brackets of an IPv6 address.
fn bare_host(address: &VaultAddress) -> String {
    match address.host() {
        url::Host::Domain(name) => name.clone(),
        url::Host::Ipv4(ip) => ip.to_string(),
        url::Host::Ipv6(ip) => ip.to_string(),
    }
}

/// The system's resolver, without the addresses that are never spoken to.
struct Resolver {
    /// What is looked up instead of the name in the URL.
    host: Option<String>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = self
            .host
            .clone()
            .unwrap_or_else(|| name.as_str().to_owned());
        Box::pin(look_up(host))
    }
}

type LookedUp = Result<Addrs, Box<dyn Error + Send + Sync>>;

async fn look_up(host: String) -> LookedUp {
    // The port is put in by the caller.
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
    let (forbidden, reachable): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|found| reach::is_forbidden(found.ip()));
    match (forbidden.first(), reachable.is_empty()) {
        (Some(first), true) => {
            let address = format!("{} (the address of {host})", first.ip());
            Err(NotAllowed::Metadata(address).into())
        }
        _ => Ok(Box::new(reachable.into_iter())),
    }
}

/// The failure of a request that got no answer, told with what is known to help.
pub(super) fn failed(
    settings: &TransportSettings,
    request: &Request,
    error: reqwest::Error,
) -> VaultError {
    let error = error.without_url();
    let unanswered = !error.is_connect() && !error.is_builder();
    let unreachable = |detail: &str| VaultError {
        unanswered,
        ..VaultError::new(VaultErrorKind::Unreachable, request, detail)
    };
    if error.is_timeout() {
        return unreachable("no answer in time");
    }
    if let Some(not_allowed) = causes(&error).find_map(|cause| cause.downcast_ref::<NotAllowed>()) {
        return VaultError::new(VaultErrorKind::Refused, request, not_allowed.to_string());
    }
    let told = chain(&error);
    unreachable(&advice(settings, &error, &told).unwrap_or(told))
}

/// What helps against the TLS errors whose own words do not say it.
fn advice(settings: &TransportSettings, error: &reqwest::Error, told: &str) -> Option<String> {
    const PLAIN: rustls::Error = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
    const CERTIFICATE: rustls::Error =
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    match causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(tls) if *tls == PLAIN => {
            return Some(
                "the server does not speak TLS at this port; use http:// in the connection's address, or the port for TLS".to_owned(),
            );
        }
        Some(rustls::Error::InvalidCertificate(why)) => {
            return Some(about_certificate(settings.ca.is_some(), why));
        }
        Some(_) | None => {}
    }
    // Alerts come after the handshake, when HTTP/2 keeps no more of them than their text, if the closed connection was
    // not noticed before.
    if told.contains(&CERTIFICATE.to_string()) {
        return Some(
            "the server asks for a client certificate; name one under tls.clientCertificate of the connection".to_owned(),
        );
    }
    if settings.client_certificate.is_some()
        && REFUSED.map(alert).iter().any(|alert| told.contains(alert))
    {
        return Some(format!(
            "the server does not accept the client certificate; name one of an authority that it trusts under spec.tls.clientCertificate of the connection ({told})"
        ));
    }
    let may_ask = settings.address.is_https() && settings.client_certificate.is_none();
    (may_ask && told.ends_with("connection closed")).then(||
        "the server closed the connection without an answer; if it asks for a client certificate, name one under tls.clientCertificate of the connection".to_owned(),
    )
}

/// How servers say that they do not accept a client certificate.
const REFUSED: [AlertDescription; 6] = [
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
];

fn alert(what: AlertDescription) -> String {
    rustls::Error::AlertReceived(what).to_string()
}

/// What to do about a certificate of the server. Nothing in it changes from try to try, as seconds since then would.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is foreign and grows; its own words do for the rest"
)]
fn about_certificate(names_authority: bool, why: &CertificateError) -> String {
    let date = |time: &UnixTime| {
        let time = i64::try_from(time.as_secs()).ok();
        let time = time.and_then(|time| Timestamp::from_second(time).ok());
        time.map_or_else(String::new, |time| format!(" ({time})"))
    };
    match why {
        CertificateError::UnknownIssuer if names_authority => {
            "the server's certificate is not from an authority in spec.tls.ca of the connection; put the one there that signed it (UnknownIssuer)".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate is not from an authority that the operator's image knows; name it under spec.tls.ca of the connection (UnknownIssuer)".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("set spec.tls.serverName of the connection to a name of the server's certificate, or correct its address: {why}")
        }
        CertificateError::Expired => {
            "a certificate of the server has expired; have it renewed".to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("a certificate of the server has expired{}; have it renewed", date(not_after))
        }
        CertificateError::NotValidYet => {
            "a certificate of the server is not valid yet; check the clocks".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("a certificate of the server is not valid yet{}; check the clocks", date(not_before))
        }
        other => format!("the server's certificate cannot be used; replace it, or check spec.tls.ca of the connection: {other}"),
    }
}

/// The error and all behind it; an I/O error hides what it wraps behind `get_ref`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| {
        match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}

/// The causes of an error, without the outer ones that only say that a request failed.
fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(Error::source(error), |&cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    match causes.as_slice() {
        [] => error.to_string(),
        [only] => only.clone(),
        // hyper's "client error (Connect)".
        [_, rest @ ..] => rest.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn a_certificate_that_is_not_accepted_names_the_field_to_set() {
        let second = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
        let other_name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("vault").unwrap(),
            presented: vec!["DnsName(\"vault.internal\")".to_owned()],
        };
        let expired = CertificateError::ExpiredContext {
            time: second(9),
            not_after: second(1),
        };
        let early = CertificateError::NotValidYetContext {
            time: second(1),
            not_before: second(9),
        };
        let rows: [(bool, CertificateError, &[&str]); 6] = [
            (
                true,
                CertificateError::UnknownIssuer,
                &["an authority in spec.tls.ca", "UnknownIssuer"],
            ),
            (
                false,
                CertificateError::UnknownIssuer,
                &["name it under spec.tls.ca", "UnknownIssuer"],
            ),
            (
                true,
                other_name,
                &["set spec.tls.serverName", "vault.internal"],
            ),
            (true, expired, &["has expired (1970-01-01T00:00:01Z)"]),
            (true, early, &["not valid yet (1970-01-01T00:00:09Z)"]),
            (
                true,
                CertificateError::BadSignature,
                &["check spec.tls.ca", "BadSignature"],
            ),
        ];
        for (names_authority, why, words) in rows {
            let told = about_certificate(names_authority, &why);
            for word in words {
                assert!(told.contains(word), "{told}");
            }
            // Longer ones are cut.
            assert!(told.len() <= 200, "{told}");
        }
    }
}
