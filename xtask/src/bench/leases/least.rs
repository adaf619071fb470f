//! Pure: the fewest requests to Vault with which a lease can be kept.
//!
//! A lease is renewed at 67 % of the time for which it was granted, which is the default of `renewAt`, and no sooner.
//! One that Vault extends no further is replaced when as much of its life is left as is usual at a renewal. Nothing
//! else is counted: no token, no lookup, no failure.

/// At which part of a TTL a lease is renewed.
pub(super) const PERIOD: f64 = 0.67;

/// Requests an hour for a lease that is renewed for ever: one renewal per period. In seconds.
pub(super) fn lasting(ttl: f64) -> f64 {
    3600.0 / (PERIOD * ttl)
}

/// Requests an hour for leases that live for `most` seconds at most: in the time one is in use it is issued, renewed
/// in each period that is not the last, and what it replaced is revoked.
pub(super) fn turning(ttl: f64, most: f64) -> f64 {
    let in_use = most - (1.0 - PERIOD) * ttl;
    let issued_or_renewed = (in_use / (PERIOD * ttl)).ceil();
    let revoked = 1.0;
    3600.0 / in_use * (issued_or_renewed + revoked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row per TTL and longest life: requests an hour.
    #[test]
    fn a_lease_costs_no_more_than_its_life_takes() {
        assert!((lasting(60.0) - 3600.0 / 40.2).abs() < 1e-9);
        // Issued at 0, renewed at 40.2 and 80.4, replaced at 100.2, then revoked.
        let rows = [(60.0, 120.0, 4.0, 100.2), (60.0, 60.0, 2.0, 40.2)];
        for (ttl, most, requests, in_use) in rows {
            let expected = 3600.0 / in_use * requests;
            assert!((turning(ttl, most) - expected).abs() < 1e-6, "{ttl} {most}");
        }
    }
}
