//! Effects: Vault — one token per identity, shared by everyone who reads as it.

mod dependents;
mod ending;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::dependents::Dependents;
use super::error::{VaultError, VaultErrorKind};
use super::identity::IdentityKey;
use super::lease::Parent;
use super::request::Request;
use super::response::{Response, lease::Life};
use super::session::{Identity, Session};
use super::stored::Stored;
use super::transport::now;
use super::unwrapping::Unwrapped;
use crate::sensitive::Sensitive;

/// Longer than the usual refresh interval: an identity in use is not logged in for each read.
const IDLE: Duration = Duration::from_mins(15);
/// How long a token lives that nobody will use again, because its auth object is gone or is another one now.
const UNUSED: Duration = Duration::from_secs(5);
/// Renewals and revocations at the same time.
const TENDED_AT_ONCE: usize = 8;
/// The shortest sleep of the maintenance, whatever a date says.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);

/// What becomes of the tokens of this process when the next one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum SessionStore {
    /// The next process logs in, and keeps them alive by their accessors, which are recorded beside the leases.
    #[default]
    Accessor,
    /// The next process goes on with them: they are stored in Secret `lockstep-sessions` of the operator's namespace.
    Secret,
    /// Nothing is done for them: the next process has everything issued anew.
    None,
}

/// All sessions of the process.
#[derive(Debug, Default)]
pub struct Sessions {
    entries: Mutex<HashMap<IdentityKey, Entry>>,
    dependents: Mutex<Dependents>,
    store: SessionStore,
    stored: Option<Arc<Stored>>,
    unwrapped: Arc<Unwrapped>,
    /// Rung when a date may have come nearer.
    changed: Notify,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    used_at: Instant,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(store: SessionStore) -> Self {
        Self {
            store,
            ..Self::default()
        }
    }

    /// No sessions yet, but the tokens of an earlier process.
    pub fn with_stored(stored: Stored) -> Self {
        Self {
            store: SessionStore::Secret,
            stored: Some(Arc::new(stored)),
            ..Self::default()
        }
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
        self.issue(identity, request)
            .await
            .map(|(answer, _)| answer)
    }

    /// The same for a request that has something issued: says, too, the accessor of the token that it will depend on.
    /// `None` for a batch token, which has none.
    pub async fn issue(
        &self,
        identity: &Identity,
        request: &Request,
    ) -> Result<(Response, Option<String>), VaultError> {
        let session = self.session(identity);
        let renew_at = session.renew_at();
        let result = session.send(request).await;
        if session.renew_at() != renew_at {
            self.changed.notify_one();
        }
        let (answer, token) = result?;
        Ok((answer, token.accessor().map(str::to_owned)))
    }

    /// `owner` holds leases that were issued with the tokens `accessors`: these are kept alive, by `identity` if they
    /// are not this process's own. With an empty set it holds none any more.
    pub fn depend(&self, owner: &str, identity: &Identity, accessors: BTreeSet<&str>) {
        let session = (!accessors.is_empty()).then(|| self.session(identity));
        let stored = self.stored.as_ref();
        let inherits =
            |accessor: &str| stored.is_some_and(|stored| stored.inherits(&identity.key, accessor));
        let issuer = |accessor: &str| {
            let session = session.as_ref()?;
            let has = session.with_state(|state| {
                state.accessor() == Some(accessor) || state.former(accessor).is_some()
            });
            (has || inherits(accessor)).then(|| identity.key.clone())
        };
        let mut dependents = self.dependents();
        let new = dependents.set(owner, accessors);
        let changed = new.is_some();
        for accessor in new.into_iter().flatten() {
            let issuer = issuer(&accessor);
            dependents.keep(accessor, (identity, issuer), now());
        }
        dependents.served_by(owner, identity);
        drop(dependents);
        if let Some(session) = session {
            session.with_state(|state| state.bear_leases(true));
        }
        if changed {
            self.changed.notify_one();
        }
    }

    /// `owner` asks Vault as `identity` from now on, and as nobody else; `None` while it may not ask at all.
    /// The token of an identity that nobody uses is revoked soon, unless leases depend on it.
    pub fn used_by(&self, owner: &str, identity: Option<&IdentityKey>) {
        let changed = self.dependents().used_by(owner, identity);
        if changed {
            self.changed.notify_one();
        }
    }

    /// What was issued to `owner` stays in use when it is gone: its tokens are not revoked, but end by themselves.
    pub fn spare(&self, owner: &str) {
        let dependents = self.dependents();
        let sessions = self.sessions();
        for (accessor, issuer) in dependents.issued_to(owner) {
            if let Some(entry) = sessions.get(issuer) {
                entry.session.with_state(|state| state.spare(accessor));
            }
        }
    }

    /// `owner` is gone.
    pub fn forget(&self, owner: &str) {
        let mut dependents = self.dependents();
        let freed = dependents.set(owner, BTreeSet::new()).is_some();
        let left = dependents.used_by(owner, None);
        drop(dependents);
        if freed || left {
            self.changed.notify_one();
        }
    }

    /// What leases issued with the token `accessor` have to expect.
    pub fn parent(&self, accessor: &str) -> Parent {
        let dependents = self.dependents();
        let Some(kept) = dependents.get(accessor) else {
            return Parent::Lives;
        };
        let Some(issuer) = kept.issuer() else {
            return kept.keeper.parent();
        };
        let session = self
            .sessions()
            .get(issuer)
            .map(|entry| Arc::clone(&entry.session));
        let former =
            session.and_then(|session| session.with_state(|state| state.ends(accessor, now())));
        former.map_or(Parent::Lives, |(since, at)| Parent::Ends { since, at })
    }

