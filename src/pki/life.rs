//! Pure: when a certificate is renewed.
//!
//! Its dates are Vault's, and so is the clock they are compared with: see [`crate::vault::clock`].

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::certificate::Facts;
use crate::vault::backoff;

/// Renewals are spread over this part of a life, to the early side.
const SPREAD: f64 = 0.05;

/// When to renew a certificate that was issued at `issued`, all by Vault's clock.
///
/// `part` (0.1 to 0.9) is the part of its life after which it is renewed, and never later: jitter, chosen by `seed`,
/// is to the early side. Its life begins when it was issued: Vault dates certificates back, by half a minute unless the
/// role says otherwise, and of one that lives for a minute that would be half its life.
pub fn renew_at(facts: &Facts, issued: Timestamp, part: f64, seed: u64) -> Timestamp {
    let start = issued.max(facts.not_before).min(facts.not_after);
    let life = Duration::try_from(start.duration_until(facts.not_after)).unwrap_or_default();
    let part = part.clamp(0.1, 0.9) - SPREAD * backoff::unit(seed);
    SignedDuration::try_from(life.mul_f64(part))
        .ok()
        .and_then(|age| start.checked_add(age).ok())
        .unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(not_before: i64, not_after: i64) -> Facts {
        Facts {
            serial: String::new(),
            not_before: Timestamp::from_second(not_before).unwrap(),
            not_after: Timestamp::from_second(not_after).unwrap(),
        }
    }

    fn second(at: Timestamp) -> i64 {
        at.as_second()
    }

    #[test]
    fn the_life_begins_at_issue() {
        let at = |not_before, issued, not_after, part| {
            let issued = Timestamp::from_second(issued).unwrap();
            // A seed without jitter.
            let seed = (0..100_000)
                .find(|seed| backoff::unit(*seed) < 0.001)
                .unwrap();
            second(renew_at(&facts(not_before, not_after), issued, part, seed))
        };
        assert_eq!(at(-30, 0, 1000, 0.67), 669);
        assert_eq!(at(-30, 0, 10, 0.67), 6);
        assert_eq!(at(-30, 0, 1000, 0.9), 899);
        assert_eq!(at(100, 0, 200, 0.5), 149);
        // Parts that the schema refuses.
        assert_eq!(at(0, 0, 1000, 0.0), 99);
        assert_eq!(at(0, 0, 1000, 2.0), 899);
        // No life at all.
        assert_eq!(at(0, 50, 50, 0.67), 50);
        assert_eq!(at(0, 50, 10, 0.67), 10);
    }

    proptest! {
        #[test]
        fn renewal_is_before_the_end_and_never_later_than_its_part(
            issued in 0_i64..4_000_000_000,
            dated_back in 0_i64..100_000,
            life in 1_i64..400_000_000,
            percent in 10_u8..=90,
            seed: u64,
        ) {
            let facts = facts(issued - dated_back, issued + life);
            let issued = Timestamp::from_second(issued).unwrap();
            let at = renew_at(&facts, issued, f64::from(percent) / 100.0, seed);
            let age = issued.duration_until(at).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let latest = life as f64 * f64::from(percent) / 100.0;
            prop_assert!(at < facts.not_after);
            prop_assert!(age >= 0.0 && age <= latest + 1e-6, "{age} of {latest}");
        }
    }
}
