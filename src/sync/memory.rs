//! Effects: memory. What earlier passes saw; losing it costs a read, never a write.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{desired::Wanted, refusal::Refusal};
use crate::{
    names::ObjectKey, revision::Revision, secret_view::SecretView, vault::fingerprint::Fingerprint,
    view::VaultSecretView,
};

/// How long a Secret we wrote counts as existing although the watch has not shown it yet.
const WATCH_LAG: Duration = Duration::from_secs(10);

/// How long the apiserver's refusal of a write stands for the same write. It may depend on what is not seen from
/// here, such as a policy.
const REFUSAL_HOLDS: Duration = Duration::from_mins(10);

/// The memories of all objects.
///
/// Each method is one step under one lock, so that what happens during a pass (a Secret deleted, a fresh
/// read asked for) is never overwritten by what the pass knew at its start.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<ObjectKey, Memory>>);

/// What earlier passes saw of one object.
#[derive(Default)]
struct Memory {
    /// The object the rest belongs to: UID and generation.
    version: (String, i64),
    known: Option<Arc<Known>>,
    /// The Secret as our last write left it, and when that was.
    applied: Option<(Arc<SecretView>, Instant)>,
    /// The last write that the apiserver refused.
    refused: Option<(Write, Refusal, Instant)>,
    /// Passes in a row in which the Secret could not be written.
    failures: u32,
    /// Somebody asked for readings that are not older than this.
    fresh_since: Option<Instant>,
    /// The refresh request that was last taken up.
    refresh: Option<String>,
}

/// What was read and written last.
#[derive(Debug)]
pub struct Known {
    /// Digest of each source, in the order of the spec.
    pub fingerprints: Vec<Fingerprint>,
    /// The Secret that came of it.
    pub wanted: Wanted,
    /// What `keys` names and the sources do not have, in words.
    pub unmatched: Option<String>,
}

impl Known {
    /// What came of these readings; `None` of a Secret that is not ours.
    pub fn of(
        secret: &SecretView,
        fingerprints: Vec<Fingerprint>,
        revision: Revision,
        unmatched: Option<String>,
    ) -> Option<Self> {
        // What the apiserver made of it counts: should it ever own fields otherwise than foreseen, that is one needless
        // write and not an endless number of them.
        let fields = secret.managed.as_ref()?.fields;
        Some(Self {
            fingerprints,
            wanted: Wanted { revision, fields },
            unmatched,
        })
    }
}

/// A write, as far as the apiserver's opinion of it depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The Secret that was to be.
    pub wanted: Wanted,
    /// UID and version of the Secret that was there.
    pub over: Option<(String, String)>,
}

/// What a pass starts from.
#[derive(Default)]
pub struct Start {
    /// What was read and written last for this very spec.
    pub known: Option<Arc<Known>>,
    /// Readings older than this do not count.
    pub fresh_since: Option<Instant>,
}

impl Memories {
    /// Begins a pass: forgets what belongs to another version, and takes up a new refresh request.
    pub fn begin(&self, key: &ObjectKey, view: &VaultSecretView, now: Instant) -> Start {
        let mut memories = self.lock();
        let memory = memories.entry(key.clone()).or_default();
        if memory.version.0 != view.uid {
            *memory = Memory {
                fresh_since: memory.fresh_since,
                ..Memory::default()
            };
        }
        if memory.version.1 != view.generation {
            memory.known = None;
            memory.refused = None;
        }
        memory.version = (view.uid.clone(), view.generation);
        if view.refresh != memory.refresh {
            memory.refresh.clone_from(&view.refresh);
            if view.refresh.is_some() && view.refresh != view.status.last_handled_refresh {
                memory.fresh_since = Some(now);
            }
        }
        Start {
            known: memory.known.clone(),
            fresh_since: memory.fresh_since,
        }
    }

    /// The Secret was written.
    pub fn wrote(&self, key: &ObjectKey, secret: Arc<SecretView>, now: Instant) {
        self.change(key, |memory| memory.applied = Some((secret, now)));
    }

    /// When our last write was answered, if it is remembered.
    pub fn written_at(&self, key: &ObjectKey) -> Option<Instant> {
        let memories = self.lock();
        let (_, when) = memories.get(key)?.applied.as_ref()?;
        Some(*when)
    }

    /// The apiserver refused this write.
    pub fn refused(&self, key: &ObjectKey, write: Write, refusal: Refusal, now: Instant) {
        self.change(key, |memory| memory.refused = Some((write, refusal, now)));
    }

    /// What the apiserver said to the same write not long ago.
    pub fn refused_before(&self, key: &ObjectKey, write: &Write, now: Instant) -> Option<Refusal> {
        let memories = self.lock();
        let (before, refusal, when) = memories.get(key)?.refused.as_ref()?;
        let holds = before == write && now.duration_since(*when) < REFUSAL_HOLDS;
        holds.then(|| refusal.clone())
    }

    /// The Secret was seen to go.
    pub fn secret_gone(&self, key: &ObjectKey) {
        self.change(key, |memory| memory.applied = None);
    }

    /// The newer of what the watch shows and what we wrote.
    pub fn newest(
        &self,
        key: &ObjectKey,
        watched: Option<Arc<SecretView>>,
        now: Instant,
    ) -> Option<Arc<SecretView>> {
        let memories = self.lock();
        let Some((applied, when)) = memories.get(key).and_then(|memory| memory.applied.as_ref())
        else {
            return watched;
        };
        match watched {
            None => (now.duration_since(*when) < WATCH_LAG).then(|| Arc::clone(applied)),
            Some(watched) if watched.uid == applied.uid && is_older(&watched, applied) => {
                Some(Arc::clone(applied))
            }
            Some(watched) => Some(watched),
        }
    }

