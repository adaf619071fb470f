//! Pure: the life of a lease, as tables and as laws.

use proptest::prelude::*;

use super::*;
use crate::vault::request::Request;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const TERMS: Terms = Terms {
    renew_at: 0.67,
    check_every: Duration::from_mins(5),
    parent: Parent::Lives,
};

fn error(kind: VaultErrorKind) -> VaultError {
    VaultError {
        by_vault: true,
        ..VaultError::new(kind, &Request::token_lookup(), "")
    }
}

/// A plain 500: Vault works, the engine behind it does not.
fn broken() -> VaultError {
    VaultError {
        status: Some(500),
        ..error(VaultErrorKind::Unavailable)
    }
}

fn before(at: Instant) -> Instant {
    at.checked_sub(SECOND).unwrap()
}

/// What is known of a lease.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Presumed,
    Extends,
    Ends,
    Gone,
}

const STATES: [Is; Is::Gone as usize + 1] = [Is::Presumed, Is::Extends, Is::Ends, Is::Gone];

fn is(lease: &Lease) -> Is {
    match lease.state {
        State::Presumed { .. } => Is::Presumed,
        State::Known { extends: true, .. } => Is::Extends,
        State::Known { extends: false, .. } => Is::Ends,
        State::Gone => Is::Gone,
    }
}

/// A lease of an hour, of which was last heard at `start`.
fn lease(state: Is, start: Instant) -> Lease {
    let mut lease = match state {
        Is::Presumed => Lease::taken_over(HOUR, start + HOUR / 2, start, 1),
        Is::Extends | Is::Gone => Lease::issued(HOUR, true, start, 1),
        Is::Ends => Lease::issued(HOUR, false, start, 1),
    };
    if state == Is::Gone {
        lease.gone();
    }
    lease
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Renewed,
    RenewedForMore,
    RenewedForLess,
    RenewedForTheLastTime,
    LookedUp,
    LookedUpNotRenewable,
    Gone,
    LookUpRefused,
    RenewalRefused,
    Outage,
}

const EVENTS: [Event; Event::Outage as usize + 1] = [
    Event::Renewed,
    Event::RenewedForMore,
    Event::RenewedForLess,
    Event::RenewedForTheLastTime,
    Event::LookedUp,
    Event::LookedUpNotRenewable,
    Event::Gone,
    Event::LookUpRefused,
    Event::RenewalRefused,
    Event::Outage,
];

/// Tells the lease; says when it ends by that.
fn tell(lease: &mut Lease, event: Event, at: Instant) -> Option<Instant> {
    let ttl = match event {
        Event::Renewed | Event::RenewedForTheLastTime => HOUR,
        Event::RenewedForMore => 2 * HOUR,
        Event::RenewedForLess => HOUR / 4,
        Event::LookedUp | Event::LookedUpNotRenewable => HOUR / 2,
        Event::Gone => {
            lease.gone();
            return None;
        }
        Event::LookUpRefused => {
            lease.failed(Asked::LookUp, &broken(), at);
            return lease.expires();
        }
        Event::RenewalRefused => {
            lease.failed(Asked::Renewal, &broken(), at);
            return lease.expires();
        }
        Event::Outage => {
            lease.failed(Asked::LookUp, &error(VaultErrorKind::Sealed), at);
            return lease.expires();
        }
    };
    match event {
        Event::LookedUp => lease.looked_up(ttl, true, at),
        Event::LookedUpNotRenewable => lease.looked_up(ttl, false, at),
        Event::RenewedForTheLastTime => lease.renewed(ttl, false, at),
        Event::Renewed | Event::RenewedForMore | Event::RenewedForLess => {
            lease.renewed(ttl, true, at);
        }
        Event::Gone | Event::LookUpRefused | Event::RenewalRefused | Event::Outage => {}
    }
    Some(at + ttl)
}

fn after(state: Is, event: Event) -> Is {
    match (state, event) {
        (_, Event::Renewed | Event::RenewedForMore)
        | (Is::Presumed | Is::Extends | Is::Gone, Event::LookedUp) => Is::Extends,
        // A renewal that was cut short stays so, whatever a lookup says.
        (_, Event::RenewedForLess | Event::RenewedForTheLastTime | Event::LookedUpNotRenewable)
        | (Is::Ends, Event::LookedUp) => Is::Ends,
        (_, Event::Gone) => Is::Gone,
        (_, Event::LookUpRefused | Event::RenewalRefused | Event::Outage) => state,
    }
}

