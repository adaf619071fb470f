//! Pure: everything that is held for one object, and what is still to be revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ending::Ending;
use super::failures::IssueFailures;
use super::maybe::Maybe;
use super::record::{Issued, Record, Records, Superseded};
use super::state::{Holding, Moment, Need, Todo, Wanted, hold_back};
use crate::{
    sync::resolve::source::Source,
    vault::{backoff, error::VaultError},
};

/// Everything held for one object.
#[derive(Default)]
pub struct Holdings {
    /// By the name of the source.
    pub sources: BTreeMap<String, Holding>,
    /// Failures to renew what is held, by the name of the source.
    pub errors: BTreeMap<String, VaultError>,
    /// Failures to issue, by the name of the source.
    pub failures: BTreeMap<String, IssueFailures>,
    /// What was replaced and is not revoked yet.
    pub superseded: Vec<Ending>,
    /// What may have been issued although no answer came.
    pub maybes: Vec<Maybe>,
    /// When the sources are to be tended again, whatever becomes of the Secret.
    pub tend_at: Option<Instant>,
    /// Whether the record of the Secret was looked at.
    pub taken_over: bool,
}

impl Holdings {
    /// What the Secret is to say. What was revoked since the last write is left out only if there is another reason
    /// to write.
    pub fn records(&self, writes: bool, sources: &[Source]) -> Records {
        let held = self.sources.iter();
        let known = self.superseded.iter();
        let known = known
            .filter(|ending| !(writes && ending.done))
            .map(|ending| ending.what.clone());
        let replaced = self.sources.values().filter_map(|holding| {
            let previous = holding.in_hand.as_ref()?.previous.as_ref()?;
            ended(previous.record.clone(), holding.record.at)
        });
        Records {
            held: held
                .map(|(name, holding)| (name.clone(), holding.record_for(name, sources)))
                .collect(),
            superseded: known.chain(replaced).collect(),
            seal: None,
        }
    }

    /// Something that nothing uses is to be revoked.
    pub fn end(&mut self, issued: Issued, Moment { clock, now }: Moment) {
        if issued.is_revocable() {
            let what = Superseded {
                issued,
                since: clock,
                unused: true,
            };
            self.superseded.push(Ending::new(what, None, now, now));
        }
    }

    /// Takes back what was issued for a source and never written, so that the source holds again what the Secret
    /// holds. Returns it, to be revoked.
    pub fn take_back(&mut self, name: &str) -> Option<Issued> {
        let holding = self.sources.get_mut(name)?;
        let hand = holding.in_hand.take()?;
        let issued = holding.record.issued.clone();
        match hand.previous {
            Some(previous) => *holding = *previous,
            None => {
                self.sources.remove(name);
            }
        }
        Some(issued)
    }

    /// What to do about the source called `name` now. That something could not be issued is forgotten once nothing has
    /// to be.
    pub fn decide(&mut self, name: &str, wanted: &Wanted<'_>, now: Instant) -> Todo {
        let holding = self.sources.get(name);
        if holding.is_some_and(|holding| !holding.is_to_be_replaced(wanted, now)) {
            self.failures.remove(name);
        }
        self.failures
            .retain(|of, failures| of != name || !failures.is_about_something_else(wanted));
        let none = IssueFailures::default();
        let failures = self.failures.get(name).unwrap_or(&none);
        match holding {
            Some(holding) => holding.decide(wanted, failures, now),
            None => hold_back(Need::First, failures, now),
        }
    }

    /// Whether anything waits to be written.
    pub fn is_in_hand(&self) -> bool {
        let mut sources = self.sources.values();
        sources.any(|holding| holding.in_hand.is_some())
    }

    /// Takes over what the record of the Secret says, once. What this process knows itself counts more.
    pub fn take_over(&mut self, records: Records, poll_every: Duration, moment: Moment, seed: u64) {
        if std::mem::replace(&mut self.taken_over, true) {
            return;
        }
        for (name, record) in records.held {
            let seed = backoff::seed_of(&(seed, &name));
            self.sources
                .entry(name)
                .or_insert_with(|| Holding::taken_over(record, poll_every, moment, seed));
        }
        let superseded = records.superseded.into_iter();
        self.superseded.extend(superseded.map(|what| {
            let age = moment.clock.duration_since(what.since).try_into();
            let replaced = moment.now.checked_sub(age.unwrap_or_default());
            let lease = what.taken_over(moment.now, seed);
            Ending::new(what, lease, replaced.unwrap_or(moment.now), moment.now)
        }));
    }

    /// What was in hand is in the Secret, together with the record.
    pub fn written(&mut self, sources: &[Source], now: Instant) {
        for (name, holding) in &mut self.sources {
            holding.record = holding.record_for(name, sources);
        }
        self.superseded.retain(|ending| !ending.done);
        for holding in self.sources.values_mut() {
            let hand = holding.in_hand.take();
            let previous = hand.and_then(|hand| hand.previous);
            let since = holding.record.at;
            let ending = previous.and_then(|previous| ending(*previous, since, now));
            self.superseded.extend(ending);
        }
    }

    /// Sources that are not in the spec any more: what they hold is to be revoked once the Secret is written without them.
    /// Says whether there were any.
    pub fn drop_others(&mut self, names: &BTreeSet<&str>, moment: Moment) -> bool {
        let gone = self
            .sources
            .extract_if(.., |name, _| !names.contains(name.as_str()));
        let gone: Vec<_> = gone.collect();
        let any = !gone.is_empty();
        for (_, holding) in gone {
            self.supersede(holding, moment);
        }
        self.failures
            .retain(|name, _| names.contains(name.as_str()));
        self.errors.retain(|name, _| names.contains(name.as_str()));
        any
    }

    /// What is in hand will never be written: it is to be revoked, and what the Secret holds stays.
    pub fn drop_in_hand(&mut self, moment: Moment) {
        let names: Vec<_> = self.sources.keys().cloned().collect();
        for name in names {
            if let Some(issued) = self.take_back(&name) {
                self.end(issued, moment);
            }
        }
    }

    /// The object goes: all of it is to be revoked.
    pub fn drop_all(&mut self, moment: Moment) {
        for (_, holding) in std::mem::take(&mut self.sources) {
            self.supersede(holding, moment);
        }
    }

    /// What a source holds is used no more, nor what was used until that is written.
    fn supersede(&mut self, mut holding: Holding, Moment { clock, now }: Moment) {
        let previous = holding.in_hand.take().and_then(|hand| hand.previous);
        let previous = previous.map(|previous| *previous);
        let all = [Some(holding), previous].into_iter().flatten();
        self.superseded
            .extend(all.filter_map(|holding| ending(holding, clock, now)));
    }
}

/// The same with what is known of its lease.
fn ending(holding: Holding, since: Timestamp, now: Instant) -> Option<Ending> {
    let lease = holding.lease().cloned();
    let what = ended(holding.record, since)?;
    Some(Ending::new(what, lease, now, now))
}

/// What is to be revoked, unless it cannot or must not be.
fn ended(record: Record, since: Timestamp) -> Option<Superseded> {
    let Record {
        issued, unproven, ..
    } = record;
    (issued.is_revocable() && !unproven).then_some(Superseded {
        issued,
        since,
        unused: false,
    })
}
