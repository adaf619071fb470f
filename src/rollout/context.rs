//! Effects: memory only. What the controller holds, what it knows of a workload, and which workloads a change concerns.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;

use super::{
    WorkloadKey, argo,
    bind::{self, Bound, Follows},
    board::Board,
    decision::{Decision, Waiting},
    memory::Memory,
    report::RolloutNote,
    turn::{self, Gate, Hold, Limits, Line, Turn, Waves},
    view::WorkloadView,
};
use crate::{
    api::vault_secret::{VaultSecretSpec, WorkloadKind, WorkloadState, WorkloadStatus},
    cache::{Cache, Change, Sight},
    names::ObjectKey,
    queue::Queue,
    revision::Revision,
    secret_view::SecretView,
    sync::holding::Verdict,
    telemetry::metrics::Metrics,
};

/// Every kind of workload.
const KINDS: [WorkloadKind; 4] = [
    WorkloadKind::Deployment,
    WorkloadKind::StatefulSet,
    WorkloadKind::DaemonSet,
    WorkloadKind::Rollout,
];

/// Returns what is needed of each VaultSecret of a namespace.
pub type FollowsOf = Arc<dyn Fn(&str) -> Vec<Follows> + Send + Sync>;

/// Returns when the first of what was replaced for a VaultSecret, and may be in use, ends for good, if that is known.
pub type EndsOf = Arc<dyn Fn(&ObjectKey) -> Option<Instant> + Send + Sync>;

/// Returns what the status of a VaultSecret says of a workload.
pub type ToldOf = Arc<dyn Fn(&ObjectKey, &WorkloadKey) -> Option<WorkloadStatus> + Send + Sync>;

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
    /// All Rollouts of Argo.
    pub rollouts: Arc<Cache<WorkloadView>>,
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
    /// When the first of what was replaced for a VaultSecret ends for good.
    pub ends: EndsOf,
    /// What the status of a VaultSecret says of a workload.
    pub told: ToldOf,
    /// What time it is, for windows.
    pub clock: fn() -> Timestamp,
    /// How many may restart at once.
    pub limits: Limits,
    /// Who restarts, and who waits for it.
    pub line: Mutex<Line>,
}

/// What the caches say about one workload.
pub(super) struct Gathered {
    pub view: Option<Arc<WorkloadView>>,
    pub bound: Vec<Bound>,
    pub wanted: Option<String>,
    /// Why it would not be seen if it existed.
    pub unseen: Option<Waiting>,
}

impl RolloutContext {
    /// What the caches say about `workload`.
    pub(super) fn gather(&self, workload: &WorkloadKey) -> Gathered {
        let view = self.view(workload);
        let follows = (self.follows)(&workload.namespace);
        let secret = |name: &str| self.secrets.get(&ObjectKey::new(&workload.namespace, name));
        let bound = bind::bound(workload, view.as_deref(), &follows, secret);
        Gathered {
            wanted: bind::wanted(&bound),
            view: view.map(|view| argo::for_data(view, &bound)),
            bound,
            unseen: self.unseen_kind(workload, &follows),
        }
    }

    /// Why no workload of the kind of `workload` is seen.
    fn unseen_kind(&self, workload: &WorkloadKey, follows: &[Follows]) -> Option<Waiting> {
        match &*self.cache(workload.kind).sight().borrow() {
            Sight::Refused(why) | Sight::Stale(why) => Some(Waiting::Unseen { why: why.clone() }),
            Sight::Absent => {
                let places = follows.iter().filter_map(|one| one.place(workload));
                let places: BTreeSet<_> = places.collect();
                let target = places.first().copied().filter(|_| places.len() == 1);
                Some(Waiting::NoSuchKind { target })
            }
            Sight::Awaited | Sight::Synced => None,
        }
    }

