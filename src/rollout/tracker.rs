//! Pure: what is remembered of a workload between two passes.
//!
//! It is a memory, not a state: a process that lost it comes to the same end, with a few more lists and at
//! worst one more restart.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    bind::{Bound, Data},
    decision::{Decision, Progress, Waiting},
    pod::PodFacts,
    proof::{Evidence, Known, evidence, new_proofs},
    report::Announcement,
    view::{Counters, ForeignWrite, WorkloadView},
};

/// First pause after a request that failed; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause after requests that failed.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What is remembered of one workload.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    uid: String,
    /// Data that all pods of the workload were found to run, and that every later one started with.
    settled: Vec<Data>,
    /// Pods, by UID, that were seen not to have read anything older than this data.
    proofs: Vec<(String, Data)>,
    /// Since when the workload is out of step, if it is.
    pub(super) episode: Option<Episode>,
    /// What belongs to the hash that is wanted now.
    pub(super) course: Course,
    /// The template, the numbers of pods and whether that is complete as last seen, and when they changed last.
    seen: Option<((i64, i64), Counters, bool)>,
    pub(super) moved: Option<Instant>,
}

/// The time during which a workload is out of step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// When it was first seen so.
    pub first_seen: Instant,
    /// When the wanted hash last changed, or the stamp was taken away.
    pub last_change: Instant,
    /// What its pods proved when they were last looked at since the last change.
    pub looked: Option<Evidence>,
    /// Whether its Secrets were asked to be read anew since the last change.
    pub refreshed: bool,
    /// Whether a restart is held up by somebody: then a change does not prolong the wait, it begins a new one.
    pub held: bool,
}

/// What is remembered for one wanted hash.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// The hash.
    pub wanted: String,
    /// When it was first wanted.
    pub began: Option<Instant>,
    /// How often the template was stamped with it.
    pub stamps: u32,
    /// The last of these stamps.
    pub stamped: Option<Stamped>,
    /// Who else had written the workload last before the first of these stamps.
    pub foreign_before: Option<ForeignWrite>,
    /// For how long the template carries it.
    pub carried: Carried,
    /// Whether every pod was seen to carry it.
    pub verified: bool,
    /// Whether every pod was proved to run the data without a stamp.
    pub proof: Proof,
    /// Whether pods were found that lack it.
    pub requested: bool,
    /// Whether the end of a rollout to it was waited for.
    pub awaited: bool,
    /// The last list of pods, and how many of them were ready with the current data.
    pub listed: Option<(Instant, Progress)>,
    /// Until when each pod that is on its way out may go on with older data, by that list.
    pub leaving: BTreeMap<String, Instant>,
    /// What kept the first of the others from that, or the workload from having it, by then.
    pub why: Option<String>,
    /// The last request that failed.
    pub trouble: Option<Trouble>,
    /// The field manager that holds the annotation.
    pub refused: Option<Refused>,
    /// What was last told about it.
    pub announced: Option<Announcement>,
}

/// For how long a template carries the wanted hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carried {
    /// It does not, or somebody takes the time.
    #[default]
    No,
    /// It was seen to since then.
    Since(Instant),
    /// Too long already when this process began.
    TooLong,
}

/// That every pod runs the wanted data without a stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// It was not proved.
    #[default]
    Missing,
    /// It was proved.
    Found,
    /// It was proved and that was written on the workload.
    Recorded,
}

/// A stamp that the apiserver took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// When.
    pub at: Instant,
    /// Generation of the workload with it.
    pub generation: i64,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// To list pods.
    List,
    /// To stamp the template.
    Stamp,
    /// To write the proof on the workload.
    Record,
}

/// Requests of one kind that failed one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which kind.
    pub attempt: Attempt,
    /// How many.
    pub failures: u32,
    /// When to try again.
    pub retry_at: Instant,
    /// What failed last.
    pub message: String,
    /// Whether the apiserver refused it, and not only once: one that has just started refuses what it will allow.
    pub refused: bool,
}

/// A stamp that the apiserver refused because the annotation is somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The other field manager.
    pub manager: String,
    /// What the template carried at that time: there is no point in trying again before that changes.
    pub stamp: Option<String>,
}

