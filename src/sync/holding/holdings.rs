//! Pure: everything that is held for one object, and what is still to be revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::ending::{Ending, Hindrance};
use super::failures::{IssueFailures, Losses};
use super::maybe::Maybe;
use super::record::{Believed, Issued, Record, Records, Superseded};
use super::state::{Holding, Moment, Need, Todo, Wanted, hold_back};
use crate::{
    names::ObjectKey,
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
    /// How often somebody else took the values out of the Secret, by the name of the source.
    pub losses: BTreeMap<String, Losses>,
    /// What was replaced and is not revoked yet.
    pub superseded: Vec<Ending>,
    /// What may have been issued although no answer came.
    pub maybes: Vec<Maybe>,
    /// When the sources are to be tended again, whatever becomes of the Secret.
    pub tend_at: Option<Instant>,
    /// Secrets that the object wrote under other names, with their records.
    pub former: BTreeMap<ObjectKey, Records>,
    /// The generation of the spec for which these were looked for.
    pub former_as_of: Option<i64>,
    /// Whether, as of the last pass, a source holds nothing that was ever written.
    pub lacks_one: bool,
    /// The version of the Secret whose record this agrees with. Whatever is written is written over this one.
    pub agreed: Agreed,
}

/// With what the holdings agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Agreed {
    /// No Secret was looked at yet.
    #[default]
    Not,
    /// There is no Secret.
    NoSecret,
    /// With the Secret of this UID and resource version.
    Secret(String, String),
}

