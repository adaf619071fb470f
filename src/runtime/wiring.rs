//! Effects: memory. Which objects to look at again when another one changed: keys, never what happened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    api::{
        refs::{AuthKind, ConnectionKind},
        vault_auth::AuthSpec,
        vault_secret::{VaultSecretSpec, WorkloadKind},
    },
    auth::AuthId,
    cache::Change,
    connection,
    names::ObjectKey,
    queue::Queue,
    rollout::{
        WorkloadKey, bystander,
        context::{RolloutContext, secret_change_matters},
        view::WorkloadView,
    },
    secret_view::SecretView,
    sync::{
        memory::Memories,
        resolve::{ConnectionId, target_name},
    },
    telemetry::metrics::Metrics,
    view::{AuthView, ConnectionView, NamespaceView, ObjectView, VaultSecretView},
    world::{Listener, World},
};

/// What changes within this time is one look at pods that are not restarted.
const TOGETHER: Duration = Duration::from_secs(10);

/// What is to be looked at.
pub struct Queues {
    /// `VaultSecrets` whose Secret may be out of step.
    pub syncs: Arc<Queue<ObjectKey>>,
    /// `VaultSecrets` whose status may be out of date.
    pub reports: Arc<Queue<ObjectKey>>,
    /// Connections.
    pub connections: Arc<Queue<ConnectionId>>,
    /// Auth objects.
    pub auths: Arc<Queue<AuthId>>,
    /// Workloads that may be out of step.
    pub rollouts: Arc<Queue<WorkloadKey>>,
    /// Namespaces in which pods may use older data of a Secret and are not restarted.
    pub bystanders: Arc<Queue<String>>,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            syncs: Arc::new(Queue::new("syncs")),
            reports: Arc::new(Queue::new("reports")),
            connections: Arc::new(Queue::new("connections")),
            auths: Arc::new(Queue::new("auths")),
            rollouts: Arc::new(Queue::new("rollouts")),
            bystanders: Arc::new(Queue::new("bystanders")),
        }
    }
}

impl Queues {
    /// How many keys are due in each queue.
    pub fn measure(&self, metrics: &Metrics) {
        let now = Instant::now();
        metrics.queue_depth(self.syncs.name(), self.syncs.backlog(now, usize::MAX));
        metrics.queue_depth(self.reports.name(), self.reports.backlog(now, usize::MAX));
        metrics.queue_depth(
            self.connections.name(),
            self.connections.backlog(now, usize::MAX),
        );
        metrics.queue_depth(self.auths.name(), self.auths.backlog(now, usize::MAX));
        metrics.queue_depth(self.rollouts.name(), self.rollouts.backlog(now, usize::MAX));
        metrics.queue_depth(
            self.bystanders.name(),
            self.bystanders.backlog(now, usize::MAX),
        );
    }
}

/// Fills the queues from changes.
pub struct Wiring {
    /// What is known of the cluster.
    pub world: Arc<World>,
    /// The queues to fill.
    pub queues: Arc<Queues>,
    /// Told of Secrets that go.
    pub memories: Arc<Memories>,
    /// Knows which workloads a change concerns.
    pub rollouts: Arc<RolloutContext>,
    /// Secrets with new data.
    pub changed: Arc<bystander::Changed>,
    /// Before the first full list everything is queued for itself, so references need not be followed.
    pub following: AtomicBool,
}

impl Wiring {
    /// From now on references are followed.
    pub fn started(&self) {
        self.following.store(true, Ordering::Relaxed);
    }

    /// Every connection there is.
    pub fn connections(&self) -> Vec<ConnectionId> {
        [
            ConnectionKind::VaultConnection,
            ConnectionKind::ClusterVaultConnection,
        ]
        .into_iter()
        .flat_map(|kind| {
            let all = self.world.connections(kind).all();
            all.into_iter()
                .map(move |(key, _)| ConnectionId { kind, key })
        })
        .collect()
    }

