//! Effects: the process. Builds everything once, starts it in order, and stops it in order.
//!
//! Every task is started here and awaited here; the end of one that should not end is the end of the process.

mod serve;
pub mod uninstall;
pub mod wiring;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use http::{HeaderValue, header::USER_AGENT};
use jiff::Timestamp;
use kube::{Client, Config};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::wiring::{Queues, Wiring};
use crate::{
    admin::{self, Readiness},
    cli::settings::Settings,
    cloud::http::Clouds,
    connection::Table,
    election::{self, ElectionError, Elector, Leadership, Params},
    hash_key,
    revision::RevisionKey,
    rollout::{context::RolloutContext, report::RolloutNote},
    session_store,
    sync::{
        Syncer,
        holding::{self, maybe},
        memory::Memories,
    },
    telemetry::{chain::chain, events::Events, metrics::Metrics},
    vault::{
        readings::Readings,
        sessions::{SessionStore, Sessions},
    },
    world::World,
};

/// How soon the Secrets are read again without which nothing starts.
const LOAD_AGAIN: Duration = Duration::from_secs(2);
/// How long the process waits for everything to end once it was asked to.
const SHUTDOWN: Duration = Duration::from_secs(12);
/// Notes about rollouts that wait to become events. Past that they are dropped: the status says the same.
const NOTES: usize = 1024;

