//! Pure: the gate of one connection, a circuit breaker.
//!
//! While a Vault is sealed or away, asking it again for every object costs timeouts here and a storm
//! there. After a failure of the whole connection the gate closes for a growing time and answers with
//! the remembered failure; then one probe goes through, and its result opens or closes the gate.

use std::time::{Duration, Instant};

use super::backoff;
use super::error::{VaultError, VaultErrorKind};

/// The first rest after a failure: shorter than any refresh interval, longer than a failover's hiccup.
const FIRST_REST: Duration = Duration::from_millis(500);
/// The longest rest: a Vault that comes back is used again within this time.
const LONGEST_REST: Duration = Duration::from_secs(15);
/// The longest wait that a `Retry-After` may ask for: a wrong header must not silence us for an hour.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);
/// Replicas and connections do not probe at the same moment.
const JITTER: f64 = 0.2;

/// The state of the gate.
#[derive(Debug)]
pub struct Gate {
    seed: u64,
    closed: Option<Closed>,
    last_success: Option<Instant>,
}

#[derive(Debug)]
struct Closed {
    error: VaultError,
    failures: u32,
    until: Instant,
    probing: bool,
}

/// The right to send one request. Hand it back with what happened.
#[derive(Debug)]
pub struct Pass {
    sent_at: Instant,
    probe: bool,
}

/// Why nothing may be sent now.
#[derive(Debug)]
pub struct Shut<'a> {
    /// The failure that closed the gate.
    pub error: &'a VaultError,
    /// How long until a probe is let through.
    pub reopens_in: Duration,
}

impl Gate {
    /// An open gate.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            closed: None,
            last_success: None,
        }
    }

    /// Asks to send one request.
    pub fn admit(&mut self, now: Instant) -> Result<Pass, Shut<'_>> {
        let Some(closed) = &mut self.closed else {
            return Ok(Pass {
                sent_at: now,
                probe: false,
            });
        };
        if now < closed.until || closed.probing {
            return Err(closed.shut(now));
        }
        closed.probing = true;
        Ok(Pass {
            sent_at: now,
            probe: true,
        })
    }

    /// Why a request would not be sent now; `None` when it would.
    pub fn shut(&self, now: Instant) -> Option<Shut<'_>> {
        self.closed
            .as_ref()
            .filter(|closed| now < closed.until || closed.probing)
            .map(|closed| closed.shut(now))
    }

    /// Vault answered, with whatever it had to say about this path.
    pub fn succeeded(&mut self, pass: &Pass, now: Instant) {
        self.last_success = Some(now);
        // The answer to a request from before the failure says nothing about after it.
        if pass.probe {
            self.closed = None;
        }
    }

    /// The request failed; only failures of the whole connection count.
    pub fn failed(&mut self, pass: &Pass, error: &VaultError, now: Instant) {
        if error.kind == VaultErrorKind::Refused {
            self.abandoned(pass);
            return;
        }
        if !error.concerns_connection() {
            self.succeeded(pass, now);
            return;
        }
        let failures = match &self.closed {
            // In flight together with the one that closed the gate: the same outage.
            Some(_) if !pass.probe => return,
            Some(closed) => closed.failures.saturating_add(1),
            // Others got answers while this one waited: it is the path that is slow, not the connection.
            None if self.answered_since(pass) => return,
            None => 1,
        };
        self.closed = Some(Closed {
            error: error.clone(),
            failures,
            until: now + self.rest(failures, error),
            probing: false,
        });
    }

    /// The request was given up without a result. The next caller may probe.
    pub fn abandoned(&mut self, pass: &Pass) {
        if let Some(closed) = &mut self.closed
            && pass.probe
        {
            closed.probing = false;
        }
    }

    /// How long until a request may go through: `None` when the gate is open.
    #[cfg(test)]
    pub fn reopens_in(&self, now: Instant) -> Option<Duration> {
        self.closed.as_ref().map(|closed| closed.reopens_in(now))
    }

    fn answered_since(&self, pass: &Pass) -> bool {
        self.last_success.is_some_and(|at| at > pass.sent_at)
    }

    fn rest(&self, failures: u32, error: &VaultError) -> Duration {
        let longest = backoff::exponential(FIRST_REST, LONGEST_REST, failures);
        let rest = backoff::jittered(longest, JITTER, backoff::seed_for(self.seed, failures));
        let asked = error.retry_after.unwrap_or_default();
        rest.max(asked.min(LONGEST_RETRY_AFTER))
    }
}