#[test]
fn every_state_and_event() {
    let start = Instant::now();
    let at = start + 10 * MINUTE;
    for state in STATES {
        for event in EVENTS {
            let mut lease = lease(state, start);
            let expires = tell(&mut lease, event, at);
            let context = format!("{state:?} {event:?}");
            assert_eq!(is(&lease), after(state, event), "{context}");
            assert_eq!(lease.expires(), expires, "{context}");
            let refusals = [
                matches!(event, Event::LookUpRefused).then_some(Asked::LookUp),
                matches!(event, Event::RenewalRefused).then_some(Asked::Renewal),
            ];
            let refused = refusals.into_iter().flatten().next();
            assert_eq!(lease.refused, refused, "{context}");
            let outage = matches!(event, Event::Outage);
            for asked in [Asked::LookUp, Asked::Renewal] {
                let held = outage || refused == Some(asked);
                assert_eq!(lease.held(asked, at).is_some(), held, "{context} {asked:?}");
            }
            assert_eq!(lease.full(), HOUR, "{context}");
            let late = before(start + HOUR);
            let over = lease.is_over(late);
            let ended = expires.is_some_and(|at| at <= late);
            assert_eq!(over, is(&lease) == Is::Gone || ended, "{context}");
        }
    }
}

/// How far the life of an hour is.
#[derive(Clone, Copy, Debug)]
enum At {
    Fresh,
    Check,
    Due,
    LastChance,
    Over,
}

const TIMES: [(At, Duration); At::Over as usize + 1] = [
    (At::Fresh, MINUTE),
    (At::Check, Duration::from_mins(10)),
    (At::Due, Duration::from_mins(45)),
    (At::LastChance, Duration::from_mins(56)),
    (At::Over, HOUR),
];

/// How the last request about it failed, and whether that was just now.
#[derive(Clone, Copy, Debug)]
enum Failed {
    Not,
    RefusedJustNow,
    Refused,
    OutageJustNow,
    Outage,
    /// A refusal of something else than what is to be asked now.
    OtherRefusedJustNow,
}

const FAILURES: [Failed; Failed::OtherRefusedJustNow as usize + 1] = [
    Failed::Not,
    Failed::RefusedJustNow,
    Failed::Refused,
    Failed::OutageJustNow,
    Failed::Outage,
    Failed::OtherRefusedJustNow,
];

fn step(state: Is, at: At, failed: Failed) -> &'static str {
    let unless_held = |step| match failed {
        Failed::Not | Failed::Refused | Failed::Outage | Failed::OtherRefusedJustNow => step,
        Failed::RefusedJustNow | Failed::OutageJustNow => "wait",
    };
    let unless_refused = |step, why| match failed {
        Failed::Refused | Failed::RefusedJustNow => why,
        Failed::Not | Failed::Outage | Failed::OutageJustNow | Failed::OtherRefusedJustNow => {
            unless_held(step)
        }
    };
    match (state, at) {
        (Is::Gone, _) => "Gone",
        (Is::Presumed, At::Due | At::LastChance | At::Over) => {
            unless_refused("look up", "RenewalRefused")
        }
        (Is::Extends | Is::Ends, At::Fresh) => "wait",
        (Is::Presumed, At::Fresh | At::Check) | (Is::Extends | Is::Ends, At::Check) => {
            unless_held("look up")
        }
        (Is::Extends, At::Due) => unless_held("renew"),
        (Is::Extends, At::LastChance) => unless_refused("renew", "RenewalRefused"),
        (Is::Ends, At::Due | At::LastChance) => "Ending",
        (Is::Extends | Is::Ends, At::Over) => "Expired",
    }
}

fn word(step: Step) -> &'static str {
    match step {
        Step::Wait(_) => "wait",
        Step::LookUp => "look up",
        Step::Renew => "renew",
        Step::Replace(why) => why.as_str(),
    }
}

fn other(asked: Asked) -> Asked {
    match asked {
        Asked::LookUp => Asked::Renewal,
        Asked::Renewal => Asked::LookUp,
    }
}

