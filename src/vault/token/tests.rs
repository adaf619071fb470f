//! Pure: the life of a token, as tables and as laws.

use proptest::prelude::*;

use super::*;
use crate::vault::error::VaultErrorKind;
use crate::vault::request::Request;

const CANARY: &str = "canary-5f1c";
const HOUR: u64 = 3600;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn grant(ttl: u64, renewable: bool) -> Grant {
    Grant {
        accessor: String::new(),
        secret: Sensitive::new(CANARY),
        origin: Origin::Login,
        ttl: seconds(ttl),
        renewable,
    }
}

fn error() -> VaultError {
    VaultError::new(
        VaultErrorKind::Denied,
        &Request::token_lookup(),
        "permission denied",
    )
}

fn logged_in(ttl: u64, renewable: bool, now: Instant) -> (TokenState, Arc<Token>) {
    let mut state = TokenState::new(1);
    let token = state.logged_in(grant(ttl, renewable), now);
    (state, token)
}

fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Use(_) => "use",
        Decision::Renew(_) => "renew",
        Decision::Replace(_) => "replace",
        Decision::LogIn => "log in",
        Decision::Wait { .. } => "wait",
    }
}

#[test]
fn each_age_has_its_decision() {
    for (ttl, renewable, age, expected) in [
        (HOUR, true, 0, "use"),
        (HOUR, true, 2150, "use"),
        (HOUR, true, 2400, "renew"),
        (HOUR, true, 3539, "renew"),
        (HOUR, true, 3540, "replace"),
        (HOUR, true, 3585, "log in"),
        (HOUR, true, 9999, "log in"),
        (HOUR, false, 2400, "use"),
        (HOUR, false, 3540, "replace"),
        (HOUR, false, 3585, "log in"),
        (100, false, 89, "use"),
        (100, false, 90, "replace"),
        (100, false, 98, "log in"),
        (0, true, 1_000_000, "use"),
        (0, false, 1_000_000, "use"),
    ] {
        let now = Instant::now();
        let (state, _) = logged_in(ttl, renewable, now);
        let decision = state.decide(now + seconds(age));
        assert_eq!(
            word(&decision),
            expected,
            "ttl {ttl}, renewable {renewable}, age {age}"
        );
    }
}

#[test]
fn without_a_token_it_logs_in() {
    assert_eq!(word(&TokenState::new(1).decide(Instant::now())), "log in");
}

#[test]
fn renewals_of_many_identities_are_spread() {
    let now = Instant::now();
    let mut dates: Vec<Duration> = (0..100)
        .map(|seed| {
            let mut state = TokenState::new(seed);
            state.logged_in(grant(HOUR, true), now);
            state.renew_at(now).unwrap() - now
        })
        .collect();
    dates.sort();
    assert!(dates[0] >= seconds(2160) && dates[99] <= seconds(2400));
    assert!(dates[99] > dates[0] + seconds(200));
}

#[test]
fn a_renewal_starts_the_life_anew() {
    let now = Instant::now();
    let (mut state, token) = logged_in(HOUR, true, now);
    let later = now + seconds(2400);
    state.renewed(&token, seconds(HOUR), true, later);
    assert_eq!(word(&state.decide(later + seconds(2000))), "use");
    assert_eq!(word(&state.decide(later + seconds(2400))), "renew");
}

#[test]
fn a_renewal_that_adds_nothing_uses_the_token_up() {
    let now = Instant::now();
    let (mut state, token) = logged_in(HOUR, true, now);
    let later = now + seconds(2400);
    state.renewed(&token, seconds(1200), true, later);
    assert_eq!(state.renew_at(later), None);
    assert_eq!(word(&state.decide(later + seconds(1100))), "use");
    assert_eq!(word(&state.decide(later + seconds(1150))), "replace");
}

