//! Effects: apiserver, Vault. Keeps each Secret in step with Vault.
//!
//! One pass over one `VaultSecret` is a straight line:
//!
//! 1. [`resolve`] (pure, from memory): from the spec to values that cannot be wrong, or a [`refusal`];
//! 2. read (Vault, through [`crate::vault::readings`]): shared with every other object that wants the same;
//! 3. [`render`] (pure): select, rename and merge the keys;
//! 4. [`desired`] (pure): the Secret as it shall be, and its revision;
//! 5. [`plan`] (pure): compare with the Secret as it is;
//! 6. [`apply`] (apiserver): the only step that writes.
//!
//! Whatever happens, the pass ends in one [`outcome::Outcome`]; [`crate::report`] turns it into status and events.
//! When nothing changed, steps 3 to 6 are skipped on the strength of [`memory`], and no request goes to the apiserver.

pub mod apply;
mod conclude;
pub mod credentials;
pub mod desired;
mod held;
pub mod holding;
pub mod memory;
pub mod merge;
pub mod outcome;
pub mod plan;
pub mod refusal;
pub mod render;
pub mod resolve;
mod unmatched;
mod write;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use kube::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    apply::ApplyError,
    conclude::{Look, in_step, refused, statuses, unread},
    held::{Passed, Scope},
    holding::Verdict,
    memory::{Memories, Start},
    outcome::{InStep, Outcome, SourceFailure},
    plan::SecretAction,
    refusal::Refusal,
    resolve::{
        Resolved,
        source::{Ask, Source},
    },
    write::Values,
};
use crate::{
    api::{source::SourceStatus, vault_secret::VaultSecretSpec},
    cloud::http::Clouds,
    connection::{Entry, Table},
    names::ObjectKey,
    revision::RevisionKey,
    secret_view::SecretView,
    telemetry::metrics::Metrics,
    vault::{
        backoff,
        place::Place,
        readings::{PlaceKey, ReadFailure, Reading, Readings},
        schedule::{Freshness, Want},
        session::Identity,
        sessions::Sessions,
    },
    view::VaultSecretView,
    world::World,
};

/// First and longest pause after a Secret could not be written.
const APPLY_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How soon to look for a connection again; becoming usable is an event too.
const CONNECTION_PENDING: Duration = Duration::from_secs(5);

/// What keeps Secrets in step.
pub struct Syncer {
    /// Talks to the apiserver.
    pub client: Client,
    /// The way to the services of clouds, for logins.
    pub clouds: Arc<Clouds>,
    /// What is known of the cluster.
    pub world: Arc<World>,
    /// The connections to Vault.
    pub connections: Arc<Table>,
    /// The shared reads.
    pub readings: Arc<Readings>,
    /// Key of the rotation hash.
    pub revisions: RevisionKey,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// `refreshInterval` of those that say none.
    pub default_interval: Duration,
    /// What was seen in earlier passes.
    pub memories: Arc<Memories>,
    /// The tokens that what is issued depends on.
    pub sessions: Arc<Sessions>,
    /// What is held for each object.
    pub holdings: Arc<holding::Table>,
    /// What this process has issued.
    pub ours: holding::maybe::Ours,
    /// Whether the only lease that can be one without an answer is revoked.
    pub revoke_unanswered: bool,
    /// How far the workloads are that use the Secret of a `VaultSecret`.
    pub verdict: VerdictOf,
    /// When this process began to write.
    pub began: Instant,
    /// The time of day.
    pub clock: fn() -> Timestamp,
    /// Cancelled when the process ends: then Vault is not waited for, but a write that was begun is finished.
    pub stop: CancellationToken,
}

/// Looks up how far the workloads are that use the Secret of a `VaultSecret`.
pub type VerdictOf = Box<dyn Fn(&ObjectKey, Option<&SecretView>) -> Verdict + Send + Sync>;

/// How a pass ended.
pub struct Pass {
    /// What it did, and to which UID and generation; `None` when there is no such `VaultSecret`, or the process ends.
    pub outcome: Option<((String, i64), Outcome)>,
    /// When to look again.
    pub next: Option<Instant>,
}

/// Why a pass ended early.
enum Stop {
    Refused(Refusal),
    Unread(SourceFailure, Instant),
    Unwritten(String),
    /// Nobody knows whether the Secret was written.
    Unanswered(String),
    Pending,
    Ending,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unread(failure, _) => f.write_str(&failure.message),
            Self::Unwritten(why) | Self::Unanswered(why) => f.write_str(why),
            Self::Pending => f.write_str("its connection could not be looked at"),
            Self::Ending => f.write_str("the process ends"),
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ApplyError> for Stop {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(refusal) => Self::Refused(refusal),
            ApplyError::Outdated(_) => Self::Pending,
            failed @ ApplyError::Failed { .. } => Self::Unwritten(failed.to_string()),
            failed @ ApplyError::Unanswered { .. } => Self::Unanswered(failed.to_string()),
        }
    }
}