impl Episode {
    /// One that begins now.
    pub fn starting(now: Instant) -> Self {
        Self {
            first_seen: now,
            last_change: now,
            looked: None,
            refreshed: false,
            held: false,
        }
    }
}

impl Tracker {
    /// Takes in how the workload looks and which hash it should carry.
    pub fn see(&mut self, view: &WorkloadView, wanted: &str, now: Instant) {
        if self.uid != view.uid {
            *self = Self {
                uid: view.uid.clone(),
                ..Self::default()
            };
        }
        let generations = (view.generation, view.observed_generation);
        let seen = Some((generations, view.counters, view.is_complete()));
        if self.seen != seen {
            (self.seen, self.moved) = (seen, Some(now));
        }
        if self.course.wanted != wanted {
            self.course = Course {
                wanted: wanted.to_owned(),
                began: Some(now),
                ..Course::default()
            };
            self.episode.take_if(|episode| episode.held);
            if let Some(episode) = &mut self.episode {
                // What changed a moment later together with this shall be found, too.
                (episode.last_change, episode.looked, episode.refreshed) = (now, None, false);
            }
        }
        let behind = self.is_ahead_of(view);
        let carries = view.stamp.as_deref() == Some(wanted);
        let course = &mut self.course;
        if course.stamps == 0 {
            course.foreign_before.clone_from(&view.last_foreign);
        }
        if carries {
            if course.carried == Carried::No {
                course.carried = Carried::Since(now);
            }
        } else if !behind {
            (course.carried, course.verified) = (Carried::No, false);
        }
        if carries
            || behind
            || course.proof != Proof::Missing
            || view.in_step.as_deref() == Some(wanted)
        {
            self.episode = None;
        } else {
            self.episode.get_or_insert_with(|| Episode::starting(now));
        }
    }

    /// Whether nothing is remembered of the workload yet.
    pub fn is_new_to(&self, view: &WorkloadView) -> bool {
        self.uid != view.uid
    }

    /// Takes in that the rollout to the wanted hash had failed, and that this was told, before this process began: it is not waited for
    /// anew, and holds no place meanwhile.
    pub fn had_failed(&mut self) {
        let course = &mut self.course;
        (course.carried, course.announced) = (Carried::TooLong, Some(Announcement::Failed));
    }

    /// Whether the stamp we wrote is newer than `view`.
    pub fn is_ahead_of(&self, view: &WorkloadView) -> bool {
        self.course
            .stamped
            .is_some_and(|stamped| view.generation < stamped.generation)
    }

    /// Whether the template or the numbers of pods changed after the pods were listed.
    pub fn moved_since_listed(&self) -> bool {
        let listed = self.course.listed.map(|(at, _)| at);
        self.moved > listed
    }

    /// Takes in the pods of `view` as just listed. Returns whether they are the first found to lack what is wanted.
    pub fn listed(
        &mut self,
        pods: &[PodFacts],
        view: &WorkloadView,
        bound: &[Bound],
        now: Instant,
    ) -> bool {
        let found = new_proofs(pods, bound, &self.known(view, now));
        self.proofs
            .retain(|(uid, _)| pods.iter().any(|pod| pod.uid == *uid));
        for proof in found {
            if !self.proofs.contains(&proof) {
                self.proofs.push(proof);
            }
        }
        self.succeeded(Attempt::List);
        let looked = evidence(pods, bound, &self.known(view, now));
        if let Some(episode) = &mut self.episode {
            episode.looked = Some(looked);
        }
        let progress = Progress::listed(pods, &self.course.wanted, view);
        self.course.listed = Some((now, progress));
        let stuck = pods.iter().filter(|pod| !pod.ready);
        // That of a new pod says more than that of an old one.
        let is_old = |pod: &PodFacts| pod.stamp.as_ref() != Some(&self.course.wanted);
        let why = stuck.filter_map(|pod| Some((is_old(pod), pod.trouble.clone()?)));
        self.course.why = why.min().map(|(_, why)| why);
        let lacks = self.episode.is_some() && looked == Evidence::Lacking;
        lacks && !std::mem::replace(&mut self.course.requested, true)
    }

