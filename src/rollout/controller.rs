//! Effects: apiserver, clock, log. One pass over one workload.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    WorkloadKey, argo,
    bind::Bound,
    board::Standing,
    context::{Gathered, RolloutContext},
    decide::{self, LOOK_AFTER_THEM, Situation},
    decision::Decision,
    exec::{self, ExecError},
    patch,
    pod::{self, PodFacts},
    refusal,
    report::{self, Announcement},
    tracker::{Attempt, Tracker},
    turn::Turn,
    view::WorkloadView,
};
use crate::{names::ObjectKey, queue::work};

/// The most that one pass can do: refresh, ask, list, write, and decide once more after each.
const MOST_STEPS: usize = 5;

/// The longest that pods on their way out are waited for.
const LONGEST_GRACE: Duration = Duration::from_hours(1);

/// Serves the queue with at most `workers` workloads at a time until `stop`.
///
/// The VaultSecrets behind `follows` must be complete before: a workload whose VaultSecrets are not known
/// yet looks like one that is bound to nothing.
pub async fn run(context: Arc<RolloutContext>, workers: usize, stop: CancellationToken) {
    let synced = async {
        context.secrets.wait_until_synced().await;
        for cache in [
            &context.deployments,
            &context.stateful_sets,
            &context.daemon_sets,
        ] {
            cache.wait_until_tried().await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return,
        () = synced => {}
    }
    let queue = Arc::clone(&context.queue);
    context.resume();
    // A target that does not exist has no event of its own.
    for workload in context.every_workload() {
        queue.add(workload);
    }
    work(queue, workers, stop, move |key| {
        let context = Arc::clone(&context);
        async move { reconcile(&context, &key).await }
    })
    .await;
}

/// One pass over one workload; returns when to look again.
pub async fn reconcile(context: &RolloutContext, workload: &WorkloadKey) -> Option<Instant> {
    let now = Instant::now();
    let gathered = context.gather(workload);
    let mut tracker = context.memory.get(workload);
    if let (Some(view), Some(wanted)) = (&gathered.view, &gathered.wanted) {
        let is_new = tracker.is_new_to(view);
        tracker.see(view, wanted, now.into_std());
        if is_new && context.had_failed(workload, wanted, &gathered.bound) {
            tracker.had_failed();
        }
    }
    let decision = act(context, workload, &gathered, &mut tracker, now.into_std()).await;
    let leaving = tracker
        .leaving(now.into_std())
        .filter(|_| matches!(decision, Decision::Verified | Decision::InStep { .. }));
    conclude(
        context,
        workload,
        &gathered,
        tracker,
        (&decision, leaving.is_some()),
    );
    let look = leaving.map(|until| until.min(now.into_std() + LOOK_AFTER_THEM));
    let again = [decision.again(), look].into_iter().flatten().min();
    again.map(Instant::from_std)
}

/// Decides and does what was decided until nothing is left to do in this pass.
async fn act(
    context: &RolloutContext,
    workload: &WorkloadKey,
    gathered: &Gathered,
    tracker: &mut Tracker,
    now: std::time::Instant,
) -> Decision {
    let mut pods: Option<Vec<PodFacts>> = None;
    let mut turn: Option<Turn> = None;
    let mut steps = 0;
    loop {
        let decision = decide::decide(&Situation {
            view: gathered.view.as_deref(),
            unseen: gathered.unseen.as_ref(),
            bound: &gathered.bound,
            wanted: gathered.wanted.as_deref(),
            tracker,
            pods: pods.as_deref(),
            turn: turn.as_ref(),
            now,
        });
        let (Some(view), Some(wanted)) = (gathered.view.as_deref(), gathered.wanted.as_deref())
        else {
            return decision;
        };
        steps += 1;
        if steps > MOST_STEPS {
            return decision;
        }
        let pass = Pass {
            context,
            workload,
            view,
            wanted,
            bound: &gathered.bound,
            now,
        };
        match &decision {
            Decision::ListPods => pods = pass.list(tracker).await,
            Decision::Ask => turn = Some(context.ask(workload, view, &gathered.bound, now)),
            Decision::Stamp => pass.stamp(tracker, turn.as_ref()).await,
            Decision::InStep { record: true, .. } => pass.record(tracker).await,
            Decision::Settle { refresh: true, .. } => pass.refresh(tracker),
            Decision::InStep { record: false, .. }
            | Decision::Settle { refresh: false, .. }
            | Decision::Unbound
            | Decision::Retry { .. }
            | Decision::Restarting { .. }
            | Decision::Fold { .. }
            | Decision::Verified
            | Decision::Failed { .. }
            | Decision::Paused { .. }
            | Decision::Waiting(_)
            | Decision::Conflict { .. } => return decision,
        }
    }
}

/// The one exit: what is remembered, told and put up.
fn conclude(
    context: &RolloutContext,
    workload: &WorkloadKey,
    gathered: &Gathered,
    mut tracker: Tracker,
    (decision, is_left): (&Decision, bool),
) {
    let kind = workload.kind.as_str();
    context.metrics.reconcile("rollout", decision.name());
    if let Some(what) = tracker.announce(decision) {
        match (what, tracker.awaited_since()) {
            (Announcement::Verified, Some(since)) => {
                let took = Instant::now().into_std().saturating_duration_since(since);
                context.metrics.rollout_verified(kind, took.as_secs_f64());
                if let Some(age) = tracker.behind_for(&gathered.bound, (context.clock)()) {
                    context.metrics.change_verified(kind, age);
                }
            }
            (Announcement::Failed, _) => context.metrics.rollout_failed(kind),
            (
                Announcement::Verified
                | Announcement::Started
                | Announcement::StartedEarly
                | Announcement::Conflict,
                _,
            ) => {}
        }
        tell(context, workload, gathered, what, decision);
    }
    tracker.concluded(decision, &gathered.bound);
    let known = gathered.view.is_some() && gathered.wanted.is_some();
    context.memory.set(workload, known.then_some(tracker));
    let status = report::status(workload, gathered.wanted.as_deref(), decision);
    let standing = status.map(|status| Standing {
        status,
        waits: is_left || report::waits(decision),
    });
    let keys: Vec<_> = gathered
        .bound
        .iter()
        .map(|bound| (bound.vault_secret.clone(), bound.data.clone()))
        .collect();
    // Before they are new, its pods may use what its template does not any more.
    let replaces = gathered
        .view
        .as_ref()
        .is_some_and(|view| !view.is_complete());
    for changed in context.board.publish(workload, standing, (&keys, replaces)) {
        context.wake(&changed);
        (context.report)(changed);
    }
    context.concluded(workload, gathered.view.as_deref(), decision);
}

fn tell(
    context: &RolloutContext,
    workload: &WorkloadKey,
    gathered: &Gathered,
    what: Announcement,
    decision: &Decision,
) {
    let uid = gathered.view.as_ref().map_or("", |view| view.uid.as_str());
    let note = report::note(workload, uid, what, decision, &gathered.bound);
    tracing::info!(%workload, reason = what.reason().as_str(), note = note.message, "rollout");
    (context.notify)(note);
}

/// What the requests of one pass share.
struct Pass<'a> {
    context: &'a RolloutContext,
    workload: &'a WorkloadKey,
    view: &'a WorkloadView,
    wanted: &'a str,
    bound: &'a [Bound],
    now: std::time::Instant,
}

