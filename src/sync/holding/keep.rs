//! Effects: Vault. Keeps the leases that are held, whatever the spec says now: an object that is suspended, or whose spec
//! cannot be acted on, still has pods that use them. Nothing is issued and nothing is written.

use std::time::Duration;

use tokio::time::Instant;

use super::{MOST_STEPS, holdings::Holdings, state::Holding};
use crate::{
    sync::{Object, Syncer},
    vault::{
        error::VaultError,
        lease::{self, Step, Terms},
        path::VaultNamespace,
        request::{Request, lease::LeaseId},
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
            let terms = Terms {
                renew_at: RENEW_AT,
                check_every: CHECK_EVERY,
                parent: self.parent(Some(holding)),
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
        let asked = Instant::now().into_std();
        let answer = async {
            let (id, namespace) = lease_id(held, name)?;
            let request = Request::lease_lookup(&id)?.in_namespace(namespace);
            self.sessions.send(identity, &request).await?.lease_info()
        };
        let answer = answer.await;
        let Some(lease) = lease_of(held, name) else {
            return;
        };
        match answer {
            Ok(life) if life.ttl.is_zero() => lease.gone(),
            Ok(life) => lease.looked_up(life.ttl, life.renewable, asked),
            Err(error) => told(lease, name, &error),
        }
    }

    pub(super) async fn renew(&self, identity: &Identity, name: &str, held: &mut Holdings) {
        let asked = Instant::now().into_std();
        let answer = async {
            let (id, namespace) = lease_id(held, name)?;
            let full = held.sources.get(name).and_then(Holding::lease);
            let full = full.map_or(Duration::ZERO, lease::Lease::full);
            let request = Request::lease_renew(&id, full)?.in_namespace(namespace);
            self.sessions
                .send(identity, &request)
                .await?
                .lease_renewal()
        };
        let answer = answer.await;
        let Some(lease) = lease_of(held, name) else {
            return;
        };
        match answer {
            Ok(life) => {
                tracing::debug!(source = name, ttl = life.ttl.as_secs(), "renewed a lease");
                lease.renewed(life.ttl, life.renewable, asked);
                held.errors.remove(name);
            }
            Err(error) => {
                told(lease, name, &error);
                held.errors.insert(name.to_owned(), error);
            }
        }
    }
}

/// Vault did not do as it was asked.
fn told(lease: &mut lease::Lease, source: &str, error: &VaultError) {
    if lease::says_gone(error) {
        tracing::info!(source, %error, "a lease is gone");
        lease.gone();
    } else {
        if !error.held_back {
            tracing::warn!(source, %error, "a lease was not renewed or looked up");
        }
        lease.failed(error, Instant::now().into_std());
    }
}

fn lease_id(held: &Holdings, name: &str) -> Result<(LeaseId, Option<VaultNamespace>), VaultError> {
    let issued = held.sources.get(name).map(|holding| &holding.record.issued);
    issued
        .and_then(|issued| Some((issued.lease()?, issued.vault_namespace())))
        .ok_or_else(|| VaultError::refused("renew-lease", name, "there is no lease"))
}

fn lease_of<'a>(held: &'a mut Holdings, name: &str) -> Option<&'a mut lease::Lease> {
    held.sources.get_mut(name)?.lease_mut()
}
