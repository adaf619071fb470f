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
pub mod memory;
pub mod merge;
pub mod outcome;
pub mod plan;
pub mod refusal;
pub mod render;
pub mod resolve;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use kube::Client;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::{
    apply::{AppliedSecret, ApplyError},
    conclude::{Look, in_step, refused, unread},
    desired::{DesiredSecret, Wanted},
    memory::{Known, Memories, Start, Write},
    outcome::{InStep, Outcome, SourceFailure},
    plan::{Apply, ApplyReason, Observed, SecretAction},
    refusal::Refusal,
    resolve::{Resolved, Source},
};
use crate::{
    api::vault_secret::VaultSecretSpec,
    connection::{Entry, Table},
    names::ObjectKey,
    revision::{Revision, RevisionKey},
    secret_view::SecretView,
    telemetry::metrics::Metrics,
    vault::{
        backoff,
        readings::{Reading, Readings, SourceKey},
        schedule::{Freshness, Want},
        session::Identity,
    },
    view::VaultSecretView,
    world::World,
};

/// First and longest pause after a Secret could not be written.
const APPLY_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The resolution of the apiserver's times.
const SECOND: Duration = Duration::from_secs(1);
/// How soon to look for a connection again; becoming usable is an event too.
const CONNECTION_PENDING: Duration = Duration::from_secs(5);

