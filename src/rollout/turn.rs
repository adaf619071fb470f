//! Pure: whose turn it is to restart.
//!
//! Workloads that are to restart stand in line. So many of them restart at once, in the cluster and in each namespace; the next
//! is of the namespace in which the fewest restart, so that one with many workloads does not hold up the others, and in
//! a namespace whoever waits longest. A place is given back when the restart is verified, and also when it failed or somebody else has to
//! act: what does not go on must not hold up the rest. What [`Waves`] order waits before it stands in line.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use jiff::Timestamp;

use super::{
    WorkloadKey,
    bind::Bound,
    window::{Door, WindowError, Windows, door},
};
use crate::api::vault_secret::{WavesSpec, WorkloadState};

/// How many workloads may restart at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In the cluster.
    pub cluster: usize,
    /// In each namespace.
    pub namespace: usize,
}

/// Why it is not the turn of a workload yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// As many restart as may.
    Cluster {
        /// So many.
        limit: usize,
    },
    /// As many restart in its namespace as may.
    Namespace {
        /// So many.
        limit: usize,
    },
    /// No window is open.
    Window {
        /// When one opens; `None` if those of its Secrets are never open together.
        opens: Option<Timestamp>,
    },
    /// A window cannot be used.
    NoWindow {
        /// Whose.
        vault_secret: String,
        /// Why.
        error: WindowError,
    },
    /// Another workload comes before it and does not run the current data yet.
    Wave {
        /// Which.
        before: WorkloadKey,
        /// Its value of the label.
        wave: String,
        /// How far it is.
        state: WorkloadState,
    },
}

/// Whether a workload may restart now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Mine {
        /// Before its window opens.
        early: bool,
    },
    /// Not yet, and not before `until`, if that is known.
    Hold {
        /// Why.
        hold: Hold,
        /// When to ask again.
        until: Option<Instant>,
    },
}

impl From<Hold> for Turn {
    fn from(hold: Hold) -> Self {
        Self::Hold { hold, until: None }
    }
}

/// What windows say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Go.
    Open,
    /// Go, although none is open: what the pods run with ends before one is.
    Early,
    /// Wait.
    Shut(Turn),
}

/// Whether the windows of all of `bound` allow a restart now. `ends` is when what the pods run with ends.
pub fn gate(bound: &[Bound], ends: Option<Instant>, (wall, now): (Timestamp, Instant)) -> Gate {
    let mut all = Vec::new();
    for bound in bound {
        match Windows::from_spec(&bound.windows) {
            Ok(windows) => all.extend(windows),
            // It is as if it never opened.
            Err(_) if ends.is_some() => return Gate::Early,
            Err(error) => {
                let vault_secret = bound.vault_secret.name.clone();
                return Gate::Shut(
                    Hold::NoWindow {
                        vault_secret,
                        error,
                    }
                    .into(),
                );
            }
        }
    }
    match door(&all, wall) {
        Door::Open => Gate::Open,
        Door::Shut(opens) => {
            let until = opens.map(|opens| now + opens.duration_since(wall).unsigned_abs());
            if ends.is_some_and(|ends| until.is_none_or(|until| ends <= until)) {
                return Gate::Early;
            }
            let hold = Hold::Window { opens };
            Gate::Shut(Turn::Hold { hold, until })
        }
    }
}

/// Who restarts, and who waits for it.
#[derive(Debug, Default)]
pub struct Line {
    restarting: BTreeSet<WorkloadKey>,
    /// By namespace: so many restart.
    busy: BTreeMap<String, usize>,
    /// Who waits, with the number drawn.
    waiting: BTreeMap<WorkloadKey, u64>,
    /// Who has drawn a number and cannot use it right now.
    aside: BTreeMap<WorkloadKey, u64>,
    drawn: u64,
    /// Who waits for an earlier wave, and for whom.
    behind: BTreeMap<WorkloadKey, WorkloadKey>,
}

impl Line {
    /// Whether `workload` may restart now; if not, it waits until [`call`](Self::call) names it. One that is `urgent` waits for nobody.
    pub fn ask(&mut self, workload: &WorkloadKey, limits: Limits, urgent: bool) -> Turn {
        self.behind.remove(workload);
        if self.restarting.contains(workload) {
            return Turn::Mine { early: false };
        }
        if !urgent && let Some(hold) = self.full(workload, limits) {
            if !self.waiting.contains_key(workload) {
                let number = self.aside.remove(workload).unwrap_or_else(|| {
                    self.drawn += 1;
                    self.drawn
                });
                self.waiting.insert(workload.clone(), number);
            }
            return hold.into();
        }
        self.starts(workload);
        Turn::Mine { early: false }
    }

