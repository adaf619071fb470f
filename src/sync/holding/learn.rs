//! Effects: apiserver, memory. Learns from the records in Secrets what is held for an object, and what of it is over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    holdings::{Agreed, Holdings},
    record::{Believed, Records},
};
use crate::{
    secret_view::SecretView,
    sync::{Object, Syncer, apply},
};

impl Syncer {
    /// Takes up the record of `secret`, the target. The proof of a record costs something: each is looked at once.
    pub(in crate::sync) fn learn(
        &self,
        object: &Object<'_>,
        held: &mut Holdings,
        secret: Option<&SecretView>,
        poll_every: Duration,
    ) {
        let seen = secret.map_or(Agreed::NoSecret, |secret| {
            let (uid, version) = secret.version();
            Agreed::Secret(uid, version)
        });
        if held.agreed != seen {
            let live = secret.map(|secret| self.believed(object, secret));
            let live = live.unwrap_or_default();
            held.agree(live, poll_every, self.moment(), object.seed);
            held.agreed = seen;
        }
    }

    /// Takes up what is recorded on Secrets that the object wrote under other names: nobody keeps them any more, so what
    /// they hold ends. The name is in the spec, so they are looked for once per generation of it.
    pub(in crate::sync) fn learn_former(
        &self,
        object: &Object<'_>,
        target: &str,
        held: &mut Holdings,
    ) {
        if held.former_as_of == Some(object.view.generation) {
            return;
        }
        held.former_as_of = Some(object.view.generation);
        let others = self.world.secrets.in_namespace(&object.key.namespace);
        let others = others.into_iter().filter(|(key, _)| key.name != target);
        let former: BTreeMap<_, _> = others
            .filter_map(|(key, secret)| {
                let Believed { records, proven } = self.believed(object, &secret);
                proven.then_some((key, records))
            })
            .collect();
        held.end_former(former, object.seed, self.moment());
    }

    /// Takes the record out of Secrets of other names than `target`, once all it says is over.
    pub(in crate::sync) async fn clear_former(
        &self,
        object: &Object<'_>,
        target: &str,
        held: &mut Holdings,
    ) {
        held.former.retain(|key, _| key.name != target);
        for key in held.former_that_are_over() {
            let secret = self.world.secrets.get(&key);
            let same = secret.filter(|secret| {
                let believed = self.believed(object, secret);
                held.is_as_noted(&key, &believed)
            });
            let Some(secret) = same else {
                // It is gone, or somebody else's by now, or says something else: whatever it says is looked at anew.
                held.former.remove(&key);
                held.former_as_of = None;
                continue;
            };
            let version = secret.version();
            let cleared = apply::clear_record(&self.client, &self.metrics, &key, &version);
            match cleared.await {
                Ok(()) => _ = held.former.remove(&key),
                Err(error) => {
                    tracing::warn!(secret = %key, %error, "the record of leases that are over was not taken out; it is tried again");
                }
            }
        }
    }

    fn believed(&self, object: &Object<'_>, secret: &SecretView) -> Believed {
        let managed = secret.managed.as_ref();
        let ours = managed.filter(|managed| managed.vault_secret == object.key.name);
        let holdings = ours.and_then(|managed| managed.holdings.as_ref().map(Arc::clone));
        let records = holdings.map_or_else(Records::default, |found| found.records.clone());
        records.believed(&self.revisions, object.key)
    }
}
