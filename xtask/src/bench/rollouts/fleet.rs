//! Effects: apiserver, Vault — secrets, `VaultSecrets`, and Deployments that share them.

use std::{collections::BTreeMap, pin::pin, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use lockstep_testbed::Bed;
use serde_json::{Value, json};

use super::{
    super::furniture::{apply, deployment, deployments, furnish, objects, resource},
    RolloutsArguments,
    restarts::{Key, Sight},
};
use crate::failure::Failure;

/// Each is an identity in Vault.
const NAMESPACES: usize = 20;
/// Requests at once while things are prepared or changed.
const PREPARING: usize = 16;
/// The annotation of a pod that tells with which data it was started.
const HASH: &str = "lockstep.dev/secrets-hash";
/// The annotation of a `VaultSecret` that asks for a read.
const REFRESH: &str = "lockstep.dev/refresh";

/// By workload, the hash of the data that all its pods run, as the `VaultSecrets` tell.
pub(super) type Hashes = BTreeMap<Key, String>;

/// The objects of the benchmark.
pub(super) struct Fleet {
    pub(super) arguments: RolloutsArguments,
    namespaces: Vec<String>,
}

/// A `VaultSecret`, its Secret, and the last part of its path in Vault.
struct Secret<'a> {
    namespace: &'a str,
    name: String,
}

