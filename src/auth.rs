//! Effects: apiserver. Says in the status of each auth object whether it can be used.

use jiff::Timestamp;
use kube::Client;
use std::sync::Arc;
use tokio::time::Instant;

use crate::{
    api::{
        refs::AuthKind,
        vault_auth::{ClusterVaultAuth, VaultAuth, VaultAuthStatus},
    },
    names::ObjectKey,
    status::{
        condition::{Kind, Wanted, merge},
        write::{WriteStatusError, write_status},
        written::Written,
    },
    sync::resolve::login::check_auth,
    telemetry::metrics::Metrics,
    view::AuthView,
    world::World,
};

/// How soon a status that could not be written is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// What the controller works with.
pub struct Controller {
    /// Talks to the apiserver.
    pub client: Client,
    /// What is known of the cluster.
    pub world: Arc<World>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What was written a moment ago: several looks in a row write once.
    pub written: Written<VaultAuthStatus>,
}

/// Identifies an auth object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthId {
    /// Its kind.
    pub kind: AuthKind,
    /// Its namespace and name.
    pub key: ObjectKey,
}

impl std::fmt::Display for AuthId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.kind, self.key)
    }
}

impl Controller {
    /// Looks at one auth object; returns when to look again.
    pub async fn reconcile(&self, id: &AuthId, now: Timestamp) -> Option<Instant> {
        let view = self.world.auths(id.kind).get(&id.key)?;
        let old = self.written.newest(&view.uid, &view.status, Instant::now());
        let next = self.next(id, &view, &old, now);
        if next == *old {
            return None;
        }
        let object = (&id.key, view.uid.as_str());
        let written = match id.kind {
            AuthKind::VaultAuth => {
                write_status::<VaultAuth>(&self.client, &self.metrics, object, &next).await
            }
            AuthKind::ClusterVaultAuth => {
                write_status::<ClusterVaultAuth>(&self.client, &self.metrics, object, &next).await
            }
        };
        match written {
            Ok(()) => {
                self.written.note(&view.uid, next, Instant::now());
                None
            }
            Err(WriteStatusError::Gone(_)) => None,
            Err(error) => {
                tracing::warn!(auth = %id, %error, "a status was not written");
                Some(Instant::now() + RETRY)
            }
        }
    }

    fn next(
        &self,
        id: &AuthId,
        view: &AuthView,
        old: &VaultAuthStatus,
        now: Timestamp,
    ) -> VaultAuthStatus {
        let wanted = match check_auth(id.kind, &id.key, view, &*self.world) {
            Ok(()) => vec![Wanted::yes(
                Kind::Ready,
                "Accepted",
                "the login is complete; whether Vault takes it shows on the VaultSecrets that use it",
            )],
            Err(refusal) => vec![
                Wanted::no(Kind::Ready, refusal.reason(), refusal.to_string()),
                Wanted::yes(Kind::Stalled, refusal.reason(), refusal.to_string()),
            ],
        };
        VaultAuthStatus {
            observed_generation: Some(view.generation),
            conditions: merge(&old.conditions, wanted, view.generation, now),
        }
    }
}
