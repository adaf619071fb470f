//! Pure: tests.

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
