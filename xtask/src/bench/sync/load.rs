//! Effects: apiserver, Vault — the objects of the benchmark, and the plain loop beside it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use lockstep_testbed::Bed;
use serde_json::{Value, json};

use super::{
    super::furniture::{apply, furnish},
    SyncArguments,
};
use crate::failure::Failure;

/// Keys of each secret, and characters of each value.
const KEYS: usize = 10;
const CHARACTERS: usize = 64;
/// Requests at once while things are prepared.
const PREPARING: usize = 16;
/// Label of the Secrets the operator writes.
const MANAGED: &str = "app.kubernetes.io/managed-by=lockstep";

/// The objects of a benchmark.
pub(super) struct Load {
    pub(super) arguments: SyncArguments,
    namespaces: Vec<String>,
}

/// One object.
struct Place<'a> {
    namespace: &'a str,
    name: String,
    path: String,
}

impl Load {
    /// Prepares CRDs, a connection, a login, namespaces, and the secrets in Vault.
    pub(super) async fn new(bed: &Bed, arguments: SyncArguments) -> Result<Self, Failure> {
        let allowed = r#"path "secret/data/*" { capabilities = ["read"] }"#;
        let namespaces = furnish(bed, allowed, "1h", arguments.namespaces).await?;
        let vault = bed.vault();
        let load = Self {
            arguments,
            namespaces,
        };
        let paths: BTreeSet<_> = load.places().map(|place| place.path).collect();
        stream::iter(paths)
            .map(Ok)
            .try_for_each_concurrent(PREPARING, async |path| {
                vault.kv_put("secret", &path, &value(&path)).await.map(drop)
            })
            .await?;
        Ok(load)
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        (0..self.arguments.objects)
            .zip(self.namespaces.iter().cycle())
            .map(|(number, namespace)| {
                let leaf = if self.arguments.shared {
                    "shared".to_owned()
                } else {
                    format!("object-{number}")
                };
                Place {
                    namespace,
                    name: format!("object-{number}"),
                    path: format!("{namespace}/{leaf}"),
                }
            })
    }

    /// Applies every `VaultSecret`.
    pub(super) async fn apply_objects(&self, bed: &Bed) -> Result<(), Failure> {
        let client = bed.client().await?;
        stream::iter(self.places())
            .map(Ok)
            .try_for_each_concurrent(PREPARING, async |place| {
                let object = vault_secret(&place, self.arguments.interval);
                apply(client.clone(), place.namespace, &place.name, &object).await
            })
            .await?;
        Ok(())
    }

    /// Watches the Secrets that the operator writes.
    pub(super) async fn watch_secrets(&self, bed: &Bed) -> Result<SecretWatch, Failure> {
        Ok(SecretWatch {
            client: bed.client().await?,
            wanted: self.arguments.objects,
        })
    }
}

/// A watch that sees each Secret of the operator come.
pub(super) struct SecretWatch {
    client: Client,
    wanted: usize,
}

impl SecretWatch {
    /// Returns when the last Secret was seen.
    pub(super) async fn all_there(&self) -> Instant {
        let api = Api::<PartialObjectMeta<Secret>>::all(self.client.clone());
        let events = watcher(api, watcher::Config::default().labels(MANAGED)).default_backoff();
        let mut events = std::pin::pin!(events.touched_objects());
        let mut seen = BTreeSet::new();
        while let Some(event) = events.next().await {
            if let Ok(object) = event {
                seen.insert((object.metadata.namespace, object.metadata.name));
            }
            if seen.len() >= self.wanted {
                break;
            }
        }
        Instant::now()
    }
}

/// The plain loop: one read and one write per object, and nothing else.
pub(super) struct Plain<'a> {
    load: &'a Load,
    client: Client,
    http: reqwest::Client,
    vault: String,
    token: String,
}

impl<'a> Plain<'a> {
    /// Logs in once.
    pub(super) async fn new(bed: &Bed, load: &'a Load) -> Result<Self, Failure> {
        let vault = bed.vault();
        Ok(Self {
            load,
            client: bed.client().await?,
            http: reqwest::Client::builder()
                .tls_certs_only([])
                .build()
                .map_err(Failure::Http)?,
            vault: vault.address().to_owned(),
            token: vault.token().to_owned(),
        })
    }

    /// Does its work once and undoes it; returns how long the work took.
    pub(super) async fn run(&self, name: &str) -> Result<Duration, Failure> {
        let started = Instant::now();
        stream::iter(self.load.places())
            .map(Ok)
            .try_for_each_concurrent(self.load.arguments.workers, async |place| {
                self.copy(&place, name).await
            })
            .await?;
        let took = started.elapsed();
        for namespace in &self.load.namespaces {
            let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
            let ours = ListParams::default().labels(&format!("plain={name}"));
            api.delete_collection(&DeleteParams::default(), &ours)
                .await?;
        }
        println!("the plain loop took {:.2} s ({name})", took.as_secs_f64());
        Ok(took)
    }

    async fn copy(&self, place: &Place<'_>, name: &str) -> Result<(), Failure> {
        let url = format!("{}/v1/secret/data/{}", self.vault, place.path);
        let read = self
            .http
            .get(url)
            .header("X-Vault-Token", &self.token)
            .send()
            .await
            .map_err(Failure::Http)?;
        let body: Value =
            serde_json::from_slice(&read.bytes().await.map_err(Failure::Http)?).unwrap_or_default();
        let data = body
            .pointer("/data/data")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let data = data.into_iter().map(|(key, value)| {
            let text = value.as_str().unwrap_or_default();
            (key, ByteString(text.as_bytes().to_vec()))
        });
        let mut secret = Secret {
            data: Some(data.collect()),
            ..Secret::default()
        };
        let secret_name = format!("plain-{}", place.name);
        secret.metadata.name = Some(secret_name.clone());
        secret.metadata.labels = Some([("plain".to_owned(), name.to_owned())].into());
        let api = Api::<Secret>::namespaced(self.client.clone(), place.namespace);
        api.patch(
            &secret_name,
            &PatchParams::apply("plain"),
            &Patch::Apply(&secret),
        )
        .await?;
        Ok(())
    }
}

fn value(path: &str) -> Value {
    let pairs = (0..KEYS).map(|number| {
        let text = format!("{number}-{path}-")
            .chars()
            .cycle()
            .take(CHARACTERS)
            .collect::<String>();
        (format!("KEY_{number}"), json!(text))
    });
    Value::Object(pairs.collect())
}

fn vault_secret(place: &Place<'_>, interval: u64) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
        "metadata": {"name": place.name},
        "spec": {
            "refreshInterval": format!("{interval}s"),
            "sources": [{"name": "main", "kv": {"mount": "secret", "path": place.path, "engineVersion": 2}}],
        },
    })
}
