//! Effects: watches at the apiserver. Everything that is known of the cluster, in one place.

mod optional;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        refs::{AuthKind, ConnectionKind},
        vault_auth::{ClusterVaultAuth, ClusterVaultAuthSpec, VaultAuth, VaultAuthSpec},
        vault_connection::{
            ClusterVaultConnection, ClusterVaultConnectionSpec, VaultConnection,
            VaultConnectionSpec,
        },
        vault_secret::{VaultSecret, VaultSecretSpec, WorkloadKind},
    },
    cache::{Cache, Change, keep, objects},
    names::ObjectKey,
    rollout::view::{Workload, WorkloadView},
    secret_view::SecretView,
    sync::resolve::{ConnectionId, Lookup},
    view::{AuthView, ConnectionView, NamespaceView, ObjectView, VaultSecretView},
};

/// What is known of the cluster.
#[derive(Default)]
pub struct World {
    /// Every `VaultSecret`.
    pub vault_secrets: Arc<Cache<VaultSecretView>>,
    /// Every `VaultAuth`.
    pub vault_auths: Arc<Cache<AuthView>>,
    /// Every `ClusterVaultAuth`.
    pub cluster_vault_auths: Arc<Cache<AuthView>>,
    /// Every `VaultConnection`.
    pub vault_connections: Arc<Cache<ConnectionView>>,
    /// Every `ClusterVaultConnection`.
    pub cluster_vault_connections: Arc<Cache<ConnectionView>>,
    /// Every Secret, without its data.
    pub secrets: Arc<Cache<SecretView>>,
    /// Every Namespace.
    pub namespaces: Arc<Cache<NamespaceView>>,
    /// Every Deployment.
    pub deployments: Arc<Cache<WorkloadView>>,
    /// Every StatefulSet.
    pub stateful_sets: Arc<Cache<WorkloadView>>,
    /// Every DaemonSet.
    pub daemon_sets: Arc<Cache<WorkloadView>>,
    /// Every Rollout of Argo.
    pub rollouts: Arc<Cache<WorkloadView>>,
}

/// Who is told of changes.
pub trait Listener: Send + Sync + 'static {
    /// A `VaultSecret` changed.
    fn vault_secret(&self, change: &Change<VaultSecretView>);
    /// A `VaultAuth` or `ClusterVaultAuth` changed.
    fn auth(&self, kind: AuthKind, change: &Change<AuthView>);
    /// A `VaultConnection` or `ClusterVaultConnection` changed.
    fn connection(&self, kind: ConnectionKind, change: &Change<ConnectionView>);
    /// A Secret changed.
    fn secret(&self, change: &Change<SecretView>);
    /// A Namespace changed.
    fn namespace(&self, change: &Change<NamespaceView>);
    /// A workload changed.
    fn workload(&self, kind: WorkloadKind, change: &Change<WorkloadView>);
    /// The workloads of a kind may not be seen, or may be now.
    fn sight(&self);
}

impl World {
    /// The connection of this identity.
    pub fn connection(&self, id: &ConnectionId) -> Option<Arc<ConnectionView>> {
        self.connections(id.kind).get(&id.key)
    }

    /// The connections of one kind.
    pub fn connections(&self, kind: ConnectionKind) -> &Arc<Cache<ConnectionView>> {
        match kind {
            ConnectionKind::VaultConnection => &self.vault_connections,
            ConnectionKind::ClusterVaultConnection => &self.cluster_vault_connections,
        }
    }

    /// The auth objects of one kind.
    pub fn auths(&self, kind: AuthKind) -> &Arc<Cache<AuthView>> {
        match kind {
            AuthKind::VaultAuth => &self.vault_auths,
            AuthKind::ClusterVaultAuth => &self.cluster_vault_auths,
        }
    }

    /// Starts every watch in `tasks`. Each runs until `stop`.
    pub fn watch(
        &self,
        client: &Client,
        listener: &Arc<impl Listener>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let watches = Watches {
            client,
            listener,
            stop,
        };
        tasks.spawn(watches.own::<VaultSecret, VaultSecretSpec, _, _, _>(
            &self.vault_secrets,
            |to, change| {
                to.vault_secret(change);
            },
        ));
        tasks.spawn(watches.own::<VaultAuth, VaultAuthSpec, _, _, _>(
            &self.vault_auths,
            |to, change| {
                to.auth(AuthKind::VaultAuth, change);
            },
        ));
        tasks.spawn(
            watches.own::<ClusterVaultAuth, ClusterVaultAuthSpec, _, _, _>(
                &self.cluster_vault_auths,
                |to, change| {
                    to.auth(AuthKind::ClusterVaultAuth, change);
                },
            ),
        );
        tasks.spawn(
            watches.own::<VaultConnection, VaultConnectionSpec, _, _, _>(
                &self.vault_connections,
                |to, change| {
                    to.connection(ConnectionKind::VaultConnection, change);
                },
            ),
        );
        tasks.spawn(
            watches.own::<ClusterVaultConnection, ClusterVaultConnectionSpec, _, _, _>(
                &self.cluster_vault_connections,
                |to, change| to.connection(ConnectionKind::ClusterVaultConnection, change),
            ),
        );
        tasks.spawn(watches.metadata::<Secret, _, _>(
            &self.secrets,
            SecretView::project,
            Listener::secret,
        ));
        tasks.spawn(watches.metadata::<Namespace, _, _>(
            &self.namespaces,
            NamespaceView::project,
            Listener::namespace,
        ));
        self.watch_workloads(&watches, tasks);
    }

