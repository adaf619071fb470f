//! Effects: Vault — what becomes of tokens when the process ends, and when the operator is uninstalled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::{Sessions, TENDED_AT_ONCE};
use crate::sensitive::Sensitive;
use crate::vault::error::{VaultError, VaultErrorKind};
use crate::vault::request::Request;
use crate::vault::response::Response;
use crate::vault::session::{Identity, Session};
use crate::vault::stored::Stored;

/// How long the end of the process is put off to revoke tokens, and how many at the same time.
const AT_THE_END: Duration = Duration::from_secs(2);
const ENDED_AT_ONCE: usize = 64;

impl Sessions {
    /// Revokes the tokens that no lease depends on: the next process has its own. For when all work has ended; a Vault
    /// that does not answer within seconds is not waited for. Nothing is revoked of what is stored for the next process.
    pub async fn end(&self) {
        if self.stored.is_some() {
            return;
        }
        let revocations = futures::stream::iter(self.take_free()).for_each_concurrent(
            ENDED_AT_ONCE,
            |session| async move { session.revoke().await },
        );
        if tokio::time::timeout(AT_THE_END, revocations).await.is_err() {
            tracing::warn!("Vault did not revoke all tokens in time; they end with their TTL");
        }
    }

    /// Everything is given up: revokes the tokens `parents`, by their accessors and as whom that is asked, then what is
    /// stored, each as one of `users` who logs in to the same Vault, and all other tokens of this process. Says how it
    /// went with `parents` and with what was stored; one that has ended is a success, and stored no longer.
    pub async fn give_up(
        &self,
        parents: BTreeMap<String, Identity>,
        users: Vec<Identity>,
    ) -> BTreeMap<String, Result<(), VaultError>> {
        // Whoever revokes a token by its accessor may do so with one that is stored, so these go last.
        let is_stored = |accessor: &String, identity: &mut Identity| {
            let stored = self.stored.as_ref();
            stored.is_some_and(|stored| stored.by_accessor(&identity.key, accessor).is_some())
        };
        let mut others = parents;
        let stored: BTreeMap<_, _> = others.extract_if(.., is_stored).collect();
        let mut outcomes = self.revoke_parents(others).await;
        outcomes.extend(self.revoke_parents(stored).await);
        if let Some(stored) = &self.stored {
            revoke_stored(stored, users, &mut outcomes).await;
        }
        let is_left = |session: &Session| {
            session.with_state(|state| {
                let accessor = state.accessor();
                accessor.is_some_and(|accessor| !outcomes.contains_key(accessor))
            })
        };
        let own: Vec<_> = self
            .sessions()
            .drain()
            .map(|(_, entry)| entry.session)
            .collect();
        futures::stream::iter(own.into_iter().filter(|session| is_left(session)))
            .for_each_concurrent(
                TENDED_AT_ONCE,
                |session| async move { session.revoke().await },
            )
            .await;
        outcomes
    }

    async fn revoke_parents(
        &self,
        parents: BTreeMap<String, Identity>,
    ) -> BTreeMap<String, Result<(), VaultError>> {
        let outcomes = futures::stream::iter(parents).map(|(accessor, identity)| async move {
            let outcome = self.revoke_parent(&accessor, &identity).await;
            (accessor, outcome)
        });
        outcomes.buffer_unordered(TENDED_AT_ONCE).collect().await
    }

    async fn revoke_parent(&self, accessor: &str, identity: &Identity) -> Result<(), VaultError> {
        let stored = self.stored.as_ref();
        if let Some(token) = stored.and_then(|stored| stored.by_accessor(&identity.key, accessor)) {
            return revoke_itself(identity, &token).await;
        }
        let request = Request::accessor_revoke(accessor)?;
        unless_ended(self.send(identity, &request).await, false)
    }

    /// Removes the sessions with whose token no lease would end.
    fn take_free(&self) -> Vec<Arc<Session>> {
        let dependents = self.dependents();
        let is_free = |session: &Session| {
            session.with_state(|state| {
                let accessor = state.accessor();
                accessor.is_some_and(|accessor| dependents.get(accessor).is_none())
            })
        };
        self.sessions()
            .extract_if(|_, entry| is_free(&entry.session))
            .map(|(_, entry)| entry.session)
            .collect()
    }
}

/// Revokes what is stored, and stores no longer what has ended. `outcomes` says what was tried before.
async fn revoke_stored(
    stored: &Stored,
    users: Vec<Identity>,
    outcomes: &mut BTreeMap<String, Result<(), VaultError>>,
) {
    let users: BTreeMap<_, _> = users
        .into_iter()
        .map(|identity| (identity.key.clone(), identity))
        .collect();
    let all = stored.all(users.keys());
    let open = all
        .into_iter()
        .filter(|(accessor, ..)| !outcomes.contains_key(accessor));
    let tried = futures::stream::iter(open).map(|(accessor, token, user)| {
        let identity = user.and_then(|user| users.get(&user));
        async move {
            let outcome = match identity {
                Some(identity) => revoke_itself(identity, &token).await,
                None => Err(VaultError::refused(
                    "revoke-self",
                    &accessor,
                    "no VaultSecret logs in to its Vault any more",
                )),
            };
            (accessor, outcome)
        }
    });
    let tried: Vec<_> = tried.buffer_unordered(TENDED_AT_ONCE).collect().await;
    outcomes.extend(tried);
    let ended = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
    let ended: BTreeSet<&str> = ended.map(|(accessor, _)| accessor.as_str()).collect();
    stored.give_up(&ended).await;
}

/// Revokes a token with itself, which needs no policy.
async fn revoke_itself(identity: &Identity, token: &Sensitive) -> Result<(), VaultError> {
    let request = Request::token_revoke().in_namespace(identity.namespace.clone());
    unless_ended(identity.transport.send(&request, Some(token)).await, true)
}

fn unless_ended(answer: Result<Response, VaultError>, shown: bool) -> Result<(), VaultError> {
    match answer {
        Err(error) if has_ended(&error, shown) => Ok(()),
        answer => answer.map(|_| ()),
    }
}

/// Whether Vault says that there is no such token: of the accessor, or of the token itself if it was `shown`.
fn has_ended(error: &VaultError, shown: bool) -> bool {
    let unknown = matches!(
        error.kind,
        VaultErrorKind::NotFound | VaultErrorKind::Invalid
    ) || (shown && error.kind == VaultErrorKind::Denied);
    unknown && error.by_vault && !error.concerns_login()
}
