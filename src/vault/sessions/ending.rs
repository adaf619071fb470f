//! Effects: Vault — what becomes of tokens when the process ends, and when the operator is uninstalled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::{Sessions, TENDED_AT_ONCE};
use crate::vault::error::{VaultError, VaultErrorKind};
use crate::vault::request::Request;
use crate::vault::session::{Identity, Session};

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

    /// Everything is given up: revokes the tokens `parents`, by their accessors and as whom that is asked, then all
    /// tokens of this process, and stores none. Says how it went with `parents`; one that has ended is a success.
    pub async fn give_up(
        &self,
        parents: BTreeMap<String, Identity>,
    ) -> BTreeMap<String, Result<(), VaultError>> {
        let outcomes = futures::stream::iter(parents).map(|(accessor, identity)| async move {
            let outcome = self.revoke_parent(&accessor, &identity).await;
            (accessor, outcome)
        });
        let outcomes: BTreeMap<_, _> = outcomes.buffer_unordered(TENDED_AT_ONCE).collect().await;
        let is_left = |session: &Session| {
            session.with_state(|state| {
                let accessor = state.accessor();
                accessor.is_some_and(|accessor| !matches!(outcomes.get(accessor), Some(Ok(()))))
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
        if let Some(stored) = &self.stored {
            stored.clear().await;
        }
        outcomes
    }

    async fn revoke_parent(&self, accessor: &str, identity: &Identity) -> Result<(), VaultError> {
        let stored = self.stored.as_ref();
        let token = stored.and_then(|stored| stored.by_accessor(&identity.key, accessor));
        let answer = match &token {
            Some(token) => {
                let request = Request::token_revoke().in_namespace(identity.namespace.clone());
                identity.transport.send(&request, Some(token)).await
            }
            None => {
                self.send(identity, &Request::accessor_revoke(accessor)?)
                    .await
            }
        };
        match answer {
            Err(error) if has_ended(&error, token.is_some()) => Ok(()),
            answer => answer.map(|_| ()),
        }
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

/// Whether Vault says that there is no such token: of the accessor, or of the token itself if it was `shown`.
fn has_ended(error: &VaultError, shown: bool) -> bool {
    let unknown = matches!(
        error.kind,
        VaultErrorKind::NotFound | VaultErrorKind::Invalid
    ) || (shown && error.kind == VaultErrorKind::Denied);
    unknown && error.by_vault && !error.concerns_login()
}
