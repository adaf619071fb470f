//! Pure: tests.

use jiff::Timestamp;

use super::*;
use crate::sync::holding::record::{Issued, Superseded, What};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn superseded(ttl: u64, renewable: bool, unused: bool) -> Superseded {
    Superseded {
        issued: Issued {
            namespace: None,
            connection: None,
            given: false,
            what: What::Lease {
                id: "a/b".into(),
                ttl,
                renewable,
                parent: None,
            },
        },
        since: Timestamp::UNIX_EPOCH,
        unused,
    }
}

/// A lease that was issued, and replaced, at `now`.
fn ending(ttl: u64, renewable: bool, now: Instant) -> Ending {
    let lease = Lease::issued(Duration::from_secs(ttl), renewable, now, 1);
    Ending::new(superseded(ttl, renewable, false), Some(lease), now, now)
}

fn word(next: Next) -> &'static str {
    match next {
        Next::Wait(_) => "wait",
        Next::Keep(Asked::LookUp) => "look up",
        Next::Keep(Asked::Renewal) => "renew",
        Next::Revoke => "revoke",
        Next::Over => "over",
    }
}

/// A lease of four hours, heard of just now. One row per verdict and time since it has been that: what happens.
#[test]
fn every_verdict() {
    use Verdict::{NoneSeen, Undecided, Verified, Waiting};
    let now = Instant::now();
    let rows = [
        (Verified, Duration::ZERO, "revoke"),
        (NoneSeen, Duration::ZERO, "wait"),
        (NoneSeen, 119 * SECOND, "wait"),
        (NoneSeen, 120 * SECOND, "revoke"),
        (Undecided, Duration::ZERO, "wait"),
        (Undecided, 59 * MINUTE, "wait"),
        (Undecided, HOUR, "revoke"),
        (Waiting, Duration::ZERO, "wait"),
        (Waiting, 59 * MINUTE, "wait"),
        (Waiting, 24 * HOUR, "wait"),
    ];
    for (verdict, later, expected) in rows {
        let mut ending = ending(4 * 3600, true, now);
        ending.decide(verdict, now);
        let then = now + later;
        ending.lease_mut().unwrap().renewed(4 * HOUR, true, then);
        let found = ending.decide(verdict, then);
        assert_eq!(word(found), expected, "{verdict:?} {later:?}");
    }
}

/// The hour counts only while nobody waits: a restart may be due at night, and fail then.
#[test]
fn the_deadline_begins_when_nobody_waits_any_more() {
    use Verdict::{Undecided, Verified, Waiting};
    let start = Instant::now();
    let mut ending = ending(100 * 3600, true, start);
    let rows = [
        (0, Undecided, "wait"),
        (50, Waiting, "wait"),
        (600, Waiting, "wait"),
        (610, Undecided, "wait"),
        (669, Undecided, "wait"),
        (669, Waiting, "wait"),
        (680, Undecided, "wait"),
        (739, Undecided, "wait"),
        (740, Undecided, "revoke"),
        (741, Waiting, "wait"),
        (742, Verified, "revoke"),
    ];
    for (minutes, verdict, expected) in rows {
        let now = start + minutes * MINUTE;
        ending.lease_mut().unwrap().looked_up(90 * HOUR, true, now);
        let found = word(ending.decide(verdict, now));
        assert_eq!(found, expected, "{minutes} {verdict:?}");
    }
}

/// One row per kind of lease of an hour, and time: what happens while a workload waits for its restart.
#[test]
fn what_is_waited_for_is_kept_until_it_ends_by_itself() {
    let start = Instant::now();
    let rows = [
        (true, MINUTE, "wait"),
        (true, 45 * MINUTE, "renew"),
        (true, HOUR, "over"),
        (false, 45 * MINUTE, "wait"),
        (false, 59 * MINUTE, "wait"),
        (false, HOUR, "over"),
    ];
    for verdict in [Verdict::Waiting, Verdict::Undecided] {
        for (renewable, age, expected) in rows {
            let mut ending = ending(3600, renewable, start);
            let now = start + age;
            let found = word(ending.decide(verdict, now));
            assert_eq!(found, expected, "{verdict:?} {renewable} {age:?}");
        }
    }
}

#[test]
fn what_nobody_ever_used_is_revoked_whatever_the_workloads_do() {
    use Verdict::{NoneSeen, Undecided, Verified, Waiting};
    let now = Instant::now();
    for verdict in [Waiting, Undecided, NoneSeen, Verified] {
        // Also where Vault says that it has no length.
        for ttl in [0, 3600] {
            let mut ending = Ending::new(superseded(ttl, true, true), None, now, now);
            assert_eq!(ending.decide(verdict, now), Next::Revoke);
            ending.failed(VaultErrorKind::Unavailable, 1, now);
            let held = ending.held_until.unwrap();
            assert_eq!(ending.unused_until(), Some(held));
            assert_eq!(ending.decide(verdict, now), Next::Wait(held));
            assert_eq!(ending.decide(verdict, held), Next::Revoke);
            assert_eq!(ending.decide(verdict, now + HOUR), Next::Over);
        }
    }
}

