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

#[test]
fn what_pods_prove() {
    use Evidence::{Complete, Lacking, TooEarly};
    let db = || bound("db", 100);
    let listed = || Bound {
        listed: true,
        ..bound("other", 100)
    };
    let cases: Vec<(&str, u64, Vec<PodFacts>, Bound, Evidence)> = vec![
        ("older", 60, vec![pod("a", 99)], db(), Lacking),
        ("within the slack", 60, vec![pod("a", 103)], db(), Lacking),
        ("later", 0, vec![pod("a", 104)], db(), Complete),
        (
            "one later, one older",
            60,
            vec![pod("a", 104), pod("b", 99)],
            db(),
            Lacking,
        ),
        ("no pods, at once", 0, vec![], db(), TooEarly),
        ("no pods, after the lag", 2, vec![], db(), Complete),
        ("no pods, new Secret", 0, vec![], born("db", 100), Complete),
        (
            "waits for a node, at once",
            1,
            vec![unscheduled("a", 99)],
            db(),
            TooEarly,
        ),
        (
            "waits for a node",
            2,
            vec![unscheduled("a", 99)],
            db(),
            Complete,
        ),
        (
            "waits for a node, with the clock of another",
            0,
            vec![unscheduled("a", 99), pod("b", 104)],
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
            born("db", 100),
            Complete,
        ),
        (
            "started, new Secret",
            60,
            vec![pod("a", 99)],
            born("db", 100),
            Lacking,
        ),
        (
            "does not use it",
            2,
            vec![pod("a", 99)],
            bound("other", 100),
            Complete,
        ),
        (
            "does not use it but is listed",
            2,
            vec![pod("a", 99)],
            listed(),
            Lacking,
        ),
    ];
    for (case, seconds, pods, bound, expected) in cases {
        assert_eq!(
            evidence_after(seconds, &pods, &[bound], &[]),
            expected,
            "{case}"
        );
    }
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
