//! Effects: Vault. Keeps the leases that are held, whatever the spec says now: an object that is suspended, or whose spec
//! cannot be acted on, still has pods that use them. Nothing is issued and nothing is written.

use std::time::Duration;

use tokio::time::Instant;

use super::{MOST_STEPS, Verdict, holdings::Holdings, record::Issued};
use crate::{
    sync::{Object, Syncer},
    vault::{
        error::VaultError,
        lease::{self, Asked, Lease, Step, Terms},
        request::Request,
        session::Identity,
    },
};

/// At which part of its life a lease is renewed when the spec cannot be asked.
const RENEW_AT: f64 = 0.67;
/// How often it is looked up then.
const CHECK_EVERY: Duration = Duration::from_mins(5);

impl Syncer {
    /// Looks up and renews what is held, as the identity that was used last; says when to do it again.
    ///
    /// What was replaced is kept, too, and ended as `verdict` allows. `target` is the name of the Secret, if it is known.
    pub(in crate::sync) async fn keep_held(
        &self,
        object: &Object<'_>,
        target: Option<&str>,
        verdict: Verdict,
    ) -> Option<Instant> {
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
            let ended = self
                .end_superseded((object, target), &identity, &mut held, verdict)
                .await;
            next.into_iter().chain(ended).min()
        };
        let next = self.stop.run_until_cancelled(keep).await.flatten();
        self.note_lives(object.key, &identity, &held);
        next
    }

    async fn keep_one(
        &self,
        identity: &Identity,
        name: &str,
        held: &mut Holdings,
    ) -> Option<Instant> {
        for _ in 0..MOST_STEPS {
            let holding = held.sources.get(name)?;
            let terms = Terms {
                renew_at: RENEW_AT,
                check_every: CHECK_EVERY,
                parent: self.parent(&holding.record.issued),
            };
            match holding.lease()?.decide(&terms, Instant::now().into_std()) {
                Step::Wait(until) => return Some(Instant::from_std(until)),
                Step::LookUp => self.look_up(identity, name, held).await,
                Step::Renew => self.renew(identity, name, held).await,
                Step::Replace(_) => return None,
            }
        }
        Some(Instant::now() + super::LOOK_AGAIN)
    }

    pub(super) async fn look_up(&self, identity: &Identity, name: &str, held: &mut Holdings) {
        self.keep_held_one(identity, name, held, Asked::LookUp)
            .await;
    }

    pub(super) async fn renew(&self, identity: &Identity, name: &str, held: &mut Holdings) {
        self.keep_held_one(identity, name, held, Asked::Renewal)
            .await;
    }

    async fn keep_held_one(
        &self,
        identity: &Identity,
        name: &str,
        held: &mut Holdings,
        asked: Asked,
    ) {
        let Some(holding) = held.sources.get_mut(name) else {
            return;
        };
        let issued = holding.record.issued.clone();
        let Some(lease) = holding.lease_mut() else {
            return;
        };
        let answer = self
            .ask_about(identity, (name, &issued), lease, asked)
            .await;
        match (asked, answer) {
            (Asked::Renewal, Ok(())) => {
                held.errors.remove(name);
            }
            (Asked::Renewal, Err(error)) => {
                held.errors.insert(name.to_owned(), error);
            }
            (Asked::LookUp, _) => {}
        }
    }

    /// Asks Vault about one lease, and tells the lease what came of that. `name` is for the log.
    pub(super) async fn ask_about(
        &self,
        identity: &Identity,
        (name, issued): (&str, &Issued),
        lease: &mut Lease,
        asked: Asked,
    ) -> Result<(), VaultError> {
        let at = Instant::now().into_std();
        let answer = async {
            let id = issued
                .lease()
                .ok_or_else(|| VaultError::refused("renew-lease", name, "there is no lease"))?;
            let request = match asked {
                Asked::LookUp => Request::lease_lookup(&id)?,
                Asked::Renewal => Request::lease_renew(&id, lease.full())?,
            };
            let request = request.in_namespace(issued.vault_namespace());
            let answer = self.sessions.send(identity, &request).await?;
            match asked {
                Asked::LookUp => answer.lease_info(),
                Asked::Renewal => answer.lease_renewal(),
            }
        };
        match (asked, answer.await) {
            (Asked::LookUp, Ok(life)) if life.ttl.is_zero() => lease.gone(),
            (Asked::LookUp, Ok(life)) => lease.looked_up(life.ttl, life.renewable, at),
            (Asked::Renewal, Ok(life)) => {
                tracing::debug!(source = name, ttl = life.ttl.as_secs(), "renewed a lease");
                lease.renewed(life.ttl, life.renewable, at);
                self.metrics.lease_renewed();
            }
            (_, Err(error)) => {
                told(lease, (name, asked), &error);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Vault did not do as it was asked.
fn told(lease: &mut Lease, (source, asked): (&str, Asked), error: &VaultError) {
    if lease::says_gone(error) {
        tracing::info!(source, %error, "a lease is gone");
        lease.gone();
    } else {
        if !error.held_back {
            tracing::warn!(source, %error, "a lease was not renewed or looked up");
        }
        lease.failed(asked, error, Instant::now().into_std());
    }
}