#[test]
fn a_failed_renewal_is_tried_again_and_the_token_is_used() {
    let now = Instant::now();
    let (mut state, token) = logged_in(HOUR, true, now);
    let later = now + seconds(2400);
    state.renew_failed(&token, &error(), later);
    assert_eq!(word(&state.decide(later)), "use");
    assert_eq!(word(&state.decide(later + seconds(1))), "renew");
    state.renew_refused(&token, now);
    assert_eq!(word(&state.decide(later + seconds(1))), "use");
}

#[test]
fn a_token_near_its_end_is_used_while_logins_fail() {
    let now = Instant::now();
    let (mut state, _) = logged_in(HOUR, false, now);
    let near_end = now + seconds(3550);
    state.login_failed(error(), true, near_end);
    assert_eq!(word(&state.decide(near_end)), "use");
    assert_eq!(word(&state.decide(now + seconds(3586))), "wait");
}

#[test]
fn failed_logins_wait_longer_each_time() {
    let now = Instant::now();
    let mut state = TokenState::new(1);
    for longest in [1, 2, 4, 8, 16, 32, 60, 60] {
        state.login_failed(error(), false, now);
        let Decision::Wait { until, error } = state.decide(now) else {
            panic!("does not wait");
        };
        assert!(until - now <= seconds(longest) && until - now >= seconds(longest) / 2);
        assert_eq!(error.kind, VaultErrorKind::Denied);
        assert_eq!(word(&state.decide(until)), "log in");
    }
    state.logged_in(grant(HOUR, true), now);
    assert_eq!(word(&state.decide(now)), "use");
}

#[test]
fn a_mistake_waits_longest_at_once_and_retry_after_is_honoured() {
    let now = Instant::now();
    let mut state = TokenState::new(1);
    state.login_failed(error(), true, now);
    assert_eq!(word(&state.decide(now + seconds(29))), "wait");
    let throttled = VaultError {
        retry_after: Some(seconds(90)),
        ..error()
    };
    state.login_failed(throttled, false, now);
    assert_eq!(word(&state.decide(now + seconds(89))), "wait");
    assert_eq!(word(&state.decide(now + seconds(90))), "log in");
}

#[test]
fn a_refused_token_is_verified_now_and_then() {
    let now = Instant::now();
    let (mut state, token) = logged_in(HOUR, true, now);
    assert!(!state.may_verify(now), "it has just been issued");
    assert!(state.may_verify(now + seconds(5)));
    state.verified_alive(now + seconds(5));
    assert!(!state.may_verify(now + seconds(9)));
    state.verified_dead(&token);
    assert_eq!(word(&state.decide(now)), "log in");
}

#[test]
fn logins_that_do_not_help_become_rare() {
    let mut now = Instant::now();
    let (mut state, _) = logged_in(HOUR, true, now);
    for wait in [10, 20, 40, 80, 160, 320, 600, 600] {
        state.login_after_denial(false, now);
        assert!(!state.may_verify(now + seconds(wait - 1)));
        now += seconds(wait);
        assert!(state.may_verify(now));
    }
    state.login_after_denial(true, now);
    state.login_after_denial(false, now);
    assert!(state.may_verify(now + seconds(10)));
}

#[test]
fn news_of_an_old_token_does_not_touch_the_new_one() {
    let now = Instant::now();
    let (mut state, old) = logged_in(HOUR, true, now);
    let new = state.logged_in(grant(HOUR, true), now);
    state.verified_dead(&old);
    state.renew_refused(&old, now);
    assert!(state.is_current(&new) && !state.is_current(&old));
    assert!(state.renew_at(now).is_some());
}