/// `asked` is what is to be asked now.
fn set_failed(lease: &mut Lease, failed: Failed, asked: Asked, now: Instant) {
    let (refused, held) = match failed {
        Failed::RefusedJustNow => (Some(asked), true),
        Failed::Refused => (Some(asked), false),
        Failed::OutageJustNow => (None, true),
        Failed::Not | Failed::Outage => (None, false),
        Failed::OtherRefusedJustNow => (Some(other(asked)), true),
    };
    lease.refused = refused;
    lease.held_until = held.then_some(now + 10 * SECOND);
}

#[test]
fn every_state_and_time() {
    let start = Instant::now();
    for state in STATES {
        for (at, age) in TIMES {
            for failed in FAILURES {
                let now = start + age;
                let mut lease = lease(state, start);
                let asked = match (state, at) {
                    (Is::Extends, At::Due | At::LastChance) => Asked::Renewal,
                    _ => Asked::LookUp,
                };
                set_failed(&mut lease, failed, asked, now);
                let context = format!("{state:?} {at:?} {failed:?}");
                let decided = lease.decide(&TERMS, now);
                assert_eq!(word(decided), step(state, at, failed), "{context}");
            }
        }
    }
}

/// While another one cannot be had, a lease that is refused is tried again, as long as it may live.
#[test]
fn every_state_and_time_clung_to() {
    let start = Instant::now();
    for state in STATES {
        for (at, age) in TIMES {
            for failed in FAILURES {
                let now = start + age;
                let mut lease = lease(state, start);
                let asked = match state {
                    Is::Presumed => Asked::LookUp,
                    Is::Extends | Is::Ends | Is::Gone => Asked::Renewal,
                };
                set_failed(&mut lease, failed, asked, now);
                let held = matches!(failed, Failed::RefusedJustNow | Failed::OutageJustNow);
                let expected = match (state, at) {
                    (Is::Gone, _) | (Is::Extends | Is::Ends, At::Over) => "Expired",
                    _ if held => "wait",
                    (Is::Presumed, _) => "look up",
                    (Is::Extends | Is::Ends, _) => "renew",
                };
                let context = format!("{state:?} {at:?} {failed:?}");
                assert_eq!(word(lease.cling(now)), expected, "{context}");
            }
        }
    }
}

/// A token that ends in an hour: its leases leave it within half an hour, whatever else is known of them.
#[test]
fn every_state_when_the_token_ends() {
    let start = Instant::now();
    let ends = Terms {
        parent: Parent::Ends {
            since: start,
            at: start + HOUR,
        },
        ..TERMS
    };
    let leaves = lease(Is::Extends, start).leaves_parent(&ends).unwrap();
    let (early, then) = (before(leaves), leaves);
    assert!(leaves < start + HOUR / 2);
    for state in STATES {
        for failed in FAILURES {
            let context = format!("{state:?} {failed:?}");
            let mut lease = lease(state, start);
            set_failed(&mut lease, failed, Asked::LookUp, early);
            match (lease.decide(&ends, early), state) {
                (Step::Wait(until), _) => assert!(
                    until <= leaves
                        || matches!((state, failed), (Is::Presumed, Failed::OutageJustNow)),
                    "{context}"
                ),
                (step, Is::Presumed | Is::Extends | Is::Ends) => {
                    assert_eq!(step, Step::LookUp, "{context}");
                }
                (step, Is::Gone) => assert_eq!(step, Step::Replace(Why::Gone), "{context}"),
            }
            let expected = match (state, failed) {
                (Is::Gone, _) => "Gone",
                (Is::Extends | Is::Ends, _)
                | (Is::Presumed, Failed::Refused | Failed::RefusedJustNow) => "ParentEnding",
                (Is::Presumed, Failed::OutageJustNow) => "wait",
                (Is::Presumed, Failed::Not | Failed::Outage | Failed::OtherRefusedJustNow) => {
                    "look up"
                }
            };
            assert_eq!(word(lease.decide(&ends, then)), expected, "{context}");
        }
    }
}

