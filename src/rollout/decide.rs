//! Pure: what to do about one workload.
//!
//! A workload is in step when its template carries the wanted hash, or when each of its pods provably
//! started with the current data. Where that cannot be proved it is restarted: it may be one restart too
//! many, never one too few.

use std::time::{Duration, Instant};

use super::{
    argo::{self, Argo, EVICTS, Pace},
    bind::Bound,
    decision::{Decision, Progress, Waiting},
    pod::PodFacts,
    proof::{Evidence, LAG, evidence},
    tracker::{Carried, Episode, Proof, Tracker, Trouble},
    turn::Turn,
    view::WorkloadView,
};

/// However often the wanted hash changes, a restart waits no longer than so many settle windows.
const MOST_WINDOWS: u32 = 3;

/// A hash that was taken away so often is not stamped again.
const MOST_STAMPS: u32 = 2;

/// A rollout whose numbers of pods have not changed for so long stands still.
const STANDSTILL: Duration = Duration::from_mins(1);

/// How often pods are listed of a workload that waits for its turn.
const LOOK_RARELY: Duration = Duration::from_mins(10);

/// How often pods are listed while the counters say complete and the pods do not.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often while only older pods are on their way out. Most are gone before that; nobody but a revocation waits for it.
pub(super) const LOOK_AFTER_THEM: Duration = Duration::from_secs(30);

/// The same once the restart is overdue, and while somebody else holds the stamp.
const LOOK_SELDOM: Duration = Duration::from_mins(1);

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The workload, if it exists.
    pub view: Option<&'a WorkloadView>,
    /// Why it would not be seen if it existed.
    pub unseen: Option<&'a Waiting>,
    /// The managed Secrets it is bound to.
    pub bound: &'a [Bound],
    /// The hash it should carry, [`wanted`](super::bind::wanted) by `bound`.
    pub wanted: Option<&'a str>,
    /// What is remembered of it, `view` and `pods` included.
    pub tracker: &'a Tracker,
    /// Its pods, if they were listed in this pass.
    pub pods: Option<&'a [PodFacts]>,
    /// Whether it may restart now, if that was asked in this pass.
    pub turn: Option<&'a Turn>,
    /// Now.
    pub now: Instant,
}

/// What to do about the workload.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let Situation {
        view,
        unseen,
        wanted,
        tracker,
        ..
    } = *situation;
    let Some(wanted) = wanted else {
        return Decision::Unbound;
    };
    let Some(view) = view else {
        return Decision::Waiting(unseen.cloned().unwrap_or(Waiting::NoSuchWorkload));
    };
    if view.deleting {
        return Decision::Unbound;
    }
    if tracker.is_ahead_of(view) {
        return under_way(situation, view, Progress::none_of(view));
    }
    if view.stamp.as_deref() == Some(wanted) {
        return verify(situation, view);
    }
    if view.in_step.as_deref() == Some(wanted) {
        return Decision::InStep {
            record: false,
            again: None,
        };
    }
    if tracker.course.proof != Proof::Missing {
        return proved(situation);
    }
    out_of_step(situation, view)
}

/// The pods were proved to run the data: the proof is to stand on the workload.
fn proved(situation: &Situation<'_>) -> Decision {
    let again = blocked(situation).map(|trouble| trouble.retry_at);
    Decision::InStep {
        record: again.is_none() && situation.tracker.course.proof != Proof::Recorded,
        again,
    }
}