/// A token whose identity nobody uses any more, with and without a renewal that Vault refused: what is done at its
/// age, and when its leases have to expect its end.
#[test]
fn a_retired_token_is_renewed_and_never_replaced() {
    let now = Instant::now();
    let end = now + seconds(HOUR);
    for (renewable, refused, age, expected, ends) in [
        (true, false, 1200, "use", None),
        (true, false, 2400, "renew", None),
        (true, false, 3550, "renew", None),
        (true, false, 3590, "log in", Some((now + seconds(60), end))),
        (true, true, 3000, "use", Some((now + seconds(2400), end))),
        (false, false, 3550, "use", Some((now + seconds(60), end))),
    ] {
        let mut state = TokenState::new(1);
        let grant = Grant {
            accessor: "a".to_owned(),
            ..grant(HOUR, renewable)
        };
        let token = state.logged_in(grant, now);
        state.bear_leases(true);
        state.retire(true, now + seconds(60));
        state.retire(true, now + seconds(90));
        if refused {
            state.renew_refused(&token, now + seconds(2400));
        }
        let at = now + seconds(age);
        let row = format!("renewable {renewable}, refused {refused}, age {age}");
        assert_eq!(word(&state.decide(at)), expected, "{row}");
        assert_eq!(state.ends("a", at), ends, "{row}");
        assert_eq!(state.ends("b", at), None, "{row}");
        let again = renewable && !refused && expected != "log in";
        assert_eq!(state.renew_at(at).is_some(), again, "{row}");
        state.retire(false, at);
        assert_eq!(state.ends("a", at), None, "{row}");
    }
}

#[test]
fn debug_does_not_show_the_token() {
    let now = Instant::now();
    let (state, token) = logged_in(HOUR, true, now);
    let all = format!(
        "{state:?} {token:?} {:?} {:?}",
        state.decide(now),
        grant(1, true)
    );
    assert!(!all.contains(CANARY));
}

/// One event in the life of a state.
#[derive(Debug, Clone)]
enum Event {
    LoggedIn(u64, bool),
    LoginFailed(bool, Option<u64>),
    Renewed(u64, bool),
    RenewFailed,
    RenewRefused,
    Denied(bool),
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        (0..5000_u64, any::<bool>()).prop_map(|(ttl, renewable)| Event::LoggedIn(ttl, renewable)),
        (any::<bool>(), proptest::option::of(0..200_u64))
            .prop_map(|(longest, asked)| Event::LoginFailed(longest, asked)),
        (0..5000_u64, any::<bool>()).prop_map(|(ttl, renewable)| Event::Renewed(ttl, renewable)),
        Just(Event::RenewFailed),
        Just(Event::RenewRefused),
        any::<bool>().prop_map(Event::Denied),
    ];
    proptest::collection::vec((0..2000_u64, event), 1..40)
}

fn apply(state: &mut TokenState, event: Event, now: Instant) {
    let current = state.current(now);
    match (event, current) {
        (Event::LoggedIn(ttl, renewable), _) => {
            state.logged_in(grant(ttl, renewable), now);
        }
        (Event::LoginFailed(longest, asked), _) => {
            let error = VaultError {
                retry_after: asked.map(seconds),
                ..error()
            };
            state.login_failed(error, longest, now);
        }
        (Event::Renewed(ttl, renewable), Some(token)) => {
            state.renewed(&token, seconds(ttl), renewable, now);
        }
        (Event::RenewFailed, Some(token)) => state.renew_failed(&token, &error(), now),
        (Event::RenewRefused, Some(token)) => state.renew_refused(&token, now),
        (Event::Denied(alive), Some(token)) => {
            if alive {
                state.verified_alive(now);
            } else {
                state.verified_dead(&token);
            }
        }
        (_, None) => {}
    }
}

proptest! {
    #[test]
    fn an_expired_token_is_never_used(seed: u64, events in events(), probe in 0..8000_u64) {
        let mut now = Instant::now();
        let mut state = TokenState::new(seed);
        for (wait, event) in events {
            now += seconds(wait);
            apply(&mut state, event, now);
            let at = now + seconds(probe);
            match state.decide(at) {
                Decision::Use(_) | Decision::Renew(_) | Decision::Replace(_) => {
                    prop_assert!(state.expires().is_none_or(|end| at < end));
                }
                Decision::Wait { until, .. } => {
                    prop_assert!(until > at && until - at <= seconds(200));
                }
                Decision::LogIn => prop_assert!(state.current(at).is_none()),
            }
        }
    }

    #[test]
    fn a_date_for_a_renewal_leads_to_a_renewal(seed: u64, ttl in 1..100_000_u64) {
        let now = Instant::now();
        let mut state = TokenState::new(seed);
        state.logged_in(grant(ttl, true), now);
        let at = state.renew_at(now).unwrap();
        prop_assert!(matches!(state.decide(at), Decision::Renew(_)));
    }
}