/// Which failures are an answer about the lease.
#[test]
fn every_kind_of_error() {
    let login = VaultError {
        operation: "login",
        ..error(VaultErrorKind::Denied)
    };
    let held_back = VaultError {
        held_back: true,
        ..broken()
    };
    let rows = [
        (error(VaultErrorKind::Denied), true),
        (error(VaultErrorKind::NotFound), true),
        (error(VaultErrorKind::Invalid), true),
        (error(VaultErrorKind::Refused), true),
        (broken(), true),
        (error(VaultErrorKind::Unavailable), false),
        (error(VaultErrorKind::Sealed), false),
        (error(VaultErrorKind::Throttled), false),
        (error(VaultErrorKind::Unreachable), false),
        (error(VaultErrorKind::CredentialUnavailable), false),
        (login, false),
        (held_back, false),
    ];
    for (error, about) in rows {
        assert_eq!(is_about_the_lease(&error), about, "{error:?}");
    }
}

/// The record of a lease that was renewed for days says that it may long be over. One 500 is no reason to believe that.
#[test]
fn a_lease_that_was_taken_over_is_not_given_up_for_one_answer() {
    let start = Instant::now();
    let mut given_up = Vec::new();
    for seed in 0..100 {
        let mut lease = Lease::taken_over(HOUR, start, start, seed);
        let mut now = start;
        let mut asked = 0;
        loop {
            match lease.decide(&TERMS, now) {
                Step::Wait(until) => now = until,
                Step::LookUp => {
                    asked += 1;
                    lease.failed(Asked::LookUp, &broken(), now);
                }
                Step::Renew => panic!("renewed, although nothing is known of it"),
                Step::Replace(why) => {
                    assert_eq!(why, Why::RenewalRefused);
                    break;
                }
            }
        }
        assert!(asked > 5, "seed {seed}: {asked}");
        given_up.push(now - start);
    }
    given_up.sort();
    let (first, last) = (given_up[0], given_up[99]);
    assert!(first >= 4 * MINUTE && last <= 15 * MINUTE);
    assert!(last > first + 8 * MINUTE, "{first:?} to {last:?}");
}

#[test]
fn a_failed_lookup_delays_no_replacement() {
    let start = Instant::now();
    let mut ends = lease(Is::Ends, start);
    let due = ends.due(&TERMS, start + HOUR);
    let just_before = before(due);
    for error in [broken(), error(VaultErrorKind::Sealed)] {
        for _ in 0..9 {
            ends.failed(Asked::LookUp, &error, just_before);
        }
        assert_eq!(ends.decide(&TERMS, just_before), Step::Wait(due));
    }
}

/// One row per thing that happens in turn: whether lookups, and renewals, are known to be denied after it.
#[test]
fn what_is_denied_stays_known_until_the_same_is_answered_otherwise() {
    let now = Instant::now();
    let mut lease = lease(Is::Extends, now);
    let denied = || Err(error(VaultErrorKind::Denied));
    let sealed = || Err(error(VaultErrorKind::Sealed));
    let rows = [
        (Asked::LookUp, denied(), true, false),
        (Asked::Renewal, Ok(()), true, false),
        (Asked::LookUp, sealed(), true, false),
        (Asked::Renewal, denied(), true, true),
        (Asked::LookUp, Ok(()), false, true),
        (Asked::Renewal, sealed(), false, true),
        (Asked::LookUp, denied(), true, true),
        (Asked::Renewal, Err(broken()), true, false),
        (Asked::LookUp, Err(broken()), false, false),
        (Asked::Renewal, denied(), false, true),
        (Asked::Renewal, Ok(()), false, false),
    ];
    for (number, (asked, answer, lookup, renewal)) in rows.into_iter().enumerate() {
        match (asked, &answer) {
            (Asked::LookUp, Ok(())) => lease.looked_up(HOUR, true, now),
            (Asked::Renewal, Ok(())) => lease.renewed(HOUR, true, now),
            (_, Err(error)) => lease.failed(asked, error, now),
        }
        let found = (
            lease.is_denied(Asked::LookUp),
            lease.is_denied(Asked::Renewal),
        );
        assert_eq!(found, (lookup, renewal), "{number}: {asked:?} {answer:?}");
    }
}

