//! Pure: rhythm, remembered failures and answers, as tables and as laws.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
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
        rotation: None,
    }
}

fn data() -> Arc<Content> {
    Arc::new(Content {
        entries: BTreeMap::new(),
        version: None,
        request_id: None,
    })
}

/// A try that was asked and failed at `now`.
fn tried(kind: VaultErrorKind, now: Instant) -> Tried {
    Tried {
        error: error(kind),
        asked_at: now,
        ended_at: now,
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
    let next = rhythm.next_boundary(boundary);
    let now = next + seconds(1);
    let young = boundary + rhythm.stride.mul_f64(0.99);
    assert!(rhythm.is_fresh(young, now));
    assert!(!rhythm.is_fresh(boundary + seconds(50), now));
}

/// The answer at 30 s after a boundary, in one word. Times are seconds after the boundary before.
fn answered(
    stored_at: Option<u64>,
    has_data: bool,
    failed: Option<Failed>,
    asked: Asked,
) -> &'static str {
    let (rhythm, boundary) = rhythm(100);
    let next = rhythm.next_boundary(boundary);
    let (now, at) = (next + seconds(30), |after: u64| boundary + seconds(after));
    let failure = failed.map(|(kind, asked_at, retry_in)| Failure {
        error: error(kind),
        attempts: 1,
        asked_at: at(asked_at),
        retry_at: now + seconds(retry_in),
    });
    let memory = Memory {
        stored: stored_at.map(|after| stored(at(after))),
        data: has_data.then(data),
        failure,
    };
    let want = match asked {
        Asked::Usual => want(100),
        Asked::Data => Want {
            need_data: true,
            ..want(100)
        },
        Asked::Since(after) => Want {
            freshness: Freshness::NotBefore(at(after)),
            ..want(100)
        },
    };
    match answer(&memory, &want, &rhythm, now) {
        Answer::Serve(_) => "serve",
        Answer::Fail(_) => "fail",
        Answer::Read => "read",
    }
}

/// Kind, when it was asked, and how long until it may be asked again.
type Failed = (VaultErrorKind, u64, u64);

#[derive(Clone, Copy)]
enum Asked {
    Usual,
    Data,
    Since(u64),
}

#[test]
fn what_is_fresh_enough_is_served() {
    for (row, stored_at, has_data, asked, expected) in [
        ("nothing known", None, false, Asked::Usual, "read"),
        ("fresh", Some(105), false, Asked::Usual, "serve"),
        ("old", Some(50), true, Asked::Usual, "read"),
        ("values dropped", Some(105), false, Asked::Data, "read"),
        ("values kept", Some(105), true, Asked::Data, "serve"),
        ("newer wanted", Some(105), true, Asked::Since(106), "read"),
        ("new enough", Some(106), true, Asked::Since(106), "serve"),
    ] {
        assert_eq!(
            answered(stored_at, has_data, None, asked),
            expected,
            "{row}"
        );
    }
}

#[test]
fn a_refusal_is_remembered_and_an_outage_is_not() {
    use VaultErrorKind as Kind;
    for (row, stored_at, failed, asked, expected) in [
        (
            "refused",
            Some(105),
            (Kind::NotFound, 106, 1),
            Asked::Usual,
            "fail",
        ),
        (
            "refused before",
            None,
            (Kind::Denied, 105, 1),
            Asked::Since(106),
            "read",
        ),
        (
            "refused since",
            None,
            (Kind::Denied, 106, 1),
            Asked::Since(106),
            "fail",
        ),
        (
            "refused long ago",
            None,
            (Kind::Denied, 50, 0),
            Asked::Usual,
            "read",
        ),
        (
            "away but fresh",
            Some(105),
            (Kind::Sealed, 106, 1),
            Asked::Usual,
            "serve",
        ),
        (
            "away and old",
            Some(50),
            (Kind::Sealed, 106, 1),
            Asked::Usual,
            "read",
        ),
    ] {
        assert_eq!(
            answered(stored_at, true, Some(failed), asked),
            expected,
            "{row}"
        );
    }
}

