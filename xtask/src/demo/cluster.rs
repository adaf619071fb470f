//! Effects: apiserver — what the cluster itself says about the demo's objects, whatever the operator says.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::Value;

use crate::failure::Failure;

/// The namespace and the Deployment of the quickstart.
pub(super) const NAMESPACE: &str = "shop";
pub(super) const DEPLOYMENT: &str = "checkout";

/// The annotation of a pod template that the operator restarts pods with.
const HASH: &str = "lockstep.dev/secrets-hash";

/// The annotation of a Deployment in which its controller counts pod templates.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The operator's field manager.
const MANAGER: &str = "lockstep";

/// Looks at the cluster.
pub(super) struct Cluster {
    client: Client,
}

/// What counts of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rollout {
    /// The Deployment controller's count of pod templates: grows by one with every restart. (The generation also
    /// grows with every annotation of the Deployment itself.)
    pub(super) revision: u32,
    /// The hash on its pod template.
    pub(super) hash: Option<String>,
    /// Whether every pod is of this template, and available.
    pub(super) complete: bool,
}

/// What counts of a pod that is not on its way out.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) created: Option<Time>,
    pub(super) hash: Option<String>,
    pub(super) ready: bool,
}

/// What the status of a `VaultSecret` says about the Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) state: String,
    pub(super) hash: String,
    /// What it waits for, or what failed.
    pub(super) message: String,
}

impl Cluster {
    pub(super) const fn new(client: Client) -> Self {
        Self { client }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The value of a key of a Secret.
    pub(super) async fn value(&self, secret: &str, key: &str) -> Result<Option<String>, Failure> {
        let found: Option<Secret> = self.api().get_opt(secret).await?;
        let value = found.and_then(|secret| secret.data?.remove(key));
        Ok(value.map(|value| String::from_utf8_lossy(&value.0).into_owned()))
    }

    /// When the apiserver took the operator's last change of a Secret.
    pub(super) async fn written(&self, secret: &str) -> Result<Option<Time>, Failure> {
        let found: Secret = self.api().get(secret).await?;
        let mut entries = found.metadata.managed_fields.into_iter().flatten();
        let entry = entries.find(|entry| entry.manager.as_deref() == Some(MANAGER));
        Ok(entry.and_then(|entry| entry.time))
    }

    /// The Deployment.
    pub(super) async fn rollout(&self) -> Result<Rollout, Failure> {
        let found: Deployment = self.api().get(DEPLOYMENT).await?;
        Ok(found.into())
    }

    /// All Deployments with this label, by name, as they were at one moment.
    pub(super) async fn rollouts(&self, label: &str) -> Result<BTreeMap<String, Rollout>, Failure> {
        let labelled = ListParams::default().labels(label);
        let found = self.api::<Deployment>().list(&labelled).await?;
        let named = found.into_iter().map(|one| (one.name_any(), one.into()));
        Ok(named.collect())
    }

    /// The pods of the Deployment.
    pub(super) async fn pods(&self) -> Result<Vec<Replica>, Failure> {
        self.labelled_pods(&format!("app={DEPLOYMENT}")).await
    }

    /// The pods with this label.
    pub(super) async fn labelled_pods(&self, label: &str) -> Result<Vec<Replica>, Failure> {
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(label))
            .await?;
        let staying = pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(staying.map(Replica::from).collect())
    }

    /// What the status of the `VaultSecret` says about the Deployment.
    pub(super) async fn reported(&self, vault_secret: &str) -> Result<Option<Reported>, Failure> {
        let mut all = self.all_reported(vault_secret).await?;
        Ok(all.remove(DEPLOYMENT))
    }

    /// What it says about all workloads, by name.
    pub(super) async fn all_reported(
        &self,
        vault_secret: &str,
    ) -> Result<BTreeMap<String, Reported>, Failure> {
        let kind = ApiResource {
            group: "lockstep.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "lockstep.dev/v1alpha1".to_owned(),
            kind: "VaultSecret".to_owned(),
            plural: "vaultsecrets".to_owned(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &kind);
        let found = api.get(vault_secret).await?;
        let workloads = found.data.pointer("/status/rollout/workloads");
        let workloads = workloads.and_then(Value::as_array).into_iter().flatten();
        let text = |workload: &Value, field: &str| workload[field].as_str().map(str::to_owned);
        let reported = workloads.filter_map(|workload| {
            let reported = Reported {
                state: text(workload, "state")?,
                hash: text(workload, "hash")?,
                message: text(workload, "message").unwrap_or_default(),
            };
            Some((text(workload, "name")?, reported))
        });
        Ok(reported.collect())
    }
}

impl From<Deployment> for Rollout {
    fn from(found: Deployment) -> Self {
        let spec = found.spec.unwrap_or_default();
        let status = found.status.unwrap_or_default();
        let counts = [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ];
        let revision = found
            .metadata
            .annotations
            .and_then(|mut all| all.remove(REVISION));
        let current = status.observed_generation == found.metadata.generation;
        Self {
            revision: revision.and_then(|text| text.parse().ok()).unwrap_or(0),
            hash: spec
                .template
                .metadata
                .and_then(|metadata| metadata.annotations?.remove(HASH)),
            complete: current && counts.iter().all(|count| *count == spec.replicas),
        }
    }
}

impl From<Pod> for Replica {
    fn from(pod: Pod) -> Self {
        let conditions = pod.status.and_then(|status| status.conditions);
        Self {
            name: pod.metadata.name.unwrap_or_default(),
            created: pod.metadata.creation_timestamp,
            hash: pod
                .metadata
                .annotations
                .and_then(|mut all| all.remove(HASH)),
            ready: conditions
                .into_iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        }
    }
}
