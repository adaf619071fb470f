//! Pure: tests.

use super::*;
use crate::rollout::{
    bind::wanted,
    decision::Progress,
    fixtures::{at, bound, counters, pod, s, view},
    report::Announcement,
    tracker::Attempt,
    turn::Hold,
    view::{ForeignWrite, Manual},
};

#[cfg(test)]
mod argo;

/// One workload and everything around it; what is done to it is played as the controller would.
struct Play {
    start: Instant,
    view: Option<WorkloadView>,
    unseen: Option<Waiting>,
    bound: Vec<Bound>,
    tracker: Tracker,
    pods: Vec<PodFacts>,
    lists: u32,
    refreshes: u32,
    requests: u32,
    /// What is answered when it asks for its turn.
    turn: Turn,
}

impl Play {
    /// Three old pods, data that is newer, and nothing looked at yet.
    fn new() -> Self {
        Self {
            start: Instant::now(),
            view: Some(view()),
            unseen: None,
            bound: vec![bound("db", 200)],
            tracker: Tracker::default(),
            pods: ["a", "b", "c"].map(|uid| pod(uid, 150)).into(),
            lists: 0,
            refreshes: 0,
            requests: 0,
            turn: Turn::Mine { early: false },
        }
    }

    fn wanted(&self) -> String {
        wanted(&self.bound).unwrap()
    }

    fn view(&mut self) -> &mut WorkloadView {
        self.view.as_mut().unwrap()
    }

    /// One pass, `seconds` after the start, up to the first decision that writes or waits.
    fn at(&mut self, seconds: u64) -> Decision {
        let now = self.start + s(seconds);
        let hash = wanted(&self.bound);
        if let (Some(view), Some(hash)) = (&self.view, &hash) {
            self.tracker.see(view, hash, now);
        }
        let (mut pods, mut turn) = (None, None);
        loop {
            let decision = decide(&Situation {
                view: self.view.as_ref(),
                unseen: self.unseen.as_ref(),
                bound: &self.bound,
                wanted: hash.as_deref(),
                tracker: &self.tracker,
                pods: pods.as_deref(),
                turn: turn.as_ref(),
                now,
            });
            match (&decision, &self.view) {
                (Decision::Ask, _) => {
                    assert!(turn.is_none(), "asked twice for its turn");
                    turn = Some(self.turn.clone());
                }
                (Decision::ListPods, Some(view)) => {
                    assert!(pods.is_none(), "asked twice for pods");
                    self.lists += 1;
                    let asks = self.tracker.listed(&self.pods, view, &self.bound, now);
                    self.requests += u32::from(asks);
                    pods = Some(self.pods.clone());
                }
                (Decision::Settle { refresh: true, .. }, _) => {
                    self.refreshes += 1;
                    self.tracker.refreshed(now);
                }
                _ => {
                    self.tracker.announce(&decision);
                    self.tracker.concluded(&decision, &self.bound);
                    if let Some(again) = decision.again() {
                        assert!(again > now, "{decision:?} would spin");
                    }
                    return decision;
                }
            }
        }
    }

    /// The apiserver takes the stamp, and the cache shows it.
    fn stamp(&mut self, seconds: u64) {
        assert_eq!(self.at(seconds), Decision::Stamp);
        let hash = self.wanted();
        let generation = self.view().generation + 1;
        self.tracker.stamped(generation, self.start + s(seconds));
        let view = self.view();
        (view.stamp, view.generation) = (Some(hash), generation);
    }

    /// Somebody takes the stamp away.
    fn take_away(&mut self) {
        let view = self.view();
        view.stamp = None;
        view.generation += 1;
        view.observed_generation = view.generation;
    }

    /// The workload's own controller is done with the pods.
    fn roll(&mut self) {
        let stamp = self.view().stamp.clone();
        let view = self.view();
        (view.observed_generation, view.counters) = (view.generation, counters(3, 3, 3));
        for pod in &mut self.pods {
            pod.stamp.clone_from(&stamp);
        }
    }

