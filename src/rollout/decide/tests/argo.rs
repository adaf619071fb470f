//! Pure: tests with Rollouts of Argo.

use super::*;
use crate::rollout::{argo::EVICTS, view::Counters};

/// As a Rollout that its controller is done with.
fn rollout(play: &mut Play, by_template: bool) {
    let argo = Argo {
        by_template,
        restart_at: Some(at(100)),
        restarted_at: Some(at(100)),
        ..Argo::default()
    };
    play.view().argo = Some(Box::new(argo));
}

/// One that was restarted ten seconds after the start, and whose pods are new.
fn rolled(by_template: bool) -> Play {
    let mut play = Play::new();
    rollout(&mut play, by_template);
    play.settles_until(0, 10);
    play.stamp(10);
    play.roll();
    play
}

fn argo(play: &mut Play) -> &mut Argo {
    play.view().argo.as_mut().unwrap()
}

const STEP: Manual = Manual::Step {
    number: 2,
    of: 2,
    timed: false,
};

fn waits_for_promotion(decision: &Decision) -> bool {
    matches!(decision, Decision::Waiting(Waiting::ManualUpdate { manual, .. }) if *manual == STEP)
}

#[test]
fn a_restart_by_time_ends_when_the_controller_is_done_and_every_pod_is_new() {
    let mut play = rolled(false);
    argo(&mut play).unfinished = true;
    for pod in &mut play.pods {
        pod.stamp = None;
    }
    let lists = play.lists;
    let none = Some(Progress {
        ready: 0,
        wanted: 3,
    });
    assert_eq!(restarting(&play.at(11)), none);
    assert_eq!(play.lists, lists, "its controller tells when it is done");
    argo(&mut play).unfinished = false;
    play.roll();
    assert_eq!(play.at(12), Decision::Verified);
}

#[test]
fn a_restart_that_the_controller_forgot_is_asked_for_again_and_not_for_ever() {
    let mut play = rolled(false);
    play.pods[1].stamp = None;
    argo(&mut play).restarted_at = Some(at(99));
    assert!(
        restarting(&play.at(11)).is_some(),
        "it does not say that it is done"
    );
    argo(&mut play).restarted_at = Some(at(100));
    assert_eq!(play.at(17), Decision::Stamp);
    let (generation, now) = (play.view().generation, play.start + s(17));
    play.tracker
        .failed(Attempt::Stamp, ("no".into(), false), 0, now);
    let (hash, pods) = (play.wanted(), play.pods.clone());
    let in_the_same_pass = decide(&Situation {
        view: play.view.as_ref(),
        bound: &play.bound,
        wanted: Some(&hash),
        tracker: &play.tracker,
        pods: Some(&pods),
        unseen: None,
        turn: None,
        now,
    });
    assert!(matches!(in_the_same_pass, Decision::Retry { .. }));
    play.tracker.stamped(generation, now);
    assert!(restarting(&play.at(17)).is_some());
    assert!(restarting(&play.at(30)).is_some());
}

#[test]
fn a_restart_by_time_that_does_not_move_says_what_its_controller_waits_for() {
    let mut play = rolled(false);
    argo(&mut play).unfinished = true;
    for pod in &mut play.pods {
        (pod.stamp, pod.ready) = (None, false);
    }
    assert!(restarting(&play.at(11)).is_some());
    let Decision::Failed { why, .. } = play.at(2_000) else {
        panic!("it is not overdue");
    };
    assert_eq!(why.as_deref(), Some(EVICTS));
    argo(&mut play).unfinished = false;
    for pod in &mut play.pods {
        (pod.stamp, pod.ready) = (play.view.as_ref().unwrap().stamp.clone(), true);
    }
    assert_eq!(
        play.at(2_001),
        Decision::Verified,
        "its controller is done, and that alone is news"
    );
}

