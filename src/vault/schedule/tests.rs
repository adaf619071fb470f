//! Pure: rhythm, remembered failures and answers, as tables and as laws.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::vault::error::VaultErrorKind;
use crate::vault::request::Request;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn error(kind: VaultErrorKind) -> VaultError {
    VaultError::new(kind, &Request::token_lookup(), "")
}

fn want(interval: u64) -> Want {
    Want {
        interval: seconds(interval),
        freshness: Freshness::WithinInterval,
        need_data: false,
        seed: 7,
    }
}

fn stored(read_at: Instant) -> Stored {
    Stored {
        fingerprint: [1; 32],
        version: Some(3),
        read_at,
    }
}

fn data() -> Arc<KvData> {
    Arc::new(KvData {
        entries: BTreeMap::new(),
        version: None,
        request_id: None,
    })
}

fn failure(kind: VaultErrorKind, asked_at: Instant, retry_at: Instant) -> Failure {
    Failure {
        error: error(kind),
        attempts: 1,
        asked_at,
        retry_at,
    }
}

/// A rhythm and a boundary of it, a few strides after the origin.
fn rhythm(interval: u64) -> (Rhythm, Instant) {
    let origin = Instant::now();
    let rhythm = Rhythm::new(origin, seconds(interval), 42);
    (rhythm, rhythm.next_boundary(origin + seconds(3 * interval)))
}

#[test]
fn a_reading_is_fresh_until_the_next_boundary() {
    let (rhythm, boundary) = rhythm(100);
    let read_at = boundary + seconds(1);
    for (after_boundary, expected) in [(1, true), (50, true), (84, true), (96, false), (300, false)]
    {
        let now = boundary + seconds(after_boundary);
        assert_eq!(
            rhythm.is_fresh(read_at, now),
            expected,
            "{after_boundary} s after the boundary"
        );
    }
}

#[test]
fn a_young_reading_serves_beyond_the_boundary() {
    let (rhythm, boundary) = rhythm(100);
    assert!(rhythm.is_fresh(boundary - seconds(4), boundary + seconds(1)));
    assert!(!rhythm.is_fresh(boundary - seconds(50), boundary + seconds(1)));
}

#[test]
fn each_state_has_its_answer() {
    let (rhythm, boundary) = rhythm(100);
    let now = boundary + seconds(30);
    let (fresh, old) = (boundary + seconds(10), boundary - seconds(50));
    let newer = Want {
        freshness: Freshness::NotBefore(boundary + seconds(20)),
        ..want(100)
    };
    let with_data = Want {
        need_data: true,
        ..want(100)
    };
    let refused = |asked_at| failure(VaultErrorKind::NotFound, asked_at, now + seconds(1));
    let away = failure(VaultErrorKind::Sealed, now, now + seconds(1));
    let over = failure(VaultErrorKind::Denied, old, now);
    let young = boundary + seconds(20);
    for (row, stored_at, has_data, failed, want, expected) in [
        ("nothing known", None, false, None, want(100), "read"),
        ("fresh", Some(fresh), false, None, want(100), "serve"),
        ("old", Some(old), true, None, want(100), "read"),
        (
            "values dropped",
            Some(fresh),
            false,
            None,
            with_data,
            "read",
        ),
        ("values kept", Some(fresh), true, None, with_data, "serve"),
        ("newer wanted", Some(fresh), true, None, newer, "read"),
        ("new enough", Some(young), true, None, newer, "serve"),
        (
            "refused",
            Some(fresh),
            true,
            Some(refused(young)),
            want(100),
            "fail",
        ),
        (
            "refused before",
            None,
            false,
            Some(refused(fresh)),
            newer,
            "read",
        ),
        (
            "refused since",
            None,
            false,
            Some(refused(young)),
            newer,
            "fail",
        ),
        (
            "refused long ago",
            None,
            false,
            Some(over),
            want(100),
            "read",
        ),
        (
            "away but fresh",
            Some(fresh),
            true,
            Some(away.clone()),
            want(100),
            "serve",
        ),
        (
            "away and old",
            Some(old),
            true,
            Some(away),
            want(100),
            "read",
        ),
    ] {
        let memory = Memory {
            stored: stored_at.map(stored),
            data: has_data.then(data),
            failure: failed,
        };
        let answer = match answer(&memory, &want, &rhythm, now) {
            Answer::Serve(_) => "serve",
            Answer::Fail(_) => "fail",
            Answer::Read => "read",
        };
        assert_eq!(answer, expected, "{row}");
    }
}

/// The waits of eight failures in a row.
fn waits(kind: VaultErrorKind, want: &Want) -> Vec<f64> {
    let mut now = Instant::now();
    let mut previous = None;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let next = failed(previous.as_ref(), error(kind), want, 5, (now, now));
        waits.push((next.retry_at - now).as_secs_f64());
        now = next.retry_at;
        previous = Some(next);
    }
    waits
}

