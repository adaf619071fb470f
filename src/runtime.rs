//! Effects: the process. Builds everything once, starts it in order, and stops it in order.
//!
//! Every task is started here and awaited here; the end of one that should not end is the end of the process.

pub mod wiring;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use jiff::Timestamp;
use kube::{Client, Config};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::wiring::{Queues, Wiring};
use crate::{
    admin::{self, Readiness},
    auth,
    cli::settings::Settings,
    connection::{self, Table},
    election::{self, ElectionError, Elector, Leadership, Params},
    hash_key,
    queue::work,
    report::{Records, Reporter},
    revision::RevisionKey,
    sync::{Syncer, memory::Memories},
    telemetry::{chain::chain, events::Events, metrics::Metrics},
    vault::{readings::Readings, sessions::Sessions},
    world::World,
};

/// How long the first Secrets wait for the first look at the connections. Later ones are told by an event.
const CONNECTIONS_FIRST: Duration = Duration::from_secs(3);
/// How soon the key of the rotation hash is asked for again.
const HASH_KEY_RETRY: Duration = Duration::from_secs(2);
/// How long the process waits for everything to end once it was asked to.
const SHUTDOWN: Duration = Duration::from_secs(12);
/// How often the gauges that are not kept by events are counted.
const GAUGES: Duration = Duration::from_secs(10);
/// Concurrent looks at connections and auth objects: there are few of either.
const SMALL: usize = 4;

/// Why the process ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the apiserver.
    #[error("find the apiserver: neither a kubeconfig nor a service account is there")]
    InferConfig(#[source] kube::Error),
    /// The client could not be built.
    #[error("build the Kubernetes client")]
    BuildClient(#[source] kube::Error),
    /// The admin endpoints could not be opened.
    #[error("listen on {address} (--admin-address)")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals could not be received.
    #[error("receive signals")]
    Signals(#[source] std::io::Error),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// Somebody else leads now.
    #[error("stop because leadership was lost")]
    Leadership(#[source] ElectionError),
    /// A task ended that never should.
    #[error("a part of the process ended unexpectedly")]
    TaskEnded,
}

/// Runs the operator until it is told to stop.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new());
    let client = client().await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(signals(stop.clone())?);

    let readiness = Readiness::new();
    let caches = readiness.gate("caches");
    let listener = TcpListener::bind(settings.admin_address)
        .await
        .map_err(|source| RunError::Listen { address: settings.admin_address, source })?;
    // The endpoints answer until the very end, so that a slow stop can be watched.
    let last = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, Arc::clone(&metrics), readiness, last.clone()));

    let operator = Operator::new(client, settings, metrics)?;
    operator.world.watch(&operator.client, &operator.wiring, &mut tasks, &stop);
    let (leadership, election) = operator.campaign(last.clone());
    let result = operator.lead(leadership, election, caches, &mut tasks, &stop).await;
    last.cancel();
    drop(timeout(SHUTDOWN, admin).await);
    result
}

/// One client for everything. It never repeats a request by itself: the queues do, with what is known by then.
async fn client() -> Result<Client, RunError> {
    let mut config = Config::infer().await.map_err(|error| RunError::InferConfig(kube::Error::InferConfig(error)))?;
    config.default_retry = false;
    Client::try_from(config).map_err(RunError::BuildClient)
}

/// The first signal asks for an orderly end, the second ends the process at once.
fn signals(stop: CancellationToken) -> Result<impl Future<Output = ()>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stop.cancelled() => return,
        }
        tracing::info!("stopping");
        stop.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("stopping at once");
        #[expect(clippy::exit, reason = "that is what a second signal asks for")]
        std::process::exit(130);
    })
}

/// Everything that lives as long as the process.
struct Operator {
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    world: Arc<World>,
    queues: Arc<Queues>,
    memories: Arc<Memories>,
    wiring: Arc<Wiring>,
}

type Election = tokio::task::JoinHandle<Result<(), ElectionError>>;

impl Operator {
    fn new(client: Client, settings: Settings, metrics: Arc<Metrics>) -> Result<Self, RunError> {
        let world = Arc::new(World::default());
        let queues = Arc::new(Queues::default());
        let memories = Arc::new(Memories::default());
        let wiring = Arc::new(Wiring {
            world: Arc::clone(&world),
            queues: Arc::clone(&queues),
            memories: Arc::clone(&memories),
            following: AtomicBool::new(false),
        });
        Ok(Self { client, settings, metrics, world, queues, memories, wiring })
    }

    fn campaign(&self, stop: CancellationToken) -> (watch::Receiver<Leadership>, Election) {
        if !self.settings.leader_election {
            let (sender, leadership) = election::unopposed();
            let election = tokio::spawn(async move {
                stop.cancelled().await;
                drop(sender);
                Ok(())
            });
            return (leadership, election);
        }
        let params = Params::new(&self.settings.namespace, &self.settings.identity);
        let (elector, leadership) = Elector::new(self.client.clone(), params, Arc::clone(&self.metrics));
        (leadership, tokio::spawn(elector.run(stop)))
    }