/// What keeps Secrets in step.
pub struct Syncer {
    /// Talks to the apiserver.
    pub client: Client,
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
    /// Cancelled when the process ends: then Vault is not waited for, but a write that was begun is finished.
    pub stop: CancellationToken,
}

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
    Pending,
    Ending,
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
            failed @ ApplyError::Failed { .. } => Self::Unwritten(failed.to_string()),
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
            let next = self.release(key).await;
            return Pass {
                outcome: None,
                next,
            };
        };
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
        let spec = match &view.spec {
            Ok(spec) => Arc::clone(spec),
            Err(undecodable) => {
                return Some(refused(Refusal::Undecodable(undecodable.clone()), None));
            }
        };
        if spec.suspend == Some(true) {
            return Some((Outcome::Suspended, None));
        }
        let object = Object {
            key,
            start: self.memories.begin(key, view, Instant::now()),
            seed: backoff::seed_of(&view.uid),
            view,
        };
        let result = self.sync(&object, &spec).await;
        self.conclude(&object, result)
    }

    async fn sync(
        &self,
        object: &Object<'_>,
        spec: &VaultSecretSpec,
    ) -> Result<(InStep, Instant), Stop> {
        let resolved = resolve::resolve(object.key, spec, &*self.world, self.default_interval)?;
        let identity = self.identity(&resolved)?;
        let read = self
            .read(object, &resolved, &identity, object.start.known.is_none())
            .await?;
        let next = read
            .iter()
            .map(|read| read.next)
            .min()
            .unwrap_or_else(Instant::now);
        if let Some(in_step) = self.known_step(object, &resolved, &read)? {
            self.memories.succeeded(object.key, None, &object.start);
            return Ok((in_step, next));
        }
        let read = self.read(object, &resolved, &identity, true).await?;
        let in_step = self.write(object, &resolved, &read).await?;
        Ok((in_step, next))
    }

    fn identity(&self, resolved: &Resolved) -> Result<Identity, Stop> {
        let id = &resolved.login.connection;
        match self.connections.get(id) {
            None => Err(Stop::Pending),
            Some(Entry::Refused(why)) => Err(Refusal::ConnectionUnusable {
                connection: id.to_string(),
                why,
            }
            .into()),
            Some(Entry::Usable { transport, version }) => Ok(credentials::identity(
                &self.client,
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
        let reads = resolved.sources.iter().map(|source| async move {
            let place = source.place();
            let reading = self.readings.get(identity, &place, &want).await;
            let reading = reading.map_err(|failure| unread(source, failure))?;
            let key = SourceKey {
                identity: identity.key.clone(),
                source: place,
            };
            let next = self
                .readings
                .next_due(&key, resolved.interval, reading.read_at, object.seed)
                .into();
            Ok(ReadSource {
                source,
                reading,
                next,
            })
        });
        let read = self.stop.run_until_cancelled(join_all(reads)).await;
        read.ok_or(Stop::Ending)?.into_iter().collect()
    }

    /// The short way: Vault says the same as last time, and the Secret is as we left it.
    fn known_step(
        &self,
        object: &Object<'_>,
        resolved: &Resolved,
        read: &[ReadSource<'_>],
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
            SecretAction::Nothing => in_step(object, resolved, read, secret.as_deref(), None),
            SecretAction::Apply(_) => None,
        })
    }

    /// The long way: render, compare, and apply what differs.
    async fn write(
        &self,
        object: &Object<'_>,
        resolved: &Resolved,
        read: &[ReadSource<'_>],
    ) -> Result<InStep, Stop> {
        let no_data = render::Data::new();
        let parts = read.iter().map(|read| {
            (
                read.source,
                read.reading
                    .data
                    .as_deref()
                    .map_or(&no_data, |data| &data.entries),
            )
        });
        let data = render::render(parts)?;
        let written = ObjectKey::new(&object.key.namespace, &resolved.target.name);
        let revision = self.revisions.revision(&written, &data);
        let desired = DesiredSecret::new(
            object.key,
            &object.view.uid,
            &resolved.target,
            data,
            revision,
        );
        let secret = self.observe(object, &resolved.target.name);
        let action = self.plan(object, resolved, &desired.wanted, secret.as_deref())?;
        let (secret, why) = match action {
            SecretAction::Nothing => (secret, None),
            SecretAction::Apply(how) => {
                let how = self.dated(how, &desired, secret.as_deref()).await?;
                if how.why == ApplyReason::DataChanged {
                    self.let_the_first_second_pass(object.key, secret.as_deref())
                        .await;
                }
                let applied = self
                    .apply(object.key, &desired, &how, secret.as_deref())
                    .await?;
                tracing::info!(object = %object.key, secret = %desired.key, why = how.why.as_str(), revision = %desired.wanted.revision, "wrote the Secret");
                let secret = Arc::new(applied.0);
                self.memories
                    .wrote(object.key, Arc::clone(&secret), Instant::now());
                (Some(secret), Some(how.why))
            }
        };
        let managed = secret.as_ref().and_then(|secret| secret.managed.as_ref());
        let known = managed.map(|managed| Known {
            fingerprints: read.iter().map(|read| read.reading.fingerprint).collect(),
            // What the apiserver made of it counts: should it ever own fields otherwise than foreseen,
            // that is one needless write and not an endless number of them.
            wanted: Wanted {
                revision: desired.wanted.revision.clone(),
                fields: managed.fields,
            },
        });
        self.memories.succeeded(object.key, known, &object.start);
        in_step(object, resolved, read, secret.as_deref(), why).ok_or_else(|| {
            Stop::Unwritten(
                "the Secret does not carry the operator's mark after it was written".to_owned(),
            )
        })
    }

    /// Under another hash key every revision looks new: whether the data is, only the Secret itself can tell.
    async fn dated(
        &self,
        how: Apply,
        desired: &DesiredSecret,
        secret: Option<&SecretView>,
    ) -> Result<Apply, ApplyError> {
        let managed = secret.and_then(|secret| secret.managed.as_ref());
        match managed.filter(|managed| plan::is_of_another_key(managed, &desired.wanted)) {
            Some(managed) if apply::holds(&self.client, desired).await? => {
                Ok(how.of_the_same_data(managed.data_since))
            }
            Some(_) | None => Ok(how),
        }
    }

    /// The apiserver's times are whole seconds: data written in the second in which the Secret was made would
    /// look as if there had never been other data, and pods that read that would not be restarted.
    async fn let_the_first_second_pass(&self, key: &ObjectKey, secret: Option<&SecretView>) {
        let first_data = secret.is_some_and(|secret| {
            let since = secret.managed.as_ref().map(|managed| managed.data_since);
            since.is_some() && since == secret.created
        });
        if first_data && let Some(written) = self.memories.written_at(key) {
            sleep_until(written + SECOND).await;
        }
    }

    /// Applies, unless the apiserver refused the very same a while ago.
    async fn apply(
        &self,
        key: &ObjectKey,
        desired: &DesiredSecret,
        how: &Apply,
        secret: Option<&SecretView>,
    ) -> Result<AppliedSecret, ApplyError> {
        let write = Write {
            wanted: desired.wanted.clone(),
            over: secret.map(|secret| (secret.uid.clone(), secret.resource_version.clone())),
        };
        if let Some(refusal) = self.memories.refused_before(key, &write, Instant::now()) {
            return Err(refusal.into());
        }
        let applied = apply::apply(&self.client, &self.metrics, desired, how).await;
        if let Err(ApplyError::Refused(refusal)) = &applied {
            self.memories
                .refused(key, write, refusal.clone(), Instant::now());
        }
        applied
    }

    fn plan(
        &self,
        object: &Object<'_>,
        resolved: &Resolved,
        wanted: &Wanted,
        secret: Option<&SecretView>,
    ) -> Result<SecretAction, Refusal> {
        let mark = secret.and_then(|secret| secret.managed.as_ref());
        let mark_is_live = mark.is_some_and(|managed| {
            let key = ObjectKey::new(&object.key.namespace, &managed.vault_secret);
            let holder = self.world.vault_secrets.get(&key);
            // One that does not decode right now still has what it has.
            holder.is_some_and(|holder| match &holder.spec {
                Ok(spec) => resolve::target_name(&key, spec) == resolved.target.name,
                Err(_) => true,
            })
        });
        let status = &object.view.status;
        let reported = status.rotation_hash.as_ref().map(Revision::from_annotation);
        let reported = reported
            .as_ref()
            .zip(status.last_change_time.as_ref().map(|time| time.0));
        plan::plan(
            wanted,
            &resolved.target,
            &object.key.name,
            Observed {
                secret,
                mark_is_live,
                reported,
            },
        )
    }

    /// The Secret as last seen, by the watch or by ourselves when we wrote it.
    fn observe(&self, object: &Object<'_>, name: &str) -> Option<Arc<SecretView>> {
        let watched = self
            .world
            .secrets
            .get(&ObjectKey::new(&object.key.namespace, name));
        self.memories.newest(object.key, watched, Instant::now())
    }

    /// One exit: from what happened to the outcome and the next look.
    fn conclude(
        &self,
        object: &Object<'_>,
        result: Result<(InStep, Instant), Stop>,
    ) -> Option<Look> {
        Some(match result {
            Ok((in_step, next)) => (Outcome::InStep(in_step), Some(next)),
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
            Err(Stop::Unwritten(why)) => {
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

    /// Takes our keys out of Secrets that were merged into by a `VaultSecret` that is gone.
    async fn release(&self, key: &ObjectKey) -> Option<Instant> {
        let secrets = self.world.secrets.in_namespace(&key.namespace);
        let ours = secrets.iter().filter(|(_, secret)| {
            secret
                .managed
                .as_ref()
                .is_some_and(|managed| managed.remove_keys && managed.vault_secret == key.name)
        });
        let mut retry = None;
        for (name, secret) in ours {
            if let Err(error) = apply::release(&self.client, &self.metrics, name, &secret.uid).await
            {
                tracing::warn!(secret = %name, %error, "the keys of a deleted VaultSecret were not removed");
                retry = Some(Instant::now() + APPLY_BACKOFF.1);
            }
        }
        retry
    }
}
