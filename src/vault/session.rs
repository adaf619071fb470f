//! Effects: Vault — the token of one identity: log in, renew, verify, revoke.

mod resume;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tracing::{debug, info, warn};

use super::backoff;
use super::error::{VaultError, VaultErrorKind};
use super::identity::{CredentialError, IdentityKey, LoginMethod, LoginStep, Remedy};
use super::path::VaultNamespace;
use super::request::{Repeat, Request};
use super::response::Response;
use super::stored::Stored;
use super::token::{Decision, Grant, Origin, Token, TokenState};
use super::transport::{Transport, now};
use super::unwrapping::{UnwrapError, Unwrapped, Wrapped};
use crate::sensitive::Sensitive;

/// How long a password rests that was refused. Vault locks a user out after five wrong ones within a quarter of an
/// hour, and directories are not much more patient; another password is another identity, and tried at once.
const PASSWORD_PAUSE: Duration = Duration::from_mins(10);

/// Where the credential of an identity comes from. Asked at each login, so that it is never kept.
pub trait CredentialSource: Send + Sync {
    /// The credential, as fresh as it can be had.
    fn login_method(&self) -> BoxFuture<'_, Result<LoginMethod, CredentialError>>;

    /// What to look at when Vault refuses the login; for people, half a sentence.
    fn advice(&self) -> String {
        String::new()
    }

    /// Whether the login shows a TLS certificate: the token is renewed over no other connection.
    fn shows_certificate(&self) -> bool {
        false
    }
}

/// An identity and everything needed to log it in.
#[derive(Clone)]
pub struct Identity {
    /// Its name; equal keys share a token.
    pub key: IdentityKey,
    /// The Vault it logs in to.
    pub transport: Arc<Transport>,
    /// The namespace of the login, and of requests that name none.
    pub namespace: Option<VaultNamespace>,
    /// Its credential.
    pub credentials: Arc<dyn CredentialSource>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("key", &self.key)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// One identity with its token.
#[derive(Debug)]
pub(super) struct Session {
    identity: Identity,
    state: Mutex<TokenState>,
    /// Held while a token is fetched, renewed or verified: one at a time.
    flight: tokio::sync::Mutex<()>,
    /// The connection with the client certificate that logged in. Vault renews such a token over no other.
    certified: Mutex<Option<Arc<Transport>>>,
    unwrapped: Arc<Unwrapped>,
    /// Where its token outlives the process, if it shall.
    stored: Option<Arc<Stored>>,
}

impl Session {
    pub(super) fn new(
        identity: Identity,
        unwrapped: Arc<Unwrapped>,
        stored: Option<Arc<Stored>>,
    ) -> Self {
        let seed = backoff::seed_of(&identity.key);
        Self {
            identity,
            state: Mutex::new(TokenState::new(seed)),
            flight: tokio::sync::Mutex::new(()),
            certified: Mutex::default(),
            unwrapped,
            stored,
        }
    }

    /// Sends `request` with the token, and once more with a new token if the old one turns out dead.
    /// Says with which token it was answered.
    pub(super) async fn send(
        &self,
        request: &Request,
    ) -> Result<(Response, Arc<Token>), VaultError> {
        let request = self.in_namespace(request);
        let token = self.token(&request).await?;
        let denied = match self.send_with(&request, &token).await {
            Err(error) if error.kind == VaultErrorKind::Denied => error,
            other => return Ok((other?, token)),
        };
        let verdict = self.verify(&token, &request).await?;
        match (verdict, request.repeat()) {
            (Verdict::Alive, _) | (_, Repeat::Never) => Err(denied),
            (Verdict::Replaced(token), Repeat::Safe) => {
                Ok((self.send_with(&request, &token).await?, token))
            }
            (Verdict::LoggedIn(token), Repeat::Safe) => {
                let result = self.send_with(&request, &token).await;
                let helped = !matches!(&result, Err(e) if e.kind == VaultErrorKind::Denied);
                self.state().login_after_denial(helped, now());
                Ok((result?, token))
            }
        }
    }

