//! Pure: what is held for one object, and what is to be done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::record::{Record, What};
use crate::{
    api::source::{KeysSpec, SourceStatus},
    pki::life,
    sync::{
        render::{Data, new_name, takes},
        resolve::source::Source,
    },
    vault::{
        clock::VaultClock,
        lease::{Lease, Step, Terms, Why},
    },
};

/// How soon to look whether Vault has told its time.
const CLOCK_UNKNOWN: Duration = Duration::from_secs(1);
/// How long something that was issued waits to be written before it is revoked.
const IN_HAND_MOST: Duration = Duration::from_mins(10);

/// The same moment on two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of day.
    pub clock: Timestamp,
    /// The clock that no one sets.
    pub now: Instant,
}

/// What one source holds.
pub struct Holding {
    /// As the Secret says, or will say once it is written.
    pub record: Record,
    life: Life,
    /// The values, until they are written.
    pub in_hand: Option<InHand>,
}

/// Values that are not in the Secret yet.
pub struct InHand {
    /// The values, under the keys that Vault gave them.
    pub data: Data,
    /// Since when.
    pub since: Instant,
    /// What is used until these are written.
    pub previous: Option<Box<Holding>>,
    /// Whether a write was tried of which nobody knows what became.
    pub tried: bool,
}

#[derive(Debug)]
enum Life {
    Lease(Lease),
    /// A certificate, whose dates are in the record.
    Certificate {
        seed: u64,
    },
    /// No lease: asked for again from time to time.
    Polled {
        due: Instant,
    },
}

/// Why something has to be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There was nothing yet.
    First,
    /// Something else is asked of Vault than before.
    AskChanged,
    /// Somebody asked for it.
    Requested,
    /// The values are not in the Secret any more, or keys are wanted that were left out.
    ValuesLost,
    /// It has no lease, and is polled.
    Polled,
    /// The certificate is to be replaced before it ends.
    Ageing,
    /// See the lease.
    Lease(Why),
}

impl Need {
    /// The word that logs and metrics print.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "First",
            Self::AskChanged => "AskChanged",
            Self::Requested => "Requested",
            Self::ValuesLost => "ValuesLost",
            Self::Polled => "Polled",
            Self::Ageing => "Ageing",
            Self::Lease(why) => why.as_str(),
        }
    }
}

/// What to do about one source now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing before this time.
    Wait(Instant),
    /// Look the lease up.
    LookUp,
    /// Renew the lease.
    Renew,
    /// Have something issued.
    Issue(Need),
}

/// How a source wants to be held.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Digest of what is asked of Vault.
    pub ask: &'a str,
    /// The request to issue everything anew.
    pub rotate: Option<&'a str>,
    /// The terms of its lease; of a certificate, when to replace it.
    pub terms: Terms,
    /// Vault's clock; `None` until Vault has answered anything.
    pub vault: Option<VaultClock>,
    /// Which keys to take.
    pub keys: &'a KeysSpec,
    /// The keys of the Secret that still hold what was written; `None` when there is no Secret.
    pub intact: Option<&'a BTreeSet<String>>,
}

impl Holding {
    /// What was just asked for at `asked`.
    pub fn issued(
        record: Record,
        (data, life): (Data, Fresh),
        previous: Option<Self>,
        asked: Instant,
        seed: u64,
    ) -> Self {
        // Only what the Secret holds is worth going back to.
        let previous = previous.filter(|previous| previous.in_hand.is_none());
        Self {
            record,
            life: match life {
                Fresh::Lease { ttl, renewable } => {
                    Life::Lease(Lease::issued(ttl, renewable, asked, seed))
                }
                Fresh::Certificate => Life::Certificate { seed },
                Fresh::Unleased { poll_again } => Life::Polled { due: poll_again },
            },
            in_hand: Some(InHand {
                data,
                since: asked,
                previous: previous.map(Box::new),
                tried: false,
            }),
        }
    }

    /// What an earlier process left in the Secret. `clock` and `now` are the same moment.
    pub fn taken_over(
        record: Record,
        poll_every: Duration,
        Moment { clock, now }: Moment,
        seed: u64,
    ) -> Self {
        let age = clock
            .duration_since(record.at)
            .try_into()
            .unwrap_or_default();
        let left = |whole: Duration| whole.saturating_sub(age);
        let life = match &record.issued.what {
            What::Lease { ttl, .. } => {
                let ttl = Duration::from_secs(*ttl);
                // A record of the future tells nothing about the past.
                let left = if record.at > clock {
                    Duration::ZERO
                } else {
                    left(ttl)
                };
                Life::Lease(Lease::taken_over(ttl, now + left, now, seed))
            }
            What::Certificate { .. } => Life::Certificate { seed },
            What::Unleased {} => Life::Polled {
                due: now + left(poll_every),
            },
        };
        Self {
            record,
            life,
            in_hand: None,
        }
    }