#[test]
fn a_restart_by_time_says_the_same_of_its_pods_until_they_are_listed_again() {
    let mut play = rolled(false);
    argo(&mut play).unfinished = true;
    play.pods[1].stamp = None;
    assert!(restarting(&play.at(11)).is_some());
    let lists = play.lists;
    for (second, listed) in [(2_000, 1), (2_010, 1), (2_050, 1), (2_060, 2)] {
        let Decision::Failed { progress, .. } = play.at(second) else {
            panic!("it is not overdue");
        };
        assert_eq!((progress.ready, progress.wanted), (2, 3), "{second}");
        assert_eq!(play.lists, lists + listed);
    }
}

#[test]
fn a_template_that_somebody_is_to_promote_is_not_stamped_before() {
    let mut play = Play::new();
    rollout(&mut play, true);
    play.settles_until(0, 10);
    play.view().manual = Some(STEP);
    let decision = play.at(10);
    assert!(waits_for_promotion(&decision), "{decision:?}");
    play.view().manual = None;
    assert_eq!(play.at(20), Decision::Stamp);
}

#[test]
fn a_template_that_waits_for_its_promotion_says_so_and_has_not_failed() {
    let mut play = rolled(true);
    play.view().counters = counters(3, 1, 3);
    play.view().manual = Some(STEP);
    for second in [12, 5_000] {
        let decision = play.at(second);
        assert!(waits_for_promotion(&decision), "{decision:?}");
    }
}

#[test]
fn older_pods_that_stay_on_purpose_are_waited_for_and_hold_up_no_newer_data() {
    let mut play = rolled(true);
    argo(&mut play).older_stay = Some(5_000);
    play.view().counters = Counters {
        wanted: 3,
        all: 6,
        updated: 3,
        ready: 3,
    };
    for second in [12, 4_000] {
        let expected = Decision::Waiting(Waiting::ManualUpdate {
            manual: Manual::OlderStay { seconds: 5_000 },
            progress: Progress {
                ready: 3,
                wanted: 3,
            },
            again: None,
        });
        assert_eq!(play.at(second), expected);
    }
    let mut newer = rolled(true);
    argo(&mut newer).older_stay = Some(5_000);
    newer.view().counters = play.view().counters;
    assert!(matches!(newer.at(12), Decision::Waiting(_)));
    newer.bound = vec![bound("db", 300)];
    newer.settles_until(100, 110);
    newer.stamp(110);

    play.view().counters = counters(3, 3, 3);
    assert_eq!(play.at(5_010), Decision::Verified);
}

#[test]
fn what_was_aborted_is_not_begun_anew_and_fails_at_once() {
    let mut play = Play::new();
    rollout(&mut play, true);
    play.settles_until(0, 10);
    argo(&mut play).pace = Pace::Aborted;
    argo(&mut play).gave_up = Some("RolloutAborted: x".into());
    let why = |decision: &Decision| {
        let Decision::Failed { why, after, .. } = decision else {
            panic!("{decision:?}");
        };
        assert!(after.is_zero());
        why.clone()
    };
    assert_eq!(why(&play.at(10)).as_deref(), Some("RolloutAborted: x"));
    argo(&mut play).pace = Pace::Steps;
    argo(&mut play).gave_up = None;
    play.stamp(80);
    play.view().observed_generation = play.view().generation;
    argo(&mut play).unfinished = true;
    argo(&mut play).gave_up = Some("ProgressDeadlineExceeded: y".into());
    assert_eq!(
        why(&play.at(81)).as_deref(),
        Some("ProgressDeadlineExceeded: y")
    );
}

#[test]
fn a_deployment_whose_template_is_lent_is_not_restarted() {
    let mut play = Play::new();
    play.view().lent_to = Some("web".into());
    assert!(matches!(play.at(0), Decision::Waiting(Waiting::Lent { to, .. }) if to == "web"));
    play.pods = vec![pod("a", 204)];
    assert_eq!(play.at(61), RECORD);
}
