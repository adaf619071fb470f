//! Effects: Vault. Keeps the leases of an object that is suspended.

use tokio::time::Instant;

use super::{Holdings, MOST_STEPS, Tended, issuing};
use crate::{
    sync::{Syncer, held::Scope},
    vault::lease::Step,
};

impl Syncer {
    /// Keeps what is held and asks for nothing else, whatever the spec wants; says when to look again.
    pub(in crate::sync) async fn keep(
        &self,
        scope: Scope<'_>,
        held: &mut Holdings,
    ) -> Option<Instant> {
        let Scope {
            resolved, identity, ..
        } = scope;
        let mut tended = Tended::default();
        for (source, ask) in issuing(resolved) {
            for _ in 0..MOST_STEPS {
                let Some(holding) = held.sources.get(&source.name) else {
                    break;
                };
                let terms = self.terms(resolved, ask, Some(holding));
                let now = Instant::now().into_std();
                match holding.lease().map(|lease| lease.decide(&terms, now)) {
                    Some(Step::Wait(until)) => {
                        tended.next(until);
                        break;
                    }
                    Some(Step::LookUp) => self.look_up(identity, source, ask, held).await,
                    Some(Step::Renew) => self.renew(identity, source, ask, held).await,
                    Some(Step::Replace(_)) | None => break,
                }
            }
        }
        tended.next
    }
}