    fn watch_workloads(&self, watches: &Watches<'_, impl Listener>, tasks: &mut JoinSet<()>) {
        tasks.spawn(watches.workload::<Deployment>(WorkloadKind::Deployment, &self.deployments));
        tasks
            .spawn(watches.workload::<StatefulSet>(WorkloadKind::StatefulSet, &self.stateful_sets));
        tasks.spawn(watches.workload::<DaemonSet>(WorkloadKind::DaemonSet, &self.daemon_sets));
        tasks.spawn(optional::follow(
            watches.client.clone(),
            Arc::clone(&self.rollouts),
            Arc::clone(watches.listener),
            watches.stop.clone(),
        ));
        for cache in self.workloads() {
            tasks.spawn(watches.sight(cache));
        }
    }

    fn workloads(&self) -> [&Arc<Cache<WorkloadView>>; 4] {
        let Self {
            deployments,
            stateful_sets,
            daemon_sets,
            rollouts,
            ..
        } = self;
        [deployments, stateful_sets, daemon_sets, rollouts]
    }

    /// Returns when every cache holds a first full list; a kind of workload may be refused or missing instead.
    pub async fn wait_until_synced(&self) {
        tokio::join!(
            self.vault_secrets.wait_until_synced(),
            self.vault_auths.wait_until_synced(),
            self.cluster_vault_auths.wait_until_synced(),
            self.vault_connections.wait_until_synced(),
            self.cluster_vault_connections.wait_until_synced(),
            self.secrets.wait_until_synced(),
            self.namespaces.wait_until_synced(),
            join_all(self.workloads().map(|cache| cache.wait_until_tried())),
        );
    }
}

impl Lookup for World {
    fn auth(&self, kind: AuthKind, key: &ObjectKey) -> Option<Arc<AuthView>> {
        self.auths(kind).get(key)
    }

    fn has_connection(&self, kind: ConnectionKind, key: &ObjectKey) -> bool {
        self.connections(kind).get(key).is_some()
    }

    fn namespace(&self, name: &str) -> Option<Arc<NamespaceView>> {
        self.namespaces.get(&ObjectKey::cluster(name))
    }

    fn secret_version(&self, key: &ObjectKey) -> Option<String> {
        self.secrets
            .get(key)
            .map(|secret| format!("{} {}", secret.uid, secret.resource_version))
    }
}

/// What all watches have in common.
struct Watches<'a, L> {
    client: &'a Client,
    listener: &'a Arc<L>,
    stop: &'a CancellationToken,
}

impl<L: Listener> Watches<'_, L> {
    /// One of our own kinds: each object is decoded on its own.
    fn own<K, W, S, T, F>(
        &self,
        cache: &Arc<Cache<ObjectView<S, T>>>,
        tell: F,
    ) -> impl Future<Output = ()> + Send + use<K, W, S, T, F, L>
    where
        F: Fn(&L, &Change<ObjectView<S, T>>) + Send + Sync + 'static,
        K: Resource<DynamicType = ()> + 'static,
        W: DeserializeOwned + Into<S> + 'static,
        S: PartialEq + Send + Sync + 'static,
        T: DeserializeOwned + Default + PartialEq + Send + Sync + 'static,
    {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let events = objects(api);
        let listener = Arc::clone(self.listener);
        keep(
            (resource, events),
            Arc::clone(cache),
            |object| Some(ObjectView::project::<W>(object)),
            move |change| tell(&listener, change),
            self.stop.clone(),
        )
    }

    /// A kind of which only the metadata is watched.
    fn metadata<K, V, F>(
        &self,
        cache: &Arc<Cache<V>>,
        project: fn(&k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> V,
        tell: F,
    ) -> impl Future<Output = ()> + Send + use<K, V, F, L>
    where
        F: Fn(&L, &Change<V>) + Send + Sync + 'static,
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        V: PartialEq + Send + Sync + 'static,
    {
        let events = objects(Api::<PartialObjectMeta<K>>::all(self.client.clone()));
        let listener = Arc::clone(self.listener);
        keep(
            (ApiResource::erase::<K>(&()), events),
            Arc::clone(cache),
            move |object: PartialObjectMeta<K>| Some(project(&object.metadata)),
            move |change| tell(&listener, change),
            self.stop.clone(),
        )
    }

    /// A kind of workload.
    fn workload<K>(
        &self,
        kind: WorkloadKind,
        cache: &Arc<Cache<WorkloadView>>,
    ) -> impl Future<Output = ()> + Send + use<K, L>
    where
        K: Workload
            + Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
    {
        let listener = Arc::clone(self.listener);
        let events = objects(Api::<K>::all(self.client.clone()));
        keep(
            (ApiResource::erase::<K>(&()), events),
            Arc::clone(cache),
            |object: K| Some(WorkloadView::project(&object)),
            move |change| listener.workload(kind, change),
            self.stop.clone(),
        )
    }

    /// Tells when the workloads of a kind turn out to be refused, and when they are not any more.
    fn sight(&self, cache: &Cache<WorkloadView>) -> impl Future<Output = ()> + Send + use<L> {
        let (mut sight, listener) = (cache.sight(), Arc::clone(self.listener));
        let stop = self.stop.clone();
        async move {
            // The sender lives as long as the process.
            while let Some(Ok(())) = stop.run_until_cancelled(sight.changed()).await {
                listener.sight();
            }
        }
    }
}