    /// A connection became usable, unusable, or another one.
    pub fn connection_changed(&self, id: &ConnectionId) {
        self.sync_scope(&id.key.namespace);
        self.check_auths(&id.key.namespace);
    }

    /// All `VaultSecrets` of a namespace; of all namespaces if it is empty.
    fn sync_scope(&self, namespace: &str) {
        let scope = if namespace.is_empty() {
            self.world.vault_secrets.all()
        } else {
            self.world.vault_secrets.in_namespace(namespace)
        };
        for (key, _) in scope {
            self.queues.syncs.add(key);
        }
    }

    fn check_auths(&self, namespace: &str) {
        for kind in [AuthKind::VaultAuth, AuthKind::ClusterVaultAuth] {
            let cache = self.world.auths(kind);
            let scope = if namespace.is_empty() {
                cache.all()
            } else {
                cache.in_namespace(namespace)
            };
            for (key, _) in scope {
                self.queues.auths.add(AuthId { kind, key });
            }
        }
    }

    fn roll_out(&self, workloads: Vec<WorkloadKey>) {
        for workload in workloads {
            self.queues.rollouts.add(workload);
        }
    }

    /// The `VaultSecrets` that would write this Secret.
    fn follow_target(&self, secret: &ObjectKey) {
        for (vault_secret, view) in self.world.vault_secrets.in_namespace(&secret.namespace) {
            let aims_here = |spec: &_| target_name(&vault_secret, spec) == secret.name;
            if view.spec.as_deref().is_ok_and(aims_here) {
                self.queues.syncs.add(vault_secret);
            }
        }
    }

    /// A `VaultSecret` that goes or changes may let go of a Secret that another one waits for.
    fn follow_released(&self, change: &Change<VaultSecretView>) {
        let old = change.old.as_ref().and_then(|old| old.spec.as_deref().ok());
        if let Some(old) = old {
            let target = target_name(&change.key, old);
            self.follow_target(&ObjectKey::new(&change.key.namespace, target));
        }
    }

    /// Whoever depends on what a Secret holds: a key store, a login, a connection.
    fn follow_secret(&self, key: &ObjectKey) {
        for (vault_secret, view) in self.world.vault_secrets.in_namespace(&key.namespace) {
            if view
                .spec
                .as_deref()
                .is_ok_and(|spec| takes_password(spec, &key.name))
            {
                self.queues.syncs.add(vault_secret);
            }
        }
        for (kind, namespace) in [
            (AuthKind::VaultAuth, key.namespace.as_str()),
            (AuthKind::ClusterVaultAuth, ""),
        ] {
            for (_, auth) in self.world.auths(kind).in_namespace(namespace) {
                match auth.spec.as_deref().map(|spec| reads(spec, key)) {
                    Ok(Reads::FromConsumer) => self.sync_scope(&key.namespace),
                    Ok(Reads::Fixed) => self.sync_scope(""),
                    Ok(Reads::Not) | Err(_) => {}
                }
            }
        }
        for (kind, namespace) in [
            (ConnectionKind::VaultConnection, key.namespace.as_str()),
            (ConnectionKind::ClusterVaultConnection, ""),
        ] {
            for (name, view) in self.world.connections(kind).in_namespace(namespace) {
                let id = ConnectionId { kind, key: name };
                let depends = |spec: &_| connection::resolve::reads(&id, spec, key);
                if view.spec.as_deref().is_ok_and(depends) {
                    self.queues.connections.add(id);
                }
            }
        }
    }
}

/// Whether the password of a key store stands in the Secret called `name`.
fn takes_password(spec: &VaultSecretSpec, name: &str) -> bool {
    let stores = spec
        .sources
        .iter()
        .filter_map(|source| source.pki.as_ref()?.keystores.as_ref());
    stores
        .flat_map(|stores| stores.pkcs12.iter().chain(&stores.jks))
        .any(|store| store.password_ref.name == name)
}