/// What was issued for a source, was never written as far as is known, and is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// What.
    pub issued: Issued,
    /// Whether a write of it was tried, so that the Secret may hold it all the same.
    pub tried: bool,
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
                .map(|(name, holding)| (name.clone(), holding.record_for(name, sources, writes)))
                .collect(),
            superseded: known.chain(replaced).collect(),
            seal: None,
        }
    }

    /// Something that nothing uses is to be revoked; `from` this moment on.
    pub fn end(&mut self, issued: Issued, from: Instant, Moment { clock, now }: Moment) {
        if issued.is_revocable() {
            let what = Superseded {
                issued,
                since: clock,
                unused: true,
            };
            let mut ending = Ending::new(what, None, now, now);
            ending.held_until = Some(from);
            self.superseded.push(ending);
        }
    }

    /// Takes up the records of all the Secrets of other names than the target: what they say ends. Whatever was noted
    /// before is forgotten, as the target may be one of them.
    pub fn end_former(&mut self, former: BTreeMap<ObjectKey, Records>, seed: u64, moment: Moment) {
        for records in former.values() {
            self.end_all(records, seed, moment);
        }
        self.former = former;
    }

    /// Notes whether one of the sources called `names` holds nothing that was ever written.
    pub fn note_lacking<'a>(&mut self, mut names: impl Iterator<Item = &'a str>) {
        self.lacks_one = names.any(|name| {
            let hand = self.sources.get(name).map(|holding| &holding.in_hand);
            hand.is_none_or(|hand| hand.as_ref().is_some_and(|hand| hand.previous.is_none()))
        });
    }

    /// What Secrets of other names hold while a source has nothing to put in its place: it may be all that pods have, so
    /// they wait for more.
    pub fn irreplaceable(&self) -> Vec<Issued> {
        let former = self.former.values().filter(|_| self.lacks_one);
        let held = former.flat_map(|records| records.held.values());
        held.map(|record| record.issued.clone()).collect()
    }

    /// Whether the Secret of another name still says what was noted of it.
    pub fn is_as_noted(&self, key: &ObjectKey, now: &Believed) -> bool {
        now.proven && self.former.get(key) == Some(&now.records)
    }

    /// Nothing of this is in use any more.
    fn end_all(&mut self, records: &Records, seed: u64, moment: Moment) {
        let held = records.held.values().filter(|record| !record.unproven);
        let held = held.map(|record| &record.issued);
        let ended = records.superseded.iter().map(|ended| &ended.issued);
        for issued in held.chain(ended) {
            if issued.is_revocable() && !self.knows(issued) {
                let what = Superseded {
                    issued: issued.clone(),
                    since: moment.clock,
                    unused: false,
                };
                let lease = what.taken_over(moment.now, seed);
                self.superseded
                    .push(Ending::new(what, lease, moment.now, moment.now));
            }
        }
    }

    /// The Secrets of other names of whose records nothing is in use or to be revoked any more.
    pub fn former_that_are_over(&self) -> Vec<ObjectKey> {
        let open = |issued: &Issued| {
            let ended = self.superseded.iter();
            let ended = ended.filter(|ending| ending.what.issued.is(issued));
            // What a source still holds is on its way out, or would not be on another Secret.
            let used = self.uses(issued);
            used || ended.into_iter().any(|ending| !ending.done)
        };
        let former = self.former.iter();
        let over = former.filter(|(_, records)| {
            let mut held = records.held.values().map(|record| &record.issued);
            let mut ended = records.superseded.iter().map(|ended| &ended.issued);
            !held.any(open) && !ended.any(open)
        });
        over.map(|(key, _)| key.clone()).collect()
    }

    /// Takes back what was issued for a source and never written, so that the source holds again what the Secret
    /// holds. Returns it, to be revoked.
    pub fn take_back(&mut self, name: &str) -> Option<TakenBack> {
        let holding = self.sources.get_mut(name)?;
        let hand = holding.in_hand.take()?;
        let issued = TakenBack {
            issued: holding.record.issued.clone(),
            tried: hand.tried,
        };
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
        let failures = self.failures.get(name);
        let failed = failures.and_then(|failures| failures.held(now));
        let Some(holding) = holding else {
            return hold_back(Need::First, failed);
        };
        let lost = if holding.has_lost(wanted, now) {
            let losses = self.losses.entry(name.to_owned());
            losses.or_default().lost(now)
        } else {
            self.losses.get_mut(name).map(Losses::found);
            None
        };
        holding.decide(wanted, failed.max(lost), now)
    }

    /// A source whose values are lost again and again, and stay so for now.
    pub fn fought_over(&self, now: Instant) -> Option<&Holding> {
        let mut losses = self.losses.iter();
        let (name, _) = losses.find(|(_, losses)| losses.held(now).is_some())?;
        self.sources.get(name)
    }

    /// The sources are to be tended again by then at the latest.
    pub fn tend_by(&mut self, at: Option<Instant>) {
        self.tend_at = self.tend_at.into_iter().chain(at).min();
    }

    /// Whether anything waits to be written.
    pub fn is_in_hand(&self) -> bool {
        let mut sources = self.sources.values();
        sources.any(|holding| holding.in_hand.is_some())
    }

    /// Takes up the record of the Secret, such as it is now. What it names is in use, whoever wrote it: it is never
    /// revoked because this process thought otherwise, and what this process thought was in use ends after it.
    pub fn agree(&mut self, live: Believed, poll_every: Duration, moment: Moment, seed: u64) {
        let Believed { records, proven } = live;
        if proven {
            self.keep_named(&records);
        }
        for (name, record) in records.held {
            let seed = backoff::seed_of(&(seed, &name));
            let new = |record| Holding::taken_over(record, poll_every, moment, seed);
            match self.sources.remove(&name) {
                None => _ = self.sources.insert(name, new(record)),
                Some(mut holding) => {
                    if holding.record.is(&record) {
                        // It was written, although no answer came.
                        self.superseded.extend(settle(&mut holding, moment.now));
                    } else if proven {
                        holding = self.meet(holding, new(record), moment);
                    }
                    self.sources.insert(name, holding);
                }
            }
        }
        for what in records.superseded {
            if self.knows(&what.issued) {
                continue;
            }
            let age = moment.clock.duration_since(what.since).try_into();
            let replaced = moment.now.checked_sub(age.unwrap_or_default());
            let lease = what.taken_over(moment.now, seed);
            let replaced = replaced.unwrap_or(moment.now);
            self.superseded
                .push(Ending::new(what, lease, replaced, moment.now));
        }
    }

    /// The Secret holds `live` where this process has `holding`.
    fn meet(&mut self, mut holding: Holding, live: Holding, moment: Moment) -> Holding {
        let Some(hand) = &mut holding.in_hand else {
            self.supersede(holding, moment);
            return live;
        };
        let previous = hand.previous.as_ref();
        if previous.is_none_or(|previous| !previous.record.is(&live.record))
            && let Some(previous) = hand.previous.replace(Box::new(live))
        {
            self.supersede(*previous, moment);
        }
        holding
    }

    /// Whether `issued` is in use, in hand, or to be revoked.
    fn knows(&self, issued: &Issued) -> bool {
        let mut ending = self.superseded.iter().map(|ending| &ending.what.issued);
        self.uses(issued) || ending.any(|known| known.is(issued))
    }

    /// Whether `issued` is in use or in hand.
    fn uses(&self, issued: &Issued) -> bool {
        let used = self.sources.values().flat_map(|holding| {
            let hand = holding.in_hand.as_ref();
            let previous = hand.and_then(|hand| hand.previous.as_deref());
            [Some(holding), previous].into_iter().flatten()
        });
        let mut used = used.map(|holding| &holding.record.issued);
        used.any(|known| known.is(issued))
    }

    /// A write was tried of which nobody knows what became.
    pub fn tried(&mut self) {
        let hands = self.sources.values_mut();
        for hand in hands.filter_map(|holding| holding.in_hand.as_mut()) {
            hand.tried = true;
        }
    }

    /// What was in hand is in the Secret, together with the record. `writes` says whether that took a write, or all of it
    /// was there already.
    pub fn written(&mut self, sources: &[Source], writes: bool, now: Instant) {
        for (name, holding) in &mut self.sources {
            holding.record = holding.record_for(name, sources, writes);
        }
        self.superseded.retain(|ending| !(writes && ending.done));
        for holding in self.sources.values_mut() {
            self.superseded.extend(settle(holding, now));
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
        self.losses.retain(|name, _| names.contains(name.as_str()));
        any
    }

    /// What is in hand will never be written: it is to be revoked, and what the Secret holds stays.
    pub fn drop_in_hand(&mut self, moment: Moment) {
        let names: Vec<_> = self.sources.keys().cloned().collect();
        for name in names {
            if let Some(TakenBack { issued, .. }) = self.take_back(&name) {
                self.end(issued, moment.now, moment);
            }
        }
    }

    /// The Secret stays as it is: what it names is not revoked.
    pub fn keep_named(&mut self, live: &Records) {
        self.superseded
            .retain(|ending| !live.names(&ending.what.issued));
    }

    /// How much is to be revoked yet, and can be.
    pub fn open(&self) -> usize {
        let open = self.superseded.iter();
        open.filter(|ending| !ending.done && ending.hindrance != Some(Hindrance::Stranded))
            .count()
    }

    /// What cannot be revoked, for people.
    pub fn stranded(&self) -> Option<String> {
        let stranded = self.superseded.iter();
        let stranded = stranded.filter(|ending| ending.hindrance == Some(Hindrance::Stranded));
        let mut connections: BTreeMap<&str, usize> = BTreeMap::new();
        for ending in stranded {
            let connection = ending.what.issued.connection.as_deref();
            *connections.entry(connection?).or_default() += 1;
        }
        let each = connections.into_iter().map(|(connection, count)| {
            format!("{count} of what was issued before, through {connection}, can be neither renewed nor revoked from here and lives until its TTL")
        });
        let all: Vec<_> = each.collect();
        (!all.is_empty()).then(|| all.join("; "))
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

/// What was in hand is in the Secret; returns what it replaced.
fn settle(holding: &mut Holding, now: Instant) -> Option<Ending> {
    let previous = holding.in_hand.take()?.previous?;
    ending(*previous, holding.record.at, now)
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