    /// Asks something of the state of the token.
    pub(super) fn with_state<T>(&self, ask: impl FnOnce(&mut TokenState) -> T) -> T {
        ask(&mut self.state())
    }

    /// Renews the token if it is time; replaces it if leases depend on it and it cannot be renewed.
    pub(super) async fn tend(&self) {
        let _flight = self.flight.lock().await;
        let decision = self.state().decide(now());
        match decision {
            Decision::Renew(token) => self.renew(&token).await,
            Decision::Replace(_) => {
                // What went wrong is logged, and the next try is dated, by the login itself.
                _ = self.log_in(&Request::token_lookup()).await;
            }
            Decision::Use(_) | Decision::LogIn | Decision::Wait { .. } => {}
        }
    }

    /// When the token should next be renewed.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.state().renew_at(now())
    }

    /// Revokes the token if we made it. Ends its children too.
    pub(super) async fn revoke(&self) {
        let Some(token) = self.state().take() else {
            return;
        };
        if token.origin() == Origin::Static {
            return;
        }
        if let (Some(stored), Some(accessor)) = (&self.stored, token.accessor()) {
            stored.forget_accessor(accessor);
        }
        let request = self.in_namespace(&Request::token_revoke());
        match self.send_with(&request, &token).await {
            Ok(_) => debug!(identity = %self.identity.key, "revoked the Vault token"),
            Err(error) => {
                warn!(identity = %self.identity.key, %error, "could not revoke the Vault token; it ends with its TTL");
            }
        }
    }

    /// A token that can be used now.
    async fn token(&self, request: &Request) -> Result<Arc<Token>, VaultError> {
        let decision = self.state().decide(now());
        match decision {
            Decision::Use(token) => Ok(token),
            // Whoever comes first does the work; the others go on with the token they have.
            Decision::Renew(token) | Decision::Replace(token) => match self.flight.try_lock() {
                Ok(_flight) => self.fetch(request).await,
                Err(_) => Ok(token),
            },
            Decision::LogIn => {
                let _flight = self.flight.lock().await;
                self.fetch(request).await
            }
            Decision::Wait { until, error } => Err(held_until(until, error)),
        }
    }

    /// Decides again and acts. The caller holds the flight.
    async fn fetch(&self, request: &Request) -> Result<Arc<Token>, VaultError> {
        let decision = self.state().decide(now());
        match decision {
            Decision::Use(token) => Ok(token),
            Decision::Renew(token) => {
                self.renew(&token).await;
                Ok(token)
            }
            Decision::Replace(token) => Ok(self.log_in(request).await.unwrap_or(token)),
            Decision::LogIn => self.log_in(request).await,
            Decision::Wait { until, error } => Err(held_until(until, error)),
        }
    }

    async fn log_in(&self, request: &Request) -> Result<Arc<Token>, VaultError> {
        // A credential costs its source something: do not ask for one that cannot be used now.
        self.identity.transport.check_gate(request)?;
        let failed = match self.resume_or_log_in().await {
            Ok((grant, at)) => return Ok(self.state().logged_in(grant, at)),
            Err(failed) => failed,
        };
        let LoginFailure { error, remedy } = failed;
        if error.held_back {
            return Err(error);
        }
        warn!(identity = %self.identity.key, %error, "login to Vault failed");
        let longest = remedy == Remedy::Edit;
        let until = self.state().login_failed(error.clone(), longest, now());
        if error.concerns_connection() {
            return Err(error);
        }
        Err(held_until(until, error))
    }