    fn settles_until(&mut self, seconds: u64, until: u64) {
        let expected = Decision::Settle {
            until: self.start + s(until),
            refresh: false,
        };
        assert_eq!(self.at(seconds), expected);
    }
}

fn restarting(decision: &Decision) -> Option<Progress> {
    if let Decision::Restarting { progress, .. } = decision {
        Some(*progress)
    } else {
        None
    }
}

const RECORD: Decision = Decision::InStep {
    record: true,
    again: None,
};
const IN_STEP: Decision = Decision::InStep {
    record: false,
    again: None,
};

#[test]
fn a_workload_without_managed_secrets_is_left_alone() {
    let mut play = Play {
        bound: Vec::new(),
        ..Play::new()
    };
    assert_eq!(play.at(0), Decision::Unbound);
}

#[test]
fn a_workload_on_its_way_out_is_left_alone() {
    let mut play = Play::new();
    play.view().deleting = true;
    assert_eq!(play.at(0), Decision::Unbound);
}

#[test]
fn a_target_that_does_not_exist_is_waited_for() {
    let mut play = Play {
        view: None,
        ..Play::new()
    };
    assert_eq!(play.at(0), Decision::Waiting(Waiting::NoSuchWorkload));
    // It may well exist.
    let unseen = Waiting::Unseen {
        why: "forbidden".to_owned(),
    };
    play.unseen = Some(unseen.clone());
    assert_eq!(play.at(0), Decision::Waiting(unseen));
}

#[test]
fn old_pods_are_restarted_after_the_settle_window_with_one_look_at_each_end() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.settles_until(9, 10);
    assert_eq!((play.lists, play.refreshes), (1, 1));
    assert_eq!(play.at(10), Decision::Stamp);
    assert_eq!(play.lists, 2);
}

#[test]
fn a_change_begins_the_window_anew_but_not_for_ever() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    let change = |play: &mut Play, since| play.bound = vec![bound("db", since)];
    for (second, until) in [(8, 18), (16, 26), (24, 30), (28, 30)] {
        play.bound[0].data.revision =
            crate::revision::Revision::from_annotation(format!("k1:{second}"));
        let revision = play.bound[0].data.revision.clone();
        change(&mut play, 200 + i64::try_from(second).unwrap());
        play.bound[0].data.revision = revision;
        play.settles_until(second, until);
    }
    assert_eq!(play.refreshes, 5, "once per change");
    assert_eq!(play.at(30), Decision::Stamp);
}

#[test]
fn even_without_a_settle_window_new_pods_must_not_read_old_data() {
    let mut play = Play::new();
    play.bound[0].settle = s(0);
    play.settles_until(0, 2);
    assert_eq!(play.at(2), Decision::Stamp);
}

#[test]
fn the_longest_settle_window_counts() {
    let mut play = Play::new();
    play.bound.push(Bound {
        settle: s(40),
        ..bound("other", 200)
    });
    play.settles_until(0, 40);
}

#[test]
fn pods_that_are_later_than_the_data_are_in_step_and_that_is_written_once() {
    let mut play = Play::new();
    play.pods = vec![pod("a", 204)];
    assert_eq!(play.at(0), RECORD);
    play.tracker.recorded();
    assert_eq!(play.at(1), IN_STEP);
    assert_eq!(play.lists, 1);
    play.view().in_step = Some(play.wanted());
    assert_eq!(play.at(2), IN_STEP);
    assert_eq!(play.lists, 1);
}

#[test]
fn a_proof_on_the_workload_needs_no_look() {
    let mut play = Play::new();
    play.view().in_step = Some(play.wanted());
    assert_eq!(play.at(0), IN_STEP);
    assert_eq!(play.lists, 0);
}

#[test]
fn a_proof_that_cannot_be_written_is_tried_again_and_counts_meanwhile() {
    let mut play = Play::new();
    play.pods = vec![pod("a", 204)];
    assert_eq!(play.at(0), RECORD);
    play.tracker
        .failed(Attempt::Record, ("no".into(), false), 0, play.start);
    let again = Some(play.start + s(1));
    play.pods = vec![pod("a", 150)];
    assert_eq!(
        play.at(0),
        Decision::InStep {
            record: false,
            again
        }
    );
    assert_eq!(play.at(1), RECORD);
}

