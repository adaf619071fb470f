//! Pure: tests.

use std::{collections::BTreeSet, time::Instant};

use super::*;
use crate::rollout::fixtures::{at, bound, deployment, s};

/// One of each, and of each reason.
fn decisions() -> Vec<Decision> {
    let again = Instant::now();
    let progress = Progress {
        ready: 2,
        wanted: 3,
    };
    let by_hand = |manual| {
        Decision::Waiting(Waiting::ManualUpdate {
            manual,
            progress,
            again: None,
        })
    };
    let conflict = |manager: Option<&str>, holds, owner: Option<&str>| Decision::Conflict {
        manager: manager.map(str::to_owned),
        holds,
        owner: owner.map(str::to_owned),
        again,
    };
    vec![
        Decision::Unbound,
        Decision::ListPods,
        Decision::InStep {
            record: false,
            again: None,
        },
        Decision::Settle {
            until: again,
            refresh: false,
        },
        Decision::Stamp,
        Decision::Restarting { progress, again },
        Decision::Verified,
        Decision::Failed {
            progress,
            why: Some("pod web-1: container app: ImagePullBackOff".into()),
            after: s(600),
            again,
        },
        Decision::Paused { stamped: false },
        Decision::Paused { stamped: true },
        Decision::Waiting(Waiting::NoSuchWorkload),
        by_hand(Manual::OnDelete),
        by_hand(Manual::Partition(2)),
        conflict(Some("kubectl"), true, None),
        conflict(Some("argocd"), false, None),
        conflict(None, false, Some("Widget main")),
    ]
}

/// What only Rollouts of Argo bring about.
fn of_argo() -> Vec<Decision> {
    let again = Instant::now();
    let progress = Progress {
        ready: 1,
        wanted: 3,
    };
    let step = |timed| Manual::Step {
        number: 2,
        of: 5,
        timed,
    };
    let manuals = [
        step(false),
        step(true),
        Manual::Promotion { timed: false },
        Manual::OlderStay { seconds: 600 },
        Manual::Analysis,
    ];
    let by_hand = manuals.map(|manual| {
        Decision::Waiting(Waiting::ManualUpdate {
            manual,
            progress,
            again: None,
        })
    });
    let unseen = [Some(1), None].map(|target| Decision::Waiting(Waiting::NoSuchKind { target }));
    let to = "app".into();
    let others = [
        Decision::Waiting(Waiting::Lent { to, again }),
        Decision::Failed {
            progress,
            why: Some("RolloutAborted: x".into()),
            after: Duration::ZERO,
            again,
        },
    ];
    by_hand.into_iter().chain(unseen).chain(others).collect()
}

/// Waiting for others, also for a right.
fn held_up() -> Vec<Decision> {
    let wave = |state| Hold::Wave {
        before: deployment("db"),
        wave: "data".into(),
        state,
    };
    let holds = [
        Hold::Cluster { limit: 5 },
        Hold::Namespace { limit: 2 },
        Hold::Window {
            opens: Some(at(3600)),
        },
        Hold::Window { opens: None },
        Hold::NoWindow {
            vault_secret: "other".into(),
            error: WindowError {
                field: "spec.rollout.windows[0].schedule".into(),
                why: "\"x\" is not a schedule".into(),
            },
        },
        wave(WorkloadState::Restarting),
        wave(WorkloadState::Failed),
    ];
    let again = Instant::now();
    let fold = Decision::Fold {
        progress: Progress {
            ready: 1,
            wanted: 3,
        },
        until: again,
    };
    let turns = holds.map(|hold| Decision::Waiting(Waiting::Turn { hold, again }));
    let retry = |why: &str, refused| Decision::Retry {
        until: again,
        message: format!("listing the pods failed: {why}"),
        refused,
    };
    let (failed, refused) = (retry("gone", false), retry("forbidden", true));
    let unseen = Decision::Waiting(Waiting::Unseen {
        why: "deployments.apps is forbidden".into(),
    });
    turns
        .into_iter()
        .chain([fold, failed, refused, unseen])
        .collect()
}

