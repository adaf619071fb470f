//! Pure: tests.

use super::*;
use crate::rollout::fixtures::{at, bound, data, pod, s};

/// A look `seconds` after the data was first seen; the workload is older than the data.
fn evidence_after(
    seconds: u64,
    pods: &[PodFacts],
    bound: &[Bound],
    proofs: &[(String, Data)],
) -> Evidence {
    let began = Instant::now();
    let known = Known {
        settled: &[],
        proofs,
        created: at(10),
        began,
        now: began + s(seconds),
    };
    evidence(pods, bound, &known)
}

fn born(secret: &str, since: i64) -> Bound {
    Bound {
        born: true,
        ..bound(secret, since)
    }
}

fn waiting(uid: &str, created: i64) -> PodFacts {
    PodFacts {
        started: false,
        ready: false,
        ..pod(uid, created)
    }
}

fn unscheduled(uid: &str, created: i64) -> PodFacts {
    PodFacts {
        scheduled: false,
        ..waiting(uid, created)
    }
}

/// Seconds after the data was first seen, pods, the Secret, and what that proves.
type Case = (&'static str, u64, Vec<PodFacts>, Bound, Evidence);

fn check(cases: Vec<Case>) {
    for (case, seconds, pods, bound, expected) in cases {
        assert_eq!(
            evidence_after(seconds, &pods, &[bound], &[]),
            expected,
            "{case}"
        );
    }
}

#[test]
fn what_the_time_of_a_pod_proves() {
    use Evidence::{Complete, Lacking, TooEarly};
    let db = || bound("db", 100);
    check(vec![
        ("older", 60, vec![pod("a", 99)], db(), Lacking),
        ("within the slack", 60, vec![pod("a", 103)], db(), Lacking),
        ("later", 0, vec![pod("a", 104)], db(), Complete),
        ("both", 60, vec![pod("a", 104), pod("b", 99)], db(), Lacking),
        ("no pods, at once", 0, vec![], db(), TooEarly),
        ("no pods, after the lag", 2, vec![], db(), Complete),
        ("no pods, new Secret", 0, vec![], born("db", 100), Complete),
    ]);
}

#[test]
fn what_a_pod_proves_that_has_not_started() {
    use Evidence::{Complete, Lacking, TooEarly};
    let (db, new) = (|| bound("db", 100), || born("db", 100));
    let with_clock = vec![unscheduled("a", 99), pod("b", 104)];
    check(vec![
        (
            "no node, at once",
            1,
            vec![unscheduled("a", 99)],
            db(),
            TooEarly,
        ),
        (
            "no node, after the lag",
            2,
            vec![unscheduled("a", 99)],
            db(),
            Complete,
        ),
        (
            "no node, by the clock of another",
            0,
            with_clock,
            db(),
            Complete,
        ),
        (
            "not started, old Secret",
            60,
            vec![waiting("a", 99)],
            db(),
            Lacking,
        ),
        (
            "not started, new Secret",
            0,
            vec![waiting("a", 99)],
            new(),
            Complete,
        ),
        (
            "started, new Secret",
            60,
            vec![pod("a", 99)],
            new(),
            Lacking,
        ),
    ]);
}

#[test]
fn a_pod_that_does_not_use_a_secret_proves_nothing_unless_the_workload_is_a_target() {
    let listed = Bound {
        listed: true,
        ..bound("other", 100)
    };
    check(vec![
        (
            "not listed",
            2,
            vec![pod("a", 99)],
            bound("other", 100),
            Evidence::Complete,
        ),
        ("listed", 2, vec![pod("a", 99)], listed, Evidence::Lacking),
    ]);
}

#[test]
fn every_secret_must_be_proved() {
    let pods = [pod("a", 104)];
    let both = |second| {
        [
            bound("db", 100),
            Bound {
                listed: true,
                ..bound("z", second)
            },
        ]
    };
    assert_eq!(
        evidence_after(60, &pods, &both(100), &[]),
        Evidence::Complete
    );
    assert_eq!(
        evidence_after(60, &pods, &both(101), &[]),
        Evidence::Lacking
    );
}

#[test]
fn a_workload_made_after_the_data_tells_that_the_lag_is_over() {
    let began = Instant::now();
    let known = |created| Known {
        settled: &[],
        proofs: &[],
        created: at(created),
        began,
        now: began,
    };
    assert_eq!(
        evidence(&[], &[bound("db", 100)], &known(104)),
        Evidence::Complete
    );
    assert_eq!(
        evidence(&[], &[bound("db", 100)], &known(103)),
        Evidence::TooEarly
    );
    // It may have taken over pods that are older than itself.
    assert_eq!(
        evidence(&[pod("a", 99)], &[bound("db", 100)], &known(104)),
        Evidence::Lacking
    );
}

#[test]
fn what_was_proved_before_is_remembered_for_the_same_data() {
    let db = bound("db", 100);
    let proofs = [("a".to_owned(), db.data.clone())];
    let of = |bound: Bound, uid: &str| evidence_after(60, &[pod(uid, 99)], &[bound], &proofs);
    assert_eq!(of(db.clone(), "a"), Evidence::Complete);
    assert_eq!(of(db, "b"), Evidence::Lacking);
    let newer = Bound {
        data: data("db", "2", 101),
        ..bound("db", 101)
    };
    assert_eq!(of(newer, "a"), Evidence::Lacking);
}

#[test]
fn settled_data_needs_no_proof() {
    let (db, other) = (
        bound("db", 100),
        Bound {
            listed: true,
            ..bound("other", 100)
        },
    );
    let began = Instant::now();
    let settled = [db.data.clone()];
    let known = Known {
        settled: &settled,
        proofs: &[],
        created: at(10),
        began,
        now: began,
    };
    assert_eq!(
        evidence(&[pod("a", 99)], std::slice::from_ref(&db), &known),
        Evidence::Complete
    );
    assert_eq!(
        evidence(&[pod("a", 99)], &[db, other], &known),
        Evidence::Lacking
    );
}

#[test]
fn pods_that_cannot_have_read_older_data_are_remembered() {
    let began = Instant::now();
    let pods = [
        pod("older", 99),
        pod("later", 104),
        waiting("waiting", 99),
        unscheduled("unscheduled", 99),
    ];
    let uids = |bound: Bound, seconds| {
        let known = Known {
            settled: &[],
            proofs: &[],
            created: at(10),
            began,
            now: began + s(seconds),
        };
        let without_later = [pods[0].clone(), pods[2].clone(), pods[3].clone()];
        let proofs = new_proofs(&without_later, &[bound], &known);
        proofs.into_iter().map(|(uid, _)| uid).collect::<Vec<_>>()
    };
    assert_eq!(uids(bound("db", 100), 1), Vec::<String>::new());
    assert_eq!(uids(bound("db", 100), 2), ["unscheduled"]);
    assert_eq!(uids(born("db", 100), 0), ["waiting", "unscheduled"]);
}
