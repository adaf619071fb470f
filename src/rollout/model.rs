//! Pure: a world in which kubelets lag, people interfere and the operator restarts, to try promises on.
//!
//! The model knows what each pod really read, which the decision does not.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    bind::{Bound, wanted},
    decide::{Situation, decide},
    decision::Decision,
    fixtures::{bound, data, s, view},
    pod::PodFacts,
    tracker::{Attempt, Tracker},
    turn::Turn,
    view::{Counters, WorkloadView},
};

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    Rotate,
    ScaleUp(Pace),
    Kill(usize, Pace),
    /// The workload's controller replaces one pod of an old template.
    Roll(Pace),
    /// Somebody puts the template back to what it was before.
    Revert,
    /// Somebody changes something else in the template.
    Edit,
    Pause,
    RestartOperator,
    /// From now on the apiserver is like this.
    Apiserver(Apiserver),
    Wait(u64),
}

/// How the apiserver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apiserver {
    Serves,
    /// Nothing is heard of it, and it hears nothing.
    Stands,
    /// It does what it is told, and nothing is heard of it.
    LosesAnswers,
}

/// How long things take for one pod, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Pace {
    schedule: u64,
    start: u64,
    /// How old the cache of the kubelet is; less than [`LAG`](super::proof::LAG).
    cache: u64,
    /// How late the kubelet reports that it started.
    report: u64,
}

#[derive(Clone, Debug)]
struct ModelPod {
    uid: String,
    created: u64,
    pace: Pace,
    template: u32,
    stamp: Option<String>,
}

#[derive(Clone, Debug)]
struct Template {
    id: u32,
    stamp: Option<String>,
}

struct World {
    epoch: Instant,
    now: u64,
    /// When the Secret got each of its versions, in milliseconds.
    versions: Vec<u64>,
    template: Template,
    before: Option<Template>,
    templates: u32,
    view: WorkloadView,
    pods: Vec<ModelPod>,
    made: u32,
    tracker: Tracker,
    /// Stamps by hash since the operator started.
    stamps: Vec<String>,
    /// All stamps that there ever were, and whether one was taken away.
    rolled: Vec<String>,
    reverted: bool,
    apiserver: Apiserver,
    /// What was last heard of it.
    heard: Option<(WorkloadView, Vec<Bound>)>,
    last: Decision,
}

/// A time of the apiserver: whole seconds.
fn second(milliseconds: u64) -> Timestamp {
    Timestamp::from_second(i64::try_from(milliseconds / 1000).unwrap()).unwrap()
}

impl World {
    /// `age` is how long the pods are there before the Secret is.
    fn new(age: u64, paces: [Pace; 2]) -> Self {
        let mut world = Self {
            epoch: Instant::now(),
            now: 1_000_000,
            versions: vec![1_000_000 + age],
            template: Template { id: 0, stamp: None },
            before: None,
            templates: 0,
            view: WorkloadView {
                created: second(1_000_000),
                ..view()
            },
            pods: Vec::new(),
            made: 0,
            tracker: Tracker::default(),
            stamps: Vec::new(),
            rolled: Vec::new(),
            reverted: false,
            apiserver: Apiserver::Serves,
            heard: None,
            last: Decision::Unbound,
        };
        for pace in paces {
            world.make(pace);
        }
        world.now += age;
        world
    }

    fn make(&mut self, pace: Pace) {
        self.made += 1;
        self.pods.push(ModelPod {
            uid: format!("p{}", self.made),
            created: self.now,
            pace,
            template: self.template.id,
            stamp: self.template.stamp.clone(),
        });
    }

