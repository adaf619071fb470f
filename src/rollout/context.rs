//! Effects: memory only. What the controller holds, what it knows of a workload, and which workloads a change concerns.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    WorkloadKey,
    bind::{self, Bound, Follows},
    board::Board,
    report::RolloutNote,
    tracker::Tracker,
    view::WorkloadView,
};
use crate::{
    api::vault_secret::WorkloadKind,
    cache::{Cache, Change},
    names::ObjectKey,
    queue::Queue,
    secret_view::SecretView,
    telemetry::metrics::Metrics,
};

/// Every kind of workload.
const KINDS: [WorkloadKind; 3] = [
    WorkloadKind::Deployment,
    WorkloadKind::StatefulSet,
    WorkloadKind::DaemonSet,
];

/// Returns what is needed of each VaultSecret of a namespace.
pub type FollowsOf = Arc<dyn Fn(&str) -> Vec<Follows> + Send + Sync>;

/// Everything a rollout touches.
pub struct RolloutContext {
    /// For lists of pods and for the two writes.
    pub client: kube::Client,
    /// The VaultSecrets of a namespace.
    pub follows: FollowsOf,
    /// All Secrets.
    pub secrets: Arc<Cache<SecretView>>,
    /// All Deployments.
    pub deployments: Arc<Cache<WorkloadView>>,
    /// All `StatefulSets`.
    pub stateful_sets: Arc<Cache<WorkloadView>>,
    /// All `DaemonSets`.
    pub daemon_sets: Arc<Cache<WorkloadView>>,
    /// The workloads to look at.
    pub queue: Arc<Queue<WorkloadKey>>,
    /// Where the results go.
    pub board: Arc<Board>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Takes what is worth an event.
    pub notify: Arc<dyn Fn(RolloutNote) + Send + Sync>,
    /// Asks for a VaultSecret to be read from Vault now.
    pub refresh: Arc<dyn Fn(ObjectKey) + Send + Sync>,
    /// Says that the status of a VaultSecret has something new to say.
    pub report: Arc<dyn Fn(ObjectKey) + Send + Sync>,
    /// What is remembered of each workload.
    pub memory: Memory,
}

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

/// What the caches say about one workload.
pub(super) struct Gathered {
    pub view: Option<Arc<WorkloadView>>,
    pub bound: Vec<Bound>,
    pub wanted: Option<String>,
}

impl RolloutContext {
    /// What the caches say about `workload`.
    pub(super) fn gather(&self, workload: &WorkloadKey) -> Gathered {
        let view = self.cache(workload.kind).get(&workload.object());
        let follows = (self.follows)(&workload.namespace);
        let secret = |name: &str| self.secrets.get(&ObjectKey::new(&workload.namespace, name));
        let bound = bind::bound(workload, view.as_deref(), &follows, secret);
        Gathered {
            wanted: bind::wanted(&bound),
            view,
            bound,
        }
    }

    /// The workloads of `kind`.
    pub fn cache(&self, kind: WorkloadKind) -> &Arc<Cache<WorkloadView>> {
        match kind {
            WorkloadKind::Deployment => &self.deployments,
            WorkloadKind::StatefulSet => &self.stateful_sets,
            WorkloadKind::DaemonSet => &self.daemon_sets,
        }
    }

    /// The workloads to look at when a Secret changed in a way that [`secret_change_matters`].
    pub fn touched_by_secret(&self, secret: &ObjectKey) -> Vec<WorkloadKey> {
        let follows = (self.follows)(&secret.namespace);
        let mut keys = self.using(secret);
        for follows in follows.iter().filter(|f| f.target_name == secret.name) {
            keys.extend(listed_by(follows));
            keys.extend(self.board.keys(&follows.key));
        }
        keys.into_iter().collect()
    }

    /// The workloads to look at when a VaultSecret came, changed or went, those it was bound to before included.
    pub fn touched_by_vault_secret(&self, vault_secret: &ObjectKey) -> Vec<WorkloadKey> {
        let follows = (self.follows)(&vault_secret.namespace);
        let mut keys: BTreeSet<_> = self.board.keys(vault_secret).into_iter().collect();
        for follows in follows.iter().filter(|f| f.key == *vault_secret) {
            let target = ObjectKey::new(&vault_secret.namespace, &follows.target_name);
            keys.extend(self.using(&target));
            keys.extend(listed_by(follows));
        }
        keys.into_iter().collect()
    }

    /// All workloads there are, and those that are named as targets though they are not there.
    pub fn every_workload(&self) -> BTreeSet<WorkloadKey> {
        let mut keys = BTreeSet::new();
        for kind in KINDS {
            let all = self.cache(kind).all();
            keys.extend(all.iter().map(|(key, _)| WorkloadKey::new(kind, key)));
        }
        let secrets = self.secrets.all();
        let managed = secrets.iter().filter(|(_, view)| view.managed.is_some());
        let namespaces: BTreeSet<_> = managed.map(|(key, _)| key.namespace.as_str()).collect();
        for namespace in namespaces {
            keys.extend((self.follows)(namespace).iter().flat_map(listed_by));
        }
        keys
    }

    fn using(&self, secret: &ObjectKey) -> BTreeSet<WorkloadKey> {
        let mut keys = BTreeSet::new();
        for kind in KINDS {
            let all = self.cache(kind).in_namespace(&secret.namespace);
            keys.extend(
                all.iter()
                    .filter(|(_, view)| view.secrets.contains(&secret.name))
                    .map(|(key, _)| WorkloadKey::new(kind, key)),
            );
        }
        keys
    }
}

fn listed_by(follows: &Follows) -> impl Iterator<Item = WorkloadKey> {
    let namespace = &follows.key.namespace;
    let targets = follows.policy.targets.iter();
    targets.map(|target| WorkloadKey::of_target(namespace, target))
}

/// Whether a change of a Secret can change what a workload should carry.
pub fn secret_change_matters(change: &Change<SecretView>) -> bool {
    let of = |view: &Option<Arc<SecretView>>| {
        let view = view.as_ref()?;
        let managed = view.managed.as_ref()?;
        Some((
            managed.vault_secret.clone(),
            managed.revision.clone(),
            managed.data_since,
            view.created,
        ))
    };
    of(&change.old) != of(&change.new)
}

#[cfg(test)]
mod tests;
