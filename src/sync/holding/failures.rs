//! Pure: failures to issue something, and when to try again.

use std::time::{Duration, Instant};

use crate::vault::{backoff, error::VaultError};

/// Waiting after something could not be issued: two seconds, doubling to two minutes.
const ISSUE_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(2));
/// Objects that failed together do not come back together.
const ISSUE_JITTER: f64 = 0.5;
/// After something that was issued waited too long to be written, the next is not issued before this.
const GIVEN_UP: Duration = Duration::from_mins(30);

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