#[test]
fn without_pods_it_is_in_step_when_the_lag_is_over() {
    let mut play = Play {
        pods: Vec::new(),
        ..Play::new()
    };
    play.settles_until(0, 2);
    assert_eq!(play.refreshes, 0);
    assert_eq!(play.at(2), RECORD);
}

#[test]
fn pods_that_waited_for_a_new_secret_are_in_step_at_once_and_stay_so() {
    let mut play = Play::new();
    play.bound[0].born = true;
    let waiting = |uid: &str| PodFacts {
        started: false,
        ..pod(uid, 150)
    };
    play.pods = vec![waiting("a"), pod("b", 150)];
    play.settles_until(0, 10);
    play.pods = vec![pod("a", 150), pod("c", 205)];
    assert_eq!(play.at(10), RECORD, "a was seen waiting, b is gone");
}

#[test]
fn a_secret_that_is_added_does_not_restart_for_those_that_did_not_change() {
    let mut play = Play::new();
    play.view().in_step = Some(play.wanted());
    assert_eq!(
        play.at(0),
        IN_STEP,
        "the pods are older than the data, but were proved before"
    );
    play.bound.push(bound("new", 300));
    play.view().secrets.insert("new".into());
    play.settles_until(20, 22);
    assert_eq!(play.at(22), RECORD);
}

#[test]
fn a_stamped_template_is_watched_until_every_pod_is_ready_with_it() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    let view = play.view().clone();
    play.view().stamp = None;
    play.view().generation -= 1;
    assert_eq!(
        restarting(&play.at(10)),
        Some(Progress {
            ready: 0,
            wanted: 3
        }),
        "the cache is behind"
    );
    play.view = Some(view);
    assert_eq!(
        restarting(&play.at(11)),
        Some(Progress {
            ready: 0,
            wanted: 3
        }),
        "not observed yet"
    );
    let generation = play.view().generation;
    play.view().observed_generation = generation;
    play.view().counters = counters(3, 2, 3);
    assert_eq!(
        restarting(&play.at(12)),
        Some(Progress {
            ready: 2,
            wanted: 3
        })
    );
    assert_eq!(play.lists, 2, "no look while the counters are not complete");
    play.view().counters = counters(3, 3, 3);
    assert_eq!(
        restarting(&play.at(13)),
        Some(Progress {
            ready: 0,
            wanted: 3
        }),
        "the pods say otherwise"
    );
    assert_eq!(play.lists, 3);
    play.roll();
    assert_eq!(
        restarting(&play.at(14)),
        Some(Progress {
            ready: 0,
            wanted: 3
        }),
        "looked at a moment ago"
    );
    assert_eq!(play.at(18), Decision::Verified);
    assert_eq!(play.at(19), Decision::Verified);
    assert_eq!(play.lists, 4);
}

#[test]
fn a_pod_that_is_not_ready_or_missing_is_not_verified() {
    let mut play = Play::new();
    play.view().stamp = Some(play.wanted());
    play.roll();
    play.pods[0].ready = false;
    assert_eq!(
        restarting(&play.at(0)),
        Some(Progress {
            ready: 2,
            wanted: 3
        })
    );
    play.pods.remove(0);
    assert_eq!(
        restarting(&play.at(5)),
        Some(Progress {
            ready: 2,
            wanted: 3
        })
    );
    play.pods.push(PodFacts {
        stamp: Some(play.wanted()),
        ..pod("d", 210)
    });
    assert_eq!(play.at(10), Decision::Verified);
}