/// How a login depends on a Secret.
enum Reads {
    Not,
    FromConsumer,
    Fixed,
}

fn reads(spec: &AuthSpec, secret: &ObjectKey) -> Reads {
    let found = spec
        .methods
        .secrets()
        .into_iter()
        .find(|(name, namespace)| {
            *name == secret.name && namespace.is_none_or(|namespace| namespace == secret.namespace)
        });
    match found {
        None => Reads::Not,
        Some((_, Some(_))) => Reads::Fixed,
        Some((_, None)) => Reads::FromConsumer,
    }
}

/// Whether an object came, went, or asks for something else than before.
fn asks_otherwise<S: PartialEq, T: serde::de::DeserializeOwned + Default>(
    change: &Change<ObjectView<S, T>>,
) -> bool {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => new.asks_otherwise_than(old),
        _ => true,
    }
}

impl Listener for Wiring {
    fn vault_secret(&self, change: &Change<VaultSecretView>) {
        if asks_otherwise(change) {
            self.queues.syncs.add(change.key.clone());
            if self.following.load(Ordering::Relaxed) {
                self.follow_released(change);
                self.roll_out(self.rollouts.touched_by_vault_secret(&change.key));
            }
        } else {
            self.queues.reports.add(change.key.clone());
        }
    }

    fn auth(&self, kind: AuthKind, change: &Change<AuthView>) {
        self.queues.auths.add(AuthId {
            kind,
            key: change.key.clone(),
        });
        if asks_otherwise(change) && self.following.load(Ordering::Relaxed) {
            self.sync_scope(&change.key.namespace);
        }
    }

    fn connection(&self, kind: ConnectionKind, change: &Change<ConnectionView>) {
        let id = ConnectionId {
            kind,
            key: change.key.clone(),
        };
        if asks_otherwise(change) {
            if self.following.load(Ordering::Relaxed) {
                self.connection_changed(&id);
            }
            self.queues.connections.add(id);
        }
    }

    fn secret(&self, change: &Change<SecretView>) {
        let following = self.following.load(Ordering::Relaxed);
        let managed = |view: &Option<Arc<SecretView>>| {
            let managed = view.as_ref()?.managed.as_ref()?;
            Some(ObjectKey::new(&change.key.namespace, &managed.vault_secret))
        };
        let (old, new) = (managed(&change.old), managed(&change.new));
        for owner in old.iter().chain(&new) {
            if change.new.is_none() {
                self.memories.secret_gone(owner);
            }
            self.queues.syncs.add(owner.clone());
        }
        if following && secret_change_matters(change) {
            self.roll_out(self.rollouts.touched_by_secret(&change.key));
        }
        if following && bystander::has_new_data(change) {
            self.changed.note(&change.key);
            let at = Instant::now() + TOGETHER;
            self.queues
                .bystanders
                .add_at(change.key.namespace.clone(), at);
        }
        if following && new.is_none() {
            self.follow_target(&change.key);
        }
        if following {
            self.follow_secret(&change.key);
        }
    }

    fn namespace(&self, change: &Change<NamespaceView>) {
        if self.following.load(Ordering::Relaxed) {
            self.sync_scope(&change.key.name);
        }
    }

    fn sight(&self) {
        if self.following.load(Ordering::Relaxed) {
            self.roll_out(self.rollouts.every_workload().into_iter().collect());
            for (key, _) in self.world.vault_secrets.all() {
                self.queues.reports.add(key);
            }
        }
    }

    fn workload(&self, kind: WorkloadKind, change: &Change<WorkloadView>) {
        let workload = WorkloadKey::new(kind, &change.key);
        // Whether the labels fit the waves stands in the report of the VaultSecret, not in what is reported of the workload.
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.labels != new.labels
        {
            for key in self.rollouts.board.bound(&workload) {
                self.queues.reports.add(key);
            }
        }
        self.roll_out(self.rollouts.touched_by_workload(kind, change));
    }
}
