//! Effects: memory only. What is remembered of each workload from one pass to the next.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{WorkloadKey, tracker::Tracker};

/// What is remembered of each workload.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<WorkloadKey, Tracker>>);

impl Memory {
    pub(super) fn get(&self, workload: &WorkloadKey) -> Tracker {
        self.lock().get(workload).cloned().unwrap_or_default()
    }

    pub(super) fn set(&self, workload: &WorkloadKey, tracker: Option<Tracker>) {
        match tracker {
            Some(tracker) => _ = self.lock().insert(workload.clone(), tracker),
            None => _ = self.lock().remove(workload),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadKey, Tracker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