    fn change_template(&mut self, stamp: Option<String>) {
        self.templates += 1;
        let id = self.templates;
        self.before = Some(std::mem::replace(
            &mut self.template,
            Template { id, stamp },
        ));
        self.view.generation += 1;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Rotate => {
                // Two versions in the second in which the Secret is made look like one.
                let next_second = (self.versions[0] / 1000 + 1) * 1000;
                self.now = self.now.max(next_second);
                self.versions.push(self.now);
            }
            Event::ScaleUp(pace) if self.pods.len() < 6 => self.make(pace),
            Event::ScaleUp(_) => self.pods.clear(),
            Event::Kill(index, pace) if !self.pods.is_empty() => {
                let index = index % self.pods.len();
                self.pods.remove(index);
                self.make(pace);
            }
            Event::Kill(..) => {}
            Event::Roll(pace) => self.roll(pace),
            Event::Revert => {
                if let Some(before) = self.before.take() {
                    self.before = Some(std::mem::replace(&mut self.template, before));
                    self.reverted = true;
                    self.view.generation += 1;
                }
            }
            Event::Edit => self.change_template(self.template.stamp.clone()),
            Event::Pause => self.view.paused = !self.view.paused,
            Event::RestartOperator => {
                self.tracker = Tracker::default();
                self.stamps.clear();
            }
            Event::Apiserver(apiserver) => self.apiserver = apiserver,
            Event::Wait(milliseconds) => self.now += milliseconds,
        }
    }

    fn roll(&mut self, pace: Pace) {
        self.view.observed_generation = self.view.generation;
        let old = self
            .pods
            .iter()
            .position(|pod| pod.template != self.template.id);
        if let Some(old) = old.filter(|_| !self.view.paused) {
            self.pods.remove(old);
            self.make(pace);
        }
    }

    /// When the kubelet reads the Secret for `pod`: it waits for one.
    fn read_at(&self, pod: &ModelPod) -> u64 {
        let ready = pod.created + pod.pace.schedule;
        ready.max(self.versions[0] + pod.pace.cache)
    }

    /// Which version `pod` reads, if it did.
    fn read(&self, pod: &ModelPod) -> Option<usize> {
        let read_at = self.read_at(pod);
        let seen = read_at - pod.pace.cache;
        (read_at <= self.now).then(|| self.versions.iter().filter(|at| **at <= seen).count() - 1)
    }

    fn facts(&self, pod: &ModelPod) -> PodFacts {
        let started = self.read_at(pod) + pod.pace.start + pod.pace.report <= self.now;
        PodFacts {
            uid: pod.uid.clone(),
            created: second(pod.created),
            secrets: ["db".to_owned()].into(),
            scheduled: pod.created + pod.pace.schedule <= self.now,
            started,
            ready: started,
            stamp: pod.stamp.clone(),
            trouble: None,
        }
    }

    /// The pods, and what the watches show.
    fn look(&mut self) -> (Vec<PodFacts>, WorkloadView, Vec<Bound>) {
        let (pods, bound) = self.look_closely();
        if self.apiserver == Apiserver::Serves {
            self.heard = None;
        }
        let now = || (self.view.clone(), bound);
        let (view, bound) = self.heard.get_or_insert_with(now).clone();
        (pods, view, bound)
    }

    fn look_closely(&mut self) -> (Vec<PodFacts>, Vec<Bound>) {
        let pods: Vec<_> = self.pods.iter().map(|pod| self.facts(pod)).collect();
        let count = |n: usize| u32::try_from(n).unwrap();
        self.view.counters = Counters {
            wanted: count(pods.len()),
            all: count(pods.len()),
            updated: count(
                self.pods
                    .iter()
                    .filter(|pod| pod.template == self.template.id)
                    .count(),
            ),
            ready: count(pods.iter().filter(|pod| pod.ready).count()),
        };
        self.view.stamp.clone_from(&self.template.stamp);
        let since = *self.versions.last().unwrap();
        let db = Bound {
            data: super::bind::Data {
                since: second(since),
                ..data("db", &self.versions.len().to_string(), 0)
            },
            born: second(self.versions[0]) >= second(since),
            settle: s(4),
            ..bound("db", 0)
        };
        (pods, vec![db])
    }

    /// One pass of the controller.
    fn pass(&mut self) {
        let (facts, mut view, bound) = self.look();
        let now = self.epoch + Duration::from_millis(self.now);
        let hash = wanted(&bound).unwrap();
        self.tracker.see(&view, &hash, now);
        let (mut pods, mut turn, mut lists) = (None, None, 0);
        loop {
            let decision = decide(&Situation {
                view: Some(&view),
                unseen: None,
                bound: &bound,
                wanted: Some(&hash),
                tracker: &self.tracker,
                pods: pods.as_deref(),
                turn: turn.as_ref(),
                now,
            });
            match decision {
                Decision::Ask => {
                    assert!(turn.is_none(), "asked twice for its turn");
                    turn = Some(Turn::Mine { early: false });
                }
                Decision::ListPods => {
                    lists += 1;
                    assert_eq!(lists, 1, "asked twice for pods");
                    if self.answers(Attempt::List, now) {
                        self.tracker.listed(&facts, &view, &bound, now);
                        pods = Some(facts.clone());
                    }
                }
                Decision::Stamp => self.stamp(&hash, &mut view, now),
                Decision::InStep { record: true, .. } => self.record(&hash, &mut view, now),
                Decision::Settle { refresh: true, .. } => self.tracker.refreshed(now),
                decision @ (Decision::Unbound
                | Decision::InStep { record: false, .. }
                | Decision::Settle { refresh: false, .. }
                | Decision::Retry { .. }
                | Decision::Restarting { .. }
                | Decision::Fold { .. }
                | Decision::Verified
                | Decision::Failed { .. }
                | Decision::Paused { .. }
                | Decision::Waiting(_)
                | Decision::Conflict { .. }) => {
                    if let Some(again) = decision.again() {
                        assert!(again > now, "{decision:?} would spin");
                    }
                    self.tracker.concluded(&decision, &bound);
                    self.check(&decision);
                    self.last = decision;
                    return;
                }
            }
        }
    }

    /// Whether there is an answer; notes that there is none.
    fn answers(&mut self, attempt: Attempt, now: Instant) -> bool {
        let serves = self.apiserver == Apiserver::Serves;
        if !serves {
            let told = ("no answer".to_owned(), false);
            self.tracker.failed(attempt, told, 0, now);
        }
        serves
    }

    fn stamp(&mut self, hash: &str, view: &mut WorkloadView, now: Instant) {
        let stands = self.apiserver == Apiserver::Stands;
        // The same once more changes nothing.
        if !stands && self.template.stamp.as_deref() != Some(hash) {
            self.stamps.push(hash.to_owned());
            self.rolled.push(hash.to_owned());
            assert!(self.stamps.iter().filter(|one| *one == hash).count() <= 2);
            self.change_template(Some(hash.to_owned()));
            self.view.in_step = None;
        }
        if self.answers(Attempt::Stamp, now) {
            self.tracker.stamped(self.view.generation, now);
            self.view.stamp = Some(hash.to_owned());
            view.clone_from(&self.view);
        }
    }

    fn record(&mut self, hash: &str, view: &mut WorkloadView, now: Instant) {
        if self.apiserver != Apiserver::Stands {
            self.view.in_step = Some(hash.to_owned());
        }
        if self.answers(Attempt::Record, now) {
            self.tracker.recorded();
            view.clone_from(&self.view);
        }
    }

    /// Nobody is called in step who is not.
    fn check(&self, decision: &Decision) {
        let done = matches!(decision, Decision::InStep { .. } | Decision::Verified);
        // Who hears nothing of new data cannot say more than what was.
        if !done || self.apiserver != Apiserver::Serves {
            return;
        }
        let current = self.versions.len() - 1;
        for pod in &self.pods {
            if let Some(read) = self.read(pod) {
                assert_eq!(read, current, "{} runs old data at {decision:?}", pod.uid);
            }
        }
    }
}

