//! Effects: apiserver. The second half of a pass: what was read becomes the Secret.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    APPLY_BACKOFF, Object, ReadSource, Stop, Syncer,
    apply::{self, AppliedSecret, ApplyError},
    conclude::in_step,
    desired::{DesiredSecret, Wanted},
    holding::{
        holdings::{Agreed, Holdings},
        record::Records,
    },
    memory::{Known, Write},
    outcome::InStep,
    plan::{self, Apply, ApplyReason, Observed, SecretAction},
    refusal::Refusal,
    render,
    resolve::{self, Resolved, source::Source},
    unmatched::unmatched,
};
use crate::{
    api::source::SourceStatus, names::ObjectKey, revision::Revision, secret_view::SecretView,
    vault::fingerprint::Fingerprint,
};

/// The resolution of the apiserver's times.
const SECOND: Duration = Duration::from_secs(1);

/// What a Secret is made of.
pub(super) struct Values<'a> {
    /// What each source gave.
    pub parts: Vec<(&'a Source, Cow<'a, render::Data>)>,
    /// What is kept of sources that gave nothing this time, under its final keys.
    pub rest: render::Data,
    /// Digest of each source that was read; `None` when one was not.
    pub fingerprints: Option<Vec<Fingerprint>>,
    /// How each source reads in the status.
    pub statuses: Vec<SourceStatus>,
}

impl<'a> Values<'a> {
    /// The values of sources that were read.
    pub(super) fn read(read: &'a [ReadSource<'a>], statuses: Vec<SourceStatus>) -> Self {
        let parts = read.iter().filter_map(|read| {
            let data = read.reading.data.as_deref()?;
            Some((read.source, Cow::Borrowed(&data.entries)))
        });
        Self {
            parts: parts.collect(),
            rest: render::Data::new(),
            fingerprints: Some(read.iter().map(|read| read.reading.fingerprint).collect()),
            statuses,
        }
    }

    /// What `keys` names and the sources do not have. What was left out of the Secret is not carried on from there, but
    /// its name is.
    fn unmatched(&self, held: Option<&Holdings>) -> Option<String> {
        let with_names = self.parts.iter().map(|(source, data)| {
            let holding = held.and_then(|held| held.sources.get(&source.name));
            let names: Vec<_> = match holding {
                Some(holding) => holding.record.keys.keys().collect(),
                None => data.keys().collect(),
            };
            let names = names.into_iter().map(|name| source.ask.key_of(name));
            (*source, names.collect())
        });
        unmatched(with_names)
    }
}

impl Syncer {
    /// The long way: render, compare, and apply what differs.
    pub(super) async fn write(
        &self,
        object: &Object<'_>,
        resolved: &Resolved,
        values: Values<'_>,
        held: Option<&Holdings>,
    ) -> Result<InStep, Stop> {
        let unmatched = values.unmatched(held);
        let Values {
            parts,
            rest,
            fingerprints,
            statuses,
        } = values;
        let parts = parts.iter().map(|(source, data)| (*source, &**data));
        let mut data = rest;
        data.extend(render::render(parts)?);
        let written = ObjectKey::new(&object.key.namespace, &resolved.target.name);
        let revision = self.revisions.revision(&written, &data);
        let records = |writes| held.map(|held| held.records(writes, &resolved.sources));
        let records = |writes| -> Records {
            records(writes)
                .unwrap_or_default()
                .sealed(&self.revisions, object.key)
        };
        let desired = DesiredSecret::new(
            object.key,
            &object.view.uid,
            &resolved.target,
            (data, revision),
            &records(false),
        );
        let secret = self.observe(object, &resolved.target.name);
        let action = self.plan(object, resolved, &desired.wanted, secret.as_deref())?;
        let mut desired = desired;
        let (secret, why) = match action {
            SecretAction::Nothing => (secret, None),
            SecretAction::Apply(how) => {
                desired.set_records(&records(true));
                if let Some(Agreed::Secret(_, version)) = held.map(|held| &held.agreed) {
                    desired.set_over(version);
                }
                let written = self.apply_dated(object, &desired, how, secret.as_deref());
                let (secret, why) = written.await?;
                (Some(secret), Some(why))
            }
        };
        let revision = desired.wanted.revision.clone();
        let known = fingerprints
            .and_then(|read| Known::of(secret.as_deref()?, read, revision, unmatched.clone()));
        self.memories.succeeded(object.key, known, &object.start);
        let found = (secret.as_deref(), why);
        in_step(object, resolved, statuses, found, unmatched).ok_or_else(|| {
            Stop::Unwritten(
                "the Secret does not carry the operator's mark after it was written".to_owned(),
            )
        })
    }

    async fn apply_dated(
        &self,
        object: &Object<'_>,
        desired: &DesiredSecret,
        how: Apply,
        secret: Option<&SecretView>,
    ) -> Result<(Arc<SecretView>, ApplyReason), ApplyError> {
        let how = self.dated(how, desired, secret).await?;
        if how.why == ApplyReason::DataChanged {
            self.let_the_first_second_pass(object.key, secret).await;
        }
        let applied = self.apply(object.key, desired, &how, secret).await?;
        tracing::info!(object = %object.key, secret = %desired.key, why = how.why.as_str(), revision = %desired.wanted.revision, "wrote the Secret");
        let secret = Arc::new(applied.0);
        self.memories
            .wrote(object.key, Arc::clone(&secret), Instant::now());
        Ok((secret, how.why))
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
        if first_data {
            // What this process did not write was written before it began.
            let written = self.memories.written_at(key).unwrap_or(self.began);
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

    pub(super) fn plan(
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
    pub(super) fn observe(&self, object: &Object<'_>, name: &str) -> Option<Arc<SecretView>> {
        let watched = self
            .world
            .secrets
            .get(&ObjectKey::new(&object.key.namespace, name));
        self.memories.newest(object.key, watched, Instant::now())
    }

    /// Takes our keys out of Secrets that were merged into by a `VaultSecret` that is gone.
    pub(super) async fn release(&self, key: &ObjectKey) -> Option<Instant> {
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
