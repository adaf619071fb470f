//! Effects: Vault — one token per identity, shared by everyone who reads as it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::error::VaultError;
use super::identity::IdentityKey;
use super::request::Request;
use super::response::Response;
use super::session::{Identity, Session};
use super::transport::now;
use super::unwrapping::Unwrapped;

/// Longer than the usual refresh interval: an identity in use is not logged in for each read.
const IDLE: Duration = Duration::from_mins(15);
/// Renewals and revocations at the same time.
const TENDED_AT_ONCE: usize = 8;
/// The shortest sleep of the maintenance, whatever a date says.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);

/// All sessions of the process.
#[derive(Debug, Default)]
pub struct Sessions {
    entries: Mutex<HashMap<IdentityKey, Entry>>,
    unwrapped: Arc<Unwrapped>,
    /// Rung when a date may have come nearer.
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    idle_at: Instant,
}

impl Sessions {
    /// No sessions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends `request` as `identity`, logging in if need be.
    ///
    /// A request is sent a second time only if the first was denied because the token had died, and
    /// only if the request says that this is safe.
    pub async fn send(
        &self,
        identity: &Identity,
        request: &Request,
    ) -> Result<Response, VaultError> {
        let session = self.session(identity);
        let renew_at = session.renew_at();
        let result = session.send(request).await;
        if session.renew_at() != renew_at {
            self.changed.notify_one();
        }
        result
    }

    /// How many identities have a session.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.sessions().len()
    }

    /// Renews tokens in time and drops identities that nobody used for a while, until `stop`.
    /// Tokens that are in use when it stops live on: leases depend on them.
    pub async fn maintain(&self, stop: CancellationToken) {
        loop {
            let work = async {
                self.sleep().await;
                self.tend().await;
            };
            if stop.run_until_cancelled(work).await.is_none() {
                return;
            }
        }
    }

    fn session(&self, identity: &Identity) -> Arc<Session> {
        let mut sessions = self.sessions();
        let idle_at = now() + IDLE;
        let entry = sessions.entry(identity.key.clone()).or_insert_with(|| {
            self.changed.notify_one();
            Entry {
                session: Arc::new(Session::new(identity.clone(), Arc::clone(&self.unwrapped))),
                idle_at,
            }
        });
        entry.idle_at = idle_at;
        entry.session.clone()
    }

    /// Until the next date, or until a date changes.
    async fn sleep(&self) {
        let dated = async {
            match self.next_date() {
                None => std::future::pending().await,
                Some(date) => {
                    let date = date.max(now() + SHORTEST_SLEEP);
                    tokio::time::sleep_until(date.into()).await;
                }
            }
        };
        tokio::select! {
            () = dated => {}
            () = self.changed.notified() => {}
        }
    }

    fn next_date(&self) -> Option<Instant> {
        let sessions = self.sessions();
        let dates = sessions.values().map(|entry| {
            entry
                .session
                .renew_at()
                .map_or(entry.idle_at, |at| at.min(entry.idle_at))
        });
        dates.min()
    }

    async fn tend(&self) {
        let idle = self.take_idle(now());
        let revocations = futures::stream::iter(idle);
        revocations
            .for_each_concurrent(
                TENDED_AT_ONCE,
                |session| async move { session.revoke().await },
            )
            .await;
        let due = self.due(now());
        futures::stream::iter(due)
            .for_each_concurrent(
                TENDED_AT_ONCE,
                |session| async move { session.tend().await },
            )
            .await;
    }

    /// Removes the idle sessions. One that a request still holds stays: it would log in behind our back.
    fn take_idle(&self, now: Instant) -> Vec<Arc<Session>> {
        self.sessions()
            .extract_if(|_, entry| entry.idle_at <= now && Arc::strong_count(&entry.session) == 1)
            .map(|(_, entry)| entry.session)
            .collect()
    }

    fn due(&self, now: Instant) -> Vec<Arc<Session>> {
        let sessions = self.sessions();
        let due = sessions
            .values()
            .filter(|entry| entry.session.renew_at().is_some_and(|at| at <= now));
        due.map(|entry| entry.session.clone()).collect()
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<IdentityKey, Entry>> {
        // A panic between two inserts leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
