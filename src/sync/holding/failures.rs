//! Pure: failures to issue something, and values that get lost, and when to try again.

use std::{
    fmt,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::state::Wanted;
use crate::vault::{backoff, error::VaultError};

/// Waiting after something could not be issued: two seconds, doubling to two minutes.
const ISSUE_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(2));
/// The longest wait after Vault itself was away: the gate of the connection spares it, and what has ended is to be had
/// soon after it is back.
const OUTAGE_BACKOFF: Duration = Duration::from_secs(15);
/// Objects that failed together do not come back together.
const ISSUE_JITTER: f64 = 0.5;
/// The same after Vault made something that is of no use, which each try leaves behind one more of: two minutes, doubling
/// to an hour.
const USELESS_BACKOFF: (Duration, Duration) = (Duration::from_mins(2), Duration::from_hours(1));
/// After something that was issued waited too long to be written, the next is not issued before this.
const GIVEN_UP: Duration = Duration::from_mins(30);

/// So many losses in a row are put right at once: people make mistakes, and then another.
const FREE_LOSSES: u32 = 3;
/// Each that follows waits, first a minute, then twice as long, in the end an hour.
const LOSS_BACKOFF: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// After this long without another loss it is all forgotten.
const QUIET: Duration = Duration::from_hours(1);

/// Losses, of one source: somebody else changed or deleted the values that the Secret held.
#[derive(Debug, Default)]
pub struct Losses {
    /// How many were put right.
    count: u32,
    /// When the last was.
    healed: Option<Instant>,
    /// Since when the values are lost.
    lost: Option<Instant>,
}

impl Losses {
    /// The values are lost. Until when they stay so, if not to be put right at once.
    pub fn lost(&mut self, now: Instant) -> Option<Instant> {
        let lost = *self.lost.get_or_insert(now);
        if self.healed.is_some_and(|healed| lost >= healed + QUIET) {
            self.count = 0;
        }
        self.held(now)
    }

    /// Until when lost values stay lost, if that is later than now.
    pub fn held(&self, now: Instant) -> Option<Instant> {
        let beyond = self.count.checked_sub(FREE_LOSSES)?;
        let pause = backoff::exponential(LOSS_BACKOFF.0, LOSS_BACKOFF.1, beyond + 1);
        Some(self.lost? + pause).filter(|until| now < *until)
    }

    /// The values are there.
    pub fn found(&mut self) {
        self.lost = None;
    }

    /// They were issued anew.
    pub fn healed(&mut self, now: Instant) {
        if self.lost.take().is_some() {
            self.count = self.count.saturating_add(1);
            self.healed = Some(now);
        }
    }
}

/// Failures to issue, of one source.
#[derive(Debug, Default)]
pub struct IssueFailures {
    count: u32,
    held_until: Option<Instant>,
    /// The last error.
    pub error: Option<VaultError>,
    useless: Option<Tries>,
}

/// Tries after which Vault made something that is of no use.
#[derive(Debug)]
struct Tries {
    count: u32,
    /// What was asked for, and by which request to issue everything anew.
    asked: (String, Option<String>),
    last: Useless,
}

/// What became of something that Vault made and that is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Useless {
    /// It was revoked.
    Revoked,
    /// It could not be revoked, which is tried again.
    NotRevoked,
    /// It is a certificate that nobody asked to be revoked.
    Stays {
        /// Its serial number.
        serial: String,
        /// Its end, by Vault's clock.
        until: Timestamp,
    },
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => f.write_str("what Vault made is not used and was revoked"),
            Self::NotRevoked => f.write_str(
                "what Vault made is not used and could not be revoked, which is tried again",
            ),
            Self::Stays { serial, until } => write!(
                f,
                "certificate {serial} is not used and stays valid until {until}: revoke it, and set revoke: true to have such ones revoked"
            ),
        }
    }
}

impl IssueFailures {
    /// Nothing was issued. `left` is how long what is held still lives, if it ends: there are to be some more tries in
    /// that time.
    pub fn failed(&mut self, error: VaultError, left: Option<Duration>, seed: u64, now: Instant) {
        self.count = self.count.saturating_add(1);
        // What has ended is no reason to hurry any more.
        let left = left.filter(|left| !left.is_zero());
        let most = left.map_or(ISSUE_BACKOFF.1, |left| (left / 4).max(ISSUE_BACKOFF.0));
        let longest = if error.concerns_connection() {
            OUTAGE_BACKOFF
        } else {
            ISSUE_BACKOFF.1
        };
        let most = most.min(longest);
        let longest = backoff::exponential(ISSUE_BACKOFF.0, most, self.count);
        let pause = backoff::jittered(longest, ISSUE_JITTER, backoff::seed_for(seed, self.count));
        let asked_for = error.retry_after.unwrap_or_default();
        self.held_until = Some(now + pause.max(asked_for));
        self.error = Some(error);
    }

    /// Besides, Vault made something that is of no use, and would do so again: the same is asked for rarely.
    pub fn in_vain(
        &mut self,
        useless: Useless,
        asked: (String, Option<String>),
        left: Option<Duration>,
        (seed, now): (u64, Instant),
    ) {
        let before = self.useless.as_ref().map_or(0, |tries| tries.count);
        let count = before.saturating_add(1);
        let (least, most) = USELESS_BACKOFF;
        let left = left.filter(|left| !left.is_zero());
        let most = left.map_or(most, |left| (left / 4).clamp(least, most));
        let longest = backoff::exponential(least, most, count);
        let seed = backoff::seed_for(seed, count);
        self.held_until = Some(now + backoff::jittered(longest, ISSUE_JITTER, seed));
        self.useless = Some(Tries {
            count,
            asked,
            last: useless,
        });
    }