impl Closed {
    fn shut(&self, now: Instant) -> Shut<'_> {
        Shut {
            error: &self.error,
            reopens_in: self.reopens_in(now),
        }
    }

    fn reopens_in(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vault::request::Request;

    const MS: Duration = Duration::from_millis(1);

    fn error(kind: VaultErrorKind) -> VaultError {
        VaultError::new(kind, &Request::token_lookup(), "down")
    }

    fn unreachable() -> VaultError {
        error(VaultErrorKind::Unreachable)
    }

    /// A gate that was closed at `now` by one failure.
    fn closed(now: Instant) -> Gate {
        let mut gate = Gate::new(1);
        let pass = gate.admit(now).unwrap();
        gate.failed(&pass, &unreachable(), now);
        gate
    }

    #[test]
    fn only_failures_of_the_connection_close_it() {
        use VaultErrorKind as Kind;
        for (kind, closes) in [
            (Kind::Denied, false),
            (Kind::NotFound, false),
            (Kind::Deleted, false),
            (Kind::Invalid, false),
            (Kind::Refused, false),
            (Kind::CredentialUnavailable, false),
            (Kind::Sealed, true),
            (Kind::Throttled, true),
            (Kind::Unavailable, true),
            (Kind::Unreachable, true),
        ] {
            let now = Instant::now();
            let mut gate = Gate::new(1);
            let pass = gate.admit(now).unwrap();
            gate.failed(&pass, &error(kind), now);
            assert_eq!(gate.admit(now).is_err(), closes, "{kind:?}");
        }
    }

    #[test]
    fn a_quota_of_vault_does_not_close_it() {
        let now = Instant::now();
        let mut gate = Gate::new(1);
        let pass = gate.admit(now).unwrap();
        let throttled = VaultError {
            by_vault: true,
            retry_after: Some(Duration::from_secs(30)),
            ..error(VaultErrorKind::Throttled)
        };
        gate.failed(&pass, &throttled, now);
        assert!(gate.admit(now).is_ok());
    }

    #[test]
    fn while_closed_the_failure_is_remembered() {
        let now = Instant::now();
        let mut gate = closed(now);
        let shut = gate.admit(now + MS).unwrap_err();
        assert_eq!(shut.error.detail, "down");
        assert!(shut.reopens_in >= 399 * MS && shut.reopens_in <= 500 * MS);
        assert!(gate.reopens_in(now + 600 * MS) == Some(Duration::ZERO));
    }

    #[test]
    fn then_exactly_one_probe_goes_through_and_opens_it() {
        let now = Instant::now();
        let mut gate = closed(now);
        let later = now + 500 * MS;
        let probe = gate.admit(later).unwrap();
        assert!(gate.admit(later).is_err(), "only one probe");
        assert!(gate.shut(later).is_some());
        gate.succeeded(&probe, later + MS);
        assert!(gate.admit(later + MS).is_ok());
        assert_eq!(gate.reopens_in(later + MS), None);
    }

    #[test]
    fn a_failed_probe_doubles_the_rest_up_to_the_longest() {
        let mut now = Instant::now();
        let mut gate = closed(now);
        let mut rests = Vec::new();
        for _ in 0..8 {
            let rest = gate.reopens_in(now).unwrap();
            rests.push(rest.as_secs_f64());
            now += rest;
            let probe = gate.admit(now).unwrap();
            gate.failed(&probe, &unreachable(), now);
        }
        let longest = [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0];
        for (rest, longest) in rests.iter().zip(longest) {
            assert!(*rest <= longest && *rest >= longest * 0.8, "{rests:?}");
        }
    }

    #[test]
    fn failures_in_flight_together_count_once() {
        let now = Instant::now();
        let mut gate = Gate::new(1);
        let passes: Vec<Pass> = (0..5).map(|_| gate.admit(now).unwrap()).collect();
        for pass in &passes {
            gate.failed(pass, &unreachable(), now + 10 * MS);
        }
        assert!(gate.reopens_in(now + 10 * MS).unwrap() <= 500 * MS);
    }

    #[test]
    fn an_answer_from_before_the_failure_does_not_open_it() {
        let now = Instant::now();
        let mut gate = Gate::new(1);
        let slow = gate.admit(now).unwrap();
        let failing = gate.admit(now).unwrap();
        gate.failed(&failing, &error(VaultErrorKind::Sealed), now + MS);
        gate.succeeded(&slow, now + 2 * MS);
        assert!(gate.admit(now + 3 * MS).is_err());
    }

    #[test]
    fn one_slow_path_does_not_close_it_for_the_others() {
        let now = Instant::now();
        let mut gate = Gate::new(1);
        let slow = gate.admit(now).unwrap();
        let quick = gate.admit(now + MS).unwrap();
        gate.succeeded(&quick, now + 2 * MS);
        gate.failed(&slow, &unreachable(), now + 10_000 * MS);
        assert!(gate.admit(now + 10_000 * MS).is_ok());
    }

    #[test]
    fn a_probe_that_is_given_up_lets_the_next_one_through() {
        let now = Instant::now();
        let mut gate = closed(now);
        let later = now + 500 * MS;
        let probe = gate.admit(later).unwrap();
        gate.abandoned(&probe);
        assert!(gate.admit(later).is_ok());
    }

    #[test]
    fn a_probe_that_finds_a_refusal_opens_it() {
        let now = Instant::now();
        let mut gate = closed(now);
        let probe = gate.admit(now + 500 * MS).unwrap();
        gate.failed(&probe, &error(VaultErrorKind::Denied), now + 501 * MS);
        assert!(gate.admit(now + 501 * MS).is_ok());
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        for (asked, expected) in [(7, 7), (3600, 60)] {
            let now = Instant::now();
            let mut gate = Gate::new(1);
            let pass = gate.admit(now).unwrap();
            let throttled = VaultError {
                retry_after: Some(Duration::from_secs(asked)),
                ..error(VaultErrorKind::Throttled)
            };
            gate.failed(&pass, &throttled, now);
            assert_eq!(gate.reopens_in(now), Some(Duration::from_secs(expected)));
        }
    }

    proptest! {
        /// Whatever happens, a closed gate lets at most one request through at a time, and it is
        /// never closed for longer than the longest rest.
        #[test]
        fn never_stuck_and_never_a_storm(seed: u64, steps in proptest::collection::vec((0_u8..5, 0_u64..2000), 1..100)) {
            let mut now = Instant::now();
            let mut gate = Gate::new(seed);
            let mut flying: Vec<Pass> = Vec::new();
            for (what, wait) in steps {
                now += u32::try_from(wait).unwrap() * MS;
                match what {
                    0 | 1 => {
                        let was_closed = gate.closed.is_some();
                        if let Ok(pass) = gate.admit(now) {
                            prop_assert_eq!(pass.probe, was_closed);
                            prop_assert!(!pass.probe || !flying.iter().any(|p| p.probe));
                            flying.push(pass);
                        }
                    }
                    2 => if let Some(pass) = flying.pop() { gate.succeeded(&pass, now) },
                    3 => if let Some(pass) = flying.pop() { gate.failed(&pass, &unreachable(), now) },
                    _ => if let Some(pass) = flying.pop() { gate.abandoned(&pass) },
                }
                prop_assert!(gate.reopens_in(now).unwrap_or_default() <= LONGEST_REST);
            }
            for pass in &flying {
                gate.abandoned(pass);
            }
            prop_assert!(gate.admit(now + LONGEST_REST).is_ok());
        }
    }
}
