//! Pure: waiting times and deterministic jitter.
//!
//! There is no random number here: jitter comes from a seed (the hash of a key), so that a decision
//! can be repeated in a test, and so that two keys still do not act at the same moment.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// `base` doubled `attempt - 1` times, at most `cap`. The first attempt is 1; 0 counts as 1.
pub fn exponential(base: Duration, cap: Duration, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(30);
    base.saturating_mul(1 << doublings).min(cap)
}

/// A point of `[longest * (1 - width), longest]` chosen by `seed`; `width` is 0..=1.
pub fn jittered(longest: Duration, width: f64, seed: u64) -> Duration {
    longest.mul_f64(1.0 - width.clamp(0.0, 1.0) * unit(seed))
}

/// A number of `[0, 1)` chosen by `seed`.
pub fn unit(seed: u64) -> f64 {
    // 52 bits: exactly representable in an f64.
    const STEPS: u64 = 1 << 52;
    #[expect(clippy::cast_precision_loss, reason = "both sides are at most 2^52")]
    let fraction = (mix(seed) % STEPS) as f64 / STEPS as f64;
    fraction
}

/// The seed of a key. The same within a process, whatever the order of events.
pub fn seed_of(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// `seed` for the `step`-th use, so that consecutive steps are not jittered alike.
pub fn seed_for(seed: u64, step: u32) -> u64 {
    mix(seed ^ u64::from(step).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The finaliser of splitmix64: spreads neighbouring seeds over all 64 bits.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waiting_doubles_up_to_the_cap() {
        let waits: Vec<u64> = (0..8)
            .map(|attempt| exponential(SECOND, 20 * SECOND, attempt).as_secs())
            .collect();
        assert_eq!(waits, [1, 1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(exponential(SECOND, 60 * SECOND, u32::MAX), 60 * SECOND);
    }

    #[test]
    fn neighbouring_seeds_are_spread_evenly() {
        let mut buckets = [0_u32; 10];
        for seed in 0..10_000 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of 0..10"
            )]
            let bucket = (unit(seed) * 10.0) as usize;
            buckets[bucket] += 1;
        }
        assert!(
            buckets.iter().all(|count| (900..1100).contains(count)),
            "{buckets:?}"
        );
    }

    proptest! {
        #[test]
        fn jitter_stays_in_its_range(seed: u64, millis in 0_u64..100_000, width in 0.0_f64..=1.0) {
            let longest = Duration::from_millis(millis);
            let chosen = jittered(longest, width, seed);
            prop_assert!(chosen <= longest);
            prop_assert!(chosen + Duration::from_micros(1) >= longest.mul_f64(1.0 - width));
        }
    }
}