    /// What became of what Vault made in vain.
    pub fn useless(&self) -> Option<&Useless> {
        self.useless.as_ref().map(|tries| &tries.last)
    }

    /// Whether something else is wanted now than what Vault makes in vain.
    pub fn is_about_something_else(&self, wanted: &Wanted<'_>) -> bool {
        self.useless.as_ref().is_some_and(|tries| {
            let (ask, rotate) = &tries.asked;
            ask != wanted.ask || (wanted.rotate.is_some() && rotate.as_deref() != wanted.rotate)
        })
    }

    /// What was issued could not be written for a long time and was given up.
    pub fn gave_up(&mut self, now: Instant) {
        self.error = None;
        self.held_until = Some(now + GIVEN_UP);
    }

    /// When it may be tried again, if that is later than now.
    pub fn held(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::source::KeysSpec,
        vault::{
            error::VaultErrorKind,
            lease::{Parent, Terms},
            request::Request,
        },
    };

    const MINUTE: Duration = Duration::from_mins(1);

    /// Each try leaves a certificate or a login behind: the pauses, by what is left of what is held.
    #[test]
    fn what_vault_makes_in_vain_is_asked_for_rarely() {
        let now = Instant::now();
        for (left, longest) in [
            (None, [2, 4, 8, 16, 32, 60, 60]),
            (Some(60 * MINUTE), [2, 4, 8, 15, 15, 15, 15]),
            (Some(MINUTE), [2; 7]),
            (Some(Duration::ZERO), [2, 4, 8, 16, 32, 60, 60]),
        ] {
            let mut failures = IssueFailures::default();
            for minutes in longest {
                let error = VaultError::new(VaultErrorKind::Invalid, &Request::token_lookup(), "");
                failures.failed(error, left, 7, now);
                failures.in_vain(Useless::Revoked, ("a".into(), None), left, (7, now));
                let pause = failures.held(now).unwrap() - now;
                assert!(
                    pause <= minutes * MINUTE && pause >= minutes * MINUTE / 2,
                    "{left:?} {minutes}: {pause:?}"
                );
            }
        }
    }

    /// The longest pause after many failures, in seconds.
    #[test]
    fn what_ended_in_an_outage_is_issued_soon_after_it() {
        use VaultErrorKind::{Denied, Sealed, Unavailable, Unreachable};
        let now = Instant::now();
        for (kind, longest) in [
            (Denied, 120),
            (Sealed, 15),
            (Unavailable, 15),
            (Unreachable, 15),
        ] {
            let pauses = (0..20).map(|seed| {
                let mut failures = IssueFailures::default();
                for _ in 0..10 {
                    let error = VaultError::new(kind, &Request::token_lookup(), "");
                    failures.failed(error, Some(Duration::ZERO), seed, now);
                }
                (failures.held(now).unwrap() - now).as_millis()
            });
            let pauses: std::collections::BTreeSet<_> = pauses.collect();
            let range = longest * 1000 / 2..=longest * 1000;
            assert!(
                pauses.iter().all(|pause| range.contains(pause)),
                "{kind:?} {pauses:?}"
            );
            assert!(pauses.len() > 10, "they do not come back together");
        }
    }

    #[test]
    fn whoever_wants_something_else_does_not_wait_for_it() {
        let now = Instant::now();
        let mut failures = IssueFailures::default();
        let asked = ("a".to_owned(), Some("1".to_owned()));
        failures.in_vain(Useless::Revoked, asked, None, (7, now));
        let keys = KeysSpec::default();
        for (ask, rotate, other) in [
            ("a", Some("1"), false),
            ("a", None, false),
            ("a", Some("2"), true),
            ("b", Some("1"), true),
        ] {
            let wanted = Wanted {
                ask,
                rotate,
                terms: Terms {
                    renew_at: 0.5,
                    check_every: MINUTE,
                    parent: Parent::Lives,
                },
                vault: None,
                keys: &keys,
                intact: None,
            };
            let found = failures.is_about_something_else(&wanted);
            assert_eq!(found, other, "{ask} {rotate:?}");
            assert!(!IssueFailures::default().is_about_something_else(&wanted));
        }
    }

    /// Two that fight over a Secret: one row per loss, each so many minutes after the last one was put right, with how
    /// many minutes it waits.
    #[test]
    fn the_more_often_values_are_lost_the_longer_they_stay_lost() {
        let rows = [
            (0, 0),
            (0, 0),
            (5, 0),
            (0, 1),
            (59, 2),
            (0, 4),
            (0, 8),
            (0, 16),
            (0, 32),
            (0, 60),
            (59, 60),
            // An hour of peace.
            (60, 0),
            (0, 0),
            (0, 0),
            (0, 1),
        ];
        let (mut losses, mut now) = (Losses::default(), Instant::now());
        for (number, (peace, wait)) in rows.into_iter().enumerate() {
            losses.found();
            now += peace * MINUTE;
            let until = losses.lost(now);
            assert_eq!(
                until,
                (wait > 0).then(|| now + wait * MINUTE),
                "loss {number}"
            );
            now += wait * MINUTE;
            assert_eq!(losses.lost(now), None, "loss {number}");
            losses.healed(now);
        }
    }
}
