//! Effects: counters in memory. What is counted of restarts.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Buckets, Kind, Metrics, gauge_value};

/// Upper bounds in seconds of a rollout: from one small Deployment to an hour of a large `StatefulSet`.
const ROLLOUT_BUCKETS: [f64; 10] = [
    1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Upper bounds in seconds of the time from a change of data to the last pod that runs with it: from one small
/// Deployment to a window that opens once a week.
const CHANGE_BUCKETS: [f64; 12] = [
    5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 86_400.0, 604_800.0,
];

/// The metric families of rollouts.
#[derive(Debug)]
pub(super) struct Rollouts {
    requested: Family<Kind, Counter>,
    started: Family<Kind, Counter>,
    verified: Family<Kind, Counter>,
    failed: Family<Kind, Counter>,
    duration: Family<Kind, Histogram, Buckets>,
    change_to_verified: Family<Kind, Histogram, Buckets>,
    waiting: Family<Reason, Gauge>,
    workloads: Family<State, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

impl Default for Rollouts {
    fn default() -> Self {
        Self {
            requested: Family::default(),
            started: Family::default(),
            verified: Family::default(),
            failed: Family::default(),
            duration: Family::new_with_constructor(Buckets(&ROLLOUT_BUCKETS)),
            change_to_verified: Family::new_with_constructor(Buckets(&CHANGE_BUCKETS)),
            waiting: Family::default(),
            workloads: Family::default(),
        }
    }
}

impl Metrics {
    /// Pods of a workload were found to run older data than they should.
    pub fn rollout_requested(&self, kind: &'static str) {
        let requested = &self.rollouts.requested;
        requested.get_or_create(&Kind { kind }).inc();
    }

    /// A pod template was stamped.
    pub fn rollout_started(&self, kind: &'static str) {
        let started = &self.rollouts.started;
        started.get_or_create(&Kind { kind }).inc();
    }

    /// Every pod of a stamped workload was seen ready with the new hash, `seconds` after the stamp.
    pub fn rollout_verified(&self, kind: &'static str, seconds: f64) {
        let Rollouts {
            verified, duration, ..
        } = &self.rollouts;
        verified.get_or_create(&Kind { kind }).inc();
        duration.get_or_create(&Kind { kind }).observe(seconds);
    }

    /// Every pod of a restarted workload was seen ready, `age` after the data first changed.
    pub fn change_verified(&self, kind: &'static str, age: Duration) {
        let family = &self.rollouts.change_to_verified;
        let histogram = family.get_or_create(&Kind { kind });
        histogram.observe(age.as_secs_f64());
    }

    /// A rollout was not verified before its deadline.
    pub fn rollout_failed(&self, kind: &'static str) {
        let failed = &self.rollouts.failed;
        failed.get_or_create(&Kind { kind }).inc();
    }

    /// Workloads that wait for their turn, and workloads that wait for an earlier wave.
    pub fn rollouts_waiting(&self, turn: usize, wave: usize) {
        for (reason, count) in [("turn", turn), ("wave", wave)] {
            let waiting = self.rollouts.waiting.get_or_create(&Reason { reason });
            waiting.set(gauge_value(count));
        }
    }

    /// How many workloads are in a state. A state that has emptied must be set to zero by the caller.
    pub fn workloads(&self, state: &'static str, count: usize) {
        let workloads = self.rollouts.workloads.get_or_create(&State { state });
        workloads.set(gauge_value(count));
    }
}

impl Rollouts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "rollouts_requested",
            "Changes of data for which pods of a workload have to be restarted; several become one restart",
            self.requested.clone(),
        );
        registry.register(
            "rollouts_started",
            "Workloads whose pod template was stamped with a new hash",
            self.started.clone(),
        );
        registry.register(
            "rollouts_verified",
            "Rollouts after which every pod was seen ready with the new hash",
            self.verified.clone(),
        );
        registry.register(
            "rollouts_failed",
            "Rollouts that were not verified before their deadline",
            self.failed.clone(),
        );
        registry.register_with_unit(
            "rollout_duration",
            "Time from stamping a workload to its last pod ready with the new hash",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "change_to_verified",
            "Time from the first change of the data, by the apiserver, to the last pod restarted and ready with it",
            Unit::Seconds,
            self.change_to_verified.clone(),
        );
        registry.register(
            "rollouts_waiting",
            "Workloads that wait to be restarted, by reason",
            self.waiting.clone(),
        );
        registry.register(
            "workloads",
            "Workloads that use a managed Secret, by state",
            self.workloads.clone(),
        );
    }
}
