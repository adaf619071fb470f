//! Effects: tasks. The work of a leader: which queue is served by whom, and what rollouts are given to work with.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Operator, clock, wiring::Queues};
use crate::{
    api::vault_secret::WorkloadStatus,
    auth,
    connection::{self, Table},
    names::ObjectKey,
    queue::work,
    report::{Records, Reporter, reference},
    rollout::{
        self,
        bind::{Follows, Policy},
        bystander,
        context::RolloutContext,
        exec,
        report::RolloutNote,
        turn::Limits,
    },
    status::{
        condition::{Kind, find, holds},
        written::Written,
    },
    sync::{
        Syncer, VerdictOf,
        holding::{self, Verdict},
        memory::Memories,
    },
    telemetry::{
        events::{EventReason, Events},
        metrics::Metrics,
    },
    world::World,
};

/// How long the first Secrets wait for the first look at the connections. Later ones are told by an event.
const CONNECTIONS_FIRST: Duration = Duration::from_secs(3);
/// Concurrent looks at connections and auth objects: there are few of either.
const SMALL: usize = 4;

/// How soon pods that are not restarted are looked for again, if that failed.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

impl Operator {
    pub(super) fn serve_connections(&self, table: &Arc<Table>, tasks: &mut JoinSet<()>) {
        let stop = &self.stop;
        let wiring = Arc::clone(&self.wiring);
        let queue = Arc::clone(&self.queues.connections);
        let controller = Arc::new(connection::Controller {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            table: Arc::clone(table),
            metrics: Arc::clone(&self.metrics),
            permitted: self.settings.permitted.clone(),
            written: Written::default(),
            changed: Box::new(move |id| wiring.connection_changed(id)),
            look_again: Arc::new(move |id| queue.add(id.clone())),
        });
        let stopped = stop.clone();
        tasks.spawn(work(
            Arc::clone(&self.queues.connections),
            SMALL,
            stop.clone(),
            move |id| {
                let (controller, stopped) = (Arc::clone(&controller), stopped.clone());
                // Vault is not waited for once the process ends.
                async move {
                    let look = controller.reconcile(&id, clock());
                    stopped.run_until_cancelled(look).await.flatten()
                }
            },
        ));
    }

    pub(super) fn serve_auths(&self, tasks: &mut JoinSet<()>) {
        let stop = &self.stop;
        let controller = Arc::new(auth::Controller {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            metrics: Arc::clone(&self.metrics),
            written: Written::default(),
        });
        tasks.spawn(work(
            Arc::clone(&self.queues.auths),
            SMALL,
            stop.clone(),
            move |id| {
                let controller = Arc::clone(&controller);
                async move { controller.reconcile(&id, clock()).await }
            },
        ));
    }

