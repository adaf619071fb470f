//! Effects: memory only. What the status of each VaultSecret should say about workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

use super::{WorkloadKey, bind::Data};
use crate::{
    api::vault_secret::{WorkloadState, WorkloadStatus},
    names::ObjectKey,
    revision::Revision,
    sync::holding::Verdict,
};

/// How far one workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As the status of a VaultSecret says it.
    pub status: WorkloadStatus,
    /// Whether it has pods that do not run with the current data yet and are going to, or that are on their way out with older data.
    pub waits: bool,
}

/// The latest state of every workload that is bound to a VaultSecret.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    states: BTreeMap<WorkloadKey, (Standing, BTreeMap<ObjectKey, Data>)>,
    by_vault_secret: BTreeMap<ObjectKey, BTreeSet<WorkloadKey>>,
    /// Workloads that are replacing pods that were bound to these VaultSecrets, to which new ones are not.
    left: BTreeMap<WorkloadKey, BTreeSet<ObjectKey>>,
}

impl Board {
    /// Puts up that `workload` is as `standing` says and bound to the data of these VaultSecrets, and whether it replaces pods that may be
    /// bound to others; takes it down when `standing` is `None`.
    ///
    /// Returns the VaultSecrets that have something new to say, those it is no longer bound to included.
    pub fn publish(
        &self,
        workload: &WorkloadKey,
        standing: Option<Standing>,
        (bound, replaces): (&[(ObjectKey, Data)], bool),
    ) -> Vec<ObjectKey> {
        let mut entries = self.lock();
        let (old, before) = entries.states.remove(workload).unzip();
        let before: BTreeSet<_> = before.unwrap_or_default().into_keys().collect();
        let bound: BTreeMap<_, _> = match &standing {
            Some(_) => bound.iter().cloned().collect(),
            None => BTreeMap::new(),
        };
        let after: BTreeSet<_> = bound.keys().cloned().collect();
        let same = old == standing;
        for gone in before.difference(&after) {
            entries.unbind(gone, workload);
        }
        let mut left = entries.left.remove(workload).unwrap_or_default();
        let released = if replaces {
            left.extend(before.difference(&after).cloned());
            left.retain(|key| !after.contains(key));
            if !left.is_empty() {
                entries.left.insert(workload.clone(), left);
            }
            BTreeSet::new()
        } else {
            left
        };
        for come in after.difference(&before) {
            let bound = entries.by_vault_secret.entry(come.clone()).or_default();
            bound.insert(workload.clone());
        }
        let changed = before
            .union(&after)
            .filter(|key| !same || !before.contains(key) || !after.contains(key))
            .chain(released.difference(&after))
            .cloned()
            .collect();
        if let Some(standing) = standing {
            entries.states.insert(workload.clone(), (standing, bound));
        }
        changed
    }

    /// The workloads bound to `vault_secret`: those that need attention first, then by kind and name. What was told of one with other data
    /// than this of the VaultSecret, if that is known, says nothing.
    pub fn workloads(
        &self,
        vault_secret: &ObjectKey,
        data: Option<(&Revision, Timestamp)>,
    ) -> Vec<WorkloadStatus> {
        let entries = self.lock();
        let is_current = |bound: &BTreeMap<ObjectKey, Data>| {
            let held = bound
                .get(vault_secret)
                .map(|held| (&held.revision, held.since));
            data.is_none() || held == data
        };
        let mut all: Vec<_> = entries
            .bound_to(vault_secret)
            .filter_map(|workload| entries.states.get(workload))
            .map(|(standing, bound)| match &standing.status {
                status if is_current(bound) => status.clone(),
                status => WorkloadStatus {
                    state: WorkloadState::Pending,
                    hash: None,
                    pods: None,
                    message: None,
                    ..status.clone()
                },
            })
            .collect();
        all.sort_by(|a, b| (a.state, a.kind, &a.name).cmp(&(b.state, b.kind, &b.name)));
        all
    }

    /// How far the workloads bound to `vault_secret` are with its data of this revision and age.
    pub fn verdict(
        &self,
        vault_secret: &ObjectKey,
        revision: &Revision,
        since: Timestamp,
    ) -> Verdict {
        let entries = self.lock();
        if entries
            .left
            .values()
            .any(|left| left.contains(vault_secret))
        {
            return Verdict::Waiting;
        }
        let mut verdict = Verdict::NoneSeen;
        for workload in entries.bound_to(vault_secret) {
            let state = entries.states.get(workload).and_then(|(standing, bound)| {
                let data = bound.get(vault_secret)?;
                (data.revision == *revision && data.since == since).then_some(standing)
            });
            verdict = match (state, verdict) {
                (Some(standing), _) if standing.waits => return Verdict::Waiting,
                (Some(standing), Verdict::NoneSeen | Verdict::Verified)
                    if standing.status.state == WorkloadState::Verified =>
                {
                    Verdict::Verified
                }
                (_, _) => Verdict::Undecided,
            };
        }
        verdict
    }

    /// How far `workload` is with this data of `vault_secret`.
    pub fn state(
        &self,
        workload: &WorkloadKey,
        vault_secret: &ObjectKey,
        data: &Data,
    ) -> WorkloadState {
        let entries = self.lock();
        let entry = entries.states.get(workload);
        let current = entry.filter(|(_, bound)| bound.get(vault_secret) == Some(data));
        // What it was with other data says nothing.
        current.map_or(WorkloadState::Pending, |(standing, _)| {
            standing.status.state
        })
    }

    /// How many workloads are in each state.
    pub fn count(&self) -> BTreeMap<WorkloadState, usize> {
        let entries = self.lock();
        let mut count: BTreeMap<_, _> = WorkloadState::ALL.map(|state| (state, 0)).into();
        for (standing, _) in entries.states.values() {
            *count.entry(standing.status.state).or_default() += 1;
        }
        count
    }

    /// The VaultSecrets that `workload` is bound to.
    pub fn bound(&self, workload: &WorkloadKey) -> Vec<ObjectKey> {
        let entries = self.lock();
        let entry = entries.states.get(workload);
        entry.map_or_else(Vec::new, |(_, bound)| bound.keys().cloned().collect())
    }

    /// Which workloads these are.
    pub fn keys(&self, vault_secret: &ObjectKey) -> Vec<WorkloadKey> {
        self.lock().bound_to(vault_secret).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Whatever a panic left behind is put right by the next pass over the workload.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn bound_to(&self, vault_secret: &ObjectKey) -> impl Iterator<Item = &WorkloadKey> {
        self.by_vault_secret.get(vault_secret).into_iter().flatten()
    }

    fn unbind(&mut self, vault_secret: &ObjectKey, workload: &WorkloadKey) {
        if let Some(bound) = self.by_vault_secret.get_mut(vault_secret) {
            bound.remove(workload);
            if bound.is_empty() {
                self.by_vault_secret.remove(vault_secret);
            }
        }
    }
}

#[cfg(test)]
mod tests;
