//! Effects: Vault, clock. Ends what nobody uses any more.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    LOOK_AGAIN, MOST_STEPS, Verdict,
    ending::{Ending, Hindrance, Next},
    holdings::{Holdings, TakenBack},
    record::{Issued, Records, What},
};
use crate::{
    names::ObjectKey,
    sync::{Object, Syncer, apply, held::Scope, resolve::source::Source},
    vault::{
        error::VaultError,
        lease::{self, Asked},
        path::MountPath,
        request::Request,
        session::Identity,
    },
};

/// As long as this the apiserver may still carry out a write whose answer was lost.
const UNANSWERED_WRITE: Duration = Duration::from_mins(1);

impl Syncer {
    /// Revokes what was replaced, as far as its time has come, and keeps the rest alive; says when to look again. Nothing is
    /// revoked that the Secret called `target` still holds; where that is not known, nothing at all.
    pub(in crate::sync) async fn end_superseded(
        &self,
        (object, target): (&Object<'_>, Option<&str>),
        identity: &Identity,
        held: &mut Holdings,
        verdict: Verdict,
    ) -> Option<Instant> {
        let mut live = None;
        let mut next = None;
        let irreplaceable = held.irreplaceable();
        for ending in held.superseded.iter_mut().filter(|ending| !ending.done) {
            let mut needed = irreplaceable.iter();
            let verdict = if needed.any(|issued| issued.is(&ending.what.issued)) {
                Verdict::Waiting
            } else {
                verdict
            };
            let until = self
                .end_one((object, target), identity, (ending, verdict), &mut live)
                .await;
            next = next.into_iter().chain(until).min();
        }
        if let Some(target) = target {
            self.clear_former(object, target, held).await;
        }
        next
    }

    async fn end_one(
        &self,
        (object, target): (&Object<'_>, Option<&str>),
        identity: &Identity,
        (ending, verdict): (&mut Ending, Verdict),
        live: &mut Option<Records>,
    ) -> Option<Instant> {
        for _ in 0..MOST_STEPS {
            let now = Instant::now().into_std();
            match ending.decide(verdict, now) {
                Next::Wait(until) => return Some(Instant::from_std(until)),
                Next::Over => {
                    ending.revoked();
                    return None;
                }
                Next::Revoke => {
                    if live.is_none() {
                        *live = self.live_records(object, target).await;
                    }
                    match live {
                        Some(live) if !live.names(&ending.what.issued) => {
                            self.end(object, identity, ending).await;
                        }
                        Some(_) | None => ending.is_still_held(now),
                    }
                    let again = ending.held_until.filter(|_| !ending.done);
                    return again.map(Instant::from_std);
                }
                Next::Keep(asked) => self.keep_ending((object, identity), ending, asked).await,
            }
        }
        Some(Instant::now() + LOOK_AGAIN)
    }

    /// What the Secret called `target` says now, not what a cache says.
    async fn live_records(&self, object: &Object<'_>, target: Option<&str>) -> Option<Records> {
        let target = ObjectKey::new(&object.key.namespace, target?);
        apply::live_records(&self.client, &target).await.ok()
    }

    /// Looks up or renews what was replaced and is still needed.
    async fn keep_ending(
        &self,
        (object, identity): (&Object<'_>, &Identity),
        ending: &mut Ending,
        asked: Asked,
    ) {
        let issued = ending.what.issued.clone();
        let Some(identity) = self.holdings.who_ends(object.key, &issued, identity) else {
            strand(object, ending);
            return;
        };
        ending.reached();
        if let Some(lease) = ending.lease_mut() {
            // What goes wrong is told to the lease, and logged.
            _ = self
                .ask_about(&identity, ("replaced", &issued), lease, asked)
                .await;
        }
    }

    /// Revokes one thing, and notes how that went.
    pub(super) async fn end(&self, object: &Object<'_>, identity: &Identity, ending: &mut Ending) {
        let issued = &ending.what.issued;
        let Some(identity) = self.holdings.who_ends(object.key, issued, identity) else {
            strand(object, ending);
            return;
        };
        match self.revoke(&identity, issued).await {
            Ok(()) => {
                tracing::info!(object = %object.key, "revoked what was replaced");
                ending.revoked();
            }
            Err(error) => {
                if ending.failures == 0 {
                    tracing::warn!(object = %object.key, %error, "what was replaced was not revoked; it is tried again");
                }
                let now = Instant::now().into_std();
                ending.failed(error.kind, object.seed, now);
            }
        }
    }

    /// Takes back what was issued but never written, so that the source holds again what the Secret holds.
    /// If it cannot be revoked, that is tried again.
    pub(in crate::sync) async fn take_back(
        &self,
        scope: Scope<'_>,
        source: &Source,
        held: &mut Holdings,
    ) {
        let Some(TakenBack { issued, tried }) = held.take_back(&source.name) else {
            return;
        };
        if tried {
            // The Secret may hold it yet: that is looked at before it is revoked.
            let moment = self.moment();
            held.end(issued, moment.now + UNANSWERED_WRITE, moment);
            return;
        }
        // What is in hand was issued by this very process.
        let (key, identity) = (scope.object.key, scope.identity);
        let issuer = self.holdings.who_ends(key, &issued, identity);
        let issuer = issuer.as_ref().unwrap_or(identity);
        if let Err(error) = self.revoke(issuer, &issued).await {
            tracing::warn!(source = source.name, %error, "what was issued and never used was not revoked; it is tried again");
            let moment = self.moment();
            held.end(issued, moment.now, moment);
        }
    }

    /// Takes back what could not be written for long. The next is not issued soon.
    pub(in crate::sync) async fn give_up_stuck(&self, scope: Scope<'_>, held: &mut Holdings) {
        let now = Instant::now().into_std();
        for source in &scope.resolved.sources {
            let holding = held.sources.get(&source.name);
            if holding.is_some_and(|holding| holding.is_stuck(now)) {
                tracing::warn!(object = %scope.object.key, source = source.name, "what was issued could not be written for long and is revoked");
                self.take_back(scope, source, held).await;
                let failures = held.failures.entry(source.name.clone());
                failures.or_default().gave_up(now);
            }
        }
    }

    pub(super) async fn revoke(
        &self,
        identity: &Identity,
        issued: &Issued,
    ) -> Result<(), VaultError> {
        let request = match &issued.what {
            What::Certificate { mount, serial, .. } => {
                let mount = MountPath::parse(mount).map_err(|error| {
                    VaultError::refused("revoke-certificate", mount, error.to_string())
                })?;
                Request::pki_revoke(&mount, serial)?
            }
            What::Lease { .. } | What::Unleased {} => match issued.lease() {
                Some(id) => Request::lease_revoke(&id)?,
                None => return Ok(()),
            },
        };
        let request = request.in_namespace(issued.vault_namespace());
        let result = self.sessions.send(identity, &request).await.map(|_| ());
        let result = match result {
            Err(error) if lease::says_gone(&error) => Ok(()),
            result => result,
        };
        self.metrics
            .credential_revoked(issued.kind(), result.is_ok());
        result
    }
}

/// Nobody can ask Vault about it, or revoke it.
fn strand(object: &Object<'_>, ending: &mut Ending) {
    if ending.hindrance != Some(Hindrance::Stranded) {
        tracing::warn!(object = %object.key, connection = ending.what.issued.connection, "what was replaced can be neither renewed nor revoked: this process has no login through the connection it was issued through; it ends by itself unless there is one again");
    }
    ending.strand(Instant::now().into_std());
}
