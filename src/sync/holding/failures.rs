//! Pure: failures to issue something, and values that get lost, and when to try again.

use std::time::{Duration, Instant};

use crate::vault::{backoff, error::VaultError};

/// Waiting after something could not be issued: two seconds, doubling to two minutes.
const ISSUE_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(2));
/// Objects that failed together do not come back together.
const ISSUE_JITTER: f64 = 0.5;
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
}

impl IssueFailures {
    /// Nothing was issued. `left` is how long what is held still lives, if it ends: there are to be some more tries in
    /// that time.
    pub fn failed(&mut self, error: VaultError, left: Option<Duration>, seed: u64, now: Instant) {
        self.count = self.count.saturating_add(1);
        // What has ended is no reason to hurry any more.
        let left = left.filter(|left| !left.is_zero());
        let most = left.map_or(ISSUE_BACKOFF.1, |left| (left / 4).max(ISSUE_BACKOFF.0));
        let most = most.min(ISSUE_BACKOFF.1);
        let longest = backoff::exponential(ISSUE_BACKOFF.0, most, self.count);
        let pause = backoff::jittered(longest, ISSUE_JITTER, backoff::seed_for(seed, self.count));
        let asked_for = error.retry_after.unwrap_or_default();
        self.held_until = Some(now + pause.max(asked_for));
        self.error = Some(error);
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

    const MINUTE: Duration = Duration::from_mins(1);

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