fn out_of_step(situation: &Situation<'_>, view: &WorkloadView) -> Decision {
    let Situation {
        pods,
        now,
        tracker,
        bound,
        ..
    } = *situation;
    let known = tracker.known(view, now);
    if pods.is_some_and(|pods| evidence(pods, bound, &known) == Evidence::Complete) {
        return proved(situation);
    }
    if let Some(trouble) = blocked(situation) {
        return retry(trouble);
    }
    let new = Episode::starting(now);
    let episode = tracker.episode.as_ref().unwrap_or(&new);
    if pods.is_none() && episode.looked.is_none() {
        // At once: that a pod has not started yet shows only now.
        return Decision::ListPods;
    }
    if episode.looked == Some(Evidence::TooEarly) {
        return look_or_settle(situation, episode, known.began + LAG);
    }
    if let Some(held) = held_by_hand(situation, view) {
        return held;
    }
    if let Some((manager, holds)) = opponent(situation, view) {
        return look_or(situation, LOOK_SELDOM, |again| Decision::Conflict {
            manager,
            holds,
            owner: view.owner.clone(),
            again,
        });
    }
    if now < stamp_at(episode, bound) {
        return look_or_settle(situation, episode, stamp_at(episode, bound));
    }
    if let Some(until) = under_way_until(situation, view, episode) {
        let progress = Progress::counted(view);
        return Decision::Fold { progress, until };
    }
    match situation.turn {
        None => Decision::Ask,
        Some(Turn::Hold { hold, until }) => {
            // Another rollout that came to its end may have brought what is waited for.
            let came_to_rest = tracker.moved_since_listed() && view.is_complete();
            let pause = if came_to_rest { LAG } else { LOOK_RARELY };
            look_or(situation, pause, |look| {
                let again = look.min(now + LOOK_SELDOM);
                Decision::Waiting(Waiting::Turn {
                    hold: hold.clone(),
                    again: until.map_or(again, |until| again.min(until)),
                })
            })
        }
        // What they run may have changed while it waited.
        Some(Turn::Mine { .. }) if pods.is_none() => Decision::ListPods,
        Some(Turn::Mine { .. }) => Decision::Stamp,
    }
}

/// Until when to wait for a rollout that goes on already: as long as it moves. One that stands still may well need the new data.
fn under_way_until(
    situation: &Situation<'_>,
    view: &WorkloadView,
    episode: &Episode,
) -> Option<Instant> {
    let urgent = situation.bound.iter().any(|bound| bound.urgent);
    let moved = situation.tracker.moved?;
    let patience = longest(situation.bound, |bound| bound.verify_timeout).min(STANDSTILL);
    // One that never comes to rest is not waited for longer than a restart may take.
    let longest = longest(situation.bound, |bound| bound.verify_timeout);
    let until = (moved + patience).min(episode.last_change + longest);
    (!urgent && view.is_rolling() && situation.now < until).then_some(until)
}

/// Waits until `until` and lists the pods then.
fn look_or_settle(situation: &Situation<'_>, episode: &Episode, until: Instant) -> Decision {
    if situation.now >= until {
        return Decision::ListPods;
    }
    Decision::Settle {
        until,
        refresh: !episode.refreshed && episode.looked == Some(Evidence::Lacking),
    }
}

/// Who keeps us from stamping, and whether by holding the annotation.
fn opponent(situation: &Situation<'_>, view: &WorkloadView) -> Option<(Option<String>, bool)> {
    let course = &situation.tracker.course;
    if let Some(refused) = course
        .refused
        .as_ref()
        .filter(|refused| refused.stamp == view.stamp)
    {
        return Some((Some(refused.manager.clone()), true));
    }
    let since = view
        .last_foreign
        .as_ref()
        .filter(|write| course.foreign_before.as_ref() != Some(write));
    (course.stamps >= MOST_STAMPS).then(|| (since.map(|write| write.manager.clone()), false))
}

/// When the settle window ends: it begins anew with each change, but not for ever. In any case pods that
/// are made then must not read older data any more.
fn stamp_at(episode: &Episode, bound: &[Bound]) -> Instant {
    let settle = longest(bound, |bound| bound.settle);
    (episode.last_change + settle)
        .min(episode.first_seen + settle * MOST_WINDOWS)
        .max(episode.last_change + LAG)
}

