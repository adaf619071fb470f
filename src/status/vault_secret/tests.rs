//! Pure: the status after each outcome.

use super::*;
use crate::{
    api::vault_secret::WorkloadKind, revision::Revision, sync::refusal::Refusal,
    vault::error::VaultErrorKind,
};

const BUDGET: Duration = Duration::from_mins(1);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn in_step() -> Outcome {
    Outcome::InStep(InStep {
        target: "s".into(),
        revision: Revision::from_annotation("k1:1"),
        data_since: at(5),
        sources: Vec::new(),
        applied: None,
        refresh: Some("now".into()),
        missing_policy: None,
        left_behind: None,
        unmatched: None,
    })
}

fn failed() -> Outcome {
    Outcome::SourceFailed(SourceFailure {
        source: "db".into(),
        kind: VaultErrorKind::Sealed,
        message: "Vault is sealed".into(),
        over: false,
    })
}

fn revoking() -> Outcome {
    Outcome::Revoking(Revoking {
        until: at(300),
        missing_policy: Some("line".into()),
    })
}

#[test]
fn a_deletion_that_waits_says_until_when_and_what_the_policy_lacks() {
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    let waits = next(&good, &facts(&revoking(), 2), at(1));
    let told = shown(&waits);
    for word in [
        "Ready=True/InStep",
        "Reconciling=True/Revoking",
        "PolicyMissing=True/PolicyMissing",
    ] {
        assert!(told.contains(&word.to_owned()), "{told:?}");
    }
    let condition = find(&waits.conditions, Kind::Reconciling).unwrap();
    assert!(condition.message.contains("1970-01-01T00:05:00Z"));
}

fn facts(outcome: &Outcome, generation: i64) -> Facts<'_> {
    Facts {
        generation,
        outcome,
        secret_exists: true,
        workloads: Some(&[]),
        remark: None,
        staleness_budget: BUDGET,
    }
}

/// Every condition as `Type=Status/Reason`.
fn shown(status: &VaultSecretStatus) -> Vec<String> {
    let conditions = status.conditions.iter();
    conditions
        .map(|c| format!("{}={}/{}", c.type_, c.status, c.reason))
        .collect()
}