/// One pass over one object: what it works with.
struct Object<'a> {
    key: &'a ObjectKey,
    view: &'a VaultSecretView,
    start: Start,
    seed: u64,
}

impl<'a> Object<'a> {
    fn new(key: &'a ObjectKey, view: &'a VaultSecretView) -> Self {
        Self {
            key,
            start: Start::default(),
            seed: backoff::seed_of(&view.uid),
            view,
        }
    }
}

/// One source with what it needs to be read, and what was read.
struct ReadSource<'a> {
    source: &'a Source,
    reading: Reading,
    next: Instant,
}

impl Syncer {
    /// One pass over the `VaultSecret` called `key`.
    pub async fn reconcile(&self, key: &ObjectKey) -> Pass {
        let Some(view) = self.world.vault_secrets.get(key) else {
            self.memories.forget(key);
            self.holdings.forget(key);
            self.sessions.forget(&key.to_string());
            let next = self.release(key).await;
            return Pass {
                outcome: None,
                next,
            };
        };
        if view.deleted.is_some() {
            let (outcome, next) = self.finish(&Object::new(key, &view)).await;
            let version = (view.uid.clone(), view.generation);
            return Pass {
                outcome: outcome.map(|outcome| (version, outcome)),
                next,
            };
        }
        let Some((outcome, next)) = self.look(key, &view).await else {
            return Pass {
                outcome: None,
                next: None,
            };
        };
        self.metrics.reconcile("sync", outcome.as_str());
        Pass {
            outcome: Some(((view.uid.clone(), view.generation), outcome)),
            next,
        }
    }

    /// `None` when the process ends.
    async fn look(&self, key: &ObjectKey, view: &VaultSecretView) -> Option<Look> {
        let mut object = Object::new(key, view);
        let spec = match &view.spec {
            Ok(spec) => Arc::clone(spec),
            Err(undecodable) => {
                let look = refused(Refusal::Undecodable(undecodable.clone()), None);
                return Some(sooner(
                    look,
                    self.keep_held(&object, None, Verdict::Waiting).await,
                ));
            }
        };
        if spec.suspend == Some(true) {
            return Some((Outcome::Suspended, self.keep_only(&object, &spec).await));
        }
        object.start = self.memories.begin(key, view, Instant::now());
        let result = self.sync(&object, &spec).await;
        // A Secret that cannot be written is no reason to let a lease end.
        let mut tend = self.holdings.take_tend_at(key).await;
        if result.is_err() && tend.is_none() {
            tend = self.keep_refused(&object, &spec).await;
        }
        let (outcome, next) = self.conclude(&object, result)?;
        Some((outcome, next.into_iter().chain(tend).min()))
    }

    async fn sync(&self, object: &Object<'_>, spec: &VaultSecretSpec) -> Result<Passed, Stop> {
        let (resolved, identity) = self.asks_as(object, spec)?;
        let secret = self.observe(object, &resolved.target.name);
        if self.holds(object, &resolved, secret.as_deref()) {
            let scope = Scope {
                object,
                resolved: &resolved,
                identity: &identity,
            };
            return self.sync_held(scope).await;
        }
        let read = self
            .read(object, &resolved, &identity, object.start.known.is_none())
            .await?;
        let next = read
            .iter()
            .map(|read| read.next)
            .min()
            .unwrap_or_else(Instant::now);
        let sources = statuses(&resolved, &read, None);
        if let Some(in_step) = self.known_step(object, &resolved, &read, sources)? {
            self.memories.succeeded(object.key, None, &object.start);
            return Ok(Passed::well(in_step, next));
        }
        let read = self.read(object, &resolved, &identity, true).await?;
        let values = Values::read(&read, statuses(&resolved, &read, None));
        let in_step = self.write(object, &resolved, values, None).await?;
        Ok(Passed::well(in_step, next))
    }

    fn resolve(&self, object: &Object<'_>, spec: &VaultSecretSpec) -> Result<Resolved, Refusal> {
        resolve::resolve(object.key, spec, &*self.world, self.default_interval)
    }

    /// What an object wants, and as whom it asks Vault from now on.
    fn asks_as(
        &self,
        object: &Object<'_>,
        spec: &VaultSecretSpec,
    ) -> Result<(Resolved, Identity), Stop> {
        let owner = object.key.to_string();
        let resolved = self
            .resolve(object, spec)
            .inspect_err(|_| self.sessions.used_by(&owner, None))?;
        let identity = self.identity(&resolved)?;
        self.sessions.used_by(&owner, Some(&identity.key));
        Ok((resolved, identity))
    }

