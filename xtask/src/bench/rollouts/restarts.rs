//! Pure: what was seen of the restarts of Deployments.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::apps::v1::Deployment;

/// Namespace and name.
pub(super) type Key = (String, String);

/// What was seen since the watch began.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    workloads: BTreeMap<Key, Workload>,
    /// When the first began.
    pub(super) first: Option<Instant>,
    /// When one was done last.
    pub(super) last: Option<Instant>,
    /// Most of them at once.
    pub(super) most: usize,
    /// How long they took, all added up.
    pub(super) took: Duration,
    /// How many are under way, and since when that is so.
    under_way: Option<(u32, Instant)>,
}

/// A Deployment at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// Counts the changes of its spec, each of which was a restart here.
    pub(super) generation: i64,
    /// Whether all its pods are new and ready, as `kubectl rollout status` has it.
    pub(super) complete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Workload {
    before: i64,
    now: Sight,
}

impl Workload {
    fn has_begun(&self) -> bool {
        self.now.generation > self.before
    }

    fn is_done(&self) -> bool {
        self.has_begun() && self.now.complete
    }
}

impl Sight {
    /// What a Deployment says.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let generation = deployment.metadata.generation;
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let status = deployment.status.as_ref();
        let complete = status.is_some_and(|status| {
            let counts = [
                status.replicas,
                status.updated_replicas,
                status.available_replicas,
            ];
            status.observed_generation >= generation && counts.iter().all(|count| *count == wanted)
        });
        Self {
            generation: generation.unwrap_or_default(),
            complete,
        }
    }
}

impl Restarts {
    /// A Deployment was seen. What it was first seen with is no restart.
    pub(super) fn saw(&mut self, key: Key, now: Sight, at: Instant) {
        let before = now.generation;
        let workload = self
            .workloads
            .entry(key)
            .or_insert(Workload { before, now });
        workload.now = now;
        if workload.has_begun() {
            self.first.get_or_insert(at);
        }
        if workload.is_done() {
            self.last = Some(at);
        }
        let under_way = |workload: &&Workload| workload.has_begun() && !workload.is_done();
        let at_once = self.workloads.values().filter(under_way).count();
        self.most = self.most.max(at_once);
        if let Some((many, since)) = self.under_way {
            self.took += at.duration_since(since) * many;
        }
        self.under_way = Some((u32::try_from(at_once).unwrap_or(u32::MAX), at));
    }

    /// How many were under way at once from the first to the last, on average.
    pub(super) fn mean_at_once(&self) -> f64 {
        let (first, last) = (self.first, self.last);
        let whole = first
            .zip(last)
            .map(|(first, last)| last.duration_since(first));
        whole.map_or(0.0, |whole| self.took.as_secs_f64() / whole.as_secs_f64())
    }

    /// How many Deployments were seen.
    pub(super) fn known(&self) -> usize {
        self.workloads.len()
    }

    /// How many restarts there were.
    pub(super) fn count(&self) -> usize {
        let each = self
            .workloads
            .values()
            .map(|workload| workload.now.generation - workload.before);
        usize::try_from(each.sum::<i64>()).unwrap_or_default()
    }

    /// Whether a Deployment is done with this generation.
    pub(super) fn is_done(&self, key: &Key, generation: i64) -> bool {
        let found = self.workloads.get(key);
        found.is_some_and(|found| found.now.generation >= generation && found.now.complete)
    }

    /// Whether all were restarted and are done.
    pub(super) fn all_done(&self) -> bool {
        self.workloads.values().all(Workload::is_done)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn restarts_are_counted_from_the_first_sight() {
        let start = Instant::now();
        let mut seen = Restarts::default();
        let mut saw = |name: &str, generation, complete, second| {
            let key = ("shop".to_owned(), name.to_owned());
            let sight = Sight {
                generation,
                complete,
            };
            seen.saw(key, sight, start + Duration::from_secs(second));
            seen.clone()
        };
        saw("a", 3, true, 0);
        let seen = saw("b", 1, true, 0);
        assert_eq!((seen.known(), seen.count(), seen.most), (2, 0, 0));
        assert!(!seen.all_done() && seen.first.is_none());
        saw("a", 4, false, 1);
        let seen = saw("b", 2, false, 2);
        assert_eq!((seen.count(), seen.most), (2, 2));
        saw("a", 4, true, 3);
        let seen = saw("b", 2, true, 4);
        let key = ("shop".to_owned(), "a".to_owned());
        assert!(seen.all_done() && seen.is_done(&key, 4) && !seen.is_done(&key, 5));
        let second = |second| Some(start + Duration::from_secs(second));
        assert_eq!((seen.first, seen.last), (second(1), second(4)));
        assert_eq!(seen.took, Duration::from_secs(4));
        assert!((seen.mean_at_once() - 4.0 / 3.0).abs() < 1e-9);
    }
}