/// Vault rounds up what is left of a life of 30 seconds: that renewal is the last, and there is time to move leases.
#[test]
fn a_token_that_leases_depend_on_is_replaced_halfway_after_its_last_renewal() {
    let now = Instant::now();
    let mut state = TokenState::new(1);
    let token = state.logged_in(grant(30, true), now);
    state.bear_leases(true);
    state.renewed(&token, seconds(10), true, now + seconds(21));
    let due = now + seconds(26);
    for later in [20, 26, 28] {
        assert_eq!(state.renew_at(now + seconds(later)), Some(due), "{later}");
    }
    assert!(matches!(state.decide(due), Decision::Replace(_)));
    state.renewed(&token, seconds(29), true, now + seconds(21));
    let renewal = state.renew_at(due).unwrap();
    assert!(matches!(state.decide(renewal), Decision::Renew(_)));
}

fn named(accessor: &str, ttl: u64, renewable: bool) -> Grant {
    Grant {
        accessor: accessor.into(),
        ..grant(ttl, renewable)
    }
}

/// One row per token and age: when a token is replaced that leases depend on.
#[test]
fn a_token_that_bears_leases_is_replaced_halfway_if_it_cannot_be_renewed() {
    for (bears, renewable, age, expected) in [
        (false, false, 1801, "use"),
        (true, false, 1799, "use"),
        (true, false, 1800, "replace"),
        (true, false, 3585, "log in"),
        (true, true, 1801, "use"),
        (true, true, 2400, "renew"),
        (true, true, 3540, "replace"),
    ] {
        let now = Instant::now();
        let (mut state, _) = logged_in(HOUR, renewable, now);
        state.bear_leases(bears);
        let row = format!("bears {bears}, renewable {renewable}, age {age}");
        let decision = state.decide(now + seconds(age));
        assert_eq!(word(&decision), expected, "{row}");
        let at = state.renew_at(now + seconds(age));
        assert_eq!(
            at.is_some(),
            (renewable && age < 3540) || (bears && !renewable),
            "{row}"
        );
    }
}

#[test]
fn a_failed_login_holds_the_replacement_back() {
    let now = Instant::now();
    let (mut state, _) = logged_in(HOUR, false, now);
    state.bear_leases(true);
    let halfway = now + seconds(HOUR / 2);
    let until = state.login_failed(error(), true, halfway);
    assert_eq!(word(&state.decide(halfway)), "use");
    assert_eq!(state.renew_at(halfway), Some(until));
    assert_eq!(word(&state.decide(until)), "replace");
}

/// One row per second login: what the leases of the first token have to expect.
#[test]
fn a_former_token_is_known_until_its_end() {
    let now = Instant::now();
    let later = now + seconds(600);
    let end = now + seconds(HOUR);
    for (first, ttl, second, expected) in [
        ("a", HOUR, "b", Some((later, end))),
        // The same again, as a token from a Secret is: its leases cannot leave it.
        ("a", HOUR, "a", None),
        ("", HOUR, "b", None),
        ("a", 0, "b", None),
    ] {
        let mut state = TokenState::new(1);
        state.logged_in(named(first, ttl, false), now);
        state.logged_in(named(second, HOUR, false), later);
        assert_eq!(state.former(first), expected, "{first} {ttl} {second}");
        assert_eq!(state.former(second), None);
        state.logged_in(named("c", HOUR, false), end + seconds(1));
        assert_eq!(state.former(first).filter(|_| first != second), None);
    }
}
