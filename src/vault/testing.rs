//! Effects: a small Vault on loopback, and a clock that tests move by hand.
//!
//! It speaks as much of Vault's wire format as the tests of this module need: logins, tokens that can
//! die, KV reads, seal. Behaviour of the real product is tested in the cluster tests.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::identity::{CredentialError, IdentityKey, IdentityParts, LoginMethod, Remedy};
use super::path::{MountPath, UserName, VaultAddress};
use super::session::{CredentialSource, Identity};
use super::transport::{Transport, TransportSettings};
use crate::sensitive::Sensitive;
use crate::telemetry::metrics::Metrics;

/// Planted wherever a secret is; must never show up in a text.
pub(super) const CANARY: &str = "canary-5f1c";

/// What the Vault does and has seen.
#[derive(Default)]
pub(super) struct Model {
    pub(super) sealed: bool,
    pub(super) logins_refused: bool,
    pub(super) lookups_refused: bool,
    pub(super) delay: Duration,
    pub(super) login_ttl: u64,
    pub(super) renewed_ttl: u64,
    /// Status and body by path and query; 404 for all others.
    pub(super) answers: HashMap<String, (u16, String)>,
    pub(super) tokens: HashSet<String>,
    /// `GET secret/data/a`, one line per request.
    pub(super) seen: Vec<String>,
    pub(super) last_headers: HeaderMap,
    pub(super) last_body: Vec<u8>,
    /// Where an answer 307 or 302 points to.
    pub(super) location: Option<String>,
    logins: usize,
}

