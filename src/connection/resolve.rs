//! Pure: from the spec of a connection to values that cannot be wrong.

use std::{collections::BTreeMap, fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Host;

use crate::{
    api::{
        duration::GoDuration,
        refs::{ConnectionKind, SecretRef},
        vault_connection::{CaSpec, ConnectionSpec, LimitsSpec, TlsSpec},
    },
    names::ObjectKey,
    sync::resolve::ConnectionId,
    vault::{
        path::{VaultAddress, VaultNamespace},
        reach::Reach,
    },
};

/// Time for one request when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest time for one request that make sense.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(2);
/// Requests at the same time when nothing is said: enough for thousands of Secrets at usual latencies.
const MAX_IN_FLIGHT: u32 = 32;
/// Headers that are ours to set, or that are between two neighbours of a connection (RFC 9110, 7.6.1).
/// The schema refuses the same.
const OUR_HEADERS: [&str; 15] = [
    "x-vault-token",
    "x-vault-namespace",
    "x-vault-request",
    "x-vault-wrap-ttl",
    "authorization",
    "host",
    "accept-encoding",
    "range",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];
/// How such headers begin.
const OUR_HEADER_PREFIXES: [&str; 2] = ["content-", "proxy-"];

/// What the operator was started with, as far as it limits connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted {
    /// Whether `insecureSkipVerify` is accepted.
    pub insecure_tls: bool,
    /// Which addresses may be spoken to.
    pub reach: Reach,
}

/// Why a connection is not used until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A field of the spec, or what it refers to, cannot be used.
    Spec(String),
    /// The address may not be spoken to.
    Address(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(why) | Self::Address(why) => f.write_str(why),
        }
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Spec(why)
    }
}

/// A connection that can be prepared.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where Vault is.
    pub address: VaultAddress,
    /// The namespace that all others are below.
    pub namespace: Option<VaultNamespace>,
    /// Whom to trust.
    pub ca: Ca,
    /// The Secret with the certificate to show.
    pub client_certificate: Option<ObjectKey>,
    /// Whose certificate to expect, when it is not that of the address.
    pub server_name: Option<String>,
    /// Trust everybody.
    pub insecure_skip_verify: bool,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// Time for one request.
    pub timeout: Duration,
    /// Requests at the same time.
    pub max_in_flight: usize,
    /// Requests in a second.
    pub requests_per_second: Option<u32>,
}

/// Where the certificate authorities stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// The system's.
    System,
    /// In the spec.
    Inline(String),
    /// In this key of this Secret.
    Secret(ObjectKey, String),
    /// In this key of this ConfigMap.
    ConfigMap(ObjectKey, String),
}

/// Checks the spec. The error names the field and what to do.
pub fn resolve(
    id: &ConnectionId,
    spec: &ConnectionSpec,
    permitted: &Permitted,
) -> Result<Prepared, Refused> {
    let address = address(&spec.address, &permitted.reach)?;
    let tls = spec.tls.as_ref();
    let insecure_skip_verify = tls.and_then(|tls| tls.insecure_skip_verify) == Some(true);
    if insecure_skip_verify && !permitted.insecure_tls {
        return Err(Refused::Spec("spec.tls.insecureSkipVerify: the operator does not allow it; remove it and set tls.ca, or start the operator with --allow-insecure-tls".to_owned()));
    }
    let insecure = insecure_skip_verify.then_some(&());
    with_tls(insecure, "insecureSkipVerify", &address)?;
    let timeout = spec
        .timeout
        .as_ref()
        .map_or(TIMEOUT, GoDuration::as_duration);
    if !TIMEOUTS.contains(&timeout) {
        return Err("spec.timeout: it must be from 100ms to 2m"
            .to_owned()
            .into());
    }
    let namespace = spec.namespace.as_deref().map(VaultNamespace::parse);
    let ca = tls.and_then(|tls| tls.ca.as_ref());
    let (max_in_flight, requests_per_second) = limits(spec.limits.as_ref())?;
    Ok(Prepared {
        namespace: namespace
            .transpose()
            .map_err(|error| format!("spec.namespace: {error}"))?,
        ca: with_tls(ca, "ca", &address)?
            .map_or(Ok(Ca::System), |ca| certificate_authority(id, ca))?,
        client_certificate: client_certificate(id, tls, &address)?,
        server_name: server_name(tls, &address)?,
        insecure_skip_verify,
        headers: headers(&spec.headers)?,
        timeout,
        max_in_flight,
        requests_per_second,
        address,
    })
}

fn address(text: &str, reach: &Reach) -> Result<VaultAddress, Refused> {
    let address = VaultAddress::parse(text).map_err(|error| {
        format!("spec.address: {error}; use a URL such as https://vault.vault.svc:8200")
    })?;
    reach
        .check(&address)
        .map_err(|error| Refused::Address(format!("spec.address: {error}")))?;
    Ok(address)
}

