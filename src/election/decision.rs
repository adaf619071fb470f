//! Pure: what a candidate does about the lease it has just read.
//!
//! Moments are durations since the candidate started, on its own monotonic clock.

use std::time::Duration;

/// A lease as last read, and since when it has looked like that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    /// Who holds it; empty when it was released.
    pub(super) holder: String,
    /// The holder's own time of its last renewal. Compared for equality only: its clock is not ours.
    pub(super) renewed: Option<jiff::Timestamp>,
    /// How often the lease has changed hands.
    pub(super) transitions: i32,
    /// Whether the object was there at the last read.
    pub(super) present: bool,
    /// When this candidate first saw the record like this.
    pub(super) since: Duration,
}

impl Observed {
    /// This observation after `later` was read: the clock restarts only when the holder has written.
    pub(super) fn followed_by(&self, later: Self) -> Self {
        let unchanged = self.present
            && later.present
            && self.holder == later.holder
            && self.renewed == later.renewed
            && self.transitions == later.transitions;
        Self {
            since: if unchanged { self.since } else { later.since },
            ..later
        }
    }

    /// This observation after the object was found deleted. Its holder still holds it until it runs out.
    pub(super) fn gone(&self) -> Self {
        Self {
            present: false,
            ..self.clone()
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// Our identity.
    pub(super) identity: &'a str,
    /// How long a record must stand still before it has run out.
    pub(super) lease: Duration,
    /// Our epoch while we lead.
    pub(super) leading: Option<i32>,
}

/// The one thing to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There is no record: write one.
    Create {
        /// The epoch it starts with.
        epoch: i32,
    },
    /// The record is free, has run out, or is ours from a write whose answer was lost: overwrite it.
    Take {
        /// The epoch to write.
        epoch: i32,
    },
    /// We lead and hold it: write a new time.
    Renew {
        /// Our epoch.
        epoch: i32,
    },
    /// Somebody else holds it.
    Wait {
        /// Who.
        leader: String,
    },
    /// We led, and the record is no longer ours.
    Yield {
        /// Who holds it now; empty when nobody does.
        holder: String,
    },
}

/// Decides what `candidate` does at `now` about the lease it `observed`; `None` when there has never been one.
pub(super) fn decide(
    observed: Option<&Observed>,
    candidate: Candidate<'_>,
    now: Duration,
) -> Attempt {
    let Some(seen) = observed else {
        return Attempt::Create {
            epoch: candidate.leading.unwrap_or(1),
        };
    };
    let ours = seen.holder == candidate.identity;
    if let Some(epoch) = candidate.leading {
        return match (ours, seen.present) {
            (true, true) => Attempt::Renew { epoch },
            (true, false) => Attempt::Create { epoch },
            (false, _) => Attempt::Yield {
                holder: seen.holder.clone(),
            },
        };
    }
    let ran_out = now.saturating_sub(seen.since) >= candidate.lease;
    if !(ours || seen.holder.is_empty() || ran_out) {
        return Attempt::Wait {
            leader: seen.holder.clone(),
        };
    }
    let epoch = seen.transitions.saturating_add(1);
    if seen.present {
        Attempt::Take { epoch }
    } else {
        Attempt::Create { epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn record(holder: &str) -> Observed {
        Observed {
            holder: holder.to_owned(),
            renewed: Some(jiff::Timestamp::UNIX_EPOCH),
            transitions: 4,
            present: true,
            since: seconds(100),
        }
    }

    #[track_caller]
    fn check(seen: Option<&Observed>, leading: Option<i32>, now: u64, expected: &Attempt) {
        let candidate = Candidate {
            identity: "me",
            lease: LEASE,
            leading,
        };
        assert_eq!(&decide(seen, candidate, seconds(now)), expected);
    }

    #[test]
    fn a_candidate_takes_what_is_free() {
        check(None, None, 0, &Attempt::Create { epoch: 1 });
        check(Some(&record("")), None, 100, &Attempt::Take { epoch: 5 });
        check(
            Some(&record("").gone()),
            None,
            100,
            &Attempt::Create { epoch: 5 },
        );
        check(Some(&record("me")), None, 100, &Attempt::Take { epoch: 5 });
    }

    #[test]
    fn a_candidate_waits_until_the_record_has_stood_still() {
        let wait = Attempt::Wait {
            leader: "other".to_owned(),
        };
        check(Some(&record("other")), None, 114, &wait);
        check(
            Some(&record("other")),
            None,
            115,
            &Attempt::Take { epoch: 5 },
        );
        check(Some(&record("other").gone()), None, 114, &wait);
        check(
            Some(&record("other").gone()),
            None,
            115,
            &Attempt::Create { epoch: 5 },
        );
    }

    #[test]
    fn a_leader_renews_or_yields() {
        check(
            Some(&record("me")),
            Some(4),
            200,
            &Attempt::Renew { epoch: 4 },
        );
        check(
            Some(&record("me").gone()),
            Some(4),
            200,
            &Attempt::Create { epoch: 4 },
        );
        check(
            Some(&record("other")),
            Some(4),
            200,
            &Attempt::Yield {
                holder: "other".to_owned(),
            },
        );
        check(
            Some(&record("")),
            Some(4),
            200,
            &Attempt::Yield {
                holder: String::new(),
            },
        );
    }

    #[test]
    fn the_clock_restarts_only_when_the_record_changes() {
        let later = |change: fn(&mut Observed)| {
            let mut later = Observed {
                since: seconds(107),
                ..record("other")
            };
            change(&mut later);
            record("other").followed_by(later).since
        };
        assert_eq!(later(|_| ()), seconds(100));
        assert_eq!(later(|seen| seen.holder = "third".to_owned()), seconds(107));
        assert_eq!(later(|seen| seen.renewed = None), seconds(107));
        assert_eq!(later(|seen| seen.transitions = 5), seconds(107));
        let back = record("other").gone().followed_by(Observed {
            since: seconds(107),
            ..record("other")
        });
        assert_eq!(back.since, seconds(107));
    }
}