    async fn try_log_in(&self) -> Result<Grant, LoginFailure> {
        let method = self.identity.credentials.login_method().await;
        let method = method.map_err(|error| self.without_credential(&error))?;
        let transport = &self.identity.transport;
        match method.step()? {
            LoginStep::Send(request) => self.log_in_with(transport, &request).await,
            LoginStep::SendPassword(request) => {
                let grant = self.log_in_with(transport, &request).await;
                grant.map_err(LoginFailure::of_password)
            }
            LoginStep::SendCertified(request, certificate) => {
                let certified = self.over(&certificate)?;
                let grant = self.log_in_with(&certified, &request).await?;
                *self.certified() = Some(certified);
                Ok(grant)
            }
            LoginStep::Unwrap {
                mount,
                role_id,
                place,
                token,
            } => {
                let wrapped = Wrapped {
                    place: &place,
                    token: &token,
                    mount: &mount,
                    namespace: self.identity.namespace.as_ref(),
                };
                let secret_id = self.unwrapped.secret_id(transport, &wrapped).await;
                let secret_id = secret_id.map_err(|error| match error {
                    UnwrapError::Vault(error) => error.into(),
                    UnwrapError::Credential(error) => self.without_credential(&error),
                })?;
                let request = Request::app_role_login(&mount, &role_id, &secret_id)?;
                self.log_in_with(transport, &request).await
            }
            LoginStep::Adopt(secret) => self.adopt(secret).await,
        }
    }

    /// The connection with this client certificate.
    fn over(&self, certificate: &Sensitive) -> Result<Arc<Transport>, LoginFailure> {
        let certified = self.identity.transport.with_client_certificate(certificate);
        certified
            .map(Arc::new)
            .map_err(|_| self.certificate_unusable())
    }

    async fn log_in_with(
        &self,
        transport: &Transport,
        request: &Request,
    ) -> Result<Grant, LoginFailure> {
        let request = self.in_namespace(request);
        let answer = transport.send(&request, None).await;
        let login = answer
            .map_err(|error| self.advised(error, MOUNT_ADVICE))?
            .login()?;
        Ok(Grant {
            secret: login.token,
            accessor: login.accessor,
            origin: Origin::Login,
            ttl: login.ttl,
            renewable: login.renewable,
        })
    }

    async fn adopt(&self, secret: Sensitive) -> Result<Grant, LoginFailure> {
        let request = self.in_namespace(&Request::token_lookup());
        let transport = &self.identity.transport;
        let answer = transport.send(&request, Some(&secret)).await;
        // A token that is refused is a login that failed: nothing is known of the path it was wanted for.
        let info = answer.map_err(|error| VaultError {
            operation: "login",
            ..self.advised(error, "")
        })?;
        let info = info.token_info()?;
        Ok(Grant {
            secret,
            accessor: info.accessor,
            origin: Origin::Static,
            ttl: info.ttl,
            renewable: info.renewable,
        })
    }

    /// The refusal of a login, with what its user can do.
    fn advised(&self, error: VaultError, more: &str) -> VaultError {
        let advice = self.identity.credentials.advice();
        if advice.is_empty() || !error.by_vault || !is_final(error.kind) {
            return error;
        }
        let said = if error.detail.is_empty() {
            String::new()
        } else {
            format!("{}; ", error.detail)
        };
        VaultError {
            detail: format!("{said}{advice}{more}"),
            ..error
        }
    }

    fn certificate_unusable(&self) -> LoginFailure {
        self.without_credential(&CredentialError {
            message: format!(
                "the certificate cannot be used: it is not PEM, or its private key is missing or another one's; {}",
                self.identity.credentials.advice()
            ),
            remedy: Remedy::Edit,
        })
    }

    fn without_credential(&self, error: &CredentialError) -> LoginFailure {
        LoginFailure {
            error: VaultError {
                kind: VaultErrorKind::CredentialUnavailable,
                // Our own words, all of which are needed.
                detail: error.message.clone(),
                ..VaultError::refused("login", &self.identity.key.to_string(), "")
            },
            remedy: error.remedy,
        }
    }