/// The template carries the wanted hash: see whether every pod does.
fn verify(situation: &Situation<'_>, view: &WorkloadView) -> Decision {
    let Situation { tracker, pods, .. } = *situation;
    if tracker.course.verified {
        return if tracker.leaving(situation.now).is_some() {
            look_or(situation, LOOK_AFTER_THEM, |_| Decision::Verified)
        } else {
            Decision::Verified
        };
    }
    let known = tracker.course.listed.map(|(_, progress)| progress);
    if !view.is_complete() {
        return if view.paused {
            Decision::Paused { stamped: true }
        } else {
            // What was listed last tells more than counters of pods of any age.
            let listed = known.filter(|_| view.is_restarted_by_time());
            let progress = listed.unwrap_or_else(|| Progress::counted(view));
            under_way(situation, view, progress)
        };
    }
    if let Some(pods) = pods {
        let progress = Progress::listed(pods, &tracker.course.wanted, view);
        return if progress.ready >= progress.wanted {
            Decision::Verified
        } else if is_lost(situation, view, pods) {
            blocked(situation).map_or(Decision::Stamp, retry)
        } else {
            under_way(situation, view, progress)
        };
    }
    // What moved since they were looked at may well be the end of it.
    let pause = if tracker.moved_since_listed() {
        Duration::ZERO
    } else {
        interval(situation)
    };
    look_or(situation, pause, |_| {
        under_way(
            situation,
            view,
            known.unwrap_or_else(|| Progress::none_of(view)),
        )
    })
}

/// Whether the controller of a Rollout says that it has replaced the pods, and has not: its status can be written by others, and
/// its code means to forget a restart when the template changes, which that of 1.10 does not do.
fn is_lost(situation: &Situation<'_>, view: &WorkloadView, pods: &[PodFacts]) -> bool {
    let course = &situation.tracker.course;
    let carries = |pod: &PodFacts| pod.stamp.as_ref() == Some(&course.wanted);
    let says_so = |argo: &Argo| !argo.by_template && argo.restarted_at == argo.restart_at;
    view.argo.as_deref().is_some_and(says_so)
        && course.stamps < MOST_STAMPS
        && !pods.iter().all(carries)
}

/// What somebody has to do before a restart can begin. A stamp in the template of a Rollout would begin anew what somebody stopped
/// or is to promote.
fn held_by_hand(situation: &Situation<'_>, view: &WorkloadView) -> Option<Decision> {
    if view.paused {
        return Some(Decision::Paused { stamped: false });
    }
    if let Some(to) = &view.lent_to {
        return Some(look_or(situation, LOOK_SELDOM, |again| {
            let to = to.clone();
            Decision::Waiting(Waiting::Lent { to, again })
        }));
    }
    let argo = view.argo.as_ref().filter(|argo| argo.by_template)?;
    let progress = Progress::none_of(view);
    if argo.pace == Pace::Aborted {
        return Some(given_up(situation, view, progress));
    }
    let manual = view.manual?;
    Some(look_or(situation, LOOK_SELDOM, |again| {
        Decision::Waiting(Waiting::ManualUpdate {
            manual,
            progress,
            again: Some(again),
        })
    }))
}

/// The workload's own controller says why it goes no further.
fn given_up(situation: &Situation<'_>, view: &WorkloadView, progress: Progress) -> Decision {
    look_or(situation, LOOK_SELDOM, |again| {
        let said = view.argo.as_ref().and_then(|argo| argo.gave_up.clone());
        let why = [said, situation.tracker.course.why.clone()];
        let why: Vec<_> = why.into_iter().flatten().collect();
        Decision::Failed {
            progress,
            why: (!why.is_empty()).then(|| why.join("; ")),
            after: Duration::ZERO,
            again,
        }
    })
}