    /// What to do now, if nothing is issued before `held_until`.
    pub fn decide(&self, wanted: &Wanted<'_>, held_until: Option<Instant>, now: Instant) -> Todo {
        let Some(need) = self.need(wanted, now) else {
            return match &self.life {
                Life::Lease(lease) => match lease.decide(&wanted.terms, now) {
                    Step::Wait(until) => Todo::Wait(until),
                    Step::LookUp => Todo::LookUp,
                    Step::Renew => Todo::Renew,
                    Step::Replace(why) => match hold_back(Need::Lease(why), held_until) {
                        // A refusal to renew may end before another one can be had.
                        Todo::Wait(until) if why == Why::RenewalRefused => cling(lease, until, now),
                        todo @ (Todo::Wait(_) | Todo::LookUp | Todo::Renew | Todo::Issue(_)) => {
                            todo
                        }
                    },
                },
                Life::Certificate { .. } => Todo::Wait(self.ages_at(wanted, now)),
                Life::Polled { due } => Todo::Wait(*due),
            };
        };
        match hold_back(need, held_until) {
            // What is held must not die while another one cannot be had.
            held @ Todo::Wait(until) => match &self.life {
                Life::Lease(lease) => match lease.decide(&wanted.terms, now) {
                    Step::Wait(next) => Todo::Wait(until.min(next)),
                    Step::LookUp => Todo::LookUp,
                    Step::Renew => Todo::Renew,
                    Step::Replace(Why::RenewalRefused) => cling(lease, until, now),
                    Step::Replace(_) => held,
                },
                Life::Certificate { .. } | Life::Polled { .. } => held,
            },
            todo @ (Todo::LookUp | Todo::Renew | Todo::Issue(_)) => todo,
        }
    }

    /// Whether something else has to be issued.
    pub(super) fn is_to_be_replaced(&self, wanted: &Wanted<'_>, now: Instant) -> bool {
        let lease = self.lease().map(|lease| lease.decide(&wanted.terms, now));
        matches!(lease, Some(Step::Replace(_))) || self.need(wanted, now).is_some()
    }

    /// Whether something else has to be issued because the Secret does not hold the values any more.
    pub(super) fn has_lost(&self, wanted: &Wanted<'_>, now: Instant) -> bool {
        self.need(wanted, now) == Some(Need::ValuesLost)
    }

    /// Why something else has to be issued whatever the lease says.
    fn need(&self, wanted: &Wanted<'_>, now: Instant) -> Option<Need> {
        if self.record.ask != wanted.ask {
            Some(Need::AskChanged)
        } else if wanted.rotate.is_some() && wanted.rotate != self.record.rotate.as_deref() {
            Some(Need::Requested)
        } else if self.in_hand.is_none() && !self.has_values(wanted) {
            Some(Need::ValuesLost)
        } else if matches!(self.life, Life::Polled { due } if now >= due) {
            Some(Need::Polled)
        } else if matches!(self.life, Life::Certificate { .. }) && now >= self.ages_at(wanted, now)
        {
            Some(Need::Ageing)
        } else {
            None
        }
    }

    /// When a certificate is to be replaced. As long as Vault's clock is not known, nothing is.
    fn ages_at(&self, wanted: &Wanted<'_>, now: Instant) -> Instant {
        let (Some(vault), Some((facts, issued)), Life::Certificate { seed }) =
            (wanted.vault, self.record.issued.certificate(), &self.life)
        else {
            return now + CLOCK_UNKNOWN;
        };
        let due = life::renew_at(&facts, issued, wanted.terms.renew_at, *seed);
        vault.when(due, now)
    }

    /// How long it still lives unless it is renewed; `None` when that is not known, or it does not end.
    pub fn left(&self, vault: Option<VaultClock>, now: Instant) -> Option<Duration> {
        match &self.life {
            Life::Lease(lease) => {
                let expires = lease.expires();
                let left = expires.map(|expires| expires.saturating_duration_since(now));
                if lease.is_over(now) {
                    Some(Duration::ZERO)
                } else {
                    left
                }
            }
            Life::Certificate { .. } => {
                let (facts, _) = self.record.issued.certificate()?;
                let left = vault?.when(facts.not_after, now);
                Some(left.saturating_duration_since(now))
            }
            Life::Polled { .. } => None,
        }
    }

    /// Whether the Secret still holds every value that is wanted.
    fn has_values(&self, wanted: &Wanted<'_>) -> bool {
        let none = BTreeSet::new();
        self.is_whole(wanted.keys, wanted.intact.unwrap_or(&none))
    }