fn limits(spec: Option<&LimitsSpec>) -> Result<(usize, Option<u32>), String> {
    let LimitsSpec {
        requests_per_second,
        max_in_flight,
    } = spec.cloned().unwrap_or(LimitsSpec {
        requests_per_second: None,
        max_in_flight: None,
    });
    if requests_per_second == Some(0) || max_in_flight == Some(0) {
        return Err("spec.limits: a limit of 0 lets nothing through; use 1 or more".to_owned());
    }
    let max_in_flight = usize::try_from(max_in_flight.unwrap_or(MAX_IN_FLIGHT));
    Ok((
        max_in_flight.unwrap_or(usize::MAX).min(1024),
        requests_per_second,
    ))
}

/// What is said about TLS, on an address that TLS is spoken to.
fn with_tls<'a, T>(
    value: Option<&'a T>,
    field: &str,
    address: &VaultAddress,
) -> Result<Option<&'a T>, String> {
    if value.is_some() && !address.is_https() {
        return Err(format!(
            "spec.tls.{field}: TLS is not spoken to an address that begins with http://; use https:// in spec.address, or remove the field"
        ));
    }
    Ok(value)
}

fn client_certificate(
    id: &ConnectionId,
    tls: Option<&TlsSpec>,
    address: &VaultAddress,
) -> Result<Option<ObjectKey>, String> {
    let reference = tls.and_then(|tls| tls.client_certificate.as_ref());
    let field = "clientCertificate";
    let Some(SecretRef { name, namespace }) = with_tls(reference, field, address)? else {
        return Ok(None);
    };
    place(id, field, namespace.as_deref(), name).map(Some)
}

fn server_name(tls: Option<&TlsSpec>, address: &VaultAddress) -> Result<Option<String>, String> {
    let name = tls.and_then(|tls| tls.server_name.as_ref());
    let Some(name) = with_tls(name, "serverName", address)? else {
        return Ok(None);
    };
    match Host::parse(name) {
        Ok(Host::Domain(name)) => Ok(Some(name)),
        Ok(Host::Ipv4(_) | Host::Ipv6(_)) | Err(_) => Err(
            "spec.tls.serverName: it is not a host name such as vault.internal; an IP address belongs into spec.address".to_owned(),
        ),
    }
}

/// Values are marked as secret, in case somebody takes them for that.
fn headers(spec: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in spec {
        let parsed = HeaderName::try_from(name.as_str());
        let parsed =
            parsed.map_err(|_| "spec.headers: a name is not one of a header".to_owned())?;
        let lower = parsed.as_str();
        if OUR_HEADERS.contains(&lower)
            || OUR_HEADER_PREFIXES
                .iter()
                .any(|prefix| lower.starts_with(prefix))
        {
            return Err(format!(
                "spec.headers: the operator sets {lower} itself; remove it"
            ));
        }
        let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| {
            format!("spec.headers: the value of {lower} holds characters that a header cannot carry (a line break?)")
        })?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

fn certificate_authority(id: &ConnectionId, ca: &CaSpec) -> Result<Ca, String> {
    match ca {
        CaSpec {
            secret: Some(secret),
            config_map: None,
            bundle: None,
        } => Ok(Ca::Secret(
            place(id, "ca", secret.namespace.as_deref(), &secret.name)?,
            secret.key.clone(),
        )),
        CaSpec {
            secret: None,
            config_map: Some(map),
            bundle: None,
        } => Ok(Ca::ConfigMap(
            place(id, "ca", map.namespace.as_deref(), &map.name)?,
            map.key.clone(),
        )),
        CaSpec {
            secret: None,
            config_map: None,
            bundle: Some(bundle),
        } => Ok(Ca::Inline(bundle.clone())),
        CaSpec { .. } => {
            Err("spec.tls.ca: exactly one of secret, configMap and bundle must be set".to_owned())
        }
    }
}

/// A connection of one namespace reads there and nowhere else; one for the cluster has to say where.
fn place(
    id: &ConnectionId,
    field: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<ObjectKey, String> {
    match (id.kind, namespace) {
        (ConnectionKind::VaultConnection, None) => Ok(ObjectKey::new(&id.key.namespace, name)),
        (ConnectionKind::ClusterVaultConnection, Some(namespace)) => {
            Ok(ObjectKey::new(namespace, name))
        }
        (ConnectionKind::VaultConnection, Some(_)) => Err(format!(
            "spec.tls.{field}: a VaultConnection reads only its own namespace; remove namespace or use a ClusterVaultConnection"
        )),
        (ConnectionKind::ClusterVaultConnection, None) => Err(format!(
            "spec.tls.{field}: namespace is required on a ClusterVaultConnection"
        )),
    }
}

/// Whether this connection depends on what the Secret holds: certificate authorities, a certificate.
pub fn reads(id: &ConnectionId, spec: &ConnectionSpec, secret: &ObjectKey) -> bool {
    let Some(tls) = &spec.tls else {
        return false;
    };
    let ca = tls.ca.as_ref().map(|ca| certificate_authority(id, ca));
    let certificate = tls.client_certificate.as_ref();
    let certificate = certificate.map(|SecretRef { name, namespace }| {
        place(id, "clientCertificate", namespace.as_deref(), name)
    });
    matches!(ca, Some(Ok(Ca::Secret(key, _))) if key == *secret)
        || matches!(certificate, Some(Ok(key)) if key == *secret)
}

#[cfg(test)]
mod tests;