#[test]
fn waits_grow_within_their_bounds() {
    use VaultErrorKind as Kind;
    for (kind, interval, jitter, longest) in [
        (
            Kind::NotFound,
            300,
            0.2,
            [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0],
        ),
        (
            Kind::Denied,
            30,
            0.2,
            [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0],
        ),
        (
            Kind::Invalid,
            1,
            0.2,
            [2.0, 4.0, 8.0, 10.0, 10.0, 10.0, 10.0, 10.0],
        ),
        (
            Kind::Sealed,
            300,
            0.5,
            [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0],
        ),
    ] {
        let waits = waits(kind, &want(interval));
        for (wait, longest) in waits.iter().zip(longest) {
            assert!(
                *wait <= longest && *wait >= longest * (1.0 - jitter),
                "{kind:?}: {waits:?}"
            );
        }
    }
}

#[test]
fn a_refusal_is_shared_and_an_outage_is_spread() {
    let now = Instant::now();
    let retry_at = |kind, seed| {
        let want = Want { seed, ..want(300) };
        let first = failed(None, error(kind), &want, 5, (now, now));
        first.retry_at - now
    };
    let kinds = [
        (VaultErrorKind::NotFound, true),
        (VaultErrorKind::Unreachable, false),
    ];
    for (kind, same) in kinds {
        assert_eq!(retry_at(kind, 1) == retry_at(kind, 2), same, "{kind:?}");
    }
}

#[test]
fn many_callers_of_one_outage_are_one_attempt() {
    let now = Instant::now();
    let away = || error(VaultErrorKind::Unreachable);
    let first = failed(None, away(), &want(300), 5, (now, now));
    let same_round = now + Duration::from_millis(100);
    let second = failed(
        Some(&first),
        away(),
        &want(300),
        5,
        (same_round, same_round),
    );
    assert_eq!(second.attempts, 1);
    let next_round = now + seconds(1);
    let third = failed(
        Some(&second),
        away(),
        &want(300),
        5,
        (next_round, next_round),
    );
    assert_eq!(third.attempts, 2);
    let found = failed(
        Some(&third),
        error(VaultErrorKind::NotFound),
        &want(300),
        5,
        (now, now),
    );
    assert_eq!(found.attempts, 1, "another kind of trouble starts anew");
}

#[test]
fn what_vault_asks_for_is_honoured() {
    let now = Instant::now();
    let wait = |error: VaultError| {
        let failure = failed(None, error, &want(300), 5, (now, now));
        (failure.retry_at - now).as_secs()
    };
    let throttled = VaultError {
        retry_after: Some(seconds(40)),
        ..error(VaultErrorKind::Throttled)
    };
    assert_eq!(wait(throttled.clone()), 40);
    let held_back = throttled.held_back(&Request::token_lookup(), seconds(40));
    assert_eq!(
        wait(held_back),
        0,
        "trying is cheap while the gate is closed"
    );
    let login = VaultError {
        retry_after: Some(seconds(40)),
        ..error(VaultErrorKind::Denied)
    };
    assert_eq!(wait(login), 40);
}

proptest! {
    /// A caller that comes back when told always finds its reading too old, and never older than
    /// the interval.
    #[test]
    fn polling_is_never_late_and_never_in_vain(
        interval in 1_u64..10_000, key: u64, caller: u64, millis in 0_u64..100_000_000,
    ) {
        let origin = Instant::now();
        let rhythm = Rhythm::new(origin, seconds(interval), key);
        let read_at = origin + Duration::from_millis(millis);
        let due = rhythm.next_due(read_at, caller);
        prop_assert!(due <= read_at + seconds(interval));
        prop_assert!(due > read_at + rhythm.slack());
        prop_assert!(!rhythm.is_fresh(read_at, due));
    }

    /// In a steady system a key is read once per stride however many callers share it.
    #[test]
    fn sharing_costs_nothing(key: u64, callers in 1_u64..20) {
        let origin = Instant::now();
        let interval = seconds(60);
        let rhythm = Rhythm::new(origin, interval, key);
        let mut due: Vec<(Instant, u64)> = (0..callers).map(|caller| (origin + seconds(caller), caller)).collect();
        let mut read_at = None;
        let mut reads = 0_u32;
        let end = origin + 100 * interval;
        while let Some((at, caller)) = due.iter().copied().min().filter(|(at, _)| *at < end) {
            if !read_at.is_some_and(|read| rhythm.is_fresh(read, at)) {
                read_at = Some(at);
                reads += 1;
            }
            let next = rhythm.next_due(read_at.unwrap(), caller);
            due.retain(|(_, other)| *other != caller);
            due.push((next.max(at + Duration::from_millis(1)), caller));
        }
        prop_assert!((100..=119).contains(&reads), "{reads} reads");
    }

    /// Keys are read evenly over time, not all at once after a start.
    #[test]
    fn keys_are_spread(base: u64) {
        let origin = Instant::now();
        let mut halves = [0_u32; 2];
        for key in 0..400_u64 {
            let rhythm = Rhythm::new(origin, seconds(100), base.wrapping_add(key));
            let due = rhythm.next_due(origin + seconds(1000), 0) - origin - seconds(1000);
            halves[usize::from(due > seconds(50))] += 1;
        }
        prop_assert!(halves.iter().all(|n| (120..=280).contains(n)), "{halves:?}");
    }
}
