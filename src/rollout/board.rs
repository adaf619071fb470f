//! Effects: memory only. What the status of each VaultSecret should say about workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::WorkloadKey;
use crate::{api::vault_secret::WorkloadStatus, names::ObjectKey};

/// The latest state of every workload that is bound to a VaultSecret.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    states: BTreeMap<WorkloadKey, (WorkloadStatus, BTreeSet<ObjectKey>)>,
    by_vault_secret: BTreeMap<ObjectKey, BTreeSet<WorkloadKey>>,
}

impl Board {
    /// Puts up that `workload` is as `status` says and bound to `vault_secrets`; takes it down when `status` is `None`.
    ///
    /// Returns the VaultSecrets that have something new to say, those it is no longer bound to included.
    pub fn publish(
        &self,
        workload: &WorkloadKey,
        status: Option<WorkloadStatus>,
        vault_secrets: &[ObjectKey],
    ) -> Vec<ObjectKey> {
        let mut entries = self.lock();
        let (old, before) = entries.states.remove(workload).unzip();
        let before = before.unwrap_or_default();
        let after: BTreeSet<_> = match &status {
            Some(_) => vault_secrets.iter().cloned().collect(),
            None => BTreeSet::new(),
        };
        let same = old == status;
        for gone in before.difference(&after) {
            entries.unbind(gone, workload);
        }
        for come in after.difference(&before) {
            let bound = entries.by_vault_secret.entry(come.clone()).or_default();
            bound.insert(workload.clone());
        }
        let changed = before
            .union(&after)
            .filter(|key| !same || !before.contains(key) || !after.contains(key))
            .cloned()
            .collect();
        if let Some(status) = status {
            entries.states.insert(workload.clone(), (status, after));
        }
        changed
    }

    /// The workloads bound to `vault_secret`: those that need attention first, then by kind and name.
    pub fn workloads(&self, vault_secret: &ObjectKey) -> Vec<WorkloadStatus> {
        let entries = self.lock();
        let mut all: Vec<_> = entries
            .bound_to(vault_secret)
            .filter_map(|workload| entries.states.get(workload))
            .map(|(status, _)| status.clone())
            .collect();
        all.sort_by(|a, b| (a.state, a.kind, &a.name).cmp(&(b.state, b.kind, &b.name)));
        all
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
