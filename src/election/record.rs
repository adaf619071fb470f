//! Pure: what is written into a Lease and read from it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::Params;
use super::decision::Observed;

/// The record of a holder that acquired the lease at `acquired` and writes at `now`.
pub(super) fn held(params: &Params, epoch: i32, acquired: MicroTime, now: MicroTime) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(params.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(params.lease.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired),
        renew_time: Some(now),
        lease_transitions: Some(epoch),
        ..LeaseSpec::default()
    }
}

/// A record without a holder: anybody may take the lease at once.
pub(super) fn released(epoch: i32, now: MicroTime) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1), // Other implementations refuse zero.
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(epoch),
        ..LeaseSpec::default()
    }
}

/// When the holder in `lease` acquired it.
pub(super) fn acquired(lease: Option<&Lease>) -> Option<MicroTime> {
    lease?.spec.as_ref()?.acquire_time.clone()
}

/// What `lease`, read at `now` on the own clock, says.
pub(super) fn observed(lease: &Lease, now: Duration) -> Observed {
    let spec = lease.spec.as_ref();
    Observed {
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .unwrap_or_default(),
        renewed: spec
            .and_then(|spec| spec.renew_time.as_ref())
            .map(|time| time.0),
        transitions: spec
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default(),
        present: true,
        since: now,
    }
}

/// The retry interval and up to a fifth of it, different for each candidate and round, so that candidates that
/// started together do not stay together.
pub(super) fn pause(params: &Params, round: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (&params.identity, round).hash(&mut hasher);
    let per_mille = u32::try_from(hasher.finish() % 200).unwrap_or_default();
    params.retry + params.retry * per_mille / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_stay_in_bounds() {
        let (a, b) = (Params::new("ns", "a"), Params::new("ns", "b"));
        let pauses: Vec<Duration> = (0..50)
            .flat_map(|round| [pause(&a, round), pause(&b, round)])
            .collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (a.retry..a.retry * 6 / 5).contains(pause)),
            "{pauses:?}"
        );
        assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
