//! Pure: how many requests a second may be sent over one connection.
//!
//! The generic cell rate algorithm: one date says how far requests have been paid for. Urgent requests
//! (renewals and revocations) may run into debt, which the others pay off: they are never behind a crowd.

use std::time::{Duration, Instant};

/// The part of a second that may be used up at once after a rest: short enough to keep what was promised,
/// long enough not to wait for each single request.
const BURST: u32 = 10;

/// Limits the rate of requests. Nothing is taken by asking, so that a caller who gives up costs nothing.
#[derive(Debug)]
pub struct Rate {
    /// Between two requests.
    interval: Duration,
    /// Requests that may be sent at once after a rest, less one; the same again for urgent ones.
    burst: Duration,
    /// When the requests sent so far would be sent if they were evenly spread; `None` before the first.
    paid_until: Option<Instant>,
}

impl Rate {
    /// `per_second` requests; 0 counts as 1.
    pub fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        let interval = Duration::from_secs(1) / per_second;
        Self {
            interval,
            burst: interval * (per_second / BURST).max(1).saturating_sub(1),
            paid_until: None,
        }
    }

    /// Takes the right to send one request at `now`; else says when to ask again.
    pub fn take(&mut self, urgent: bool, now: Instant) -> Result<(), Instant> {
        let paid_until = self.paid_until.map_or(now, |date| date.max(now));
        let slack = if urgent {
            self.burst + self.burst + self.interval
        } else {
            self.burst
        };
        let ahead = paid_until.saturating_duration_since(now);
        let wait = ahead.saturating_sub(slack);
        if wait > Duration::ZERO {
            return Err(now + wait);
        }
        self.paid_until = Some(paid_until + self.interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How many are let through at once.
    fn at_once(rate: &mut Rate, urgent: bool, now: Instant) -> usize {
        (0..10_000)
            .take_while(|_| rate.take(urgent, now).is_ok())
            .count()
    }

    #[test]
    fn after_a_rest_a_tenth_of_a_second_may_go_at_once() {
        let now = Instant::now();
        for (per_second, expected) in [(0, 1), (1, 1), (10, 1), (20, 2), (200, 20)] {
            let mut rate = Rate::new(per_second);
            assert_eq!(at_once(&mut rate, false, now), expected, "{per_second}");
            let later = now + Duration::from_mins(1);
            assert_eq!(at_once(&mut rate, false, later), expected, "{per_second}");
        }
    }

    #[test]
    fn the_date_it_names_is_the_first_that_works() {
        let now = Instant::now();
        for urgent in [false, true] {
            let mut rate = Rate::new(20);
            at_once(&mut rate, urgent, now);
            let date = rate.take(urgent, now).unwrap_err();
            assert_eq!(date, now + 50 * MS);
            let almost = date.checked_sub(MS).unwrap();
            assert_eq!(rate.take(urgent, almost), Err(date));
            assert_eq!(rate.take(urgent, date), Ok(()));
        }
    }

    #[test]
    fn urgent_requests_go_first_and_the_others_pay_for_them() {
        let now = Instant::now();
        let mut rate = Rate::new(20);
        assert_eq!(at_once(&mut rate, false, now), 2);
        assert_eq!(at_once(&mut rate, true, now), 2, "although it is used up");
        assert_eq!(rate.take(false, now), Err(now + 150 * MS), "two later");
    }

    proptest! {
        /// In no second are there more than were promised, and a burst of each kind.
        #[test]
        fn the_promise_holds_in_every_second(
            per_second in 1_u32..500,
            steps in proptest::collection::vec((any::<bool>(), 0_u64..300), 1..400),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut rate = Rate::new(per_second);
            let mut sent: Vec<Instant> = Vec::new();
            for (urgent, wait) in steps {
                now += Duration::from_millis(wait);
                while sent.len() < 20_000 && rate.take(urgent, now).is_ok() {
                    sent.push(now);
                }
            }
            let most = per_second + 2 * (per_second / 10).max(1) + 1;
            for (index, first) in sent.iter().enumerate() {
                let within = sent[index..].iter().take_while(|at| **at < *first + Duration::from_secs(1));
                prop_assert!(within.count() <= usize::try_from(most).unwrap());
            }
        }
    }
}