/// A Vault that ends when dropped.
pub(super) struct TestVault {
    address: String,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    model: Mutex<Model>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl TestVault {
    /// Starts one in a thread of its own, with a clock of its own.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        shared.model.lock().unwrap().login_ttl = 3600;
        shared.model.lock().unwrap().renewed_ttl = 3600;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(shared.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = IntoFuture::into_future(axum::serve(listener, router));
                tokio::select! {
                    _ = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.shared.model.lock().unwrap()
    }

    pub(super) fn address(&self) -> VaultAddress {
        VaultAddress::parse(&self.address).unwrap()
    }

    pub(super) fn transport(&self) -> Arc<Transport> {
        let settings = TransportSettings::new(self.address());
        Arc::new(Transport::new(settings, Arc::new(Metrics::default())).unwrap())
    }

    /// An identity that logs in with a JWT.
    pub(super) fn identity(&self, subject: &str) -> (Identity, Arc<Credentials>) {
        self.identity_with(subject, Credentials::new(Kind::Jwt))
    }

    pub(super) fn identity_with(
        &self,
        subject: &str,
        credentials: Credentials,
    ) -> (Identity, Arc<Credentials>) {
        let credentials = Arc::new(credentials);
        let key = IdentityKey::new(IdentityParts {
            connection: "main".to_owned(),
            server: "1".to_owned(),
            auth: "default".to_owned(),
            subject: subject.to_owned(),
            revision: "1".to_owned(),
        });
        let identity = Identity {
            key,
            transport: self.transport(),
            namespace: None,
            credentials: credentials.clone(),
        };
        (identity, credentials)
    }

    /// How many requests of this kind it has seen.
    pub(super) fn count(&self, line: &str) -> usize {
        let model = self.model();
        model.seen.iter().filter(|seen| *seen == line).count()
    }

    pub(super) fn most_in_flight(&self) -> usize {
        self.shared.most_in_flight.load(Ordering::SeqCst)
    }

    pub(super) fn put(&self, path: &str, status: u16, body: &str) {
        let answer = (status, body.to_owned());
        self.model().answers.insert(path.to_owned(), answer);
    }

    pub(super) fn kill_tokens(&self) {
        self.model().tokens.clear();
    }
}

impl Drop for TestVault {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most_in_flight.fetch_max(now, Ordering::SeqCst);
    let delay = shared.model.lock().unwrap().delay;
    tokio::time::sleep(delay).await;
    let (status, body) = {
        let mut model = shared.model.lock().unwrap();
        model.last_body = body.to_vec();
        model.answer(&method, &uri, headers)
    };
    shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if matches!(status, 302 | 307) {
        let location = shared.model.lock().unwrap().location.clone();
        let location = location.unwrap_or_else(|| "http://127.0.0.1:1/v1/x".to_owned());
        let location = location.parse().unwrap();
        response.headers_mut().insert("location", location);
    }
    response
}

impl Model {
    fn answer(&mut self, method: &Method, uri: &Uri, headers: HeaderMap) -> (u16, String) {
        let target = uri.path_and_query().unwrap().as_str();
        let path = target.strip_prefix("/v1/").unwrap_or(target).to_owned();
        self.seen.push(format!("{method} {path}"));
        let token = headers
            .get("x-vault-token")
            .map(|value| value.to_str().unwrap().to_owned());
        self.last_headers = headers;
        if self.sealed && !path.starts_with("sys/health") {
            return errors(503, "Vault is sealed");
        }
        if path.starts_with("auth/") && path.contains("/login") {
            let prepared = self.answers.get(&path).cloned();
            return prepared.unwrap_or_else(|| self.log_in());
        }
        if let Some(found) = self.answers.get(&path)
            && token.is_none()
        {
            return found.clone();
        }
        match token {
            Some(token) if self.tokens.contains(&token) => self.answer_to(&path, &token),
            _ => errors(403, "permission denied"),
        }
    }

    fn log_in(&mut self) -> (u16, String) {
        if self.logins_refused {
            return errors(403, "permission denied");
        }
        self.logins += 1;
        let token = format!("{CANARY}-{}", self.logins);
        self.tokens.insert(token.clone());
        (200, auth(&token, self.login_ttl))
    }

    fn answer_to(&mut self, path: &str, token: &str) -> (u16, String) {
        match path {
            "auth/token/lookup-self" if self.lookups_refused => errors(403, "permission denied"),
            "auth/token/lookup-self" => {
                let (ttl, accessor) = (self.login_ttl, accessor(token));
                let data = format!(r#"{{"accessor":"{accessor}","ttl":{ttl},"renewable":true}}"#);
                (200, format!(r#"{{"data":{data}}}"#))
            }
            "auth/token/renew-self" => (200, auth(token, self.renewed_ttl)),
            "auth/token/revoke-self" => {
                self.tokens.remove(token);
                (204, String::new())
            }
            _ => self
                .answers
                .get(path)
                .cloned()
                .unwrap_or_else(|| (404, r#"{"errors":[]}"#.to_owned())),
        }
    }
}

fn errors(status: u16, text: &str) -> (u16, String) {
    (status, format!(r#"{{"errors":["{text}"]}}"#))
}

fn auth(token: &str, ttl: u64) -> String {
    let accessor = accessor(token);
    format!(
        r#"{{"auth":{{"client_token":"{token}","accessor":"{accessor}","lease_duration":{ttl},"renewable":true}}}}"#
    )
}

/// The name of a token.
fn accessor(token: &str) -> String {
    token.replace(CANARY, "accessor")
}

/// The answer of KV version 2 with one entry.
pub(super) fn kv2(value: &str, version: u64) -> String {
    format!(r#"{{"data":{{"data":{{"k":"{value}"}},"metadata":{{"version":{version}}}}}}}"#)
}

/// What a [`Credentials`] gives.
pub(super) enum Kind {
    Jwt,
    Password,
    Static(&'static str),
    Missing(Remedy),
}

/// A source of credentials that counts how often it was asked.
pub(super) struct Credentials {
    kind: Kind,
    asked: AtomicUsize,
}

impl Credentials {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            asked: AtomicUsize::new(0),
        }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl CredentialSource for Credentials {
    fn login_method(&self) -> BoxFuture<'_, Result<LoginMethod, CredentialError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let method = match &self.kind {
            Kind::Jwt => Ok(LoginMethod::Jwt {
                mount: MountPath::parse("kubernetes").unwrap(),
                role: "app".to_owned(),
                jwt: Sensitive::new(CANARY),
            }),
            Kind::Password => Ok(LoginMethod::Password {
                mount: MountPath::parse("ldap").unwrap(),
                user: UserName::parse("deploy").unwrap(),
                password: Sensitive::new(CANARY),
            }),
            Kind::Static(token) => Ok(LoginMethod::Token(Sensitive::new(*token))),
            Kind::Missing(remedy) => Err(CredentialError {
                message: "ServiceAccount default is missing".to_owned(),
                remedy: *remedy,
            }),
        };
        std::future::ready(method).boxed()
    }
}

/// Stops the clock of the runtime. Unlike a plain pause, it does not run ahead while a test waits for
/// a socket: it moves by [`Clock::advance`] only.
pub(super) struct Clock {
    _release: std::sync::mpsc::Sender<()>,
}

impl Clock {
    pub(super) fn stop() -> Self {
        tokio::time::pause();
        let (release, held) = std::sync::mpsc::channel::<()>();
        // Tokio does not advance a paused clock on its own while a blocking task runs.
        drop(tokio::task::spawn_blocking(move || held.recv().is_err()));
        Self { _release: release }
    }

    pub(super) async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }

    /// Lets other tasks run until `done`, without moving the clock.
    pub(super) async fn wait_until(&self, what: &str, done: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
            tokio::task::yield_now().await;
        }
    }
}
