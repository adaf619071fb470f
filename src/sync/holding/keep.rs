//! Effects: Vault. Keeps the leases that are held, whatever the spec says now: an object that is suspended, or whose spec
//! cannot be acted on, still has pods that use them. Nothing is issued and nothing is written.

use std::time::Duration;

use tokio::time::Instant;

use super::{MOST_STEPS, holdings::Holdings, state::Holding};
use crate::{
    sync::{Object, Syncer},
    vault::{
        lease::{Parent, Step, Terms},
        session::Identity,
    },
};

/// At which part of its life a lease is renewed when the spec cannot be asked.
const RENEW_AT: f64 = 0.67;
/// How often it is looked up then.
const CHECK_EVERY: Duration = Duration::from_mins(5);

impl Syncer {
    /// Looks up and renews what is held, as the identity that was used last; says when to do it again.
    pub(in crate::sync) async fn keep_held(&self, object: &Object<'_>) -> Option<Instant> {
        let identity = self.holdings.identity(object.key)?;
        let held = self.holdings.of(object.key, &object.view.uid);
        let mut held = held.lock().await;
        let names: Vec<String> = held.sources.keys().cloned().collect();
        let keep = async {
            let mut next = None;
            for name in names {
                let at = self.keep_one(&identity, &name, &mut held).await;
                next = next.into_iter().chain(at).min();
            }
            next
        };
        self.stop.run_until_cancelled(keep).await.flatten()
    }

    async fn keep_one(
        &self,
        identity: &Identity,
        name: &str,
        held: &mut Holdings,
    ) -> Option<Instant> {
        for _ in 0..MOST_STEPS {
            let holding = held.sources.get(name)?;
            let parent = holding.record.issued.parent();
            let terms = Terms {
                renew_at: RENEW_AT,
                check_every: CHECK_EVERY,
                parent: parent.map_or(Parent::Lives, |accessor| self.sessions.parent(accessor)),
            };
            let lease = held.sources.get(name).and_then(Holding::lease)?;
            match lease.decide(&terms, Instant::now().into_std()) {
                Step::Wait(until) => return Some(Instant::from_std(until)),
                Step::LookUp => self.look_up(identity, name, held).await,
                Step::Renew => self.renew(identity, name, held).await,
                Step::Replace(_) => return None,
            }
        }
        Some(Instant::now() + super::LOOK_AGAIN)
    }
}