    /// Whether every key that is wanted is among those that are intact in the Secret.
    pub fn is_whole(&self, keys: &KeysSpec, intact: &BTreeSet<String>) -> bool {
        let mut wanted = self.record.keys.iter().filter(|(raw, _)| takes(keys, raw));
        wanted.all(|(_, key)| intact.contains(key))
    }

    /// The lease, if it has one.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.life {
            Life::Lease(lease) => Some(lease),
            Life::Certificate { .. } | Life::Polled { .. } => None,
        }
    }

    /// How it reads in the status: only what does not change as time goes by.
    pub fn describe(&self, status: SourceStatus) -> SourceStatus {
        if let Some((facts, _)) = self.record.issued.certificate() {
            return SourceStatus {
                serial_number: Some(facts.serial),
                lease_expires: Some(Time(facts.not_after)),
                ..status
            };
        }
        let What::Lease { ttl, renewable, .. } = self.record.issued.what else {
            return status;
        };
        let ends = SignedDuration::from_secs(i64::try_from(ttl).unwrap_or(i64::MAX));
        let ends = self.record.at.checked_add(ends).ok();
        SourceStatus {
            lease_duration: Some(format!("{ttl}s")),
            renewable: Some(renewable),
            lease_expires: ends.filter(|_| !renewable).map(Time),
            ..status
        }
    }

    /// The lease, to tell it what came of a step.
    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.life {
            Life::Lease(lease) => Some(lease),
            Life::Certificate { .. } | Life::Polled { .. } => None,
        }
    }

    /// The record as it is to be written: an edit of the keys to take changes where the values are. When what has no lease
    /// was asked for again is worth no write by itself.
    pub(super) fn record_for(&self, name: &str, sources: &[Source], writes: bool) -> Record {
        let mut record = self.record.clone();
        if !writes
            && let Some(previous) = self
                .in_hand
                .as_ref()
                .and_then(|hand| hand.previous.as_ref())
            && matches!(
                (&self.life, &previous.life),
                (Life::Polled { .. }, Life::Polled { .. })
            )
        {
            record.at = previous.record.at;
        }
        if let Some(source) = sources.iter().find(|source| source.name == name) {
            record.keys = keys_of(&source.keys, self.record.keys.keys());
        }
        record
    }

    /// Whether it waited too long to be written.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|at| now >= at)
    }

    /// When it will have waited too long to be written; `None` when it is written.
    pub fn stuck_at(&self) -> Option<Instant> {
        self.in_hand.as_ref().map(|hand| {
            let full = match &self.life {
                Life::Lease(lease) => Some(lease.full()),
                Life::Certificate { .. } => {
                    self.record
                        .issued
                        .certificate()
                        .and_then(|(facts, issued)| {
                            Duration::try_from(issued.duration_until(facts.not_after)).ok()
                        })
                }
                Life::Polled { .. } => None,
            };
            let most = full.map_or(IN_HAND_MOST, |full| IN_HAND_MOST.min(full / 2));
            hand.since + most
        })
    }

    /// The values of this source as they stand in `live`, the data of the Secret, under the keys that Vault gave them.
    pub fn carried(&self, live: &Data) -> Data {
        let keys = self.record.keys.iter();
        keys.filter_map(|(raw, key)| Some((raw.clone(), live.get(key)?.clone())))
            .collect()
    }
}

/// How something that was just issued lives.
#[derive(Clone, Copy, Debug)]
pub enum Fresh {
    /// By a lease.
    Lease {
        /// How long.
        ttl: Duration,
        /// Whether it can be renewed.
        renewable: bool,
    },
    /// By the dates of a certificate, which are in its record.
    Certificate,
    /// For ever, or so it says: it is asked for again.
    Unleased {
        /// When.
        poll_again: Instant,
    },
}

/// What to do with a lease that is to be replaced because Vault refuses to renew it, while no other can be had.
fn cling(lease: &Lease, until: Instant, now: Instant) -> Todo {
    match lease.cling(now) {
        Step::Wait(next) => Todo::Wait(until.min(next)),
        Step::LookUp => Todo::LookUp,
        Step::Renew => Todo::Renew,
        Step::Replace(_) => Todo::Wait(until),
    }
}

/// What is needed is issued unless that has to wait.
pub(super) fn hold_back(need: Need, held_until: Option<Instant>) -> Todo {
    held_until.map_or(Todo::Issue(need), Todo::Wait)
}

/// Which key of the Secret each key becomes; empty for one that is left out.
pub fn keys_of<'a>(
    keys: &KeysSpec,
    raw: impl Iterator<Item = &'a String>,
) -> BTreeMap<String, String> {
    let name = |raw: &String| {
        let name = if takes(keys, raw) {
            new_name(keys, raw)
        } else {
            String::new()
        };
        (raw.clone(), name)
    };
    raw.map(name).collect()
}

#[cfg(test)]
mod tests;