    /// The pass succeeded with this; a request for fresh readings that it started with is answered.
    pub fn succeeded(&self, key: &ObjectKey, known: Option<Known>, start: &Start) {
        self.change(key, |memory| {
            memory.failures = 0;
            if memory.fresh_since == start.fresh_since {
                memory.fresh_since = None;
            }
            if let Some(known) = known {
                memory.known = Some(Arc::new(known));
            }
        });
    }

    /// The Secret could not be written; returns how often in a row before this.
    pub fn failed(&self, key: &ObjectKey) -> u32 {
        let mut before = 0;
        self.change(key, |memory| {
            before = memory.failures;
            memory.failures = memory.failures.saturating_add(1);
        });
        before
    }

    /// Lets the next pass use nothing that was read before `now`.
    pub fn ask_fresh(&self, key: &ObjectKey, now: Instant) {
        self.change(key, |memory| memory.fresh_since = Some(now));
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn change(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory)) {
        if let Some(memory) = self.lock().get_mut(key) {
            change(memory);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        // Every change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resource versions of one object are ordered (KEP-5504); one that is no number is taken as new.
fn is_older(a: &SecretView, b: &SecretView) -> bool {
    let number = |view: &SecretView| view.resource_version.parse::<u128>().ok();
    number(a).zip(number(b)).is_some_and(|(a, b)| a < b)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn secret(uid: &str, version: &str) -> Arc<SecretView> {
        Arc::new(SecretView {
            uid: uid.into(),
            resource_version: version.into(),
            created: None,
            managed: None,
        })
    }

    fn view(refresh: Option<&str>, generation: i64) -> VaultSecretView {
        VaultSecretView {
            uid: "u".into(),
            generation,
            spec: Err(crate::view::Undecodable {
                field: String::new(),
                why: String::new(),
            }),
            status: Arc::default(),
            refresh: refresh.map(str::to_owned),
            rotate: None,
            emergency: false,
            finalizer: false,
            deleted: None,
        }
    }

    fn known() -> Known {
        let wanted = Wanted {
            revision: Revision::from_annotation("k1:0"),
            fields: 0,
        };
        Known {
            fingerprints: Vec::new(),
            wanted,
            unmatched: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_write_counts_until_the_watch_shows_it() {
        let (memories, key) = (Memories::default(), ObjectKey::new("n", "a"));
        let now = Instant::now();
        memories.begin(&key, &view(None, 1), now);
        memories.wrote(&key, secret("u", "10"), now);
        let seen = |watched: Option<Arc<SecretView>>, after: u64| {
            let newest = memories.newest(&key, watched, now + Duration::from_secs(after));
            newest.map(|view| view.resource_version.clone())
        };
        assert_eq!(seen(None, 1).as_deref(), Some("10"));
        assert_eq!(seen(None, 11), None);
        assert_eq!(seen(Some(secret("u", "9")), 1).as_deref(), Some("10"));
        assert_eq!(seen(Some(secret("u", "11")), 1).as_deref(), Some("11"));
        assert_eq!(seen(Some(secret("other", "9")), 1).as_deref(), Some("9"));
        memories.secret_gone(&key);
        assert_eq!(seen(None, 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_request_is_taken_up_once_and_one_made_meanwhile_is_not_lost() {
        let (memories, key) = (Memories::default(), ObjectKey::new("n", "a"));
        let now = Instant::now();
        assert_eq!(memories.begin(&key, &view(None, 1), now).fresh_since, None);
        let start = memories.begin(&key, &view(Some("1"), 1), now);
        assert_eq!(start.fresh_since, Some(now));
        let later = now + Duration::from_secs(1);
        memories.ask_fresh(&key, later);
        memories.succeeded(&key, Some(known()), &start);
        let next = memories.begin(&key, &view(Some("1"), 1), later);
        assert_eq!(next.fresh_since, Some(later));
        memories.succeeded(&key, Some(known()), &next);
        assert_eq!(
            memories.begin(&key, &view(Some("1"), 1), later).fresh_since,
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn another_generation_is_not_known() {
        let (memories, key) = (Memories::default(), ObjectKey::new("n", "a"));
        let start = memories.begin(&key, &view(None, 1), Instant::now());
        memories.succeeded(&key, Some(known()), &start);
        assert!(
            memories
                .begin(&key, &view(None, 1), Instant::now())
                .known
                .is_some()
        );
        assert!(
            memories
                .begin(&key, &view(None, 2), Instant::now())
                .known
                .is_none()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_write_is_not_tried_again_unless_something_is_different() {
        let (memories, key) = (Memories::default(), ObjectKey::new("n", "a"));
        let now = Instant::now();
        memories.begin(&key, &view(None, 1), now);
        let write = |revision: &str, version: &str| Write {
            wanted: Wanted {
                revision: Revision::from_annotation(revision),
                fields: 0,
            },
            over: Some(("u".into(), version.into())),
        };
        let refusal = Refusal::TargetMissing { name: "s".into() };
        memories.refused(&key, write("k1:0", "7"), refusal.clone(), now);
        let before =
            |write: &Write, after: Duration| memories.refused_before(&key, write, now + after);
        let soon = Duration::from_secs(1);
        assert_eq!(before(&write("k1:0", "7"), soon), Some(refusal));
        assert_eq!(before(&write("k1:1", "7"), soon), None);
        assert_eq!(before(&write("k1:0", "8"), soon), None);
        assert_eq!(before(&write("k1:0", "7"), REFUSAL_HOLDS), None);
        memories.begin(&key, &view(None, 2), now);
        assert_eq!(before(&write("k1:0", "7"), soon), None);
    }
}
