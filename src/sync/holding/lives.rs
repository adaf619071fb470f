//! Pure: how long everything lives that is held, for whoever counts it.

use std::time::{Duration, Instant};

use super::{holdings::Holdings, state::Holding};
use crate::{telemetry::metrics::Tally, vault::clock::VaultClock};

/// What lives, as metrics call it.
pub const KINDS: [&str; 2] = ["lease", "certificate"];

/// One thing that was issued, as far as is known after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    kind: &'static str,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the Secret, until then unless it is renewed or replaced; `None` when that is not known.
    InUse(Option<Instant>),
    /// In memory.
    Unwritten,
    /// Replaced, and not revoked yet. Pods may run with it until then; `None` when it can be kept alive.
    Superseded(Option<Instant>),
}

impl Holdings {
    /// What lives of it. `now` and `vault` are the same moment.
    pub fn lives(&self, vault: Option<VaultClock>, now: Instant) -> Vec<Live> {
        let in_use = |holding: &Holding| Live {
            kind: holding.record.issued.kind(),
            place: Place::InUse(holding.left(vault, now).map(|left| now + left)),
        };
        let mut lives = Vec::new();
        for holding in self.sources.values() {
            let Some(hand) = &holding.in_hand else {
                lives.push(in_use(holding));
                continue;
            };
            lives.push(Live {
                kind: holding.record.issued.kind(),
                place: Place::Unwritten,
            });
            lives.extend(hand.previous.as_deref().map(in_use));
        }
        let superseded = self.superseded.iter().filter(|ending| !ending.done);
        lives.extend(superseded.map(|ending| Live {
            kind: ending.what.issued.kind(),
            place: Place::Superseded(ending.ends(vault, now)),
        }));
        lives.retain(|live| KINDS.contains(&live.kind));
        lives
    }
}

/// Counts those of one kind.
pub fn tally<'a>(lives: impl Iterator<Item = &'a Live>, kind: &str, now: Instant) -> Tally {
    let mut tally = Tally::default();
    for live in lives.filter(|live| live.kind == kind) {
        match live.place {
            Place::Unwritten => tally.unwritten += 1,
            Place::Superseded(_) => tally.superseded += 1,
            Place::InUse(ends) => {
                tally.in_use += 1;
                let left = ends.map(|ends| ends.saturating_duration_since(now));
                tally.over += usize::from(left == Some(Duration::ZERO));
                tally.soonest = tally.soonest.into_iter().chain(left).min();
            }
        }
    }
    tally
}

/// When the first of those ends that were replaced, and cannot be kept alive any longer.
pub fn first_end(lives: &[Live]) -> Option<Instant> {
    let ends = lives.iter().filter_map(|live| match live.place {
        Place::Superseded(ends) => ends,
        Place::InUse(_) | Place::Unwritten => None,
    });
    ends.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_is_counted_by_kind_and_place() {
        let now = Instant::now();
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        let live = |kind, place| Live { kind, place };
        let lives = [
            live("lease", Place::InUse(at(0))),
            live("lease", Place::InUse(at(90))),
            live("lease", Place::InUse(None)),
            live("lease", Place::Unwritten),
            live("lease", Place::Superseded(None)),
            live("certificate", Place::InUse(at(70))),
            live("certificate", Place::InUse(at(60))),
            live("certificate", Place::Superseded(at(50))),
        ];
        assert_eq!(first_end(&lives), at(50));
        let count = |kind, later| {
            let found = tally(lives.iter(), kind, now + Duration::from_secs(later));
            let counts = [found.in_use, found.over, found.unwritten, found.superseded];
            (counts, found.soonest.map(|left| left.as_secs()))
        };
        let rows = [
            ("lease", 0, [3, 1, 1, 1], Some(0)),
            ("lease", 90, [3, 2, 1, 1], Some(0)),
            ("certificate", 0, [2, 0, 0, 1], Some(60)),
            ("certificate", 59, [2, 0, 0, 1], Some(1)),
            ("certificate", 65, [2, 1, 0, 1], Some(0)),
            ("nothing", 0, [0; 4], None),
        ];
        for (kind, later, counts, soonest) in rows {
            assert_eq!(count(kind, later), (counts, soonest), "{kind} {later}");
        }
    }
}