/// A pause of days costs no look every other second.
#[test]
fn the_longer_it_takes_the_more_rarely_it_is_looked_at() {
    let start = Instant::now();
    for (age, pause) in [
        (Duration::ZERO, 2 * SECOND),
        (MINUTE, 3750 * SECOND / 1000),
        (HOUR, MINUTE),
        (24 * HOUR, MINUTE),
    ] {
        let mut ending = ending(1_000_000, true, start);
        let now = start + age;
        ending.lease_mut().unwrap().looked_up(200 * HOUR, true, now);
        let found = ending.decide(Verdict::Waiting, now);
        assert_eq!(found, Next::Wait(now + pause), "{age:?}");
    }
}

#[test]
fn nobody_is_waited_for_when_nothing_used_it() {
    use Verdict::{NoneSeen, Undecided, Verified, Waiting};
    let now = Instant::now();
    for verdict in [Waiting, Undecided, NoneSeen, Verified] {
        let lease = Lease::issued(60 * SECOND, true, now, 1);
        let mut unused = Ending {
            held_until: Some(now + SECOND),
            ..Ending::new(superseded(60, true, true), Some(lease), now, now)
        };
        assert_eq!(unused.decide(verdict, now), Next::Wait(now + SECOND));
        assert_eq!(unused.decide(verdict, now + SECOND), Next::Revoke);
    }
}

#[test]
fn a_vault_that_is_gone_keeps_no_object_for_longer_than_five_minutes() {
    for (left, seconds, goes) in [(0, 0, true), (2, 0, false), (2, 299, false), (2, 300, true)] {
        assert_eq!(may_go(left, seconds * SECOND), goes, "{left} {seconds}");
    }
}

#[test]
fn a_failed_revocation_is_tried_again_until_the_lease_ends_by_itself() {
    let now = Instant::now();
    let mut ending = ending(60, true, now);
    ending.failed(VaultErrorKind::Denied, 1, now);
    assert_eq!(ending.hindrance, Some(Hindrance::Denied));
    let mut word = |seconds: u32| word(ending.decide(Verdict::Verified, now + seconds * SECOND));
    assert_eq!(word(1), "wait");
    assert_eq!(word(10), "revoke");
    assert_eq!(word(60), "over");
}

#[test]
fn what_nobody_can_revoke_ends_by_itself() {
    let now = Instant::now();
    let mut ending = ending(3600, true, now);
    ending.strand(now);
    let mut word = |seconds: u32| word(ending.decide(Verdict::Verified, now + seconds * SECOND));
    assert_eq!(word(1), "wait");
    assert_eq!(word(3600), "over");
}

/// Its login may come back: then it is kept alive again. Nobody is asked before ten minutes have passed.
#[test]
fn what_nobody_can_keep_is_tried_again_every_ten_minutes() {
    let start = Instant::now();
    let what = superseded(3600, true, false);
    let long_ago = start.checked_sub(9 * HOUR).unwrap_or(start);
    let lease = Lease::taken_over(HOUR, start, start, 1);
    let mut ending = Ending::new(what, Some(lease), long_ago, start);
    for minutes in [0, 10, 20] {
        let now = start + minutes * MINUTE;
        let found = ending.decide(Verdict::Waiting, now);
        assert_eq!(word(found), "look up", "{minutes}");
        ending.strand(now);
        let then = now + 599 * SECOND;
        for (now, verdict) in [(now, Verdict::Waiting), (then, Verdict::Verified)] {
            let Next::Wait(until) = ending.decide(verdict, now) else {
                panic!("{minutes} {verdict:?}");
            };
            assert!(now < until, "{minutes} {verdict:?}");
        }
    }
    let now = start + 30 * MINUTE;
    assert_eq!(word(ending.decide(Verdict::Waiting, now)), "look up");
    ending.reached();
    assert_eq!(ending.hindrance, None);
    ending
        .lease_mut()
        .unwrap()
        .looked_up(10 * MINUTE, true, now);
    assert_eq!(
        word(ending.decide(Verdict::Waiting, now + 8 * MINUTE)),
        "renew"
    );

    ending.strand(now + 8 * MINUTE);
    assert_eq!(
        word(ending.decide(Verdict::Waiting, now + 9 * MINUTE)),
        "wait"
    );
    assert_eq!(
        word(ending.decide(Verdict::Waiting, now + 10 * MINUTE)),
        "over"
    );
}

/// The record says since when: its successor was issued then, and may have been written only now. Nothing is known
/// of the workloads yet, and of the lease only that it may live.
#[test]
fn a_new_process_gives_everybody_time_again() {
    let now = Instant::now() + 10 * HOUR;
    let long_ago = now.checked_sub(9 * HOUR).unwrap();
    let taken_over = || {
        let lease = Lease::taken_over(24 * HOUR, now, now, 1);
        let what = superseded(86_400, true, false);
        Ending::new(what, Some(lease), long_ago, now)
    };
    let rows = [
        (Verdict::NoneSeen, Duration::ZERO, "look up"),
        (Verdict::NoneSeen, 120 * SECOND, "revoke"),
        (Verdict::Undecided, Duration::ZERO, "look up"),
        (Verdict::Undecided, 59 * MINUTE, "look up"),
        (Verdict::Undecided, HOUR, "revoke"),
        (Verdict::Waiting, HOUR, "look up"),
        (Verdict::Waiting, 24 * HOUR, "over"),
        (Verdict::Verified, Duration::ZERO, "revoke"),
    ];
    for (verdict, later, expected) in rows {
        let mut ending = taken_over();
        ending.decide(verdict, now);
        let found = word(ending.decide(verdict, now + later));
        assert_eq!(found, expected, "{verdict:?} {later:?}");
    }
}
