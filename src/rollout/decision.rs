//! Pure: what can be decided about a workload.

use std::time::{Duration, Instant};

use super::{
    pod::PodFacts,
    turn::Hold,
    view::{Manual, WorkloadView},
};

/// What to do about a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is bound to no managed Secret, or on its way out.
    Unbound,
    /// List its pods and decide again. Never decided with `pods` at hand.
    ListPods,
    /// Nothing but perhaps to write the proof on the workload: its pods run the current data without a stamp.
    InStep {
        /// Write the proof.
        record: bool,
        /// When to try again to write it.
        again: Option<Instant>,
    },
    /// Wait for more changes.
    Settle {
        /// When to go on.
        until: Instant,
        /// Ask for all its Secrets to be read now, so that what changed together is one restart.
        refresh: bool,
    },
    /// Wait after a request that failed.
    Retry {
        /// When to try again.
        until: Instant,
        /// What failed.
        message: String,
        /// Whether it fails until somebody acts.
        refused: bool,
    },
    /// Ask whether it may restart now and decide again. Never decided with the answer at hand.
    Ask,
    /// Write the wanted hash into the template.
    Stamp,
    /// Wait until the rollout that is under way has ended: what it does not bring in step is restarted once, then.
    Fold {
        /// How far the workload's own controller is with it.
        progress: Progress,
        /// When to go on without waiting any longer.
        until: Instant,
    },
    /// Wait for the rollout.
    Restarting {
        /// How far it is.
        progress: Progress,
        /// When to look again if nothing is heard before.
        again: Instant,
    },
    /// Nothing: every pod carries the wanted hash and was seen ready.
    Verified,
    /// The rollout is overdue. It is still watched.
    Failed {
        /// How far it is.
        progress: Progress,
        /// What keeps its pods from becoming ready, as far as they tell.
        why: Option<String>,
        /// How long it was given; zero if its controller gave it up.
        after: Duration,
        /// When to look again.
        again: Instant,
    },
    /// Nothing while the Deployment is paused.
    Paused {
        /// Whether its template carries the wanted hash already.
        stamped: bool,
    },
    /// Nothing until somebody else acts.
    Waiting(Waiting),
    /// Nothing: somebody else holds the stamp or takes it away.
    Conflict {
        /// Name of the other field manager, as far as known.
        manager: Option<String>,
        /// Whether it holds the annotation; else it took it away again and again.
        holds: bool,
        /// What owns the workload, and may well be behind it, as `<kind> <name>`.
        owner: Option<String>,
        /// When to see whether its doing brought the pods in step.
        again: Instant,
    },
}

/// What somebody else must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Create the workload, which is named as a target.
    NoSuchWorkload,
    /// Install the kind of the workload, which is named as a target.
    NoSuchKind {
        /// Which place it has in `rollout.targets`; `None` if that differs between VaultSecrets.
        target: Option<usize>,
    },
    /// Grant the right to see workloads of its kind.
    Unseen {
        /// What the apiserver says.
        why: String,
    },
    /// Finish other restarts.
    Turn {
        /// Which, or how many.
        hold: Hold,
        /// When to see whether something else brought the pods in step.
        again: Instant,
    },
    /// Scale down the Deployment, whose template a Rollout of Argo takes for its own.
    Lent {
        /// Name of the Rollout.
        to: String,
        /// When to look at its pods again.
        again: Instant,
    },
    /// Delete the pods, lower the partition, or promote the new ones.
    ManualUpdate {
        /// Why.
        manual: Manual,
        /// How far it is.
        progress: Progress,
        /// When to list the pods again, if the counters say complete.
        again: Option<Instant>,
    },
}

/// Pods ready with the current data, of those wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ready with the current data.
    pub ready: u32,
    /// Wanted, or there if they are more.
    pub wanted: u32,
}

impl Decision {
    /// Its name, for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unbound => "Unbound",
            Self::ListPods => "ListPods",
            Self::InStep { .. } => "InStep",
            Self::Settle { .. } => "Settle",
            Self::Retry { .. } => "Retry",
            Self::Ask => "Ask",
            Self::Stamp => "Stamp",
            Self::Fold { .. } => "Fold",
            Self::Restarting { .. } => "Restarting",
            Self::Verified => "Verified",
            Self::Failed { .. } => "Failed",
            Self::Paused { .. } => "Paused",
            Self::Waiting(_) => "Waiting",
            Self::Conflict { .. } => "Conflict",
        }
    }

    /// When to look at the workload again, besides when it or a Secret of it changes.
    pub fn again(&self) -> Option<Instant> {
        match self {
            Self::Settle { until, .. } | Self::Retry { until, .. } | Self::Fold { until, .. } => {
                Some(*until)
            }
            Self::Restarting { again, .. }
            | Self::Conflict { again, .. }
            | Self::Failed { again, .. }
            | Self::Waiting(Waiting::Turn { again, .. } | Waiting::Lent { again, .. }) => {
                Some(*again)
            }
            Self::InStep { again, .. } | Self::Waiting(Waiting::ManualUpdate { again, .. }) => {
                *again
            }
            Self::Unbound
            | Self::ListPods
            | Self::Ask
            | Self::Stamp
            | Self::Verified
            | Self::Paused { .. }
            | Self::Waiting(
                Waiting::NoSuchWorkload | Waiting::NoSuchKind { .. } | Waiting::Unseen { .. },
            ) => None,
        }
    }
}

impl Progress {
    /// As the pods themselves say: how many are ready and carry `wanted`.
    pub fn listed(pods: &[PodFacts], wanted: &str, view: &WorkloadView) -> Self {
        let current = |pod: &&PodFacts| pod.ready && pod.stamp.as_deref() == Some(wanted);
        let size = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            ready: size(pods.iter().filter(current).count()),
            wanted: view.counters.wanted.max(size(pods.len())),
        }
    }

    /// As the counters of the workload say.
    pub fn counted(view: &WorkloadView) -> Self {
        // They do not tell which pods are how old.
        let seen = view.observed_generation >= view.generation && !view.is_restarted_by_time();
        Self {
            ready: if seen {
                view.counters.ready_and_updated().min(view.counters.wanted)
            } else {
                0
            },
            wanted: view.counters.wanted,
        }
    }

    /// None of the pods yet.
    pub fn none_of(view: &WorkloadView) -> Self {
        Self {
            ready: 0,
            wanted: view.counters.wanted,
        }
    }
}