    /// How `workload` looks, with the template that it takes from another.
    fn view(&self, workload: &WorkloadKey) -> Option<Arc<WorkloadView>> {
        let view = self.cache(workload.kind).get(&workload.object())?;
        let in_namespace = |name: &str| ObjectKey::new(&workload.namespace, name);
        if let Some(name) = argo::template_of(&view) {
            let lender = self.deployments.get(&in_namespace(name));
            return Some(lender.map_or_else(
                || Arc::clone(&view),
                |lender| Arc::new(argo::with_template_of(&view, &lender)),
            ));
        }
        let lent_to = self.borrower(workload);
        if lent_to.is_none() {
            return Some(view);
        }
        let view = WorkloadView::clone(&view);
        Some(Arc::new(WorkloadView { lent_to, ..view }))
    }

    /// The Rollout that takes the template of `workload`.
    fn borrower(&self, workload: &WorkloadKey) -> Option<String> {
        if workload.kind != WorkloadKind::Deployment {
            return None;
        }
        let takes = |view: &WorkloadView| argo::template_of(view) == Some(&workload.name);
        let pick = |(key, view): (&ObjectKey, &WorkloadView)| takes(view).then(|| key.name.clone());
        let borrowers = self.rollouts.pick(&workload.namespace, pick);
        borrowers.into_iter().next()
    }

    /// The workloads to look at when one of `kind` changed.
    pub fn touched_by_workload(
        &self,
        kind: WorkloadKind,
        change: &Change<WorkloadView>,
    ) -> Vec<WorkloadKey> {
        let workload = WorkloadKey::new(kind, &change.key);
        let key =
            |kind, name: &str| WorkloadKey::new(kind, &ObjectKey::new(&change.key.namespace, name));
        let views = [&change.old, &change.new].into_iter().flatten();
        let mut keys: Vec<_> = views
            .filter_map(|view| argo::template_of(view))
            .map(|name| key(WorkloadKind::Deployment, name))
            .collect();
        let borrower = self.borrower(&workload);
        keys.extend(borrower.map(|name| key(WorkloadKind::Rollout, &name)));
        keys.push(workload);
        keys
    }

    /// The workloads of `kind`.
    pub fn cache(&self, kind: WorkloadKind) -> &Arc<Cache<WorkloadView>> {
        match kind {
            WorkloadKind::Deployment => &self.deployments,
            WorkloadKind::StatefulSet => &self.stateful_sets,
            WorkloadKind::DaemonSet => &self.daemon_sets,
            WorkloadKind::Rollout => &self.rollouts,
        }
    }

    /// Which workloads that `vault_secret` would have restarted may not be seen, and why.
    pub fn unseen(&self, vault_secret: &ObjectKey) -> Option<String> {
        let refused = KINDS.iter().filter_map(|kind| {
            let name = kind.as_str();
            match &*self.cache(*kind).sight().borrow() {
                Sight::Refused(why) => Some(format!(
                    "{name}s cannot be seen and are not restarted: {why}"
                )),
                Sight::Stale(why) => Some(format!(
                    "{name}s cannot be watched any more, and new ones are not restarted: {why}"
                )),
                Sight::Awaited | Sight::Absent | Sight::Synced => None,
            }
        });
        let refused: Vec<_> = refused.collect();
        if refused.is_empty() {
            return None;
        }
        let follows = (self.follows)(&vault_secret.namespace);
        let mut mine = follows.iter().filter(|one| one.key == *vault_secret);
        mine.any(|one| one.policy.discover)
            .then(|| refused.join("; "))
    }

    /// How far the workloads of `vault_secret` are with its data of this revision and age.
    pub fn verdict(
        &self,
        vault_secret: &ObjectKey,
        revision: &Revision,
        since: Timestamp,
    ) -> Verdict {
        let verdict = self.board.verdict(vault_secret, revision, since);
        match verdict {
            Verdict::Waiting | Verdict::Undecided => verdict,
            Verdict::NoneSeen | Verdict::Verified if self.unseen(vault_secret).is_none() => verdict,
            Verdict::NoneSeen | Verdict::Verified => Verdict::Undecided,
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
            keys.extend(self.candidates(follows));
        }
        keys.into_iter().collect()
    }

