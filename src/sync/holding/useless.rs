//! Effects: Vault. What Vault made that is of no use: an answer that does not fit what was asked for.

use super::{
    failures::Useless,
    holdings::Holdings,
    record::{Issued, What},
};
use crate::{
    sync::Syncer,
    vault::{error::VaultError, response::lease::Granted, session::Identity},
};

/// Nothing came of asking.
pub(super) struct Vain {
    /// Why.
    pub error: VaultError,
    /// What Vault made all the same.
    pub made: Option<Issued>,
}

impl From<VaultError> for Vain {
    fn from(error: VaultError) -> Self {
        Self { error, made: None }
    }
}

/// A lease that was issued with the token `parent`.
pub(super) fn leased(Granted { id, life }: &Granted, parent: Option<String>) -> What {
    What::Lease {
        id: id.as_str().to_owned(),
        ttl: life.ttl.as_secs(),
        renewable: life.renewable,
        parent,
    }
}

impl Syncer {
    /// Revokes what is of no use, as far as that is wanted; says what became of it. If it cannot be revoked now, that is
    /// tried again.
    pub(super) async fn discard(
        &self,
        identity: &Identity,
        (source, made): (&str, Issued),
        held: &mut Holdings,
    ) -> Useless {
        if let Some((facts, _)) = made.certificate()
            && !made.is_revocable()
        {
            let (serial, until) = (facts.serial, facts.not_after);
            tracing::warn!(source, serial, %until, "a certificate that was just issued cannot be used; it is not revoked, as the source does not ask for that");
            return Useless::Stays { serial, until };
        }
        match self.revoke(identity, &made).await {
            Ok(()) => {
                tracing::warn!(
                    source,
                    "what was just issued cannot be used and was revoked"
                );
                Useless::Revoked
            }
            Err(error) => {
                tracing::warn!(source, %error, "what was just issued cannot be used and was not revoked; it is tried again");
                let moment = self.moment();
                held.end(made, moment.now, moment);
                Useless::NotRevoked
            }
        }
    }
}
