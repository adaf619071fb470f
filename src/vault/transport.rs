//! Effects: HTTP to one Vault.
//!
//! The only file that names reqwest. It owns the connection pool, the limit of requests in flight and
//! the gate; it knows nothing of tokens beyond putting one into a header. What cannot be wiped: the
//! buffers of hyper and rustls, which keep their own copies for a moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, header};
use tokio::sync::Semaphore;
use tokio_util::bytes::Bytes;
use zeroize::Zeroizing;

use super::backoff;
use super::clock::Heard;
use super::error::{self, VaultError, VaultErrorKind};
use super::gate::{Gate, Pass};
use super::path::VaultAddress;
use super::request::Request;
use super::response::Response;
use crate::sensitive::Sensitive;
use crate::telemetry::metrics::Metrics;

/// Largest answer that is read. A Kubernetes Secret ends at 1 MiB; Vault's own requests at 32 MiB.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// A Vault that does not take a connection in this time is away, whatever the request may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than most refresh intervals are apart at any size, shorter than idle limits of load balancers.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// A dead HTTP/2 connection is noticed by then, even when no request waits on it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How to reach one Vault.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Where it is.
    pub address: VaultAddress,
    /// PEM certificates that alone are trusted; the platform's roots when `None`.
    pub ca: Option<Vec<u8>>,
    /// PEM of our certificate and its key.
    pub client_certificate: Option<Sensitive>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Time for one request, from connecting to the last byte.
    pub timeout: Duration,
    /// Requests at the same time; at least 1.
    pub max_in_flight: usize,
}

impl TransportSettings {
    /// The usual settings for `address`.
    pub fn new(address: VaultAddress) -> Self {
        Self {
            address,
            ca: None,
            client_certificate: None,
            insecure_skip_verify: false,
            timeout: Duration::from_secs(10),
            max_in_flight: 32,
        }
    }
}

/// The connection to one Vault, shared by everyone who talks to it.
#[derive(Debug)]
pub struct Transport {
    settings: TransportSettings,
    http: reqwest::Client,
    permits: Semaphore,
    gate: Mutex<Gate>,
    heard: Mutex<Heard>,
    metrics: Arc<Metrics>,
}

impl Transport {
    /// Prepares the connection; nothing is sent. Refused when the CA or the certificate is not PEM.
    pub fn new(settings: TransportSettings, metrics: Arc<Metrics>) -> Result<Self, VaultError> {
        Ok(Self {
            http: client(&settings)?,
            permits: Semaphore::new(settings.max_in_flight.max(1)),
            gate: Mutex::new(Gate::new(backoff::seed_of(&settings.address))),
            heard: Mutex::new(Heard::Nothing),
            metrics,
            settings,
        })
    }

    /// A connection of its own to the same Vault with the same settings, but with this client certificate:
    /// PEM of the certificate and its key. Refused when they are of no use.
    pub fn with_client_certificate(&self, certificate: &Sensitive) -> Result<Self, VaultError> {
        let settings = TransportSettings {
            client_certificate: Some(certificate.clone()),
            ..self.settings.clone()
        };
        Self::new(settings, Arc::clone(&self.metrics))
    }

    /// Sends `request` once. Never repeats it.
    pub async fn send(
        &self,
        request: &Request,
        token: Option<&Sensitive>,
    ) -> Result<Response, VaultError> {
        self.check_gate(request)?;
        let _permit = self.permits.acquire().await.map_err(|_| {
            VaultError::new(
                VaultErrorKind::Refused,
                request,
                "the connection was closed",
            )
        })?;
        let turn = self.admit(request)?;
        let started = now();
        let result = self.exchange(request, token).await;
        let finished = now();
        if let Some(turn) = turn {
            turn.report(result.as_ref().err(), finished);
        }
        self.metrics.vault_request(
            request.operation(),
            result.as_ref().err().map_or("ok", |e| e.kind.as_str()),
            finished.duration_since(started).as_secs_f64(),
        );
        result
    }

    /// What Vault told of its clock.
    pub fn heard(&self) -> Heard {
        // One value, so that a panic elsewhere leaves nothing half done.
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error that `request` would fail with at once, because the gate is closed.
    pub fn check_gate(&self, request: &Request) -> Result<(), VaultError> {
        match self.gate().shut(now()) {
            Some(shut) if request.is_gated() => Err(shut.error.held_back(request, shut.reopens_in)),
            _ => Ok(()),
        }
    }

    /// How long until a request may go through: `None` when the gate is open.
    #[cfg(test)]
    fn gate_reopens_in(&self) -> Option<Duration> {
        self.gate().reopens_in(now())
    }

    fn admit(&self, request: &Request) -> Result<Option<Turn<'_>>, VaultError> {
        if !request.is_gated() {
            return Ok(None);
        }
        match self.gate().admit(now()) {
            Ok(pass) => Ok(Some(Turn {
                transport: self,
                pass: Some(pass),
            })),
            Err(shut) => Err(shut.error.held_back(request, shut.reopens_in)),
        }
    }