    async fn renew(&self, token: &Token) {
        let request = self.in_namespace(&Request::token_renew());
        let certified = self.certified().clone();
        let transport = certified.as_ref().unwrap_or(&self.identity.transport);
        let result = transport.send(&request, Some(token.secret())).await;
        match result.and_then(|answer| answer.login()) {
            Ok(login) => {
                debug!(identity = %self.identity.key, "renewed the Vault token");
                self.state()
                    .renewed(token, login.ttl, login.renewable, now());
            }
            Err(error) if is_final(error.kind) => {
                info!(identity = %self.identity.key, %error, "Vault does not renew the token; it will be replaced");
                self.state().renew_refused(token, now());
            }
            Err(error) => {
                debug!(identity = %self.identity.key, %error, "could not renew the Vault token yet");
                self.state().renew_failed(token, &error, now());
            }
        }
    }

    /// After a 403: is it about the token or about the path? A dead token is replaced.
    async fn verify(&self, token: &Token, request: &Request) -> Result<Verdict, VaultError> {
        let _flight = self.flight.lock().await;
        if !self.state().is_current(token) {
            return self.fetch(request).await.map(Verdict::Replaced);
        }
        if !self.state().may_verify(now()) {
            return Ok(Verdict::Alive);
        }
        let lookup = self.in_namespace(&Request::token_lookup());
        match self.send_with(&lookup, token).await {
            Ok(_) => {
                self.state().verified_alive(now());
                Ok(Verdict::Alive)
            }
            Err(error) if is_final(error.kind) => {
                info!(identity = %self.identity.key, "the Vault token was revoked or has expired; logging in again");
                self.state().verified_dead(token);
                if let (Some(stored), Some(accessor)) = (&self.stored, token.accessor()) {
                    stored.forget_accessor(accessor);
                }
                self.fetch(request).await.map(Verdict::LoggedIn)
            }
            // Nothing is known about the token: report the 403 as it came.
            Err(_) => Ok(Verdict::Alive),
        }
    }

    async fn send_with(&self, request: &Request, token: &Token) -> Result<Response, VaultError> {
        let transport = &self.identity.transport;
        transport.send(request, Some(token.secret())).await
    }

    fn in_namespace(&self, request: &Request) -> Request {
        let namespace = request.namespace().or(self.identity.namespace.as_ref());
        request.clone().in_namespace(namespace.cloned())
    }

    fn certified(&self) -> MutexGuard<'_, Option<Arc<Transport>>> {
        // It is replaced as a whole.
        self.certified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        // Every method leaves the state whole, even if a caller panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a 403 was about.
enum Verdict {
    /// The token lives, as far as is known: the path is forbidden.
    Alive,
    /// Someone else has replaced the token meanwhile.
    Replaced(Arc<Token>),
    /// The token was dead, and this is its successor.
    LoggedIn(Arc<Token>),
}

struct LoginFailure {
    error: VaultError,
    remedy: Remedy,
}

impl LoginFailure {
    /// A password that Vault refused is not tried again soon.
    fn of_password(self) -> Self {
        let Self { error, remedy } = self;
        if !error.by_vault || !is_final(error.kind) {
            return Self { error, remedy };
        }
        let error = VaultError {
            retry_after: Some(PASSWORD_PAUSE),
            ..error
        };
        Self { error, remedy }
    }
}

impl From<VaultError> for LoginFailure {
    fn from(error: VaultError) -> Self {
        // A value that cannot be sent stays so until someone edits it.
        let remedy = if error.kind == VaultErrorKind::Refused {
            Remedy::Edit
        } else {
            Remedy::Retry
        };
        Self { error, remedy }
    }
}

/// Vault has spoken about this token, and asking again gives the same answer.
/// Vault answers a login below a path where nothing is mounted as it answers a wrong credential.
const MOUNT_ADVICE: &str =
    "; check spec.mount, too: this auth method must be enabled at the path above";

fn is_final(kind: VaultErrorKind) -> bool {
    matches!(
        kind,
        VaultErrorKind::Denied
            | VaultErrorKind::NotFound
            | VaultErrorKind::Invalid
            | VaultErrorKind::Refused
    )
}

/// The failure of an earlier login, with the time that is left to wait.
fn held_until(until: Instant, error: VaultError) -> VaultError {
    VaultError {
        retry_after: Some(until.saturating_duration_since(now())),
        ..error
    }
}
