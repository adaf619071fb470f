//! Effects: Vault — what is mounted where, asked once an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{VaultError, VaultErrorKind};
use super::identity::IdentityKey;
use super::path::{MountPath, VaultNamespace};
use super::request::Request;
use super::response::Mount;
use super::session::Identity;
use super::sessions::Sessions;
use super::transport::now;

/// A mount changes its version about once in its life, and a wrong one is noticed by its 404.
const KEEP: Duration = Duration::from_hours(1);
/// A refusal is not asked for again by each path below the mount, but an edit helps soon.
const KEEP_REFUSAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MountKey {
    identity: IdentityKey,
    namespace: Option<VaultNamespace>,
    mount: MountPath,
}

#[derive(Debug)]
struct Known {
    found: Result<Mount, VaultError>,
    until: Instant,
}

/// A mount as one identity sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountAt<'a> {
    /// Who asks.
    pub(super) identity: &'a Identity,
    /// The namespace; that of the identity when `None`.
    pub(super) namespace: Option<&'a VaultNamespace>,
    /// Where it is.
    pub(super) mount: &'a MountPath,
}

/// What somebody wants to know of a mount.
#[derive(Debug)]
pub(super) struct Question<T> {
    /// What is asked, for people.
    pub(super) what: &'static str,
    /// The field of a source that answers it.
    pub(super) field: &'static str,
    /// The types of engine that will do, for people.
    pub(super) wanted: &'static str,
    /// The answer, if the engine is of such a type.
    pub(super) take: fn(&Mount) -> Option<T>,
}

/// One mount. Held while Vault is asked: one at a time.
type Slot = tokio::sync::Mutex<Option<Known>>;

/// What is known of mounts.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    slots: Mutex<HashMap<MountKey, Arc<Slot>>>,
}

impl Mounts {
    /// What is wanted of the engine at a mount.
    pub(super) async fn ask<T>(
        &self,
        sessions: &Sessions,
        at: MountAt<'_>,
        question: &Question<T>,
    ) -> Result<T, VaultError> {
        let found = self.find(sessions, at, question);
        let found = found.await.map_err(|error| advise(error, question))?;
        (question.take)(&found).ok_or_else(|| {
            let request = Request::mount_lookup(at.mount);
            let (engine, wanted) = (&found.engine, question.wanted);
            let detail = format!("the engine mounted here is '{engine}', not {wanted}");
            VaultError::new(VaultErrorKind::Invalid, &request, detail)
        })
    }

    async fn find<T>(
        &self,
        sessions: &Sessions,
        at: MountAt<'_>,
        question: &Question<T>,
    ) -> Result<Mount, VaultError> {
        let slot = self.slot(at);
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().filter(|known| now() < known.until) {
            return known.found.clone();
        }
        let request = Request::mount_lookup(at.mount).in_namespace(at.namespace.cloned());
        let answer = sessions.send(at.identity, &request).await;
        let found = answer.and_then(|answer| answer.mount());
        let keep = match &found {
            Ok(mount) if (question.take)(mount).is_some() => KEEP,
            // Nothing was learnt about the mount; who remembers such failures is the gate, or the session.
            Err(error) if error.concerns_connection() || error.concerns_login() => Duration::ZERO,
            Ok(_) | Err(_) => KEEP_REFUSAL,
        };
        *known = Some(Known {
            found: found.clone(),
            until: now() + keep,
        });
        found
    }

    /// Forgets a mount that seems to have changed.
    pub(super) fn forget(&self, at: MountAt<'_>) {
        self.slots().remove(&at.key());
    }

    /// Drops what is too old. A mount that is being asked about stays.
    pub(super) fn sweep(&self, now: Instant) {
        self.slots().retain(|_, slot| {
            slot.try_lock()
                .map_or(true, |known| known.as_ref().is_some_and(|k| now < k.until))
        });
    }

    fn slot(&self, at: MountAt<'_>) -> Arc<Slot> {
        self.slots().entry(at.key()).or_default().clone()
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<MountKey, Arc<Slot>>> {
        // A panic between two inserts leaves the map whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MountAt<'_> {
    fn key(self) -> MountKey {
        MountKey {
            identity: self.identity.key.clone(),
            namespace: self.namespace.cloned(),
            mount: self.mount.clone(),
        }
    }
}

/// Vault does not say whether the mount is missing or hidden; naming the engine avoids the question.
fn advise<T>(error: VaultError, question: &Question<T>) -> VaultError {
    if error.kind != VaultErrorKind::Denied || error.concerns_login() {
        return error;
    }
    let Question { what, field, .. } = question;
    VaultError {
        detail: format!(
            "{what} cannot be looked up: there is no such mount, or the token has no right below it; setting {field} avoids the lookup"
        ),
        ..error
    }
}