    async fn exchange(
        &self,
        request: &Request,
        token: Option<&Sensitive>,
    ) -> Result<Response, VaultError> {
        let url = self.settings.address.api_url(&request.target());
        let mut call = self
            .http
            .request(request.method().clone(), url)
            .headers(headers(request, token)?);
        if let Some(body) = request.body() {
            let owned = Zeroizing::new(body.expose().to_vec());
            call = call
                .header(header::CONTENT_TYPE, "application/json")
                .body(Bytes::from_owner(owned));
        }
        let asked = now();
        let mut answer = call
            .send()
            .await
            .map_err(|error| unreachable(request, error))?;
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) =
            Heard::from_headers(answer.headers(), asked);
        let body = read_body(request, &mut answer).await?;
        if answer.status().is_success() {
            return Ok(Response::new(request, body));
        }
        Err(error::classify(
            request,
            answer.status(),
            answer.headers(),
            &body,
        ))
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // The gate holds no invariant that a panic elsewhere could break.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(settings: &TransportSettings) -> Result<reqwest::Client, VaultError> {
    let refused =
        |detail: &str| VaultError::refused("connect", &settings.address.to_string(), detail);
    let mut builder = reqwest::Client::builder()
        // A redirect would carry the token to another host.
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
        .tls_version_min(reqwest::tls::Version::TLS_1_2)
        .tls_danger_accept_invalid_certs(settings.insecure_skip_verify);
    if let Some(pem) = &settings.ca {
        let certificates = reqwest::Certificate::from_pem_bundle(pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())
            .ok_or_else(|| refused("the CA holds no PEM certificate"))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(pem) = &settings.client_certificate {
        let identity = reqwest::Identity::from_pem(pem.expose())
            .map_err(|_| refused("the client certificate or its key is not PEM"))?;
        builder = builder.identity(identity);
    }
    builder
        .build()
        .map_err(|error| refused(&chain(&error.without_url())))
}

/// A pass that is handed back even when the future is dropped half-way.
struct Turn<'a> {
    transport: &'a Transport,
    pass: Option<Pass>,
}

impl Turn<'_> {
    fn report(mut self, error: Option<&VaultError>, now: Instant) {
        if let Some(pass) = self.pass.take() {
            match error {
                None => self.transport.gate().succeeded(&pass, now),
                Some(error) => self.transport.gate().failed(&pass, error, now),
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.transport.gate().abandoned(&pass);
        }
    }
}

/// The clock of this module: monotonic, and the paused one in tests.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn headers(request: &Request, token: Option<&Sensitive>) -> Result<HeaderMap, VaultError> {
    let mut headers = HeaderMap::new();
    headers.insert("x-vault-request", HeaderValue::from_static("true"));
    if let Some(namespace) = request.namespace() {
        let value = header_value(request, "the namespace", namespace.as_str().as_bytes())?;
        headers.insert("x-vault-namespace", value);
    }
    if let Some(token) = token {
        let mut value = header_value(request, "the token", token.expose())?;
        value.set_sensitive(true);
        headers.insert("x-vault-token", value);
    }
    Ok(headers)
}

fn header_value(request: &Request, what: &str, bytes: &[u8]) -> Result<HeaderValue, VaultError> {
    HeaderValue::from_bytes(bytes).map_err(|_| {
        VaultError::new(
            VaultErrorKind::Refused,
            request,
            format!("{what} holds characters that a header cannot carry (a line break?)"),
        )
    })
}

/// Reads the whole body, up to the limit, without leaving copies in vectors that grew.
async fn read_body(
    request: &Request,
    answer: &mut reqwest::Response,
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let too_large = || VaultError::new(VaultErrorKind::Invalid, request, "the answer is too large");
    let announced = answer.content_length().unwrap_or(8 * 1024);
    let announced = usize::try_from(announced).map_err(|_| too_large())?;
    if announced > MAX_BODY {
        return Err(too_large());
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced));
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|error| unreachable(request, error))?
    {
        let length = body.len() + chunk.len();
        if length > MAX_BODY {
            return Err(too_large());
        }
        if length > body.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * body.capacity())));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(request: &Request, error: reqwest::Error) -> VaultError {
    let error = error.without_url();
    let detail = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        chain(&error)
    };
    VaultError::new(VaultErrorKind::Unreachable, request, detail)
}

/// The causes of an error, without the outer ones that only say that a request failed.
fn chain(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    match causes.as_slice() {
        [] => error.to_string(),
        [only] => only.clone(),
        // hyper's "client error (Connect)".
        [_, rest @ ..] => rest.join(": "),
    }
}

#[cfg(test)]
mod tests;
