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

#[test]
fn data_is_in_use_when_every_workload_was_verified_with_just_that() {
    use WorkloadState::{Restarting, Verified};
    let board = Board::default();
    let verdict = |revision: &str| {
        let revision = Revision::from_annotation(revision);
        board.verdict(&key("s"), &revision, Timestamp::UNIX_EPOCH)
    };
    let publish = |name: &str, state, revision: &str| {
        let bound = [data("s", revision)];
        board.publish(&deployment(name), Some(status(name, state)), &bound);
    };
    assert_eq!(verdict("k1:1"), Verdict::NoneSeen);
    publish("a", Verified, "k1:1");
    assert_eq!(verdict("k1:1"), Verdict::Verified);
    assert_eq!(verdict("k1:2"), Verdict::Pending, "seen with other data");
    publish("a", Verified, "k1:2");
    publish("b", Restarting, "k1:2");
    assert_eq!(verdict("k1:2"), Verdict::Pending, "one is on its way");
}