    /// Waits for caches and leadership, works, and ends in order: first the work, then the lease.
    async fn lead(
        &self,
        mut leadership: watch::Receiver<Leadership>,
        mut election: Election,
        caches: admin::Gate,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        let begin = async {
            self.world.wait_until_synced().await;
            caches.open();
            tracing::info!("caches are synced");
            // The elector keeps the sender until it ends, which is awaited beside this.
            _ = leadership.wait_for(Leadership::is_leader).await;
        };
        tokio::select! {
            () = begin => self.start(tasks, stop).await?,
            () = stop.cancelled() => {}
            ended = &mut election => return lost(ended),
        }
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = &mut election => lost(ended),
            _ = tasks.join_next() => Err(RunError::TaskEnded),
        };
        stop.cancel();
        let finish = async { while tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN, finish).await.is_err() {
            tracing::warn!("not everything ended in time");
        }
        result
    }

    /// Starts the work of a leader.
    async fn start(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Result<(), RunError> {
        tracing::info!("leading");
        let Some(revisions) = self.hash_key(stop).await else {
            return Ok(());
        };
        let sessions = Arc::new(Sessions::new());
        let readings = Readings::new(Arc::clone(&sessions), Arc::clone(&self.metrics)).map_err(RunError::Random)?;
        let readings = Arc::new(readings);
        let table = Arc::new(Table::default());
        let events = Events::new(self.client.clone(), &self.settings.pod, Arc::clone(&self.metrics));

        self.serve_connections(&table, tasks, stop);
        self.serve_auths(tasks, stop);
        self.connections_looked_at(&table, stop).await;
        let (keep_sessions, keep_readings) = (sessions, Arc::clone(&readings));
        let (a, b) = (stop.clone(), stop.clone());
        tasks.spawn(async move { keep_sessions.maintain(a).await });
        tasks.spawn(async move { keep_readings.maintain(b).await });
        let syncer = Syncer {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            connections: table,
            readings,
            revisions,
            metrics: Arc::clone(&self.metrics),
            default_interval: self.settings.default_refresh_interval,
            memories: Arc::clone(&self.memories),
        };
        self.serve_syncs(syncer, events.clone(), tasks, stop);
        self.wiring.started();
        Ok(())
    }

    /// Without the key no revision can be told, so nothing starts before it is there.
    async fn hash_key(&self, stop: &CancellationToken) -> Option<RevisionKey> {
        loop {
            match hash_key::load(&self.client, &self.metrics, &self.settings.namespace).await {
                Ok(key) => return Some(key),
                Err(error) => tracing::error!(error = chain(&error), "the key of the rotation hash is not available"),
            }
            tokio::select! {
                () = sleep(HASH_KEY_RETRY) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    fn serve_connections(&self, table: &Arc<Table>, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        let wiring = Arc::clone(&self.wiring);
        let controller = Arc::new(connection::Controller {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            table: Arc::clone(table),
            metrics: Arc::clone(&self.metrics),
            allow_insecure_tls: self.settings.allow_insecure_tls,
            changed: Box::new(move |id| wiring.connection_changed(id)),
        });
        tasks.spawn(work(Arc::clone(&self.queues.connections), SMALL, stop.clone(), move |id| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&id, clock()).await }
        }));
    }

    fn serve_auths(&self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        let controller = Arc::new(auth::Controller {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            metrics: Arc::clone(&self.metrics),
        });
        tasks.spawn(work(Arc::clone(&self.queues.auths), SMALL, stop.clone(), move |id| {
            let controller = Arc::clone(&controller);
            async move { controller.reconcile(&id, clock()).await }
        }));
    }

    /// At the start every object wants its connection at once; it is cheaper to have looked at them before.
    async fn connections_looked_at(&self, table: &Table, stop: &CancellationToken) {
        let all = self.wiring.connections();
        let looked_at = async {
            while all.iter().any(|id| table.get(id).is_none()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = timeout(CONNECTIONS_FIRST, looked_at) => {}
            () = stop.cancelled() => {}
        }
    }

    fn serve_syncs(&self, syncer: Syncer, events: Events, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        let workers = usize::from(self.settings.workers);
        let syncs = Arc::clone(&self.queues.syncs);
        let reporter = Arc::new(Reporter {
            client: self.client.clone(),
            world: Arc::clone(&self.world),
            metrics: Arc::clone(&self.metrics),
            events,
            staleness_budget: self.settings.staleness_budget,
            workloads: Box::new(|_| Some(Vec::new())),
            busy: Box::new(move || syncs.backlog(Instant::now(), workers) >= workers),
            records: Records::default(),
        });
        let (syncer, queues, records) = (Arc::new(syncer), Arc::clone(&self.queues), Arc::clone(&reporter));
        tasks.spawn(work(Arc::clone(&self.queues.syncs), workers, stop.clone(), move |key| {
            let (syncer, queues, reporter) = (Arc::clone(&syncer), Arc::clone(&queues), Arc::clone(&records));
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
        }));
        tasks.spawn(work(Arc::clone(&self.queues.reports), workers, stop.clone(), move |key| {
            let reporter = Arc::clone(&reporter);
            async move { reporter.report(&key).await }
        }));
    }
}

#[expect(clippy::disallowed_methods, reason = "this shell reads the clock once per pass")]
fn clock() -> Timestamp {
    Timestamp::now()
}

fn lost(ended: Result<Result<(), ElectionError>, tokio::task::JoinError>) -> Result<(), RunError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(RunError::Leadership(error)),
        Err(_) => Err(RunError::TaskEnded),
    }
}