/// It is renewed all the same, and Vault is asked no more often than if it answered.
#[test]
fn a_lease_that_may_be_renewed_but_not_looked_up_lives_on() {
    let start = Instant::now();
    for full in [6 * SECOND, MINUTE, HOUR] {
        let mut lease = Lease::issued(full, true, start, 7);
        let (mut now, mut lookups, mut renewals) = (start, 0_u32, 0_u32);
        while now < start + 20 * full {
            match lease.decide(&TERMS, now) {
                Step::Wait(until) => now = until,
                Step::LookUp => {
                    lookups += 1;
                    lease.failed(Asked::LookUp, &error(VaultErrorKind::Denied), now);
                }
                Step::Renew => {
                    renewals += 1;
                    lease.renewed(full, true, now);
                }
                Step::Replace(why) => panic!("{full:?}: {why:?}"),
            }
        }
        assert!((30..40).contains(&renewals), "{full:?}: {renewals}");
        let checks = (now - start).as_secs() / TERMS.check_every.as_secs();
        assert!(u64::from(lookups) <= checks, "{full:?}: {lookups}");
    }
}

/// Leases of a token that ends are replaced within half of what is left of it, one after the other.
#[test]
fn leases_leave_a_token_that_ends_one_after_the_other() {
    let start = Instant::now();
    let ends = Terms {
        parent: Parent::Ends {
            since: start,
            at: start + 20 * MINUTE,
        },
        ..TERMS
    };
    let mut per_minute = [0; 10];
    for seed in 0..1000 {
        let mut now = start;
        let mut lease = Lease::issued(HOUR, true, now, backoff::seed_of(&seed));
        loop {
            match lease.decide(&ends, now) {
                Step::Wait(until) => now = until,
                Step::LookUp => lease.looked_up(start + HOUR - now, true, now),
                Step::Renew => lease.renewed(HOUR, true, now),
                Step::Replace(why) => {
                    assert_eq!(why, Why::ParentEnding);
                    break;
                }
            }
        }
        let minute = usize::try_from((now - start).as_secs() / 60).unwrap();
        per_minute[minute] += 1;
    }
    assert!(
        per_minute.iter().all(|count| (60..140).contains(count)),
        "{per_minute:?}"
    );
}

fn events() -> impl Strategy<Value = Vec<(u64, usize)>> {
    proptest::collection::vec((0..1200_u64, 0..EVENTS.len()), 1..40)
}

proptest! {
    /// Whatever happened: no step in the past, none that comes too late, no renewal of what has ended.
    #[test]
    fn every_decision_is_in_time(
        seed: u64,
        seconds in 1..7200_u64,
        renew_at in 0.0..1.0_f64,
        check in 10..3600_u64,
        ends in proptest::option::of((0..3600_u64, 0..3600_u64)),
        events in events(),
    ) {
        let start = Instant::now();
        let full = Duration::from_secs(seconds);
        let parent = ends.map_or(Parent::Lives, |(since, left)| {
            let since = start + Duration::from_secs(since);
            Parent::Ends { since, at: since + Duration::from_secs(left) }
        });
        let terms = Terms { renew_at, check_every: Duration::from_secs(check), parent };
        let mut lease = Lease::issued(full, true, start, seed);
        let mut now = start;
        for (wait, event) in events {
            now += Duration::from_secs(wait);
            tell(&mut lease, EVENTS[event], now);
            for later in [0, 1, 7, 60, 1000, 5000] {
                let now = now + Duration::from_secs(later);
                let known = lease.expires();
                match lease.decide(&terms, now) {
                    Step::Wait(until) => {
                        prop_assert!(until > now);
                        prop_assert!(known.is_none_or(|end| until <= end));
                        prop_assert!(until <= now + terms.check_every.max(BACKOFF_MOST));
                        let leaves = lease.leaves_parent(&terms);
                        let leaves = leaves.filter(|_| known.is_some());
                        prop_assert!(leaves.is_none_or(|at| until <= at));
                    }
                    Step::Renew => prop_assert!(known.is_some_and(|end| now < end)),
                    Step::LookUp => prop_assert!(known.is_none_or(|end| now < end)),
                    Step::Replace(Why::Expired) => prop_assert!(known.is_some_and(|end| now >= end)),
                    Step::Replace(Why::Gone) => prop_assert!(is(&lease) == Is::Gone),
                    Step::Replace(Why::Ending) => prop_assert!(is(&lease) == Is::Ends),
                    Step::Replace(Why::ParentEnding) => {
                        let left = matches!(parent, Parent::Ends { since, .. } if now >= since);
                        prop_assert!(left);
                    }
                    Step::Replace(Why::RenewalRefused) => {
                        prop_assert!(lease.refused.is_some());
                        let late = known.is_none_or(|end| end - now <= lease.last_chance());
                        prop_assert!(late);
                    }
                }
            }
        }
    }
}