#[test]
fn an_overdue_rollout_failed_and_is_still_watched() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    let progress = Progress {
        ready: 0,
        wanted: 3,
    };
    assert_eq!(
        play.at(11),
        Decision::Restarting {
            progress,
            again: play.start + s(611)
        }
    );
    let lists = play.lists;
    play.pods[1].ready = false;
    play.pods[1].trouble = Some("pod b: container app: CrashLoopBackOff, exit code 1".into());
    let failed = |why: Option<&str>, again| Decision::Failed {
        progress,
        why: why.map(str::to_owned),
        after: s(600),
        again,
    };
    let why = play.pods[1].trouble.clone();
    let again = play.start + s(671);
    assert_eq!(play.at(611), failed(why.as_deref(), again));
    assert_eq!(play.at(612), failed(why.as_deref(), again));
    assert_eq!(play.lists, lists + 1, "its pods say why");
    play.view().refused = Some("exceeded quota".into());
    assert_eq!(play.at(613), failed(Some("exceeded quota"), again));
    play.view().refused = None;
    play.roll();
    play.pods[1].ready = true;
    assert_eq!(play.at(614), Decision::Verified, "at once");
}

#[test]
fn a_paused_deployment_is_looked_at_but_not_stamped() {
    let mut play = Play::new();
    play.view().paused = true;
    assert_eq!(play.at(0), Decision::Paused { stamped: false });
    assert_eq!(play.at(100), Decision::Paused { stamped: false });
    assert_eq!(play.lists, 1);
    play.view().paused = false;
    assert_eq!(play.at(101), Decision::Stamp);
}

#[test]
fn a_paused_deployment_whose_own_rollout_brought_it_in_step_is_not_stamped() {
    let mut play = Play::new();
    play.view().paused = true;
    assert_eq!(play.at(0), Decision::Paused { stamped: false });
    play.view().paused = false;
    play.pods = vec![pod("x", 300)];
    assert_eq!(play.at(101), RECORD);
}

#[test]
fn a_deployment_that_is_paused_after_the_stamp_says_so() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    play.view().paused = true;
    assert_eq!(play.at(11), Decision::Paused { stamped: true });
}

#[test]
fn the_time_that_somebody_takes_is_not_that_of_the_restart() {
    let holds: [fn(&mut WorkloadView, bool); 2] = [
        |view, holds| view.paused = holds,
        |view, holds| view.manual = holds.then_some(Manual::OnDelete),
    ];
    for hold in holds {
        let mut play = Play::new();
        play.settles_until(0, 10);
        play.stamp(10);
        hold(play.view(), true);
        play.at(11);
        hold(play.view(), false);
        assert!(restarting(&play.at(5000)).is_some());
        assert!(restarting(&play.at(5599)).is_some());
        assert!(matches!(play.at(5600), Decision::Failed { .. }));
    }
}

#[test]
fn updates_by_hand_are_stamped_and_waited_for_without_a_deadline() {
    for manual in [Manual::OnDelete, Manual::Partition(1)] {
        let mut play = Play::new();
        play.view().manual = Some(manual);
        play.settles_until(0, 10);
        play.stamp(10);
        let waiting = |ready, again| {
            let progress = Progress { ready, wanted: 3 };
            Decision::Waiting(Waiting::ManualUpdate {
                manual,
                progress,
                again,
            })
        };
        assert_eq!(play.at(11), waiting(0, None));
        let generation = play.view().generation;
        play.view().observed_generation = generation;
        play.view().counters = counters(3, 1, 3);
        assert_eq!(play.at(5000), waiting(1, None));
        play.view().counters = counters(3, 3, 3);
        assert_eq!(play.at(5001), waiting(0, Some(play.start + s(5061))));
        play.roll();
        assert_eq!(play.at(5061), Decision::Verified);
    }
}

#[test]
fn a_stamp_that_was_taken_away_twice_is_a_conflict_until_the_data_changes() {
    let mut play = Play::new();
    play.view().owner = Some("Widget main".into());
    play.settles_until(0, 10);
    play.stamp(10);
    play.take_away();
    play.settles_until(20, 30);
    play.stamp(30);
    play.take_away();
    let conflict = |manager: Option<&str>, again| Decision::Conflict {
        manager: manager.map(str::to_owned),
        holds: false,
        owner: Some("Widget main".into()),
        again,
    };
    // Who wrote before the first stamp is not accused.
    assert_eq!(play.at(40), conflict(None, play.start + s(100)));
    assert_eq!(play.at(50), conflict(None, play.start + s(100)));
    assert_eq!(play.at(100), conflict(None, play.start + s(160)));
    play.view().last_foreign = Some(ForeignWrite {
        manager: "helm".into(),
        at: Some(at(140)),
    });
    assert_eq!(play.at(101), conflict(Some("helm"), play.start + s(160)));
    play.bound = vec![Bound {
        data: crate::rollout::fixtures::data("db", "2", 300),
        ..bound("db", 300)
    }];
    play.settles_until(110, 120);
    assert_eq!(play.at(120), Decision::Stamp);
}