/// The waits of eight failures in a row.
fn waits(kind: VaultErrorKind, want: &Want) -> Vec<f64> {
    let mut now = Instant::now();
    let mut previous = None;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let next = failed(previous.as_ref(), tried(kind, now), want, 5);
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
        let first = failed(None, tried(kind, now), &want, 5);
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
    let next = |previous: Option<&Failure>, kind, millis| {
        let at = now + Duration::from_millis(millis);
        failed(previous, tried(kind, at), &want(300), 5)
    };
    let first = next(None, VaultErrorKind::Unreachable, 0);
    let same_round = next(Some(&first), VaultErrorKind::Unreachable, 100);
    assert_eq!(same_round.attempts, 1);
    let next_round = next(Some(&same_round), VaultErrorKind::Unreachable, 1000);
    assert_eq!(next_round.attempts, 2);
    let other = next(Some(&next_round), VaultErrorKind::NotFound, 1000);
    assert_eq!(other.attempts, 1, "another kind of trouble starts anew");
}

#[test]
fn what_vault_asks_for_is_honoured() {
    let now = Instant::now();
    let wait = |error: VaultError| {
        let tried = Tried {
            error,
            ..tried(VaultErrorKind::Denied, now)
        };
        let failure = failed(None, tried, &want(300), 5);
        (failure.retry_at - now).as_secs()
    };
    let throttled = VaultError {
        retry_after: Some(seconds(40)),
        ..error(VaultErrorKind::Throttled)
    };
    assert_eq!(wait(throttled.clone()), 40);
    let quota = VaultError {
        by_vault: true,
        ..throttled.clone()
    };
    assert_eq!(wait(quota), 40, "a quota on the path");
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
            let start = origin + seconds(1000);
            let due = rhythm.next_due(start, 0) - start;
            halves[usize::from(due > seconds(50))] += 1;
        }
        prop_assert!(halves.iter().all(|n| (120..=280).contains(n)), "{halves:?}");
    }
}

fn rotation(ttl: u64) -> Rotation {
    Rotation {
        ttl: seconds(ttl),
        last: None,
    }
}

#[test]
fn an_announced_change_makes_a_reading_old_before_its_boundary() {
    let (rhythm, boundary) = rhythm(100);
    let read_at = boundary + seconds(1);
    let seen = SeenRotation::new(rotation(20), read_at, None);
    let memory = Memory {
        stored: Some(Stored {
            rotation: Some(seen),
            ..stored(read_at)
        }),
        ..Memory::default()
    };
    for (after, expected) in [(1, true), (20, true), (21, false), (22, false)] {
        let answer = answer(&memory, &want(100), &rhythm, read_at + seconds(after));
        assert_eq!(matches!(answer, Answer::Serve(_)), expected, "{after} s");
    }
    let due = rhythm.next_due(read_at, 3);
    let next = seen.next_due(due, 3);
    assert!(next >= read_at + seconds(21) && next <= read_at + seconds(22));
    let later = SeenRotation::new(rotation(1000), read_at, None);
    assert_eq!(
        later.next_due(due, 3),
        due,
        "a change by hand still shows in time"
    );
}

#[test]
fn a_change_that_is_due_and_not_made_is_asked_for_less_and_less() {
    let start = Instant::now();
    let mut seen = None;
    for pause in [1, 2, 4, 8, 16] {
        let next = SeenRotation::new(rotation(0), start, seen.as_ref());
        assert_eq!(next.changes_at - start, seconds(pause));
        seen = Some(next);
    }
    let made = SeenRotation::new(rotation(60), start, seen.as_ref());
    assert_eq!(made.changes_at - start, seconds(61));
    let again = SeenRotation::new(rotation(0), start, Some(&made));
    assert_eq!(again.changes_at - start, seconds(1));
    let endless = SeenRotation::new(
        Rotation {
            ttl: Duration::MAX,
            last: None,
        },
        start,
        None,
    );
    assert!(endless.changes_at > start);
}

#[test]
fn too_much_to_read_is_looked_at_again_after_the_interval() {
    let now = Instant::now();
    for (interval, least) in [(300, 240), (2, 8)] {
        let failure = failed(
            None,
            tried(VaultErrorKind::TooMany, now),
            &want(interval),
            5,
        );
        assert!(failure.retry_at - now >= seconds(least), "{interval}");
    }
}