/// The rollout goes on, waits for somebody, or is overdue.
fn under_way(situation: &Situation<'_>, view: &WorkloadView, progress: Progress) -> Decision {
    let (now, deadline) = (situation.now, deadline(situation));
    let complete = view.is_complete() && !situation.tracker.is_ahead_of(view);
    // While the counters are not complete, their change is what wakes us.
    let look = complete.then(|| next_look(situation, interval(situation)));
    if view
        .argo
        .as_ref()
        .is_some_and(|argo| argo.gave_up.is_some())
    {
        return given_up(situation, view, progress);
    }
    if let Some(manual) = view.manual {
        return Decision::Waiting(Waiting::ManualUpdate {
            manual,
            progress,
            again: look,
        });
    }
    if let Some(manual) = argo::older_stay(view).filter(|_| !situation.tracker.is_ahead_of(view)) {
        let wanted = view.counters.wanted;
        return Decision::Waiting(Waiting::ManualUpdate {
            manual,
            progress: Progress {
                ready: wanted,
                wanted,
            },
            again: look,
        });
    }
    if now >= deadline {
        // Its pods say why.
        let course = &situation.tracker.course;
        let trouble = || Some(course.trouble.as_ref()?.message.clone());
        return look_or(situation, LOOK_SELDOM, |again| Decision::Failed {
            progress,
            why: view
                .refused
                .clone()
                .or_else(|| course.why.clone())
                .or_else(trouble)
                .or_else(|| {
                    let evicts = view.is_restarted_by_time();
                    evicts.then(|| EVICTS.to_owned())
                }),
            after: longest(situation.bound, |bound| bound.verify_timeout),
            again,
        });
    }
    Decision::Restarting {
        progress,
        again: look.map_or(deadline, |look| look.min(deadline)),
    }
}

/// Whether a restart is overdue for which pods are missing, by the list of them in this pass.
pub fn lacks_pods(situation: &Situation<'_>) -> bool {
    let (Some(view), Some(pods)) = (situation.view, situation.pods) else {
        return false;
    };
    let there = u32::try_from(pods.len()).unwrap_or(u32::MAX);
    view.stamp.as_deref() == situation.wanted
        && there < view.counters.wanted
        && situation.now >= deadline(situation)
}

/// How often pods are listed while only they are not as they should be, and nothing moves.
fn interval(situation: &Situation<'_>) -> Duration {
    let by_hand = situation.view.is_some_and(|view| view.manual.is_some());
    if !by_hand && situation.now < deadline(situation) {
        LOOK_AGAIN
    } else {
        LOOK_SELDOM
    }
}

/// When the restart counts as failed.
fn deadline(situation: &Situation<'_>) -> Instant {
    let course = &situation.tracker.course;
    let since = match (course.carried, course.stamped) {
        (Carried::TooLong, _) => return situation.now,
        (Carried::Since(at), _) => at,
        (Carried::No, stamped) => stamped.map_or(situation.now, |stamped| stamped.at),
    };
    since + longest(situation.bound, |bound| bound.verify_timeout)
}

/// Lists pods if `interval` has passed since the last list; `otherwise` takes when it has.
fn look_or(
    situation: &Situation<'_>,
    interval: Duration,
    otherwise: impl FnOnce(Instant) -> Decision,
) -> Decision {
    let at = next_look(situation, interval);
    if situation.pods.is_none() && situation.now >= at {
        Decision::ListPods
    } else {
        otherwise(at)
    }
}

/// When to list pods next: at once if they never were, later after a failure.
fn next_look(situation: &Situation<'_>, interval: Duration) -> Instant {
    let course = &situation.tracker.course;
    let regular = course.listed.map_or(situation.now, |(at, _)| at + interval);
    blocked(situation).map_or(regular, |trouble| trouble.retry_at.max(regular))
}

/// The request that failed, while no other is made.
fn blocked<'a>(situation: &Situation<'a>) -> Option<&'a Trouble> {
    let trouble = situation.tracker.course.trouble.as_ref();
    trouble.filter(|trouble| situation.now < trouble.retry_at)
}

fn retry(trouble: &Trouble) -> Decision {
    Decision::Retry {
        until: trouble.retry_at,
        message: trouble.message.clone(),
        refused: trouble.refused,
    }
}

fn longest(bound: &[Bound], of: impl Fn(&Bound) -> Duration) -> Duration {
    bound.iter().map(of).max().unwrap_or_default()
}

#[cfg(test)]
mod tests;