#[test]
fn a_conflict_ends_when_whoever_took_the_stamp_away_replaced_the_pods() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    play.take_away();
    play.settles_until(20, 30);
    play.stamp(30);
    play.take_away();
    assert!(matches!(play.at(40), Decision::Conflict { .. }));
    play.pods = vec![pod("x", 300)];
    assert_eq!(play.at(100), RECORD);
}

#[test]
fn a_removal_that_replaced_the_pods_itself_is_no_fight() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    play.take_away();
    play.pods = vec![pod("x", 300)];
    assert_eq!(play.at(20), RECORD);
}

#[test]
fn a_rollback_after_the_verification_restarts_nothing() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    play.roll();
    assert_eq!(play.at(20), Decision::Verified);
    play.take_away();
    assert_eq!(play.at(30), RECORD);
}

#[test]
fn an_annotation_that_somebody_else_holds_is_left_alone_until_it_changes() {
    let mut play = Play::new();
    play.view().stamp = Some("theirs".into());
    play.settles_until(0, 10);
    assert_eq!(play.at(10), Decision::Stamp);
    play.tracker.refused("helm".into(), Some("theirs".into()));
    let conflict = |again| Decision::Conflict {
        owner: None,
        manager: Some("helm".into()),
        holds: true,
        again,
    };
    assert_eq!(play.at(11), conflict(play.start + s(70)));
    assert_eq!(play.at(70), conflict(play.start + s(130)));
    play.take_away();
    assert_eq!(play.at(71), Decision::Stamp);
}

#[test]
fn a_failed_list_is_waited_out() {
    let mut play = Play::new();
    play.tracker.see(&view(), &play.wanted(), play.start);
    play.tracker
        .failed(Attempt::List, ("no".into(), false), 0, play.start);
    let retry = Decision::Retry {
        until: play.start + s(1),
        message: "no".into(),
        refused: false,
    };
    assert_eq!(play.at(0), retry);
    play.settles_until(1, 10);
}

#[test]
fn a_failed_stamp_is_waited_out_ever_longer() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    let mut now = 10;
    for pause in [1, 2, 4] {
        assert_eq!(play.at(now), Decision::Stamp);
        play.tracker
            .failed(Attempt::Stamp, ("no".into(), false), 0, play.start + s(now));
        let retry = Decision::Retry {
            until: play.start + s(now + pause),
            message: "no".into(),
            refused: false,
        };
        assert_eq!(play.at(now), retry);
        now += pause;
    }
    play.stamp(now);
}

/// The first time it may be an apiserver that has just started.
#[test]
fn a_stamp_that_is_refused_twice_has_failed_until_it_is_not() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    for (now, until, failed) in [(10, 11, false), (11, 13, true)] {
        assert_eq!(play.at(now), Decision::Stamp);
        let no = ("forbidden".to_owned(), true);
        play.tracker
            .failed(Attempt::Stamp, no, 0, play.start + s(now));
        let retry = Decision::Retry {
            until: play.start + s(until),
            message: "forbidden".into(),
            refused: failed,
        };
        assert_eq!(play.at(now), retry);
        let told = play.tracker.course.announced;
        assert_eq!(told, failed.then_some(Announcement::Failed));
    }
    play.stamp(13);
    assert_eq!(play.tracker.course.announced, None);
}

