//! Effects: HTTP to one Vault.
//!
//! It owns the connection pool, which `dial` makes, the limits and the gate; it knows nothing of tokens
//! beyond putting one into a header. What cannot be wiped: the buffers of hyper and rustls, which keep
//! their own copies for a moment.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::bytes::Bytes;
use zeroize::Zeroizing;

use super::backoff;
use super::clock::Heard;
use super::dial::{self, Line};
use super::error::{self, VaultError, VaultErrorKind};
use super::gate::{Gate, Pass};
use super::path::{VaultAddress, VaultNamespace};
use super::rate::Rate;
use super::reach::Reach;
use super::redirect;
use super::request::Request;
use super::response::Response;
use crate::sensitive::Sensitive;
use crate::telemetry::metrics::Metrics;

/// Largest answer that is read. A Kubernetes Secret ends at 1 MiB; Vault's own requests at 32 MiB.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// How to reach one Vault.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Where it is.
    pub address: VaultAddress,
    /// The namespace that those of requests are below.
    pub namespace: Option<VaultNamespace>,
    /// PEM certificates that alone are trusted; the platform's roots when `None`.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key to show, both PEM.
    pub client_certificate: Option<Sensitive>,
    /// The name to ask for and to verify, when it is not that of the address.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Sent with every request; our own win.
    pub headers: HeaderMap,
    /// Time for one request, from connecting to the last byte.
    pub timeout: Duration,
    /// Requests at the same time; at least 1.
    pub max_in_flight: usize,
    /// Requests in a second; as many as there are when `None`.
    pub requests_per_second: Option<u32>,
    /// Where a redirect may lead.
    pub reach: Reach,
    /// Told when Vault as a whole begins to fail, and when it answers again.
    pub turned: Turned,
}

/// Somebody who is told of a turn.
#[derive(Clone, Default)]
pub struct Turned(Option<Arc<dyn Fn() + Send + Sync>>);

impl Turned {
    /// Calls `who`, which must not wait.
    pub fn tell(who: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(who)))
    }
}

impl fmt::Debug for Turned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Turned").field(&self.0.is_some()).finish()
    }
}

impl TransportSettings {
    /// The usual settings for `address`.
    pub fn new(address: VaultAddress) -> Self {
        Self {
            address,
            namespace: None,
            ca: None,
            client_certificate: None,
            server_name: None,
            insecure_skip_verify: false,
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(10),
            max_in_flight: 32,
            requests_per_second: None,
            reach: Reach::default(),
            turned: Turned::default(),
        }
    }
}

/// The connection to one Vault, shared by everyone who talks to it.
#[derive(Debug)]
pub struct Transport {
    settings: TransportSettings,
    line: Line,
    /// To the server that a redirect named last, with the address it named.
    redirected: Mutex<Option<(VaultAddress, Line)>>,
    /// Those that are not urgent wait here, one behind the other, so that an urgent one has at most one before it.
    queue: tokio::sync::Mutex<()>,
    rate: Option<Mutex<Rate>>,
    permits: Semaphore,
    gate: Mutex<Gate>,
    heard: Mutex<Heard>,
    metrics: Arc<Metrics>,
}

