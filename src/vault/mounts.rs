//! Effects: Vault — which version of the KV engine a mount has, asked once an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{VaultError, VaultErrorKind};
use super::identity::IdentityKey;
use super::path::{MountPath, VaultNamespace};
use super::request::{KvVersion, Request};
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
    version: Result<KvVersion, VaultError>,
    until: Instant,
}

/// One mount. Held while Vault is asked: one at a time.
type Slot = tokio::sync::Mutex<Option<Known>>;

/// What is known of mounts.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    slots: Mutex<HashMap<MountKey, Arc<Slot>>>,
}

impl Mounts {
    /// The version of the KV engine at `mount`, as `identity` sees it.
    pub(super) async fn version(
        &self,
        sessions: &Sessions,
        identity: &Identity,
        namespace: Option<&VaultNamespace>,
        mount: &MountPath,
    ) -> Result<KvVersion, VaultError> {
        let slot = self.slot(identity, namespace, mount);
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().filter(|known| now() < known.until) {
            return known.version.clone();
        }
        let version = detect(sessions, identity, namespace, mount).await;
        let keep = match &version {
            Ok(_) => KEEP,
            // Nothing was learnt about the mount; who remembers such failures is the gate, or the session.
            Err(error) if error.concerns_connection() || error.concerns_login() => Duration::ZERO,
            Err(_) => KEEP_REFUSAL,
        };
        *known = Some(Known {
            version: version.clone(),
            until: now() + keep,
        });
        version
    }

    /// Forgets a mount whose version seems to have changed.
    pub(super) fn forget(
        &self,
        identity: &Identity,
        namespace: Option<&VaultNamespace>,
        mount: &MountPath,
    ) {
        let key = key(identity, namespace, mount);
        self.slots().remove(&key);
    }

    /// Drops what is too old. A mount that is being asked about stays.
    pub(super) fn sweep(&self, now: Instant) {
        self.slots().retain(|_, slot| {
            slot.try_lock()
                .map_or(true, |known| known.as_ref().is_some_and(|k| now < k.until))
        });
    }

    fn slot(
        &self,
        identity: &Identity,
        namespace: Option<&VaultNamespace>,
        mount: &MountPath,
    ) -> Arc<Slot> {
        let key = key(identity, namespace, mount);
        self.slots().entry(key).or_default().clone()
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<MountKey, Arc<Slot>>> {
        // A panic between two inserts leaves the map whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(identity: &Identity, namespace: Option<&VaultNamespace>, mount: &MountPath) -> MountKey {
    MountKey {
        identity: identity.key.clone(),
        namespace: namespace.cloned(),
        mount: mount.clone(),
    }
}

async fn detect(
    sessions: &Sessions,
    identity: &Identity,
    namespace: Option<&VaultNamespace>,
    mount: &MountPath,
) -> Result<KvVersion, VaultError> {
    let request = Request::mount_lookup(mount).in_namespace(namespace.cloned());
    let answer = sessions.send(identity, &request).await;
    let found = answer.map_err(advise)?.mount()?;
    found.kv.ok_or_else(|| {
        let detail = format!("the engine mounted here is '{}', not 'kv'", found.engine);
        VaultError::new(VaultErrorKind::Invalid, &request, detail)
    })
}

/// Vault does not say whether the mount is missing or hidden; naming the version avoids the question.
fn advise(error: VaultError) -> VaultError {
    if error.kind != VaultErrorKind::Denied || error.concerns_login() {
        return error;
    }
    VaultError {
        detail: "the KV version cannot be looked up: there is no such mount, or the token has no right below it; setting engineVersion avoids the lookup".to_owned(),
        ..error
    }
}