    /// When to look at [`Sessions::parent`] again, because the token is renewed or replaced by then.
    pub fn parent_due(&self, accessor: &str) -> Option<Instant> {
        let dependents = self.dependents();
        let kept = dependents.get(accessor)?;
        let date = match kept.issuer() {
            None => kept.keeper.renew_at(),
            Some(issuer) => {
                let sessions = self.sessions();
                let session = &sessions.get(issuer)?.session;
                session.with_state(|state| {
                    let current = state.accessor() == Some(accessor);
                    current.then(|| state.renew_at(now())).flatten()
                })
            }
        };
        date.map(|date| date.max(now()) + SHORTEST_SLEEP)
    }

    /// Whether Vault's policy does not let this process keep the token `accessor` alive.
    pub fn may_not_keep(&self, accessor: &str) -> bool {
        self.dependents()
            .get(accessor)
            .is_some_and(|kept| kept.keeper.is_denied())
    }

    /// How many identities have a session.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.sessions().len()
    }

    /// Renews tokens in time and drops identities that nobody uses, or has used for a while, until `stop`.
    /// Ends no token when it stops: see [`Sessions::end`].
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
        let used_at = now();
        let entry = sessions.entry(identity.key.clone()).or_insert_with(|| {
            self.changed.notify_one();
            Entry {
                session: Arc::new(Session::new(
                    identity.clone(),
                    Arc::clone(&self.unwrapped),
                    self.stored.clone(),
                )),
                used_at,
            }
        });
        entry.used_at = used_at;
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
        let dependents = self.dependents();
        let needed = dependents.needed();
        let renewal = dependents.renewals().min();
        let sessions = self.sessions();
        let dates = sessions.iter().flat_map(|(key, entry)| {
            let idle_at = (!needed.contains(key)).then(|| entry.idle_at(dependents.is_used(key)));
            idle_at.into_iter().chain(entry.session.renew_at())
        });
        let stored = self.stored.as_ref().and_then(|stored| stored.next_date());
        dates.chain(renewal).chain(stored).min()
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
        let kept = self.dependents().due(now());
        futures::stream::iter(kept)
            .for_each_concurrent(TENDED_AT_ONCE, |(accessor, identity)| async move {
                self.keep(&accessor, &identity).await;
            })
            .await;
        if let Some(stored) = &self.stored {
            let sessions: Vec<_> = self.sessions().keys().cloned().collect();
            // Beforehand: whoever holds the dependents may ask what is stored, so nobody does it the other way round.
            let needed = self.dependents().accessors();
            stored.tend(&sessions, &needed).await;
        }
    }

    /// Renews a token of an earlier process, or finds out how long it may live if it is not to be kept.
    async fn keep(&self, accessor: &str, identity: &Identity) {
        let asked = now();
        let answer = async {
            let stored = self.stored.as_ref();
            let token = stored.and_then(|stored| stored.by_accessor(&identity.key, accessor));
            if let Some(token) = token {
                return self.keep_stored(accessor, identity, &token).await.map(Some);
            }
            Ok(match self.store {
                SessionStore::Accessor | SessionStore::Secret => {
                    let request = Request::accessor_renew(accessor)?;
                    Some(self.send(identity, &request).await?.accessor_renewal()?)
                }
                // Whoever is logged in knows how long such tokens live.
                SessionStore::None => {
                    self.send(identity, &Request::token_lookup()).await?;
                    None
                }
            })
        };
        let answer: Result<Option<Life>, VaultError> = answer.await;
        let granted = self.session(identity).with_state(|state| state.granted());
        let mut dependents = self.dependents();
        let Some(kept) = dependents.get_mut(accessor) else {
            return;
        };
        match answer {
            Ok(Some(life)) => kept.keeper.renewed(life.ttl, life.renewable, asked),
            Ok(None) => kept.keeper.leave(granted, now()),
            Err(error) => {
                if !error.concerns_connection() {
                    tracing::warn!(identity = %identity.key, %error, "the token of an earlier process is not kept alive");
                }
                kept.keeper.failed(&error, granted, now());
            }
        }
    }

    /// Renews a stored token with itself, which needs no policy but the default one.
    async fn keep_stored(
        &self,
        accessor: &str,
        identity: &Identity,
        token: &Sensitive,
    ) -> Result<Life, VaultError> {
        let request = Request::token_renew().in_namespace(identity.namespace.clone());
        let answer = identity.transport.send(&request, Some(token)).await;
        match answer.and_then(|answer| answer.login()) {
            Ok(login) => Ok(Life {
                ttl: login.ttl,
                renewable: login.renewable,
            }),
            Err(error) if error.kind == VaultErrorKind::Denied => {
                if let Some(stored) = &self.stored {
                    stored.forget_accessor(accessor);
                }
                // There is no such token any more.
                Err(VaultError {
                    kind: VaultErrorKind::NotFound,
                    ..error
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the idle sessions. One that a request still holds stays: it would log in behind our back.
    /// One with whose token leases would end stays, too.
    fn take_idle(&self, now: Instant) -> Vec<Arc<Session>> {
        let dependents = self.dependents();
        let needed = dependents.needed();
        self.sessions()
            .extract_if(|key, entry| {
                let used = dependents.is_used(key);
                entry.session.with_state(|state| state.retire(!used, now));
                entry.idle_at(used) <= now
                    && Arc::strong_count(&entry.session) == 1
                    && !needed.contains(key)
            })
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

    fn dependents(&self) -> MutexGuard<'_, Dependents> {
        // Each change is complete in itself.
        self.dependents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<IdentityKey, Entry>> {
        // A panic between two inserts leaves the map whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Until when it stays although nobody sends anything.
    fn idle_at(&self, used: bool) -> Instant {
        self.used_at + if used { IDLE } else { UNUSED }
    }
}

#[cfg(test)]
mod tests;
