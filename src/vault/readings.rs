//! Effects: Vault — reads shared by everyone who wants the same thing.
//!
//! However many objects name one path, it is read once per stride, by whoever comes first. What is
//! kept is a fingerprint; the values themselves stay in memory only for a moment after their use.

mod entry;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::entry::Entry;
use super::backoff;
use super::error::VaultError;
use super::fingerprint::{Fingerprint, FingerprintKey};
use super::identity::IdentityKey;
use super::place::Place;
use super::reader::Reader;
use super::response::{Content, Rotation};
use super::schedule::{Failure, Rhythm, SeenRotation, Stored, Tried, Want};
use super::session::Identity;
use super::sessions::Sessions;
use super::transport::now;
use crate::telemetry::metrics::Metrics;

/// Sweeps are at least this far apart.
const SWEEP: Duration = Duration::from_secs(5);

/// A place as one identity sees it. Equal keys share their readings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceKey {
    /// Who reads.
    pub identity: IdentityKey,
    /// What is read.
    pub place: Place,
}

/// The answer to a [`Want`].
#[derive(Debug, Clone)]
pub struct Reading {
    /// Digest of the values: differs when they do.
    pub fingerprint: Fingerprint,
    /// Version, in KV version 2.
    pub version: Option<u64>,
    /// When Vault was asked.
    pub read_at: Instant,
    /// When Vault changes the values, where it says so.
    pub rotation: Option<SeenRotation>,
    /// The values, if they were wanted.
    pub data: Option<Arc<Content>>,
}

/// There is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ReadFailure {
    /// What went wrong.
    pub error: VaultError,
    /// Tries in a row that failed like this, whoever made them.
    pub attempts: u32,
    /// When to come back.
    pub retry_at: Instant,
}

/// All readings of the process.
#[derive(Debug)]
pub struct Readings {
    reader: Reader,
    metrics: Arc<Metrics>,
    key: FingerprintKey,
    origin: Instant,
    entries: Mutex<HashMap<PlaceKey, Arc<Entry>>>,
    /// Rung when there are new values to forget.
    stored: Notify,
}

impl Readings {
    /// No readings yet. Fails when the system has no random bytes.
    pub fn new(sessions: Arc<Sessions>, metrics: Arc<Metrics>) -> Result<Self, getrandom::Error> {
        let mut random = [0; 64];
        getrandom::fill(&mut random)?;
        Ok(Self {
            reader: Reader::new(sessions),
            metrics,
            key: FingerprintKey::new(random),
            origin: now(),
            entries: Mutex::default(),
            stored: Notify::new(),
        })
    }

    /// What `place` holds, as `identity` sees it: remembered if that is fresh enough, read otherwise.
    pub async fn get(
        &self,
        identity: &Identity,
        place: &Place,
        want: &Want,
    ) -> Result<Reading, ReadFailure> {
        let entry = self.entry(identity, place);
        if let Some(answer) = self.remembered(&entry, want) {
            return answer;
        }
        let _flight = entry.flight.lock().await;
        if let Some(answer) = self.remembered(&entry, want) {
            return answer;
        }
        let asked_at = now();
        match self.reader.read(identity, place).await {
            Ok(read) => Ok(self.keep(&entry, want, asked_at, read)),
            Err(error) => {
                let tried = Tried {
                    error,
                    asked_at,
                    ended_at: now(),
                };
                Err(entry.fail(tried, want))
            }
        }
    }

    /// When a caller that was served with `reading` should come back.
    /// `seed` stands for the caller: those that share a key do not all come at once.
    pub fn next_due(
        &self,
        key: &PlaceKey,
        interval: Duration,
        reading: &Reading,
        seed: u64,
    ) -> Instant {
        let rhythm = Rhythm::new(self.origin, interval, backoff::seed_of(key));
        let due = rhythm.next_due(reading.read_at, seed);
        let rotation = reading.rotation.as_ref();
        rotation.map_or(due, |rotation| rotation.next_due(due, seed))
    }

    /// How many keys are remembered.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.entries().len()
    }

    /// Forgets values and keys in time, until `stop`.
    pub async fn maintain(&self, stop: CancellationToken) {
        let work = async {
            let mut date = None;
            loop {
                self.sleep(date).await;
                date = self.sweep(now());
            }
        };
        stop.run_until_cancelled(work).await.unwrap_or(());
    }

    fn entry(&self, identity: &Identity, place: &Place) -> Arc<Entry> {
        let key = PlaceKey {
            identity: identity.key.clone(),
            place: place.clone(),
        };
        let mut entries = self.entries();
        if let Some(entry) = entries.get(&key) {
            return entry.clone();
        }
        let entry = Arc::new(Entry::new(backoff::seed_of(&key), now()));
        entries.insert(key, entry.clone());
        entry
    }

    fn remembered(&self, entry: &Entry, want: &Want) -> Option<Result<Reading, ReadFailure>> {
        let rhythm = Rhythm::new(self.origin, want.interval, entry.seed);
        let answer = entry.answer(want, &rhythm, now())?;
        if answer.is_ok() {
            self.metrics.read_coalesced();
        }
        Some(answer)
    }

    fn keep(
        &self,
        entry: &Entry,
        want: &Want,
        asked_at: Instant,
        (data, rotation): (Content, Option<Rotation>),
    ) -> Reading {
        let stored = Stored {
            fingerprint: self.key.digest(&data),
            version: data.version,
            read_at: asked_at,
            rotation: rotation.map(|rotation| entry.seen(rotation, asked_at)),
        };
        self.stored.notify_one();
        entry.keep(stored, Arc::new(data), want, now())
    }

    /// Until `date` or until there are new values, and long enough to make the sweep worth it.
    async fn sleep(&self, date: Option<Instant>) {
        tokio::time::sleep(SWEEP).await;
        let dated = async {
            match date {
                None => std::future::pending().await,
                Some(date) => tokio::time::sleep_until(date.into()).await,
            }
        };
        tokio::select! {
            () = dated => {}
            () = self.stored.notified() => {}
        }
    }

    /// Forgets what is too old; says when there is more to forget.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        self.reader.sweep(now);
        let mut entries = self.entries();
        entries.retain(|_, entry| {
            let in_use = Arc::strong_count(entry) > 1;
            entry.sweep(now) || in_use
        });
        entries.values().map(|entry| entry.next_date()).min()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PlaceKey, Arc<Entry>>> {
        // A panic between two inserts leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Failure> for ReadFailure {
    fn from(failure: Failure) -> Self {
        let Failure {
            error,
            attempts,
            asked_at: _,
            retry_at,
        } = failure;
        Self {
            error,
            attempts,
            retry_at,
        }
    }
}

#[cfg(test)]
mod tests;