    fn identity(&self, resolved: &Resolved) -> Result<Identity, Stop> {
        let id = &resolved.login.connection;
        match self.connections.get(id) {
            None => Err(Stop::Pending),
            Some(Entry::Refused(why)) => Err(Refusal::ConnectionUnusable {
                connection: id.to_string(),
                why: why.to_string(),
            }
            .into()),
            Some(Entry::Usable { transport, version }) => Ok(credentials::identity(
                &self.client,
                &self.clouds,
                &resolved.login,
                transport,
                version,
            )),
        }
    }

    /// Reads every source, all at once. One that fails stops the pass: a Secret is never written by halves.
    async fn read<'a>(
        &self,
        object: &Object<'_>,
        resolved: &'a Resolved,
        identity: &Identity,
        need_data: bool,
    ) -> Result<Vec<ReadSource<'a>>, Stop> {
        let want = Want {
            interval: resolved.interval,
            freshness: object
                .start
                .fresh_since
                .map_or(Freshness::WithinInterval, |since| {
                    Freshness::NotBefore(since.into())
                }),
            need_data,
            seed: object.seed,
        };
        let places = resolved
            .sources
            .iter()
            .filter_map(|source| match &source.ask {
                Ask::Read(place) => Some((source, place)),
                Ask::Issue(_) => None,
            });
        let reads = places.map(|(source, place)| async move {
            let want = Want {
                interval: want.interval.min(source.every.unwrap_or(want.interval)),
                ..want
            };
            let result = self.read_place(identity, place, &want).await;
            let (reading, next) = result.map_err(|failure| unread(object.key, source, failure))?;
            Ok(ReadSource {
                source,
                reading,
                next,
            })
        });
        let read = self.stop.run_until_cancelled(join_all(reads)).await;
        read.ok_or(Stop::Ending)?.into_iter().collect()
    }

    /// Reads one place; says when to read it again.
    async fn read_place(
        &self,
        identity: &Identity,
        place: &Place,
        want: &Want,
    ) -> Result<(Reading, Instant), ReadFailure> {
        let reading = self.readings.get(identity, place, want).await?;
        let key = PlaceKey {
            identity: identity.key.clone(),
            place: place.clone(),
        };
        let next = self
            .readings
            .next_due(&key, want.interval, &reading, want.seed);
        Ok((reading, next.into()))
    }

    /// The short way: Vault says the same as last time, and the Secret is as we left it.
    fn known_step(
        &self,
        object: &Object<'_>,
        resolved: &Resolved,
        read: &[ReadSource<'_>],
        statuses: Vec<SourceStatus>,
    ) -> Result<Option<InStep>, Refusal> {
        let Some(known) = &object.start.known else {
            return Ok(None);
        };
        if !read
            .iter()
            .map(|read| &read.reading.fingerprint)
            .eq(&known.fingerprints)
        {
            return Ok(None);
        }
        let secret = self.observe(object, &resolved.target.name);
        let action = self.plan(object, resolved, &known.wanted, secret.as_deref())?;
        Ok(match action {
            SecretAction::Nothing => {
                let found = (secret.as_deref(), None);
                in_step(object, resolved, statuses, found, known.unmatched.clone())
            }
            SecretAction::Apply(_) => None,
        })
    }

    /// One exit: from what happened to the outcome and the next look.
    fn conclude(&self, object: &Object<'_>, result: Result<Passed, Stop>) -> Option<Look> {
        Some(match result {
            Ok(Passed {
                in_step,
                trouble,
                next,
            }) => match trouble {
                None => (Outcome::InStep(in_step), Some(next)),
                Some(trouble) => (Outcome::Degraded(in_step, trouble), Some(next)),
            },
            Err(Stop::Refused(refusal)) => {
                let interval = object
                    .view
                    .spec
                    .as_ref()
                    .ok()
                    .and_then(|spec| spec.refresh_interval.as_ref());
                refused(
                    refusal,
                    Some(interval.map_or(
                        self.default_interval,
                        super::api::duration::GoDuration::as_duration,
                    )),
                )
            }
            Err(Stop::Unread(failure, retry_at)) => {
                (Outcome::SourceFailed(failure), Some(retry_at))
            }
            Err(Stop::Unwritten(why) | Stop::Unanswered(why)) => {
                tracing::warn!(object = %object.key, why, "the Secret was not written");
                let failures = self.memories.failed(object.key);
                let longest = backoff::exponential(APPLY_BACKOFF.0, APPLY_BACKOFF.1, failures);
                let pause =
                    backoff::jittered(longest, 0.5, backoff::seed_for(object.seed, failures));
                (Outcome::ApplyFailed { why }, Some(Instant::now() + pause))
            }
            Err(Stop::Pending) => (
                Outcome::ConnectionPending,
                Some(Instant::now() + CONNECTION_PENDING),
            ),
            Err(Stop::Ending) => return None,
        })
    }
}

/// The same look, but not later than `next`.
fn sooner((outcome, at): Look, next: Option<Instant>) -> Look {
    (outcome, at.into_iter().chain(next).min())
}