    /// Whether `workload` may pass although `before` is of an earlier wave; if not, it waits for it.
    ///
    /// Two `VaultSecrets` can order the same workloads in opposite ways. Then one of them goes: the first by name.
    pub fn passes(&mut self, workload: &WorkloadKey, before: &WorkloadKey) -> bool {
        let mut circle = vec![before];
        while let Some(next) = circle.last().and_then(|last| self.behind.get(*last)) {
            if next == workload {
                if circle.iter().all(|other| workload < *other) {
                    self.behind.remove(workload);
                    return true;
                }
                break;
            }
            if circle.contains(&next) {
                break;
            }
            circle.push(next);
        }
        self.leave(workload);
        self.behind.insert(workload.clone(), before.clone());
        false
    }

    /// Takes in that `workload` restarts, whoever began that.
    pub fn starts(&mut self, workload: &WorkloadKey) {
        self.waiting.remove(workload);
        self.aside.remove(workload);
        self.behind.remove(workload);
        if self.restarting.insert(workload.clone()) {
            *self.busy.entry(workload.namespace.clone()).or_default() += 1;
        }
    }

    /// Those whose turn it is now, of the places that were given back.
    pub fn call(&mut self, limits: Limits) -> Vec<WorkloadKey> {
        let mut next = Vec::new();
        while let Some(workload) = self.next(limits) {
            self.starts(&workload);
            next.push(workload);
        }
        next
    }

    /// Whether `workload` waits for an earlier wave.
    pub fn is_behind(&self, workload: &WorkloadKey) -> bool {
        self.behind.contains_key(workload)
    }

    /// How many wait for their turn, and how many for an earlier wave.
    pub fn depth(&self) -> (usize, usize) {
        (self.waiting.len(), self.behind.len())
    }

    /// Takes in that `workload` neither restarts nor can begin to, and will: for whatever it has to look at first, it does not go to the
    /// end of the line.
    pub fn step_aside(&mut self, workload: &WorkloadKey) {
        let waits = self.waiting.get(workload);
        let number = waits.or_else(|| self.aside.get(workload)).copied();
        self.leave(workload);
        if let Some(number) = number {
            self.aside.insert(workload.clone(), number);
        }
    }

    /// Takes in that `workload` neither restarts nor waits.
    pub fn leave(&mut self, workload: &WorkloadKey) {
        self.aside.remove(workload);
        self.waiting.remove(workload);
        self.behind.remove(workload);
        if self.restarting.remove(workload)
            && let Some(busy) = self.busy.get_mut(&workload.namespace)
        {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&workload.namespace);
            }
        }
    }

    fn full(&self, workload: &WorkloadKey, limits: Limits) -> Option<Hold> {
        if self.busy(workload) >= limits.namespace {
            let limit = limits.namespace;
            return Some(Hold::Namespace { limit });
        }
        let limit = limits.cluster;
        (self.restarting.len() >= limit).then_some(Hold::Cluster { limit })
    }

    fn busy(&self, workload: &WorkloadKey) -> usize {
        self.busy
            .get(&workload.namespace)
            .copied()
            .unwrap_or_default()
    }

    fn next(&self, limits: Limits) -> Option<WorkloadKey> {
        if self.restarting.len() >= limits.cluster {
            return None;
        }
        self.waiting
            .iter()
            .filter(|(workload, _)| self.busy(workload) < limits.namespace)
            .min_by_key(|(workload, number)| (self.busy(workload), **number))
            .map(|(workload, _)| workload.clone())
    }
}

/// The order in which the workloads of one VaultSecret restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waves {
    /// Label of the workload that tells its wave.
    pub label: String,
    /// Its values, first wave first.
    pub order: Vec<String>,
}

impl Waves {
    /// As the spec says.
    pub fn from_spec(spec: &WavesSpec) -> Self {
        Self {
            label: spec.by_label.clone(),
            order: spec.order.clone(),
        }
    }

    /// The wave of a workload with these labels: 0 is the first, and one more than the last is that of all workloads
    /// without the label or with another value.
    pub fn rank(&self, labels: &BTreeMap<String, String>) -> usize {
        let value = labels.get(&self.label);
        self.order
            .iter()
            .position(|wave| Some(wave) == value)
            .unwrap_or(self.order.len())
    }

    /// What fits none of the workloads with these labels, if there are any: the label, or some of its values.
    pub fn unknown<'a>(
        &self,
        workloads: impl Iterator<Item = &'a BTreeMap<String, String>>,
    ) -> Option<String> {
        let label = &self.label;
        let values: Vec<_> = workloads.map(|labels| labels.get(label)).collect();
        if values.is_empty() {
            return None;
        }
        let found: BTreeSet<_> = values.into_iter().flatten().collect();
        if found.is_empty() {
            return Some(format!(
                "spec.rollout.waves.byLabel: no workload of this VaultSecret has the label {label}; it counts on the workload, not on its pods"
            ));
        }
        let waves = self.order.iter().enumerate();
        let (fields, wanted): (Vec<_>, Vec<_>) = waves
            .filter(|(_, wave)| !found.contains(wave))
            .map(|(index, wave)| (format!("order[{index}]"), format!("{label}={wave}")))
            .unzip();
        (!fields.is_empty()).then(|| {
            format!(
                "spec.rollout.waves.{}: no workload of this VaultSecret has the label {}",
                fields.join(", "),
                wanted.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests;