fn pace() -> impl Strategy<Value = Pace> {
    (0..9_000_u64, 0..3_000_u64, 0..2_000_u64, 0..9_000_u64).prop_map(
        |(schedule, start, cache, report)| Pace {
            schedule: schedule.saturating_sub(3_000),
            start,
            cache,
            report: report.saturating_sub(3_000),
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Rotate),
        1 => pace().prop_map(Event::ScaleUp),
        1 => (0..6_usize, pace()).prop_map(|(index, pace)| Event::Kill(index, pace)),
        4 => pace().prop_map(Event::Roll),
        1 => Just(Event::Revert),
        1 => Just(Event::Edit),
        1 => Just(Event::Pause),
        1 => Just(Event::RestartOperator),
        1 => Just(Event::Apiserver(Apiserver::Stands)),
        1 => Just(Event::Apiserver(Apiserver::LosesAnswers)),
        2 => Just(Event::Apiserver(Apiserver::Serves)),
        6 => (0..6_000_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_pod_keeps_old_data_whatever_happens(
        age in 0..20_000_u64,
        paces in [pace(), pace()],
        events in prop::collection::vec(event(), 0..40),
        last in pace(),
    ) {
        let mut world = World::new(age, paces);
        world.pass();
        for event in events {
            world.happen(event);
            world.pass();
        }
        world.view.paused = false;
        world.apiserver = Apiserver::Serves;
        for _ in 0..400 {
            world.now += 250;
            world.roll(last);
            world.pass();
        }
        prop_assert!(
            matches!(world.last, Decision::InStep { .. } | Decision::Verified | Decision::Conflict { .. }),
            "not settled: {:?}",
            world.last
        );
        // One restart for each data at most, however often the operator or the apiserver went away meanwhile.
        let distinct: BTreeSet<_> = world.rolled.iter().collect();
        prop_assert!(world.reverted || distinct.len() == world.rolled.len(), "{:?}", world.rolled);
        prop_assert!(distinct.len() <= world.versions.len());
    }

    #[test]
    fn pods_that_were_there_before_the_secret_cost_no_restart(
        age in 0..20_000_u64,
        paces in [pace(), pace()],
        last in pace(),
    ) {
        // Even the fastest kubelet takes a moment to start a container.
        let paces = paces.map(|pace| Pace { start: pace.start + 50, ..pace });
        let mut world = World::new(age, paces);
        for _ in 0..100 {
            world.pass();
            world.now += 250;
            world.roll(last);
        }
        prop_assert_eq!(&world.stamps, &Vec::<String>::new());
        prop_assert!(matches!(world.last, Decision::InStep { .. }), "{:?}", world.last);
    }

    #[test]
    fn one_change_is_at_most_one_restart(
        paces in [pace(), pace()],
        last in pace(),
        kills in prop::collection::vec((0..6_usize, pace(), 0..3_000_u64), 0..10),
    ) {
        let mut world = World::new(1_000, paces);
        world.now += 30_000;
        world.happen(Event::Rotate);
        world.pass();
        for (index, pace, wait) in kills {
            world.happen(Event::Wait(wait));
            world.happen(Event::Kill(index, pace));
            world.pass();
        }
        for _ in 0..200 {
            world.now += 250;
            world.roll(last);
            world.pass();
        }
        prop_assert!(world.stamps.len() <= 1);
        prop_assert!(matches!(world.last, Decision::InStep { .. } | Decision::Verified), "{:?}", world.last);
    }
}