#[test]
fn every_decision_reads_well_in_a_status() {
    let lines: Vec<_> = [decisions(), held_up(), of_argo()]
        .concat()
        .iter()
        .map(|decision| {
            let name = decision.name();
            match status(&deployment("web"), Some("h1"), decision) {
                None => format!("{name}: -"),
                Some(status) => {
                    assert_eq!(
                        (status.name.as_str(), status.hash.as_deref()),
                        ("web", Some("h1"))
                    );
                    let pods = status.pods.unwrap_or_default();
                    let message = status.message.unwrap_or_default();
                    format!("{name}: {:?} [{pods}] {message}", status.state)
                        .trim_end()
                        .to_owned()
                }
            }
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    Unbound: -
    ListPods: Pending []
    InStep: Verified []
    Settle: Pending [] other changes are waited for first: spec.rollout.settle
    Stamp: Pending []
    Restarting: Restarting [2/3]
    Verified: Verified []
    Failed: Failed [2/3] 2 of 3 pods are ready with the current data after 10m: pod web-1: container app: ImagePullBackOff
    Paused: Paused [] the Deployment is paused; it is restarted when it is resumed
    Paused: Paused [] the Deployment is paused; its restart goes on when it is resumed
    Waiting: Waiting [] no such Deployment: create it, or take it out of spec.rollout.targets
    Waiting: Waiting [2/3] the update strategy is OnDelete: delete the pods to restart them
    Waiting: Waiting [2/3] the partition of the rolling update keeps the pods below 2 back: lower it to restart them
    Conflict: Failed [] RestartConflict: the field manager kubectl holds the annotation that restarts the pods
    Conflict: Failed [] RestartConflict: the field manager argocd twice took away the annotation that restarts the pods
    Conflict: Failed [] RestartConflict: another field manager twice took away the annotation that restarts the pods; Widget main owns the workload: have it leave lockstep.dev/secrets-hash alone, or set lockstep.dev/restart=never on the workload and restart its pods there
    Waiting: Waiting [] waits for its turn: at most 5 workloads restart at once
    Waiting: Waiting [] waits for its turn: at most 2 workloads of a namespace restart at once
    Waiting: Waiting [] window opens at 1970-01-01T01:00:00Z
    Waiting: Waiting [] the windows of its Secrets are never open together: change one of them
    Waiting: Waiting [] spec.rollout.windows[0].schedule of VaultSecret other: "x" is not a schedule
    Waiting: Waiting [] waits for Deployment db of the wave data, which is Restarting
    Waiting: Waiting [] stopped: Deployment db of the wave data failed, and comes before
    Fold: Restarting [1/3] another rollout is under way; it is restarted after that if it has to be
    Retry: Pending [] listing the pods failed: gone
    Retry: Failed [] listing the pods failed: forbidden
    Waiting: Waiting [] Deployments cannot be seen: deployments.apps is forbidden
    Waiting: Waiting [1/3] the Rollout is paused at step 2 of 5: promote it
    Waiting: Waiting [1/3] the Rollout is paused at step 2 of 5: it goes on after a time, or when it is promoted
    Waiting: Waiting [1/3] the new pods are not active yet: promote it
    Waiting: Waiting [1/3] the new pods are in use; older ones stay for 600 seconds (scaleDownDelaySeconds)
    Waiting: Waiting [1/3] the Rollout is paused by an inconclusive analysis: promote or abort it
    Waiting: Waiting [] spec.rollout.targets[1].kind: Argo Rollouts is not installed: install it, or take the target away
    Waiting: Waiting [] spec.rollout.targets: Argo Rollouts is not installed: install it, or take the target away
    Waiting: Waiting [] the Rollout app takes its template from it, so it is not restarted: scale it down, or delete its pods
    Failed: Failed [1/3] 1 of 3 pods are ready with the current data: RolloutAborted: x
    "#);
}

#[test]
fn notes_name_the_secrets_or_what_failed() {
    let both = [bound("api", 1), bound("db", 1)];
    let failed = Decision::Failed {
        progress: Progress {
            ready: 0,
            wanted: 1,
        },
        why: None,
        after: s(90),
        again: Instant::now(),
    };
    let text =
        |what, decision: &Decision| note(&deployment("web"), "w1", what, decision, &both).message;
    assert_eq!(
        text(Announcement::Started, &Decision::Stamp),
        "restarting the pods for new data of api, db"
    );
    assert_eq!(
        text(Announcement::Verified, &Decision::Verified),
        "every pod runs with the current data of api, db"
    );
    assert_eq!(
        text(Announcement::Failed, &failed),
        "0 of 1 pods are ready with the current data after 90s"
    );
}

/// What was replaced is kept for those who wait, also for a window that opens in days.
#[test]
fn whoever_is_going_to_restart_waits_and_nobody_waits_for_a_workload_that_is_not_there() {
    for decision in held_up() {
        assert!(waits(&decision), "{decision:?}");
    }
    let by_name: BTreeSet<_> = decisions()
        .iter()
        .filter(|decision| !waits(decision))
        .map(Decision::name)
        .collect();
    let done = [
        "Conflict", "Failed", "InStep", "Unbound", "Verified", "Waiting",
    ];
    assert_eq!(by_name, done.into());
    let absent = Decision::Waiting(Waiting::NoSuchWorkload);
    assert!(!waits(&absent));
}