impl Transport {
    /// Prepares the connection; nothing is sent. Refused when what is said about TLS cannot be used: the
    /// detail begins with the name of the setting.
    pub fn new(settings: TransportSettings, metrics: Arc<Metrics>) -> Result<Self, VaultError> {
        Ok(Self {
            line: dial::dial(&settings, &settings.address)?,
            redirected: Mutex::default(),
            queue: tokio::sync::Mutex::default(),
            rate: settings
                .requests_per_second
                .map(|per_second| Mutex::new(Rate::new(per_second))),
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
        let _permit = self.line_up(request).await?;
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

    /// Waits for the limits. A caller that gives up while it waits has taken nothing.
    async fn line_up(&self, request: &Request) -> Result<SemaphorePermit<'_>, VaultError> {
        let _head = if request.is_urgent() {
            None
        } else {
            let head = self.queue.lock().await;
            // It may have closed meanwhile, and then nobody needs to wait for his share.
            self.check_gate(request)?;
            Some(head)
        };
        if let Some(rate) = &self.rate {
            let take = || {
                // One date, which every call leaves whole.
                let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
                rate.take(request.is_urgent(), now())
            };
            while let Err(date) = take() {
                tokio::time::sleep_until(date.into()).await;
            }
        }
        self.permits.acquire().await.map_err(|_| {
            VaultError::new(
                VaultErrorKind::Refused,
                request,
                "the connection was closed",
            )
        })
    }

    /// Sends the request, and once more to where a redirect of Vault leads, if that may be followed.
    async fn exchange(
        &self,
        request: &Request,
        token: Option<&Sensitive>,
    ) -> Result<Response, VaultError> {
        let asked = now();
        let mut answer = self.call(&self.line, request, token).await?;
        if let Some(location) = location(&answer) {
            let line = self.follow(request, location)?;
            answer = self.call(&line, request, token).await?;
        }
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) =
            Heard::from_headers(answer.headers(), asked);
        let body = self.read_body(request, &mut answer).await?;
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

    async fn call(
        &self,
        line: &Line,
        request: &Request,
        token: Option<&Sensitive>,
    ) -> Result<reqwest::Response, VaultError> {
        let url = line.address.api_url(&request.target());
        let mut call = line
            .http
            .request(request.method().clone(), url)
            .headers(self.headers(request, token)?);
        if let Some(body) = request.body() {
            let owned = Zeroizing::new(body.expose().to_vec());
            call = call
                .header(header::CONTENT_TYPE, "application/json")
                .body(Bytes::from_owner(owned));
        }
        call.send()
            .await
            .map_err(|error| dial::failed(&self.settings, request, error))
    }

    /// The line to the server that a redirect names. The client to it is kept for the next one.
    fn follow(&self, request: &Request, location: &str) -> Result<Line, VaultError> {
        let TransportSettings { address, reach, .. } = &self.settings;
        let to = redirect::follow(address, &request.target(), location, reach)
            .map_err(|why| error::not_followed(request, &why))?;
        let mut redirected = self
            .redirected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, line)) = redirected.as_ref()
            && *known == to
        {
            return Ok(line.clone());
        }
        let line = dial::dial(&self.settings, &to)?;
        *redirected = Some((to, line.clone()));
        Ok(line)
    }

    fn headers(
        &self,
        request: &Request,
        token: Option<&Sensitive>,
    ) -> Result<HeaderMap, VaultError> {
        let mut headers = self.settings.headers.clone();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        let namespace = if request.is_in_root() {
            None
        } else {
            VaultNamespace::below(self.settings.namespace.as_ref(), request.namespace())
        };
        if let Some(namespace) = namespace {
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

    /// Reads the whole body, up to the limit, without leaving copies in vectors that grew.
    async fn read_body(
        &self,
        request: &Request,
        answer: &mut reqwest::Response,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let too_large =
            || VaultError::new(VaultErrorKind::Invalid, request, "the answer is too large");
        let announced = answer.content_length().unwrap_or(8 * 1024);
        let announced = usize::try_from(announced).map_err(|_| too_large())?;
        if announced > MAX_BODY {
            return Err(too_large());
        }
        let mut body = Zeroizing::new(Vec::with_capacity(announced));
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| dial::failed(&self.settings, request, error))?
        {
            let length = body.len() + chunk.len();
            if length > MAX_BODY {
                return Err(too_large());
            }
            if length > body.capacity() {
                let mut larger =
                    Zeroizing::new(Vec::with_capacity(length.max(2 * body.capacity())));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // The gate holds no invariant that a panic elsewhere could break.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pass that is handed back even when the future is dropped half-way.
struct Turn<'a> {
    transport: &'a Transport,
    pass: Option<Pass>,
}

impl Turn<'_> {
    fn report(mut self, error: Option<&VaultError>, now: Instant) {
        let Some(pass) = self.pass.take() else {
            return;
        };
        let mut gate = self.transport.gate();
        let before = gate.is_closed();
        match error {
            None => gate.succeeded(&pass, now),
            Some(error) => gate.failed(&pass, error, now),
        }
        let turned = gate.is_closed() != before;
        drop(gate);
        if let Some(tell) = self.transport.settings.turned.0.as_ref().filter(|_| turned) {
            tell();
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

/// Where a standby sends the request. Other redirects are none of Vault's.
fn location(answer: &reqwest::Response) -> Option<&str> {
    let location = answer.headers().get(header::LOCATION)?;
    (answer.status() == StatusCode::TEMPORARY_REDIRECT)
        .then(|| location.to_str().unwrap_or_default())
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

#[cfg(test)]
mod tests;