    /// The workloads that may be bound to the VaultSecret `follows`.
    fn candidates(&self, follows: &Follows) -> BTreeSet<WorkloadKey> {
        let target = ObjectKey::new(&follows.key.namespace, &follows.target_name);
        let mut keys = self.using(&target);
        keys.extend(listed_by(follows));
        keys
    }

    /// Which workloads of the VaultSecret `key` may not be seen; otherwise what in its waves fits none of them.
    pub fn remark(&self, key: &ObjectKey, spec: &VaultSecretSpec) -> Option<String> {
        self.unseen(key).or_else(|| self.unknown_waves(key, spec))
    }

    fn unknown_waves(&self, key: &ObjectKey, spec: &VaultSecretSpec) -> Option<String> {
        let waves = Waves::from_spec(spec.rollout.as_ref()?.waves.as_ref()?);
        let follows = Follows::from_spec(key.clone(), spec, false);
        let views = self.candidates(&follows).into_iter().filter_map(|other| {
            let view = self.view(&other)?;
            follows.concerns(&other, Some(&view)).then_some(view)
        });
        let views: Vec<_> = views.collect();
        waves.unknown(views.iter().map(|view| &view.labels))
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

    /// Whether it was told of `workload` that its restart for this hash failed.
    pub(super) fn had_failed(&self, workload: &WorkloadKey, hash: &str, bound: &[Bound]) -> bool {
        let told = bound
            .iter()
            .filter_map(|one| (self.told)(&one.vault_secret, workload));
        let failed = |told: WorkloadStatus| {
            told.state == WorkloadState::Failed && told.hash.as_deref() == Some(hash)
        };
        told.into_iter().any(failed)
    }

    /// Takes in which workloads restart already, before any other gets its turn.
    pub(super) fn resume(&self) {
        let mut line = self.line();
        for kind in KINDS {
            for (key, view) in self.cache(kind).all() {
                if view.stamp.is_some() && view.is_rolling() {
                    line.starts(&WorkloadKey::new(kind, &key));
                }
            }
        }
    }

    /// Whether `workload` may restart now, for the Secrets it is bound to.
    pub(super) fn ask(
        &self,
        workload: &WorkloadKey,
        view: &WorkloadView,
        bound: &[Bound],
        now: Instant,
    ) -> Turn {
        let urgent = bound.iter().any(|bound| bound.urgent);
        if urgent {
            return self.line().ask(workload, self.limits, true);
        }
        let ends = bound
            .iter()
            .filter_map(|one| (self.ends)(&one.vault_secret));
        let gate = turn::gate(bound, ends.min(), ((self.clock)(), now));
        let early = match gate {
            Gate::Open => false,
            Gate::Early => true,
            Gate::Shut(turn) => return turn,
        };
        let behind = self.before(workload, view, bound);
        let mut line = self.line();
        if let Some((before, wave, state)) = behind
            && !line.passes(workload, &before)
        {
            return Turn::from(Hold::Wave {
                before,
                wave,
                state,
            });
        }
        match line.ask(workload, self.limits, false) {
            Turn::Mine { .. } => Turn::Mine { early },
            hold @ Turn::Hold { .. } => hold,
        }
    }

    /// A workload that comes before `workload` and does not run the current data yet, its wave, and how far it is; one that
    /// failed rather than another.
    fn before(
        &self,
        workload: &WorkloadKey,
        view: &WorkloadView,
        bound: &[Bound],
    ) -> Option<(WorkloadKey, String, WorkloadState)> {
        if bound.iter().all(|bound| bound.waves.is_none()) {
            return None;
        }
        let mut behind = Vec::new();
        let follows = (self.follows)(&workload.namespace);
        for bound in bound {
            let Some(waves) = &bound.waves else { continue };
            let Some(follows) = follows.iter().find(|one| one.key == bound.vault_secret) else {
                continue;
            };
            let mine = waves.rank(&view.labels);
            for other in self.candidates(follows) {
                let Some(view) = self.view(&other) else {
                    continue;
                };
                let restarts = follows.concerns(&other, Some(&view)) && !view.deleting;
                if other == *workload || !restarts || waves.rank(&view.labels) >= mine {
                    continue;
                }
                let state = self.board.state(&other, &bound.vault_secret, &bound.data);
                if state != WorkloadState::Verified {
                    let wave = view.labels.get(&waves.label).cloned().unwrap_or_default();
                    behind.push((other, wave, state));
                }
            }
        }
        let failed = |(_, _, state): &(_, _, WorkloadState)| *state == WorkloadState::Failed;
        let chosen = behind.iter().position(failed).unwrap_or_default();
        (!behind.is_empty()).then(|| behind.swap_remove(chosen))
    }

    /// Looks again at the workloads of `vault_secret` that wait for others of it.
    pub(super) fn wake(&self, vault_secret: &ObjectKey) {
        let line = self.line();
        if line.depth().1 == 0 {
            return;
        }
        for workload in self.board.keys(vault_secret) {
            if line.is_behind(&workload) {
                self.queue.add(workload);
            }
        }
    }

    /// Gives back the place of `workload` unless `decision` keeps it, and looks at those whose turn it is then.
    pub(super) fn concluded(
        &self,
        workload: &WorkloadKey,
        view: Option<&WorkloadView>,
        decision: &Decision,
    ) {
        let mut line = self.line();
        let rolling = view.is_some_and(WorkloadView::is_rolling);
        match decision {
            Decision::Restarting { .. } | Decision::Fold { .. } => line.starts(workload),
            Decision::Waiting(Waiting::Turn {
                hold: Hold::Cluster { .. } | Hold::Namespace { .. } | Hold::Wave { .. },
                ..
            }) => {}
            // Newer data came while it restarts.
            Decision::ListPods
            | Decision::Settle { .. }
            | Decision::Retry { refused: false, .. }
            | Decision::Ask
            | Decision::Stamp
                if rolling => {}
            Decision::ListPods
            | Decision::Settle { .. }
            | Decision::Retry { refused: false, .. }
            | Decision::Ask
            | Decision::Stamp => line.step_aside(workload),
            Decision::Retry { refused: true, .. }
            | Decision::Unbound
            | Decision::InStep { .. }
            | Decision::Verified
            | Decision::Failed { .. }
            | Decision::Paused { .. }
            | Decision::Waiting(
                Waiting::NoSuchWorkload
                | Waiting::NoSuchKind { .. }
                | Waiting::Unseen { .. }
                | Waiting::Lent { .. }
                | Waiting::ManualUpdate { .. }
                | Waiting::Turn {
                    hold: Hold::Window { .. } | Hold::NoWindow { .. },
                    ..
                },
            )
            | Decision::Conflict { .. } => line.leave(workload),
        }
        for next in line.call(self.limits) {
            self.queue.add(next);
        }
        let (turn, wave) = line.depth();
        self.metrics.rollouts_waiting(turn, wave);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn using(&self, secret: &ObjectKey) -> BTreeSet<WorkloadKey> {
        let mut keys = BTreeSet::new();
        for kind in KINDS {
            keys.extend(self.cache(kind).pick(&secret.namespace, |(key, view)| {
                view.uses(&secret.name).then(|| WorkloadKey::new(kind, key))
            }));
        }
        let borrowers = self.rollouts.pick(&secret.namespace, |(key, view)| {
            let lender = ObjectKey::new(&key.namespace, argo::template_of(view)?);
            let lender = WorkloadKey::new(WorkloadKind::Deployment, &lender);
            keys.contains(&lender)
                .then(|| WorkloadKey::new(WorkloadKind::Rollout, key))
        });
        keys.extend(borrowers);
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