    /// Takes in which pods are on their way out in the list just taken in, and for how long they may go on with older data. That time runs
    /// since they were first seen so: their clock is not ours.
    pub fn leave(&mut self, pods: impl Iterator<Item = (String, Duration)>, now: Instant) {
        let before = std::mem::take(&mut self.course.leaving);
        let until = |uid: &str, grace| before.get(uid).copied().unwrap_or(now + grace);
        let leaving = pods.map(|(uid, grace)| (uid.clone(), until(&uid, grace)));
        self.course.leaving = leaving.collect();
    }

    /// Until when that is so, if it is at `now`.
    pub fn leaving(&self, now: Instant) -> Option<Instant> {
        let last = self.course.leaving.values().max().copied();
        last.filter(|until| now < *until)
    }

    /// Takes in why the workload has not all its pods.
    pub fn explained(&mut self, why: String) {
        self.course.why = Some(why);
    }

    /// For how long the pods did not run all of `bound` at `now`: since the first of what they did not run before changed. If that is
    /// not known, since the last change; `None` if they ran it all.
    pub fn behind_for(&self, bound: &[Bound], now: Timestamp) -> Option<Duration> {
        let all = bound.iter().map(|bound| &bound.data);
        let since = if self.settled.is_empty() {
            all.map(|data| data.since).max()
        } else {
            let is_new = |data: &&Data| !self.settled.iter().any(|known| known.is_same_as(data));
            all.filter(is_new).map(|data| data.since).min()
        };
        // Two clocks: what looks like less than nothing is nothing.
        since.map(|since| now.duration_since(since).try_into().unwrap_or_default())
    }

