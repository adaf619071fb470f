//! Effects: memory, clock. What is held for all objects, and as whom it is kept.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{
    holdings::Holdings,
    lives::{KINDS, Live, first_end, tally},
    record::Issued,
};
use crate::{
    names::ObjectKey, sync::resolve::ConnectionId, telemetry::metrics::Metrics,
    vault::session::Identity,
};

/// What is held for all objects.
#[derive(Default)]
pub struct Table(Mutex<HashMap<ObjectKey, Entry>>);

/// What is held for one object of this UID.
struct Entry {
    uid: String,
    held: Shared,
    /// As whom it was kept last.
    identity: Option<Identity>,
    /// As whom it was kept last through each connection.
    identities: BTreeMap<String, Identity>,
    /// What lived of it after the last pass.
    lives: Vec<Live>,
}

/// What is held for one object. One pass at a time has it.
type Shared = Arc<tokio::sync::Mutex<Holdings>>;

impl Table {
    /// What is held for the object `key` with this UID; nothing yet if it is new.
    pub fn of(&self, key: &ObjectKey, uid: &str) -> Shared {
        let new = || Entry {
            uid: uid.to_owned(),
            held: Shared::default(),
            identity: None,
            identities: BTreeMap::new(),
            lives: Vec::new(),
        };
        let mut table = self.lock();
        let entry = table.entry(key.clone()).or_insert_with(new);
        if entry.uid != uid {
            *entry = new();
        }
        Arc::clone(&entry.held)
    }

    /// Whether anything may be held for `key`.
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.lock().contains_key(key)
    }

    /// Notes as whom, and through which connection, what is held for `key` is kept.
    pub(super) fn serve(&self, key: &ObjectKey, connection: &ConnectionId, identity: &Identity) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.identity = Some(identity.clone());
            let identities = &mut entry.identities;
            identities.insert(connection.to_string(), identity.clone());
        }
    }

    /// Who can end `issued`: `current`, unless it was issued through another connection. Nobody, if this process never
    /// used that one for `key`.
    pub(super) fn who_ends(
        &self,
        key: &ObjectKey,
        issued: &Issued,
        current: &Identity,
    ) -> Option<Identity> {
        let table = self.lock();
        let none = BTreeMap::new();
        let known = table.get(key).map_or(&none, |entry| &entry.identities);
        through(issued.connection.as_deref(), known, current).cloned()
    }

    /// As whom what is held for `key` was kept last.
    pub(in crate::sync) fn identity(&self, key: &ObjectKey) -> Option<Identity> {
        self.lock().get(key)?.identity.clone()
    }

    /// Notes what lives of what is held for `key`.
    pub(super) fn note(&self, key: &ObjectKey, lives: Vec<Live>) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.lives = lives;
        }
    }

    /// When the first of what was replaced for `key`, and may be in use, ends for good, if that is known.
    pub fn first_end(&self, key: &ObjectKey) -> Option<std::time::Instant> {
        first_end(&self.lock().get(key)?.lives)
    }

    /// Counts everything that is held. Asks nobody, so it may be called at any time.
    pub fn measure(&self, metrics: &Metrics) {
        let now = Instant::now().into_std();
        let table = self.lock();
        for kind in KINDS {
            let lives = table.values().flat_map(|entry| &entry.lives);
            metrics.credentials(kind, &tally(lives, kind, now));
        }
    }

    /// Nothing is held for `key` any more.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// When the sources of `key` are to be tended again, if the last pass got as far as to tend them.
    pub(in crate::sync) async fn take_tend_at(&self, key: &ObjectKey) -> Option<Instant> {
        let held = Arc::clone(&self.lock().get(key)?.held);
        let at = held.lock().await.tend_at.take();
        at.map(Instant::from_std)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Entry>> {
        // Each change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of `known`, by connection, is for what was issued through this one; `current` where that was not noted.
fn through<'a, T>(
    connection: Option<&str>,
    known: &'a BTreeMap<String, T>,
    current: &'a T,
) -> Option<&'a T> {
    connection.map_or(Some(current), |connection| known.get(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another Vault would say that there is no such lease, as if it had been revoked.
    #[test]
    fn a_lease_is_revoked_through_the_connection_it_was_issued_through() {
        let known = [("old".to_owned(), 1), ("new".to_owned(), 2)].into();
        let rows = [
            (None, Some(2)),
            (Some("new"), Some(2)),
            (Some("old"), Some(1)),
            (Some("before"), None),
        ];
        for (connection, expected) in rows {
            assert_eq!(through(connection, &known, &2).copied(), expected);
        }
    }
}
