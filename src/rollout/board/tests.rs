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

fn status(name: &str, state: WorkloadState) -> WorkloadStatus {
    WorkloadStatus {
        kind: deployment(name).kind,
        name: name.into(),
        state,
        hash: None,
        pods: None,
        message: None,
    }
}

#[test]
fn only_vault_secrets_with_something_new_to_say_are_returned() {
    use WorkloadState::{Pending, Verified};
    let board = Board::default();
    let publish = |state: Option<WorkloadState>, bound: &[&str]| {
        let bound: Vec<_> = bound.iter().map(|name| data(name, "k1:1")).collect();
        board.publish(
            &deployment("web"),
            state.map(|state| status("web", state)),
            &bound,
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
    assert_eq!(board.workloads(&key("b")), []);
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
            Some(status(name, state)),
            &[data("s", "k1:1")],
        );
    }
    let names: Vec<_> = board
        .workloads(&key("s"))
        .into_iter()
        .map(|status| status.name)
        .collect();
    assert_eq!(names, ["c", "d", "b", "a"]);
    assert_eq!(board.workloads(&key("other")), []);
}

/// One row per set of workloads, each with the data that it was seen with: what is known of `k1:2`.
#[test]
fn data_is_in_use_when_every_workload_was_verified_with_just_that() {
    use WorkloadState::{Failed, Paused, Pending, Restarting, Verified, Waiting};
    let (old, new) = ("k1:1", "k1:2");
    let rows: [(&[(WorkloadState, &str)], Verdict); 14] = [
        (&[], Verdict::NoneSeen),
        (&[(Verified, new)], Verdict::Verified),
        (&[(Verified, new), (Verified, new)], Verdict::Verified),
        (&[(Verified, old)], Verdict::Undecided),
        (&[(Verified, new), (Verified, old)], Verdict::Undecided),
        (&[(Verified, old), (Verified, new)], Verdict::Undecided),
        (&[(Paused, old)], Verdict::Undecided),
        (&[(Failed, new)], Verdict::Undecided),
        (&[(Failed, new), (Verified, new)], Verdict::Undecided),
        (&[(Failed, new), (Pending, new)], Verdict::Waiting),
        (&[(Pending, new), (Verified, old)], Verdict::Waiting),
        (&[(Verified, new), (Restarting, new)], Verdict::Waiting),
        (&[(Paused, new)], Verdict::Waiting),
        (&[(Waiting, new)], Verdict::Waiting),
    ];
    for (workloads, expected) in rows {
        let board = Board::default();
        for (number, (state, revision)) in workloads.iter().enumerate() {
            let name = number.to_string();
            let told = Some(WorkloadStatus {
                pods: Some("0/1".into()),
                ..status(&name, *state)
            });
            board.publish(&deployment(&name), told, &[data("s", revision)]);
        }
        let revision = Revision::from_annotation(new);
        let found = board.verdict(&key("s"), &revision, Timestamp::UNIX_EPOCH);
        assert_eq!(found, expected, "{workloads:?}");
    }
}

/// A target that does not exist runs with nothing, and may never exist.
#[test]
fn nobody_waits_for_a_workload_that_is_not_there() {
    let board = Board::default();
    let told = Some(WorkloadStatus {
        pods: None,
        ..status("a", WorkloadState::Waiting)
    });
    board.publish(&deployment("a"), told, &[data("s", "k1:1")]);
    let revision = Revision::from_annotation("k1:1");
    let found = board.verdict(&key("s"), &revision, Timestamp::UNIX_EPOCH);
    assert_eq!(found, Verdict::Undecided);
}