    /// What is known of the data that the workload should run, besides its pods.
    pub fn known<'a>(&'a self, view: &WorkloadView, now: Instant) -> Known<'a> {
        Known {
            settled: &self.settled,
            proofs: &self.proofs,
            created: view.created,
            began: self.course.began.unwrap_or(now),
            now,
        }
    }

    /// Notes that the Secrets were asked to be read anew.
    pub fn refreshed(&mut self, now: Instant) {
        self.episode
            .get_or_insert_with(|| Episode::starting(now))
            .refreshed = true;
    }

    /// Notes a stamp that the apiserver took.
    pub fn stamped(&mut self, generation: i64, now: Instant) {
        let course = &mut self.course;
        course.stamps += 1;
        course.stamped = Some(Stamped {
            at: now,
            generation,
        });
        (course.verified, course.awaited, course.listed) = (false, true, None);
        if course.carried == Carried::TooLong {
            course.carried = Carried::No;
        }
        (course.refused, course.announced) = (None, None);
        self.succeeded(Attempt::Stamp);
        self.episode = None;
    }

    /// Notes that the annotation belongs to the field manager `manager`.
    pub fn refused(&mut self, manager: String, stamp: Option<String>) {
        self.course.refused = Some(Refused { manager, stamp });
    }

    /// Notes that the proof stands on the workload.
    pub fn recorded(&mut self) {
        self.course.proof = Proof::Recorded;
        self.succeeded(Attempt::Record);
    }

    /// Notes a request that failed with `message`, and whether the apiserver refused it. `seed` spreads workloads that
    /// failed together.
    pub fn failed(
        &mut self,
        attempt: Attempt,
        (message, refused): (String, bool),
        seed: u64,
        now: Instant,
    ) {
        let before = self.course.trouble.as_ref();
        let failures = before
            .filter(|trouble| trouble.attempt == attempt)
            .map_or(0, |trouble| trouble.failures);
        self.course.trouble = Some(Trouble {
            attempt,
            failures: failures.saturating_add(1),
            retry_at: now + pause(failures, seed),
            message,
            refused: refused && failures > 0,
        });
    }

    fn succeeded(&mut self, attempt: Attempt) {
        self.course
            .trouble
            .take_if(|trouble| trouble.attempt == attempt);
    }

    /// What is to be told about the way the pass ends, if it was not told before.
    pub fn announce(&mut self, decision: &Decision) -> Option<Announcement> {
        let course = &mut self.course;
        let announcement = match decision {
            Decision::Verified if course.awaited => Announcement::Verified,
            Decision::Failed { .. } | Decision::Retry { refused: true, .. } => Announcement::Failed,
            Decision::Conflict { .. } => Announcement::Conflict,
            Decision::Unbound
            | Decision::ListPods
            | Decision::InStep { .. }
            | Decision::Settle { .. }
            | Decision::Retry { refused: false, .. }
            | Decision::Ask
            | Decision::Stamp
            | Decision::Fold { .. }
            | Decision::Restarting { .. }
            | Decision::Verified
            | Decision::Paused { .. }
            | Decision::Waiting(_) => return None,
        };
        (course.announced.replace(announcement) != Some(announcement)).then_some(announcement)
    }

    /// Since when the end of the rollout is waited for.
    pub fn awaited_since(&self) -> Option<Instant> {
        match (self.course.stamped, self.course.carried) {
            (Some(stamped), _) => Some(stamped.at),
            (None, Carried::Since(at)) => Some(at),
            (None, Carried::No | Carried::TooLong) => None,
        }
    }

    /// Takes in how the pass ended.
    pub fn concluded(&mut self, decision: &Decision, bound: &[Bound]) {
        let course = &mut self.course;
        match decision {
            Decision::InStep { .. } => {
                if course.proof == Proof::Missing {
                    course.proof = Proof::Found;
                }
                self.episode = None;
            }
            Decision::Verified => course.verified = true,
            Decision::Restarting { .. } | Decision::Failed { .. } => course.awaited = true,
            // The time that somebody takes is not that of the rollout.
            Decision::Waiting(Waiting::ManualUpdate { .. }) => {
                (course.awaited, course.carried) = (true, Carried::No);
            }
            Decision::Paused { stamped: true } => course.carried = Carried::No,
            Decision::Paused { stamped: false }
            | Decision::Conflict { .. }
            | Decision::Fold { .. }
            | Decision::Waiting(
                Waiting::Turn { .. }
                | Waiting::NoSuchWorkload
                | Waiting::NoSuchKind { .. }
                | Waiting::Unseen { .. }
                | Waiting::Lent { .. },
            ) => {
                if let Some(episode) = &mut self.episode {
                    episode.held = true;
                }
            }
            Decision::Unbound
            | Decision::ListPods
            | Decision::Settle { .. }
            | Decision::Retry { .. }
            | Decision::Ask
            | Decision::Stamp => {}
        }
        if matches!(decision, Decision::InStep { .. } | Decision::Verified) {
            self.settled = bound.iter().map(|bound| bound.data.clone()).collect();
            self.proofs.clear();
        }
    }
}

/// Doubles up to [`LONGEST_PAUSE`], less up to a quarter by `seed`.
fn pause(failures: u32, seed: u64) -> Duration {
    let full = FIRST_PAUSE
        .saturating_mul(1_u32 << failures.min(10))
        .min(LONGEST_PAUSE);
    let less = u32::try_from(seed % 250).unwrap_or_default();
    full * (1000 - less) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::fixtures::{at, bound, s};

    #[test]
    fn pods_are_behind_since_the_first_change_of_what_they_did_not_run() {
        let all = [bound("api", 300), bound("db", 290), bound("old", 100)];
        let after = |known: &[Bound], second| {
            let mut tracker = Tracker::default();
            tracker.concluded(&Decision::Verified, known);
            tracker.behind_for(&all, at(second))
        };
        let old = [bound("api", 50), bound("db", 60), bound("old", 100)];
        assert_eq!(after(&old, 310), Some(s(20)));
        assert_eq!(after(&[], 310), Some(s(10)), "what they ran is not known");
        assert_eq!(after(&all, 310), None);
        assert_eq!(after(&old, 280), Some(s(0)), "our clock is behind");
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_differ_by_seed() {
        let seconds: Vec<_> = (0..9).map(|n| pause(n, 0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(u32::MAX, 0), LONGEST_PAUSE);
        assert_eq!(pause(0, 249), Duration::from_millis(751));
        assert_eq!(pause(0, 250), pause(0, 0));
    }
}
