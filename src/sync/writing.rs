//! Effects: apiserver. Whether and when a Secret is really written, and what is taken out of one in the end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    APPLY_BACKOFF, Object, Syncer,
    apply::{self, AppliedSecret, ApplyError},
    desired::{DesiredSecret, Wanted},
    memory::Write,
    plan::{self, Apply, Observed, SecretAction},
    refusal::Refusal,
    resolve::{self, Resolved},
};
use crate::{names::ObjectKey, revision::Revision, secret_view::SecretView};

/// The resolution of the apiserver's times.
const SECOND: Duration = Duration::from_secs(1);

impl Syncer {
    /// The apiserver's times are whole seconds: data written in the second in which the Secret was made would
    /// look as if there had never been other data, and pods that read that would not be restarted.
    pub(super) async fn let_the_first_second_pass(
        &self,
        key: &ObjectKey,
        secret: Option<&SecretView>,
    ) {
        let first_data = secret.is_some_and(|secret| {
            let since = secret.managed.as_ref().map(|managed| managed.data_since);
            since.is_some() && since == secret.created
        });
        if first_data && let Some(written) = self.memories.written_at(key) {
            sleep_until(written + SECOND).await;
        }
    }

    /// Applies, unless the apiserver refused the very same a while ago.
    pub(super) async fn apply(
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

    /// What to do with the Secret, from memory alone.
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