impl Secret<'_> {
    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Fleet {
    /// Prepares CRDs, a connection, a login, namespaces, and the secrets in Vault.
    pub(super) async fn new(bed: &Bed, arguments: RolloutsArguments) -> Result<Self, Failure> {
        let allowed = r#"path "secret/data/*" { capabilities = ["read"] }"#;
        let namespaces = furnish(bed, allowed, "1h", NAMESPACES).await?;
        let fleet = Self {
            arguments,
            namespaces,
        };
        fleet.put(bed).await?;
        Ok(fleet)
    }

    fn secrets(&self) -> impl Iterator<Item = Secret<'_>> {
        let namespaces = self.namespaces.iter().cycle();
        let numbered = (0..self.arguments.secrets).zip(namespaces);
        numbered.map(|(number, namespace)| Secret {
            namespace,
            name: format!("secret-{number}"),
        })
    }

    /// The Deployments.
    pub(super) fn workloads(&self) -> impl Iterator<Item = Key> {
        self.uses().map(|(workload, _)| workload)
    }

    /// The Deployments, each with the Secret it uses.
    fn uses(&self) -> impl Iterator<Item = (Key, String)> {
        let numbers = 0..self.arguments.workloads;
        let secrets = self.secrets();
        let secrets = secrets.map(|secret| (secret.namespace.to_owned(), secret.name));
        let secrets: Vec<_> = secrets.collect();
        numbers
            .zip(secrets.into_iter().cycle())
            .map(|(number, (namespace, secret))| {
                ((namespace, format!("workload-{number}")), secret)
            })
    }

    /// Writes every secret in Vault.
    async fn put(&self, bed: &Bed) -> Result<(), Failure> {
        let vault = bed.vault();
        let data = json!({"password": "first"});
        stream::iter(self.secrets())
            .map(Ok::<_, Failure>)
            .try_for_each_concurrent(PREPARING, async |secret| {
                vault.kv_put("secret", &secret.path(), &data).await?;
                Ok(())
            })
            .await
    }

    /// Applies every `VaultSecret`.
    pub(super) async fn apply_objects(&self, bed: &Bed) -> Result<(), Failure> {
        let client = bed.client().await?;
        stream::iter(self.secrets())
            .map(Ok::<_, Failure>)
            .try_for_each_concurrent(PREPARING, async |secret| {
                let object = vault_secret(&secret);
                apply(client.clone(), secret.namespace, &secret.name, &object).await?;
                Ok(())
            })
            .await
    }

    /// Applies the Deployments.
    pub(super) async fn apply_workloads(&self, bed: &Bed) -> Result<(), Failure> {
        let pods = i32::from(self.arguments.pods);
        let manifests = self.uses().map(|((namespace, name), secret)| {
            deployment(&namespace, &name, &secret, pods).to_string()
        });
        let manifests: Vec<_> = manifests.collect();
        Ok(bed.apply_yaml(&manifests.join("\n---\n")).await?)
    }

    /// Whether all pods of all Deployments run.
    pub(super) async fn all_run(&self, bed: &Bed) -> Result<(), String> {
        let all = deployments(bed).await.map_err(|failure| failure.chain())?;
        let run = all.iter().filter(|one| Sight::of(one).complete).count();
        self.all(run)
    }

    /// Whether all Deployments are reported to run the current data.
    pub(super) async fn all_in_step(&self, bed: &Bed) -> Result<(), String> {
        let told = self.told(bed).await.map_err(|failure| failure.chain())?;
        self.all(told.len())
    }

    fn all(&self, count: usize) -> Result<(), String> {
        let wanted = usize::from(self.arguments.workloads);
        if count == wanted {
            Ok(())
        } else {
            Err(format!("{count} of {wanted}"))
        }
    }

    /// The workloads that are verified.
    pub(super) async fn told(&self, bed: &Bed) -> Result<Hashes, Failure> {
        let all = objects(bed).await.map_err(Failure::Wrong)?;
        let told = all.iter().flat_map(standing);
        Ok(told.filter_map(|(key, hash)| Some((key, hash?))).collect())
    }

    /// Changes all secrets in Vault, and asks for each to be read: how often they are polled is not what is measured.
    pub(super) async fn change(&self, bed: &Bed) -> Result<(), Failure> {
        let (vault, client) = (bed.vault(), bed.client().await?);
        let data = json!({"password": "second"});
        let asks = json!({"metadata": {"annotations": {REFRESH: "second"}}});
        stream::iter(self.secrets())
            .map(Ok::<_, Failure>)
            .try_for_each_concurrent(PREPARING, async |secret| {
                vault.kv_put("secret", &secret.path(), &data).await?;
                let api = Api::<DynamicObject>::namespaced_with(
                    client.clone(),
                    secret.namespace,
                    &resource(),
                );
                api.patch(&secret.name, &PatchParams::default(), &Patch::Merge(&asks))
                    .await?;
                Ok(())
            })
            .await
    }

    /// Returns when all workloads were reported to run other data than `before`.
    pub(super) async fn all_verified(
        &self,
        bed: &Bed,
        before: &Hashes,
    ) -> Result<Instant, Failure> {
        let api = Api::<DynamicObject>::all_with(bed.client().await?, &resource());
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = pin!(events.applied_objects());
        let mut verified = Hashes::new();
        while verified.len() < before.len() {
            if let Some(Ok(object)) = events.next().await {
                for (key, hash) in standing(&object) {
                    match hash {
                        Some(hash) if before.get(&key) != Some(&hash) => {
                            verified.insert(key, hash);
                        }
                        Some(_) | None => _ = verified.remove(&key),
                    }
                }
            }
        }
        Ok(Instant::now())
    }

    /// How many pods carry the hash that their workload is reported to have, where that is not the one of `before`.
    pub(super) async fn new_pods(&self, bed: &Bed, before: &Hashes) -> Result<usize, Failure> {
        let now = self.told(bed).await?;
        let pods = Api::<Pod>::all(bed.client().await?);
        let pods = pods.list_metadata(&ListParams::default()).await?;
        let is_new = |pod: &&kube::core::PartialObjectMeta<Pod>| {
            let app = pod.labels().get("app").cloned().unwrap_or_default();
            let key = (pod.namespace().unwrap_or_default(), app);
            let hash = pod.annotations().get(HASH);
            pod.metadata.deletion_timestamp.is_none()
                && hash.is_some()
                && hash == now.get(&key)
                && hash != before.get(&key)
        };
        Ok(pods.iter().filter(is_new).count())
    }
}

/// The workloads of a `VaultSecret`, with the hash of those that are verified.
fn standing(object: &DynamicObject) -> Vec<(Key, Option<String>)> {
    let workloads = object.data.pointer("/status/rollout/workloads");
    let workloads = workloads.and_then(Value::as_array).into_iter().flatten();
    let namespace = object.namespace().unwrap_or_default();
    let text = |workload: &Value, field: &str| {
        let text = workload.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    workloads
        .map(|workload| {
            let key = (namespace.clone(), text(workload, "name"));
            let verified = text(workload, "state") == "Verified";
            (key, verified.then(|| text(workload, "hash")))
        })
        .collect()
}

fn vault_secret(secret: &Secret<'_>) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
        "metadata": {"name": secret.name},
        "spec": {
            "refreshInterval": "1h",
            "sources": [{"name": "main", "kv": {"mount": "secret", "path": secret.path(), "engineVersion": 2}}],
            "rollout": {"settle": "0s"},
        },
    })
}
