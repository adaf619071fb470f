//! Pure: tests.

use super::*;
use crate::{api::vault_secret::WorkloadState, rollout::fixtures::deployment};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn data(name: &str, revision: &str) -> (ObjectKey, Data) {
    let data = Data {
        secret: name.into(),
        revision: Revision::from_annotation(revision),
        since: Timestamp::UNIX_EPOCH,
    };
    (key(name), data)
}

fn standing(name: &str, state: WorkloadState, waits: bool) -> Standing {
    let status = WorkloadStatus {
        kind: deployment(name).kind,
        name: name.into(),
        state,
        hash: None,
        pods: None,
        message: None,
    };
    Standing { status, waits }
}

#[test]
fn only_vault_secrets_with_something_new_to_say_are_returned() {
    use WorkloadState::{Pending, Verified};
    let board = Board::default();
    let publish = |state: Option<WorkloadState>, bound: &[&str]| {
        let bound: Vec<_> = bound.iter().map(|name| data(name, "k1:1")).collect();
        board.publish(
            &deployment("web"),
            state.map(|state| standing("web", state, false)),
            (&bound, false),
        )
    };
    assert_eq!(publish(Some(Pending), &["a", "b"]), [key("a"), key("b")]);
    assert_eq!(publish(Some(Pending), &["b", "a"]), []);
    assert_eq!(publish(Some(Verified), &["a", "b"]), [key("a"), key("b")]);
    assert_eq!(publish(Some(Verified), &["b", "c"]), [key("a"), key("c")]);
    assert_eq!(board.keys(&key("a")), []);
    assert_eq!(board.keys(&key("c")), [deployment("web")]);
    assert_eq!(publish(None, &["b"]), [key("b"), key("c")]);
    assert_eq!(publish(None, &[]), []);
    assert_eq!(board.workloads(&key("b"), None), []);
}

#[test]
fn workloads_that_need_attention_come_first() {
    use WorkloadState::{Failed, Pending, Verified};
    let board = Board::default();
    for (name, state) in [
        ("a", Verified),
        ("c", Failed),
        ("b", Pending),
        ("d", Failed),
    ] {
        board.publish(
            &deployment(name),
            Some(standing(name, state, false)),
            (&[data("s", "k1:1")], false),
        );
    }
    let names: Vec<_> = board
        .workloads(&key("s"), None)
        .into_iter()
        .map(|status| status.name)
        .collect();
    assert_eq!(names, ["c", "d", "b", "a"]);
    assert_eq!(board.workloads(&key("other"), None), []);
}

/// The workloads, each with its state, whether it waits, and the data it was seen with; and what follows.
type Row<'a> = (&'a [(WorkloadState, bool, &'a str)], Verdict);

/// One row per set of workloads, each with the data that it was seen with: what is known of `k1:2`.
#[test]
fn data_is_in_use_when_every_workload_was_verified_with_just_that() {
    use WorkloadState::{Failed, Pending, Verified, Waiting};
    let (old, new) = ("k1:1", "k1:2");
    let rows: [Row<'_>; 12] = [
        (&[], Verdict::NoneSeen),
        (&[(Verified, false, new)], Verdict::Verified),
        (
            &[(Verified, false, new), (Verified, false, new)],
            Verdict::Verified,
        ),
        (&[(Verified, false, old)], Verdict::Undecided),
        (
            &[(Verified, false, new), (Verified, false, old)],
            Verdict::Undecided,
        ),
        (
            &[(Verified, false, old), (Verified, false, new)],
            Verdict::Undecided,
        ),
        (&[(Pending, true, old)], Verdict::Undecided),
        (&[(Failed, false, new)], Verdict::Undecided),
        (
            &[(Failed, false, new), (Verified, false, new)],
            Verdict::Undecided,
        ),
        (
            &[(Failed, false, new), (Pending, true, new)],
            Verdict::Waiting,
        ),
        (
            &[(Verified, false, new), (Waiting, true, new)],
            Verdict::Waiting,
        ),
        // A target that does not exist runs with nothing, and may never exist.
        (&[(Waiting, false, new)], Verdict::Undecided),
    ];
    for (workloads, expected) in rows {
        let board = Board::default();
        for (number, (state, waits, revision)) in workloads.iter().enumerate() {
            let name = number.to_string();
            let told = Some(standing(&name, *state, *waits));
            board.publish(&deployment(&name), told, (&[data("s", revision)], false));
        }
        let revision = Revision::from_annotation(new);
        let found = board.verdict(&key("s"), &revision, Timestamp::UNIX_EPOCH);
        assert_eq!(found, expected, "{workloads:?}");
    }
}

#[test]
fn workloads_are_counted_in_every_state_also_where_there_are_none() {
    use WorkloadState::{Failed, Verified};
    let board = Board::default();
    for (name, state) in [("a", Verified), ("b", Failed), ("c", Verified)] {
        let bound = [data("x", "k1:1"), data("y", "k1:1")];
        board.publish(
            &deployment(name),
            Some(standing(name, state, false)),
            (&bound, false),
        );
    }
    board.publish(&deployment("b"), None, (&[], false));
    let count: Vec<_> = board.count().into_values().collect();
    assert_eq!(count, [0, 0, 0, 0, 0, 2]);
    assert_eq!(board.bound(&deployment("a")), [key("x"), key("y")]);
    assert_eq!(board.bound(&deployment("b")), []);
}

#[test]
fn pods_that_a_workload_replaces_are_waited_for_although_new_ones_use_the_secret_no_more() {
    let board = Board::default();
    let publish = |bound: &[&str], replaces| {
        let bound: Vec<_> = bound.iter().map(|name| data(name, "k1:1")).collect();
        let told = (!bound.is_empty()).then(|| standing("web", WorkloadState::Verified, false));
        board.publish(&deployment("web"), told, (&bound, replaces))
    };
    let verdict = |name: &str| {
        let revision = Revision::from_annotation("k1:1");
        board.verdict(&key(name), &revision, Timestamp::UNIX_EPOCH)
    };
    publish(&["a", "b"], false);
    publish(&["b"], true);
    assert_eq!(
        (verdict("a"), verdict("b")),
        (Verdict::Waiting, Verdict::Verified)
    );
    publish(&[], true);
    assert_eq!(
        (verdict("a"), verdict("b")),
        (Verdict::Waiting, Verdict::Waiting)
    );
    publish(&["b"], true);
    assert_eq!(
        (verdict("a"), verdict("b")),
        (Verdict::Waiting, Verdict::Verified)
    );
    assert_eq!(
        publish(&["b"], false),
        [key("a")],
        "whoever revokes is woken"
    );
    assert_eq!(
        (verdict("a"), verdict("b")),
        (Verdict::NoneSeen, Verdict::Verified)
    );
}

#[test]
fn what_was_told_with_other_data_says_nothing() {
    let board = Board::default();
    let told = Some(standing("web", WorkloadState::Verified, false));
    board.publish(&deployment("web"), told, (&[data("s", "k1:1")], false));
    let state = |revision: &str, since| {
        let revision = Revision::from_annotation(revision);
        board.workloads(&key("s"), Some((&revision, since)))[0].state
    };
    let then = Timestamp::UNIX_EPOCH;
    assert_eq!(state("k1:1", then), WorkloadState::Verified);
    assert_eq!(state("k1:2", then), WorkloadState::Pending);
    let later = Timestamp::from_second(1).unwrap();
    assert_eq!(state("k1:1", later), WorkloadState::Pending);
}