#[test]
fn a_list_that_is_refused_is_why_a_restart_was_not_seen_to_finish() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    assert!(restarting(&play.at(20)).is_some());
    play.roll();
    let no = ("no pods for you".to_owned(), true);
    play.tracker
        .failed(Attempt::List, no, 0, play.start + s(700));
    let Decision::Failed { why, .. } = play.at(700) else {
        panic!("not failed");
    };
    assert_eq!(why.as_deref(), Some("no pods for you"));
}

#[test]
fn a_failed_list_during_verification_is_waited_out() {
    let mut play = Play::new();
    play.view().stamp = Some(play.wanted());
    play.roll();
    play.tracker
        .see(&play.view.clone().unwrap(), &play.wanted(), play.start);
    play.tracker
        .failed(Attempt::List, ("no".into(), false), 0, play.start);
    let progress = Progress {
        ready: 0,
        wanted: 3,
    };
    assert_eq!(
        play.at(0),
        Decision::Restarting {
            progress,
            again: play.start + s(1)
        }
    );
    assert_eq!(play.at(1), Decision::Verified);
}

#[test]
fn another_workload_of_the_same_name_starts_from_nothing() {
    let mut play = Play::new();
    play.settles_until(0, 10);
    play.stamp(10);
    play.view = Some(WorkloadView {
        uid: "w2".into(),
        ..view()
    });
    play.settles_until(20, 30);
}

#[test]
fn verified_is_told_once_and_only_if_it_was_waited_for() {
    use crate::rollout::report::Announcement::{Failed, Verified};
    let mut tracker = Tracker::default();
    tracker.see(&view(), "h", Instant::now());
    assert_eq!(
        tracker.announce(&Decision::Verified),
        None,
        "was so when the process started"
    );
    tracker.stamped(2, Instant::now());
    let failed = Decision::Failed {
        progress: Progress::default(),
        why: None,
        after: s(1),
        again: Instant::now(),
    };
    assert_eq!(tracker.announce(&failed), Some(Failed));
    assert_eq!(tracker.announce(&failed), None);
    assert_eq!(tracker.announce(&Decision::Verified), Some(Verified));
    assert_eq!(tracker.announce(&Decision::Verified), None);
}

/// Its turn comes later.
fn full() -> Turn {
    Hold::Cluster { limit: 5 }.into()
}

#[test]
fn what_has_to_wait_for_its_turn_says_so_and_is_looked_at_seldom() {
    let mut play = Play {
        turn: full(),
        ..Play::new()
    };
    play.settles_until(0, 10);
    for (second, again) in [(10, 70), (20, 80), (560, 600), (600, 660)] {
        let expected = Decision::Waiting(Waiting::Turn {
            hold: Hold::Cluster { limit: 5 },
            again: play.start + s(again),
        });
        assert_eq!(play.at(second), expected);
    }
    assert_eq!(play.lists, 2);
    play.turn = Turn::Mine { early: false };
    assert_eq!(play.at(601), Decision::Stamp);
    assert_eq!(play.lists, 3, "its pods are looked at once more before");
}

#[test]
fn pods_that_came_in_step_by_themselves_while_it_waited_cost_no_restart() {
    let mut play = Play {
        turn: full(),
        ..Play::new()
    };
    play.settles_until(0, 10);
    assert!(matches!(play.at(10), Decision::Waiting(_)));
    play.pods = vec![pod("new", 230)];
    play.turn = Turn::Mine { early: false };
    assert_eq!(play.at(30), RECORD);
}

#[test]
fn what_waits_is_looked_at_when_another_rollout_comes_to_its_end() {
    let mut play = Play {
        turn: full(),
        ..Play::new()
    };
    play.settles_until(0, 10);
    assert!(matches!(play.at(10), Decision::Waiting(_)));
    play.view().counters = counters(3, 1, 3);
    assert!(matches!(play.at(20), Decision::Fold { .. }));
    play.pods = vec![pod("new", 230)];
    play.view().counters = counters(3, 3, 3);
    assert_eq!(play.at(30), RECORD);
}

#[test]
fn data_that_changes_while_it_waits_settles_first() {
    let mut play = Play {
        turn: full(),
        ..Play::new()
    };
    play.settles_until(0, 10);
    assert!(matches!(play.at(100), Decision::Waiting(_)));
    play.bound = vec![bound("db", 300)];
    play.turn = Turn::Mine { early: false };
    play.settles_until(105, 115);
    assert_eq!(play.at(115), Decision::Stamp);
}

