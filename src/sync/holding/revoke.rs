//! Effects: Vault, clock. Ends what nobody uses any more.

use tokio::time::Instant;

use super::{
    Verdict,
    ending::{Ending, Next},
    holdings::Holdings,
    record::{Issued, What},
};
use crate::{
    sync::{Object, Syncer, resolve::source::Source},
    vault::{
        error::VaultError,
        lease,
        path::{MountPath, VaultNamespace},
        request::Request,
        session::Identity,
    },
};

impl Syncer {
    /// Revokes what was replaced, as far as its time has come; says when to look again.
    pub(in crate::sync) async fn end_superseded(
        &self,
        object: &Object<'_>,
        identity: &Identity,
        held: &mut Holdings,
        verdict: Verdict,
    ) -> Option<Instant> {
        let mut next = None;
        for ending in held.superseded.iter_mut().filter(|ending| !ending.done) {
            let now = Instant::now().into_std();
            match ending.decide(verdict, now) {
                Next::Wait(until) => {
                    let until = Instant::from_std(until);
                    next = Some(next.map_or(until, |next: Instant| next.min(until)));
                }
                Next::Over => ending.revoked(),
                Next::Revoke => self.end(object, identity, ending).await,
            }
        }
        next
    }

    /// Revokes one thing, and notes how that went.
    pub(super) async fn end(&self, object: &Object<'_>, identity: &Identity, ending: &mut Ending) {
        match self.revoke(identity, &ending.what.issued).await {
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
        identity: &Identity,
        source: &Source,
        held: &mut Holdings,
    ) {
        let Some(issued) = held.take_back(&source.name) else {
            return;
        };
        if let Err(error) = self.revoke(identity, &issued).await {
            tracing::warn!(source = source.name, %error, "what was issued and never used was not revoked; it is tried again");
            held.end(issued, self.moment());
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
        let namespace = issued.namespace.as_deref();
        let namespace = namespace.and_then(|text| VaultNamespace::parse(text).ok());
        let request = request.in_namespace(namespace);
        let result = self.sessions.send(identity, &request).await.map(|_| ());
        match result {
            Err(error) if lease::says_gone(&error) => Ok(()),
            result => result,
        }
    }
}