/// Why the process ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the apiserver.
    #[error("find the apiserver: neither a kubeconfig nor a service account is there")]
    InferConfig(#[source] kube::Error),
    /// The client could not be built.
    #[error("build the Kubernetes client")]
    BuildClient(#[source] kube::Error),
    /// The client for services of clouds could not be built.
    #[error("build the client for cloud services")]
    BuildClouds(#[source] reqwest::Error),
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
    let clouds = Clouds::new(settings.cloud_endpoints.clone()).map_err(RunError::BuildClouds)?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    // Not among the tasks that are waited for: it listens for a second signal until the very end.
    let signals = tokio::spawn(signals(stop.clone())?);

    let readiness = Readiness::new();
    let caches = readiness.gate("caches");
    let listener = TcpListener::bind(settings.admin_address)
        .await
        .map_err(|source| RunError::Listen {
            address: settings.admin_address,
            source,
        })?;
    // The endpoints answer until the very end, so that a slow stop can be watched.
    let last = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(
        listener,
        Arc::clone(&metrics),
        readiness,
        last.clone(),
    ));

    let operator = Operator::new((client, clouds), settings, metrics, stop);
    operator.world.watch(
        &operator.client,
        &operator.wiring,
        &mut tasks,
        &operator.stop,
    );
    let params = Params::new(&operator.settings.namespace, &operator.settings.identity);
    let (leadership, mut election) = operator.campaign(last.clone(), params);
    let (sessions, result) = operator
        .lead(leadership, &mut election, caches, &mut tasks)
        .await;
    last.cancel();
    // Now that nothing writes any more, the lease is given back.
    let give_back = async {
        if !election.is_finished() {
            drop(timeout(SHUTDOWN, election).await);
        }
    };
    let end = async {
        if let Some(sessions) = sessions {
            sessions.end().await;
        }
    };
    tokio::join!(give_back, end);
    drop(timeout(SHUTDOWN, admin).await);
    signals.abort();
    result
}

/// One client for everything. It never repeats a request by itself: the queues do, with what is known by then.
async fn client() -> Result<Client, RunError> {
    let mut config = Config::infer()
        .await
        .map_err(|error| RunError::InferConfig(kube::Error::InferConfig(error)))?;
    config.default_retry = false;
    // So that audit logs tell who it was.
    let agent = HeaderValue::from_static(concat!("lockstep/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
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
    clouds: Arc<Clouds>,
    /// Cancelled when the process is asked to end.
    stop: CancellationToken,
    settings: Settings,
    metrics: Arc<Metrics>,
    world: Arc<World>,
    queues: Arc<Queues>,
    memories: Arc<Memories>,
    holdings: Arc<holding::Table>,
    wiring: Arc<Wiring>,
    rollouts: Arc<RolloutContext>,
    announced: Arc<tokio::sync::Mutex<mpsc::Receiver<RolloutNote>>>,
}

type Election = tokio::task::JoinHandle<Result<(), ElectionError>>;

impl Operator {
    fn new(
        (client, clouds): (Client, Clouds),
        settings: Settings,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let world = Arc::new(World::default());
        let queues = Arc::new(Queues::default());
        let memories = Arc::new(Memories::default());
        let holdings = Arc::new(holding::Table::default());
        let (notes, announced) = mpsc::channel(NOTES);
        let rollouts = Arc::new(serve::rollouts(
            &client,
            &world,
            &queues,
            (&memories, &holdings),
            (&metrics, notes, settings.rollout_limits),
        ));
        let wiring = Arc::new(Wiring {
            rollouts: Arc::clone(&rollouts),
            world: Arc::clone(&world),
            queues: Arc::clone(&queues),
            memories: Arc::clone(&memories),
            changed: Arc::default(),
            following: AtomicBool::new(false),
        });
        let announced = Arc::new(tokio::sync::Mutex::new(announced));
        Self {
            client,
            clouds: Arc::new(clouds),
            stop,
            settings,
            metrics,
            world,
            queues,
            memories,
            holdings,
            wiring,
            rollouts,
            announced,
        }
    }

    fn campaign(
        &self,
        stop: CancellationToken,
        params: Params,
    ) -> (watch::Receiver<Leadership>, Election) {
        if !self.settings.leader_election {
            self.metrics.leader(true);
            tracing::info!("leading");
            let (sender, leadership) = election::unopposed();
            let election = tokio::spawn(async move {
                stop.cancelled().await;
                drop(sender);
                Ok(())
            });
            return (leadership, election);
        }
        let (elector, leadership) =
            Elector::new(self.client.clone(), params, Arc::clone(&self.metrics));
        (leadership, tokio::spawn(elector.run(stop)))
    }

    /// Waits for caches and leadership, works, and ends the work. Returns the sessions with Vault, once there were any.
    async fn lead(
        &self,
        mut leadership: watch::Receiver<Leadership>,
        election: &mut Election,
        caches: admin::Gate,
        tasks: &mut JoinSet<()>,
    ) -> (Option<Arc<Sessions>>, Result<(), RunError>) {
        let stop = &self.stop;
        let begin = async {
            self.world.wait_until_synced().await;
            caches.open();
            tracing::info!("caches are synced");
            // The elector keeps the sender until it ends, which is awaited beside this.
            _ = leadership.wait_for(Leadership::is_leader).await;
        };
        let started = tokio::select! {
            () = begin => self.start(tasks).await,
            () = stop.cancelled() => Ok(None),
            ended = &mut *election => return (None, lost(ended)),
        };
        let sessions = match started {
            Ok(sessions) => sessions,
            Err(error) => return (None, Err(error)),
        };
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = &mut *election => lost(ended),
            _ = tasks.join_next() => Err(RunError::TaskEnded),
        };
        stop.cancel();
        let finish = async { while tasks.join_next().await.is_some() {} };
        if timeout(SHUTDOWN, finish).await.is_err() {
            tracing::warn!("not everything ended in time");
            // Whatever is left must not write once another process leads.
            tasks.shutdown().await;
        }
        (sessions, result)
    }

    /// Starts the work of a leader; `None` if it was stopped before.
    async fn start(&self, tasks: &mut JoinSet<()>) -> Result<Option<Arc<Sessions>>, RunError> {
        let stop = &self.stop;
        let looked_at = Arc::new(AtomicBool::new(false));
        self.serve_auths(tasks);
        let Some(syncer) = self.syncer(&looked_at, tasks).await? else {
            return Ok(None);
        };
        let sessions = Arc::clone(&syncer.sessions);
        let (keep_sessions, keep_readings) = (Arc::clone(&sessions), Arc::clone(&syncer.readings));
        let (a, b) = (stop.clone(), stop.clone());
        tasks.spawn(async move { keep_sessions.maintain(a).await });
        tasks.spawn(async move { keep_readings.maintain(b).await });
        let events = Events::new(
            self.client.clone(),
            &self.settings.pod,
            Arc::clone(&self.metrics),
        );
        self.measure_at_scrape(&self.holdings);
        self.wiring.started();
        self.serve_rollouts(&looked_at, events.clone(), tasks);
        self.serve_bystanders(events.clone(), tasks);
        self.serve_syncs(syncer, events, &looked_at, tasks);
        Ok(Some(sessions))
    }

    /// What keeps Secrets in step, and the connections that it needs; `None` if the process is stopped before.
    async fn syncer(
        &self,
        looked_at: &Arc<AtomicBool>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Option<Syncer>, RunError> {
        let Some(revisions) = self.hash_key().await else {
            return Ok(None);
        };
        let Some(sessions) = self.sessions(&revisions).await else {
            return Ok(None);
        };
        let readings = Readings::new(Arc::clone(&sessions), Arc::clone(&self.metrics))
            .map_err(RunError::Random)?;
        let table = Arc::new(Table::default());
        self.serve_connections(&table, tasks);
        self.connections_looked_at(&table).await;
        Ok(Some(Syncer {
            client: self.client.clone(),
            clouds: Arc::clone(&self.clouds),
            world: Arc::clone(&self.world),
            connections: table,
            readings: Arc::new(readings),
            revisions,
            metrics: Arc::clone(&self.metrics),
            default_interval: self.settings.default_refresh_interval,
            memories: Arc::clone(&self.memories),
            sessions,
            holdings: Arc::clone(&self.holdings),
            ours: maybe::Ours::default(),
            revoke_unanswered: self.settings.revoke_unanswered_leases,
            verdict: serve::verdict(looked_at, &self.rollouts),
            clock,
            began: tokio::time::Instant::now(),
            stop: self.stop.clone(),
        }))
    }

    /// Without the key no revision can be told, so nothing starts before it is there.
    async fn hash_key(&self) -> Option<RevisionKey> {
        let load = || hash_key::load(&self.client, &self.metrics, &self.settings.namespace);
        self.once_there(load).await
    }

    /// Whoever logs in before the stored tokens are known has everything issued anew.
    async fn sessions(&self, key: &RevisionKey) -> Option<Arc<Sessions>> {
        let namespace = &self.settings.namespace;
        let load = || session_store::load(&self.client, &self.metrics, namespace, key.clone());
        Some(Arc::new(match self.settings.session_store {
            SessionStore::Secret => Sessions::with_stored(self.once_there(load).await?),
            store @ (SessionStore::Accessor | SessionStore::None) => Sessions::new(store),
        }))
    }

    /// Loads something without which nothing can start; `None` if the process is stopped before.
    async fn once_there<T, E: std::error::Error + 'static>(
        &self,
        load: impl AsyncFn() -> Result<T, E>,
    ) -> Option<T> {
        loop {
            match load().await {
                Ok(loaded) => return Some(loaded),
                Err(error) => tracing::error!(error = chain(&error), "cannot start yet"),
            }
            tokio::select! {
                () = sleep(LOAD_AGAIN) => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this shell reads the clock once per pass"
)]
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