#[test]
fn a_rollout_under_way_is_waited_for_as_long_as_it_moves() {
    let mut play = Play::new();
    play.view().counters = counters(3, 1, 3);
    play.settles_until(0, 10);
    play.view().counters = counters(3, 2, 3);
    play.settles_until(5, 10);
    let fold = |play: &Play, ready| Decision::Fold {
        progress: Progress { ready, wanted: 3 },
        until: play.start + s(65),
    };
    let expected = fold(&play, 2);
    assert_eq!(play.at(10), expected);
    assert_eq!(play.at(64), expected);
    assert_eq!(play.at(65), Decision::Stamp);
}

#[test]
fn a_rollout_that_never_comes_to_rest_is_not_waited_for_for_ever() {
    let mut play = Play::new();
    play.view().counters = counters(3, 1, 3);
    play.settles_until(0, 10);
    for second in (10..600).step_by(30) {
        play.view().counters = counters(3, 1, 2 + u32::try_from(second % 20 / 10).unwrap());
        let found = play.at(second);
        assert!(matches!(found, Decision::Fold { .. }), "{found:?}");
    }
    play.view().counters = counters(3, 1, 1);
    assert_eq!(play.at(600), Decision::Stamp);
}

#[test]
fn a_rollout_under_way_may_be_all_that_is_needed() {
    let mut play = Play::new();
    play.view().counters = counters(3, 1, 3);
    play.settles_until(0, 10);
    assert!(matches!(play.at(10), Decision::Fold { .. }));
    play.pods = vec![pod("new", 230)];
    play.roll();
    assert_eq!(play.at(30), RECORD);
}

#[test]
fn in_an_emergency_no_other_rollout_is_waited_for() {
    let mut play = Play::new();
    play.bound[0].urgent = true;
    play.view().counters = counters(3, 1, 3);
    play.settles_until(0, 10);
    assert_eq!(play.at(10), Decision::Stamp);
}

/// What changes while nobody may restart yet asks for one more, though it all ends in one restart.
#[test]
fn a_restart_is_asked_for_once_by_each_change() {
    let mut play = Play::new();
    let requests = |play: &Play| play.requests;
    play.at(0);
    play.at(5);
    assert_eq!(requests(&play), 1);
    play.bound = vec![bound("db", 201)];
    play.at(6);
    play.stamp(16);
    play.roll();
    assert_eq!(play.at(20), Decision::Verified);
    assert_eq!(requests(&play), 2);
    let mut young = Play::new();
    young.pods = vec![pod("new", 300)];
    young.view().counters = counters(1, 1, 1);
    young.at(10);
    assert_eq!(requests(&young), 0, "its pods run the data already");
}

#[test]
fn who_refuses_pods_is_asked_for_once_the_restart_is_overdue_and_pods_are_missing() {
    let mut play = Play::new();
    play.at(0);
    play.stamp(10);
    play.view().counters = counters(2, 0, 2);
    play.view().counters.wanted = 3;
    let lacks = |play: &mut Play, seconds: u64, pods: usize| {
        play.at(seconds);
        decide_on(play, seconds, pods)
    };
    play.at(11);
    assert!(!lacks(&mut play, 610, 2), "not overdue");
    assert!(lacks(&mut play, 611, 2));
    assert!(!lacks(&mut play, 611, 3), "all are there");
    play.take_away();
    assert!(!lacks(&mut play, 612, 2), "not restarting");
}

/// What is asked with the first `count` of the pods at hand.
fn decide_on(play: &Play, seconds: u64, count: usize) -> bool {
    let hash = play.wanted();
    lacks_pods(&Situation {
        view: play.view.as_ref(),
        bound: &play.bound,
        wanted: Some(&hash),
        tracker: &play.tracker,
        pods: Some(&play.pods[..count]),
        unseen: None,
        turn: None,
        now: play.start + s(seconds),
    })
}