impl Pass<'_> {
    async fn list(&self, tracker: &mut Tracker) -> Option<Vec<PodFacts>> {
        let Self {
            context,
            workload,
            view,
            ..
        } = *self;
        let namespace = &workload.namespace;
        let listed = exec::list_pods(&context.client, namespace, &view.selector).await;
        let pods = match listed {
            Ok(pods) => pods,
            Err(error) => {
                self.failed(tracker, Attempt::List, &error);
                return None;
            }
        };
        let is_there = |name: &str| {
            let key = ObjectKey::new(namespace, name);
            context.cache(workload.kind).get(&key).is_some()
        };
        let leaving = pods
            .iter()
            .filter_map(|pod| pod::leaves_within(pod, workload, &view.uid, self.wanted, is_there))
            .map(|(uid, grace)| (uid, grace.min(LONGEST_GRACE)));
        tracker.leave(leaving, self.now);
        let mut pods: Vec<_> = pods
            .iter()
            .filter_map(|pod| PodFacts::project(pod, workload, &view.uid, is_there))
            .collect();
        argo::mark(&mut pods, view, self.bound, self.wanted);
        if tracker.listed(&pods, view, self.bound, self.now) {
            context.metrics.rollout_requested(workload.kind.as_str());
        }
        self.explain(tracker, &pods).await;
        Some(pods)
    }

    /// Asks why pods are missing, where the workload itself does not say.
    async fn explain(&self, tracker: &mut Tracker, pods: &[PodFacts]) {
        let Self {
            context,
            workload,
            view,
            ..
        } = *self;
        let situation = Situation {
            view: Some(view),
            bound: self.bound,
            wanted: Some(self.wanted),
            tracker,
            pods: Some(pods),
            unseen: None,
            turn: None,
            now: self.now,
        };
        if refusal::tells_in_events(workload.kind) && decide::lacks_pods(&situation) {
            let listed = exec::list_refusals(&context.client, &workload.namespace, &view.uid).await;
            let why = match listed {
                Ok(events) => refusal::newest(&events, self.bound),
                Err(error) => {
                    let line = error.line();
                    tracing::warn!(%workload, error = line, "the events of a workload cannot be read");
                    tracker.course.why.is_none().then_some(line)
                }
            };
            if let Some(why) = why {
                tracker.explained(why);
            }
        }
    }

    async fn stamp(&self, tracker: &mut Tracker, turn: Option<&Turn>) {
        let Self {
            context,
            workload,
            view,
            wanted,
            ..
        } = *self;
        let (client, metrics) = (&context.client, &context.metrics);
        let restart_at = argo::restart_at(view, self.bound, (context.clock)());
        let written = if let Some(at) = restart_at {
            let body = patch::restart_at(workload, view, wanted, at);
            exec::take_over(client, metrics, workload, &body).await
        } else {
            let body = patch::stamp(workload, view, wanted);
            if view.carries_a_copy() {
                exec::take_over(client, metrics, workload, &body).await
            } else {
                exec::stamp(client, metrics, workload, &body).await
            }
        };
        match written {
            Ok(generation) => {
                tracker.stamped(generation, self.now);
                context.metrics.rollout_started(workload.kind.as_str());
                let what = match turn {
                    Some(Turn::Mine { early: true }) => Announcement::StartedEarly,
                    Some(Turn::Mine { early: false } | Turn::Hold { .. }) | None => {
                        Announcement::Started
                    }
                };
                let note = report::note(workload, &view.uid, what, &Decision::Stamp, self.bound);
                tracing::info!(%workload, hash = wanted, note = note.message, "asked for a restart");
                (context.notify)(note);
            }
            Err(ExecError::Conflict { manager }) => tracker.refused(manager, view.stamp.clone()),
            Err(error) => self.failed(tracker, Attempt::Stamp, &error),
        }
    }

    async fn record(&self, tracker: &mut Tracker) {
        let Self {
            context, workload, ..
        } = *self;
        let body = patch::record(workload, self.view, self.wanted);
        match exec::take_over(&context.client, &context.metrics, workload, &body).await {
            Ok(_) => {
                tracing::info!(%workload, hash = self.wanted, "in step without a restart");
                tracker.recorded();
            }
            Err(error) => self.failed(tracker, Attempt::Record, &error),
        }
    }

    fn refresh(&self, tracker: &mut Tracker) {
        for bound in self.bound {
            (self.context.refresh)(bound.vault_secret.clone());
        }
        tracker.refreshed(self.now);
    }

    fn failed(&self, tracker: &mut Tracker, attempt: Attempt, error: &ExecError) {
        let line = error.line();
        tracing::warn!(workload = %self.workload, error = line, "a request of a rollout failed and is made again");
        let refused = error.is_refusal();
        tracker.failed(attempt, (line, refused), seed(self.workload), self.now);
    }
}

fn seed(workload: &WorkloadKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    workload.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