    /// At the start every object wants its connection at once; it is cheaper to have looked at them before.
    pub(super) async fn connections_looked_at(&self, table: &Table) {
        let all = self.wiring.connections();
        let looked_at = async {
            while all.iter().any(|id| table.get(id).is_none()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = timeout(CONNECTIONS_FIRST, looked_at) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Rollouts, and the events about them.
    pub(super) fn serve_rollouts(
        &self,
        looked_at: &Arc<AtomicBool>,
        events: Events,
        tasks: &mut JoinSet<()>,
    ) {
        let stop = &self.stop;
        let workers = usize::from(self.settings.rollout_workers);
        tasks.spawn(rollout::controller::run(
            Arc::clone(&self.rollouts),
            workers,
            stop.clone(),
        ));
        let (announced, stopped) = (Arc::clone(&self.announced), stop.clone());
        tasks.spawn(async move {
            let mut announced = announced.lock().await;
            while let Some(Some(note)) = stopped.run_until_cancelled(announced.recv()).await {
                events
                    .publish(&note.object(), note.what.reason(), &note.message)
                    .await;
            }
        });
        let (queues, looked_at, stopped) = (
            Arc::clone(&self.queues),
            Arc::clone(looked_at),
            stop.clone(),
        );
        let world = Arc::clone(&self.world);
        tasks.spawn(async move {
            while !queues.rollouts.is_idle(Instant::now()) && !stopped.is_cancelled() {
                sleep(Duration::from_millis(20)).await;
            }
            looked_at.store(true, Ordering::Relaxed);
            for (key, _) in world.vault_secrets.all() {
                queues.reports.add(key);
            }
            stopped.cancelled().await;
        });
    }

    /// Looks for pods that use new data of a Secret and are not restarted.
    pub(super) fn serve_bystanders(&self, events: Events, tasks: &mut JoinSet<()>) {
        let (client, world) = (self.client.clone(), Arc::clone(&self.world));
        let (queue, changed) = (
            Arc::clone(&self.queues.bystanders),
            Arc::clone(&self.wiring.changed),
        );
        tasks.spawn(work(
            queue,
            1,
            self.stop.clone(),
            move |namespace: String| {
                let (client, world, events) = (client.clone(), Arc::clone(&world), events.clone());
                let changed = Arc::clone(&changed);
                async move {
                    let names = changed.take(&namespace);
                    match exec::list_pods(&client, &namespace, bystander::SELECTOR).await {
                        Ok(pods) => {
                            for name in names {
                                let secret = ObjectKey::new(&namespace, name);
                                tell_bystanders(&world, &events, &secret, &pods).await;
                            }
                        }
                        Err(error) => {
                            changed.put_back(&namespace, names);
                            tracing::warn!(
                                namespace,
                                error = error.line(),
                                "pods that are not restarted were not looked for, and will be"
                            );
                            return Some(Instant::now() + LOOK_AGAIN);
                        }
                    }
                    None
                }
            },
        ));
    }

    /// The gauges that are not kept by events are counted when somebody looks.
    pub(super) fn measure_at_scrape(&self, holdings: &Arc<holding::Table>) {
        let (queues, world, holdings) = (
            Arc::clone(&self.queues),
            Arc::clone(&self.world),
            Arc::clone(holdings),
        );
        let board = Arc::clone(&self.rollouts.board);
        self.metrics.at_scrape(Box::new(move |metrics| {
            queues.measure(metrics);
            count_objects(&world, metrics);
            for (state, count) in board.count() {
                metrics.workloads(state.as_str(), count);
            }
            holdings.measure(metrics);
        }));
    }

    pub(super) fn serve_syncs(
        &self,
        syncer: Syncer,
        events: Events,
        looked_at: &Arc<AtomicBool>,
        tasks: &mut JoinSet<()>,
    ) {
        let stop = &self.stop;
        let workers = usize::from(self.settings.workers);
        let syncs = Arc::clone(&self.queues.syncs);
        let (looked_at, rollouts) = (Arc::clone(looked_at), Arc::clone(&self.rollouts));
        let world = Arc::clone(&self.world);
        let reporter = Arc::new(Reporter {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            metrics: Arc::clone(&self.metrics),
            events,
            staleness_budget: self.settings.staleness_budget,
            workloads: Box::new(move |key, data| {
                let remark = || {
                    let view = world.vault_secrets.get(key)?;
                    rollouts.remark(key, view.spec.as_ref().ok()?)
                };
                let seen = looked_at.load(Ordering::Relaxed);
                seen.then(|| (rollouts.board.workloads(key, data), remark()))
            }),
            busy: Box::new(move || syncs.backlog(Instant::now(), workers) >= workers),
            records: Records::default(),
            written: Written::default(),
        });
        let (syncer, queues, records) = (
            Arc::new(syncer),
            Arc::clone(&self.queues),
            Arc::clone(&reporter),
        );
        tasks.spawn(work(
            Arc::clone(&self.queues.syncs),
            workers,
            stop.clone(),
            move |key| {
                let (syncer, queues, reporter) = (
                    Arc::clone(&syncer),
                    Arc::clone(&queues),
                    Arc::clone(&records),
                );
                async move {
                    let pass = syncer.reconcile(&key).await;
                    match pass.outcome {
                        Some((version, outcome)) => {
                            reporter.records.tell(&key, version, outcome);
                            queues.reports.add(key);
                        }
                        None => reporter.records.forget(&key),
                    }
                    pass.next
                }
            },
        ));
        tasks.spawn(work(
            Arc::clone(&self.queues.reports),
            workers,
            stop.clone(),
            move |key| {
                let reporter = Arc::clone(&reporter);
                async move { reporter.report(&key).await }
            },
        ));
    }
}

/// Says on the `VaultSecret` of `secret` which of `pods` are not restarted; if it names itself what is, that is meant so.
async fn tell_bystanders(world: &World, events: &Events, secret: &ObjectKey, pods: &[Pod]) {
    let view = world.secrets.get(secret);
    let Some(managed) = view.as_ref().and_then(|view| view.managed.as_ref()) else {
        return;
    };
    let key = ObjectKey::new(&secret.namespace, &managed.vault_secret);
    let Some(object) = world.vault_secrets.get(&key) else {
        return;
    };
    let discovers = object
        .spec
        .as_ref()
        .is_ok_and(|spec| Policy::from_spec(spec.rollout.as_ref()).discover);
    let note = bystander::note(pods, &secret.name, managed.data_since);
    if let Some(note) = note.filter(|_| discovers) {
        let object = reference(&key, &object);
        events
            .publish(&object, EventReason::NotRestarted, &note)
            .await;
    }
}

/// How far the workloads of a `VaultSecret` are, for whoever waits for them.
pub(super) fn verdict(looked_at: &Arc<AtomicBool>, rollouts: &Arc<RolloutContext>) -> VerdictOf {
    let (looked_at, rollouts) = (Arc::clone(looked_at), Arc::clone(rollouts));
    Box::new(move |key, secret| {
        let managed = secret.and_then(|secret| secret.managed.as_ref());
        match managed {
            Some(managed) if looked_at.load(Ordering::Relaxed) => {
                rollouts.verdict(key, &managed.revision, managed.data_since)
            }
            Some(_) | None => Verdict::Undecided,
        }
    })
}

/// What rollouts work with. They hear of VaultSecrets and ask for reads and reports, and know nothing of how.
pub(super) fn rollouts(
    client: &Client,
    world: &Arc<World>,
    queues: &Arc<Queues>,
    (memories, holdings): (&Arc<Memories>, &Arc<holding::Table>),
    (metrics, notes, limits): (&Arc<Metrics>, mpsc::Sender<RolloutNote>, Limits),
) -> RolloutContext {
    let vault_secrets = Arc::clone(&world.vault_secrets);
    let follows = move |namespace: &str| {
        let all = vault_secrets.in_namespace(namespace);
        let decoded = all.into_iter().filter_map(|(key, view)| {
            Some((key, view.spec.as_ref().ok().cloned()?, view.emergency))
        });
        decoded
            .map(|(key, spec, urgent)| Follows::from_spec(key, &spec, urgent))
            .collect()
    };
    let (syncs, memories) = (Arc::clone(&queues.syncs), Arc::clone(memories));
    let holdings = Arc::clone(holdings);
    let reports = Arc::clone(&queues.reports);
    let told = Arc::clone(world);
    RolloutContext {
        client: client.clone(),
        follows: Arc::new(follows),
        secrets: Arc::clone(&world.secrets),
        deployments: Arc::clone(&world.deployments),
        stateful_sets: Arc::clone(&world.stateful_sets),
        daemon_sets: Arc::clone(&world.daemon_sets),
        rollouts: Arc::clone(&world.rollouts),
        queue: Arc::clone(&queues.rollouts),
        board: Arc::default(),
        metrics: Arc::clone(metrics),
        notify: Arc::new(move |note| {
            if let Err(error) = notes.try_send(note) {
                tracing::debug!(%error, "an event was dropped");
            }
        }),
        refresh: Arc::new(move |key: ObjectKey| {
            memories.ask_fresh(&key, Instant::now());
            syncs.add(key);
        }),
        report: Arc::new(move |key| reports.add(key)),
        memory: rollout::memory::Memory::default(),
        ends: Arc::new(move |key| holdings.first_end(key)),
        told: Arc::new(move |key, workload| {
            let view = told.vault_secrets.get(key)?;
            let mut all = view.status.rollout.as_ref()?.workloads.iter();
            let is_it =
                |one: &&WorkloadStatus| one.kind == workload.kind && one.name == workload.name;
            all.find(is_it).cloned()
        }),
        clock,
        limits,
        line: Mutex::default(),
    }
}

/// How many `VaultSecrets` are ready, stalled, or neither, and for how long one of them could not be read.
fn count_objects(world: &World, metrics: &Metrics) {
    let (mut ready, mut stalled, mut other) = (0, 0, 0);
    let (now, mut staleness) = (clock(), Duration::ZERO);
    for (_, view) in world.vault_secrets.all() {
        let conditions = &view.status.conditions;
        let unread =
            find(conditions, Kind::SourcesReachable).filter(|found| found.status == "False");
        if let Some(unread) = unread {
            let age = now.duration_since(unread.last_transition_time.0);
            staleness = staleness.max(age.try_into().unwrap_or_default());
        }
        match (
            holds(conditions, Kind::Ready),
            holds(conditions, Kind::Stalled),
        ) {
            (true, _) => ready += 1,
            (false, true) => stalled += 1,
            (false, false) => other += 1,
        }
    }
    for (state, count) in [("ready", ready), ("stalled", stalled), ("not_ready", other)] {
        metrics.objects("VaultSecret", state, count);
    }
    metrics.staleness(staleness);
}