#[test]
fn an_object_in_step_is_ready_and_says_what_it_holds() {
    let status = next(&VaultSecretStatus::default(), &facts(&in_step(), 3), at(9));
    assert_eq!(
        shown(&status),
        [
            "Ready=True/InStep",
            "Synced=True/InStep",
            "SourcesReachable=True/Reachable",
            "RolledOut=True/NothingToRestart"
        ]
    );
    assert_eq!(status.rotation_hash.as_deref(), Some("k1:1"));
    assert_eq!(status.last_change_time, Some(Time(at(5))));
    assert_eq!(status.last_handled_refresh.as_deref(), Some("now"));
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn nothing_new_changes_nothing() {
    let outcomes = [
        in_step(),
        failed(),
        Outcome::Suspended,
        Outcome::Refused(Refusal::TargetMissing { name: "s".into() }),
        Outcome::ApplyFailed { why: "w".into() },
        Outcome::ConnectionPending,
        revoking(),
    ];
    for outcome in outcomes {
        let first = next(&VaultSecretStatus::default(), &facts(&outcome, 1), at(1));
        assert_eq!(
            next(&first, &facts(&outcome, 1), at(2)),
            first,
            "{outcome:?}"
        );
    }
}

#[test]
fn an_outage_leaves_a_good_secret_ready_until_the_budget_is_spent() {
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    let outage = next(&good, &facts(&failed(), 1), at(100));
    assert_eq!(shown(&outage)[0], "Ready=True/LastGood");
    assert!(shown(&outage).contains(&"SourcesReachable=False/Sealed".to_owned()));
    assert_eq!(outage.rotation_hash, good.rotation_hash);
    let still = next(&outage, &facts(&failed(), 1), at(160));
    assert_eq!(still, outage);
    let stale = next(&still, &facts(&failed(), 1), at(161));
    assert_eq!(shown(&stale)[0], "Ready=False/Stale");
    let healed = next(&stale, &facts(&in_step(), 1), at(200));
    assert_eq!(shown(&healed)[0], "Ready=True/InStep");
}

#[test]
fn what_ended_is_not_ready_whatever_the_budget_says() {
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    let degraded = |over| {
        let (Outcome::InStep(in_step), Outcome::SourceFailed(failure)) = (in_step(), failed())
        else {
            unreachable!()
        };
        Outcome::Degraded(in_step, SourceFailure { over, ..failure })
    };
    let ill = next(&good, &facts(&degraded(false), 1), at(1));
    assert_eq!(shown(&ill)[0], "Ready=True/LastGood");
    let over = next(&ill, &facts(&degraded(true), 1), at(2));
    assert_eq!(shown(&over)[0], "Ready=False/LeaseOver");
    let told = &over.conditions[0].message;
    assert!(
        told.starts_with("what was issued for source db is over"),
        "{told}"
    );
    assert!(told.ends_with(": Vault is sealed"), "{told}");
    assert!(shown(&over).contains(&"SourcesReachable=False/Sealed".to_owned()));
}

#[test]
fn an_outage_before_the_first_sync_or_after_an_edit_is_not_ready() {
    let expected = [
        "Ready=False/Sealed",
        "Synced=False/Sealed",
        "SourcesReachable=False/Sealed",
        "Reconciling=True/Sealed",
    ];
    let never = next(&VaultSecretStatus::default(), &facts(&failed(), 1), at(1));
    assert_eq!(shown(&never), expected);
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    let edited = next(&good, &facts(&failed(), 2), at(1));
    assert_eq!(shown(&edited)[0], "Ready=False/Sealed");
    let again = next(&edited, &facts(&failed(), 2), at(2));
    assert_eq!(
        again, edited,
        "the edit is still not synced at the second look"
    );
    let outcome = failed();
    let gone = Facts {
        secret_exists: false,
        ..facts(&outcome, 1)
    };
    assert_eq!(shown(&next(&good, &gone, at(1)))[0], "Ready=False/Sealed");
}

#[test]
fn a_refusal_stalls_and_keeps_what_was_known() {
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    let refused = Outcome::Refused(Refusal::TargetForeign { name: "s".into() });
    let stalled = next(&good, &facts(&refused, 2), at(1));
    assert!(shown(&stalled).contains(&"Stalled=True/TargetForeign".to_owned()));
    assert_eq!(shown(&stalled)[0], "Ready=False/TargetForeign");
    assert_eq!(stalled.rotation_hash, good.rotation_hash);
    let healed = next(&stalled, &facts(&in_step(), 3), at(2));
    assert!(
        !shown(&healed)
            .iter()
            .any(|condition| condition.starts_with("Stalled"))
    );
}

#[test]
fn suspended_is_ready_if_there_is_something_to_use() {
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    assert_eq!(
        shown(&next(&good, &facts(&Outcome::Suspended, 2), at(1)))[0],
        "Ready=True/Suspended"
    );
    let never = next(
        &VaultSecretStatus::default(),
        &facts(&Outcome::Suspended, 1),
        at(1),
    );
    assert_eq!(shown(&never), ["Ready=False/Suspended"]);
}

fn workload(name: &str, state: WorkloadState) -> WorkloadStatus {
    WorkloadStatus {
        kind: WorkloadKind::Deployment,
        name: name.into(),
        state,
        hash: None,
        pods: None,
        message: None,
    }
}

#[test]
fn rolled_out_says_the_worst_of_all_workloads() {
    use WorkloadState::{Failed, Paused, Pending, Restarting, Verified, Waiting};
    let rows = [
        (vec![], "True/NothingToRestart"),
        (vec![Verified, Verified], "True/Verified"),
        (vec![Verified, Restarting], "False/Restarting"),
        (vec![Pending, Paused], "False/Restarting"),
        (vec![Verified, Waiting], "False/Waiting"),
        (vec![Paused], "False/Waiting"),
        (vec![Verified, Failed, Restarting], "False/RolloutFailed"),
    ];
    for (states, expected) in rows {
        let all: Vec<_> = states.iter().map(|state| workload("w", *state)).collect();
        let outcome = in_step();
        let facts = Facts {
            workloads: Some(&all),
            ..facts(&outcome, 1)
        };
        let status = next(&VaultSecretStatus::default(), &facts, at(1));
        assert!(
            shown(&status).contains(&format!("RolledOut={expected}")),
            "{states:?}: {:?}",
            shown(&status)
        );
    }
}

#[test]
fn while_workloads_are_not_known_the_last_word_about_them_stays() {
    let all = [workload("w", WorkloadState::Verified)];
    let outcome = in_step();
    let known = Facts {
        workloads: Some(&all),
        ..facts(&outcome, 1)
    };
    let before = next(&VaultSecretStatus::default(), &known, at(1));
    let unknown = Facts {
        workloads: None,
        ..facts(&outcome, 1)
    };
    assert_eq!(next(&before, &unknown, at(2)), before);
}

#[test]
fn a_long_list_of_workloads_is_cut_and_begins_with_the_worst() {
    let mut all: Vec<_> = (0..150)
        .map(|number| workload(&format!("w{number}"), WorkloadState::Verified))
        .collect();
    all.push(workload("z", WorkloadState::Failed));
    let outcome = in_step();
    let facts = Facts {
        workloads: Some(&all),
        ..facts(&outcome, 1)
    };
    let listed = next(&VaultSecretStatus::default(), &facts, at(1))
        .rollout
        .unwrap()
        .workloads;
    assert_eq!((listed.len(), listed[0].name.as_str()), (100, "z"));
}

#[test]
fn how_far_workloads_are_on_their_way_may_wait_and_all_else_may_not() {
    let status = |state, pods: &str| {
        let mut all = vec![workload("a", state), workload("b", WorkloadState::Waiting)];
        all[1].pods = Some(pods.to_owned());
        let outcome = in_step();
        let facts = Facts {
            workloads: Some(&all),
            ..facts(&outcome, 1)
        };
        next(&VaultSecretStatus::default(), &facts, at(1))
    };
    let begun = status(WorkloadState::Restarting, "0/2");
    for (state, pods, may_wait) in [
        (WorkloadState::Restarting, "0/2", false), // There is nothing to say.
        (WorkloadState::Restarting, "1/2", true),
        (WorkloadState::Waiting, "0/2", true),
        (WorkloadState::Verified, "0/2", true),
        (WorkloadState::Failed, "0/2", false),
    ] {
        let now = status(state, pods);
        assert_eq!(is_only_progress(&begun, &now), may_wait, "{state:?} {pods}");
    }
    let newer = VaultSecretStatus {
        rotation_hash: Some("k1:2".to_owned()),
        ..status(WorkloadState::Restarting, "1/2")
    };
    assert!(!is_only_progress(&begun, &newer));
    assert!(!is_only_progress(&VaultSecretStatus::default(), &begun));
}

#[test]
fn a_process_that_has_only_begun_to_look_says_nothing_new() {
    let good = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    let pending = Outcome::ConnectionPending;
    assert_eq!(next(&good, &facts(&pending, 1), at(1)), good);
    assert_eq!(
        shown(&next(&good, &facts(&pending, 2), at(1)))[0],
        "Ready=False/ConnectionPending"
    );
}

#[test]
fn a_few_words_say_how_far_the_workloads_are() {
    use WorkloadState::{Failed, Paused, Pending, Restarting, Verified, Waiting};
    let rows: [(&[WorkloadState], &str); 8] = [
        (&[Verified, Verified], "2/2 Verified"),
        (&[Pending], "0/1 Verified"),
        (&[Verified, Restarting, Waiting], "1/3 Verified"),
        (&[Verified, Waiting], "1/2 Waiting"),
        (&[Paused, Waiting], "2/2 Waiting"),
        (&[Verified, Failed, Restarting], "1/3 Failed"),
        (&[Failed, Waiting], "1/2 Failed"),
        (&[Pending, Paused, Verified], "1/3 Verified"),
    ];
    for (states, told) in rows {
        let all: Vec<_> = states.iter().map(|state| workload("w", *state)).collect();
        let facts = Facts {
            workloads: Some(&all),
            ..facts(&Outcome::Suspended, 1)
        };
        let status = next(&VaultSecretStatus::default(), &facts, at(0));
        assert_eq!(status.rollout.unwrap().summary.as_deref(), Some(told));
    }
    let none = next(&VaultSecretStatus::default(), &facts(&in_step(), 1), at(0));
    assert_eq!(none.rollout, None);
}

#[test]
fn what_does_not_fit_the_workloads_is_told_and_fails_nothing() {
    let all = [workload("w", WorkloadState::Verified)];
    let outcome = in_step();
    let status = |old: &VaultSecretStatus, remark| {
        let facts = Facts {
            workloads: Some(&all),
            remark,
            ..facts(&outcome, 1)
        };
        next(old, &facts, at(0))
    };
    let told = |status: &VaultSecretStatus| {
        let found = find(&status.conditions, Kind::RolledOut).unwrap();
        format!("{} {}: {}", found.status, found.reason, found.message)
    };
    let good = status(&VaultSecretStatus::default(), None);
    let remarked = status(&good, Some("spec.rollout.waves.order[1]: …"));
    assert_eq!(
        told(&remarked),
        format!("{}; spec.rollout.waves.order[1]: …", told(&good))
    );
    assert_eq!(shown(&remarked), shown(&good));
    let begun = Facts {
        workloads: None,
        ..facts(&outcome, 1)
    };
    assert_eq!(next(&remarked, &begun, at(1)), remarked, "a new process");
    assert_eq!(status(&remarked, None), good);
}
