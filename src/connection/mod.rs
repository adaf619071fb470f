//! Effects: apiserver, Vault. Keeps one transport per connection, and says in its status how Vault is.
//!
//! Everybody else takes the transport from the [`Table`]; nobody else builds one.

pub mod resolve;
pub mod status;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use self::resolve::{Ca, Prepared};
use crate::{
    api::{
        refs::ConnectionKind,
        vault_connection::{ClusterVaultConnection, VaultConnection, VaultConnectionStatus},
    },
    names::ObjectKey,
    status::{
        write::{WriteStatusError, write_status},
        written::Written,
    },
    sync::resolve::ConnectionId,
    telemetry::metrics::Metrics,
    vault::{
        error::VaultError,
        request::Request,
        response::Health,
        transport::{Transport, TransportSettings},
    },
    view::ConnectionView,
    world::World,
};

/// How often a healthy server is looked at, and a certificate authority read again.
const HEALTHY: Duration = Duration::from_mins(1);
/// How often one that does not answer is looked at. The gate of the transport spares it the rest.
const UNHEALTHY: Duration = Duration::from_secs(5);
/// How long one request to the apiserver may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection as others see it.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It can be used. Whether Vault answers is another matter.
    Usable {
        /// What requests are sent through.
        transport: Arc<Transport>,
        /// Changes with every other server, certificate authority or setting.
        version: u64,
    },
    /// Somebody has to change something first.
    Refused(String),
}

/// Every connection that was looked at.
#[derive(Debug, Default)]
pub struct Table(RwLock<HashMap<ConnectionId, Entry>>);

impl Table {
    /// The connection, `None` if it was not looked at yet.
    pub fn get(&self, id: &ConnectionId) -> Option<Entry> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// Returns whether others have to look again.
    fn put(&self, id: &ConnectionId, entry: Entry) -> bool {
        let before = self
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), entry.clone());
        match (before, entry) {
            (Some(Entry::Usable { version: a, .. }), Entry::Usable { version: b, .. }) => a != b,
            (Some(Entry::Refused(a)), Entry::Refused(b)) => a != b,
            (_, _) => true,
        }
    }

    fn remove(&self, id: &ConnectionId) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}

/// What the controller works with.
pub struct Controller {
    /// Talks to the apiserver.
    pub client: Client,
    /// What is known of the cluster.
    pub world: Arc<World>,
    /// Where transports are put.
    pub table: Arc<Table>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether `insecureSkipVerify` is accepted.
    pub allow_insecure_tls: bool,
    /// What was written a moment ago: several looks in a row write once.
    pub written: Written<VaultConnectionStatus>,
    /// Told when a connection became another one.
    pub changed: Box<dyn Fn(&ConnectionId) + Send + Sync>,
}

impl Controller {
    /// Looks at one connection: prepare, ask Vault for its health, report.
    pub async fn reconcile(&self, id: &ConnectionId, now: Timestamp) -> Option<Instant> {
        let Some(view) = self.world.connection(id) else {
            self.table.remove(id);
            return None;
        };
        let entry = match self.prepare(id, &view).await {
            Ok(entry) => entry,
            Err(Unprepared::Refused(why)) => Entry::Refused(why),
            Err(Unprepared::Failed(why)) => return self.failed(id, &view, why, now).await,
        };
        // Before Vault is asked: nobody needs to wait for a Vault that does not answer.
        if self.table.put(id, entry.clone()) {
            (self.changed)(id);
        }
        let health = ask(&entry).await;
        let next = match &health {
            Look::Answered(health) if !health.sealed && health.initialized => HEALTHY,
            Look::Answered(_) | Look::Silent(_) => UNHEALTHY,
            Look::Refused(_) => HEALTHY,
        };
        self.report(id, &view, &health, now).await;
        Some(Instant::now() + next)
    }

    /// The apiserver did not say what the certificate authority is. What was prepared before stays in use.
    async fn failed(
        &self,
        id: &ConnectionId,
        view: &ConnectionView,
        why: String,
        now: Timestamp,
    ) -> Option<Instant> {
        tracing::warn!(connection = %id, why, "a connection could not be prepared");
        if self.table.get(id).is_none() {
            self.report(id, view, &Look::Silent(why), now).await;
        }
        Some(Instant::now() + UNHEALTHY)
    }

    async fn prepare(&self, id: &ConnectionId, view: &ConnectionView) -> Result<Entry, Unprepared> {
        let spec = view
            .spec
            .as_ref()
            .map_err(|bad| Unprepared::Refused(format!("{}: {}", bad.field, bad.why)))?;
        let Prepared {
            address,
            ca,
            insecure_skip_verify,
            timeout,
        } = resolve::resolve(id, spec, self.allow_insecure_tls).map_err(Unprepared::Refused)?;
        let ca = self.certificate_authority(&ca).await?;
        let mut hasher = DefaultHasher::new();
        (&view.uid, view.generation, &ca, id).hash(&mut hasher);
        let version = hasher.finish();
        if let Some(Entry::Usable {
            transport,
            version: before,
        }) = self.table.get(id)
            && before == version
        {
            return Ok(Entry::Usable { transport, version });
        }
        let settings = TransportSettings {
            ca,
            insecure_skip_verify,
            timeout,
            ..TransportSettings::new(address)
        };
        let transport = Transport::new(settings, Arc::clone(&self.metrics))
            .map_err(|error| Unprepared::Refused(format!("spec.tls.ca: {}", error.detail)))?;
        Ok(Entry::Usable {
            transport: Arc::new(transport),
            version,
        })
    }

    async fn certificate_authority(&self, ca: &Ca) -> Result<Option<Vec<u8>>, Unprepared> {
        let missing = |what: &str, key: &ObjectKey, data_key: &str| {
            Unprepared::Refused(format!(
                "spec.tls.ca: there is no key {data_key} in {what} {key}; create it or correct the reference"
            ))
        };
        match ca {
            Ca::System => Ok(None),
            Ca::Inline(pem) => Ok(Some(pem.clone().into_bytes())),
            Ca::Secret(key, data_key) => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
                let data = fetched(timeout(LIMIT, api.get_opt(&key.name)).await, "Secret", key)?
                    .and_then(|secret| secret.data);
                let pem = data
                    .and_then(|mut data| data.remove(data_key))
                    .map(|bytes| bytes.0);
                pem.map(Some)
                    .ok_or_else(|| missing("Secret", key, data_key))
            }
            Ca::ConfigMap(key, data_key) => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
                let data = fetched(
                    timeout(LIMIT, api.get_opt(&key.name)).await,
                    "ConfigMap",
                    key,
                )?
                .and_then(|map| map.data);
                let pem = data
                    .and_then(|mut data| data.remove(data_key))
                    .map(String::into_bytes);
                pem.map(Some)
                    .ok_or_else(|| missing("ConfigMap", key, data_key))
            }
        }
    }

    async fn report(&self, id: &ConnectionId, view: &ConnectionView, look: &Look, now: Timestamp) {
        let old = self.written.newest(&view.uid, &view.status, Instant::now());
        let next = status::next(&old, view.generation, look, now);
        if next == *old {
            return;
        }
        let object = (&id.key, view.uid.as_str());
        let written = match id.kind {
            ConnectionKind::VaultConnection => {
                write_status::<VaultConnection>(&self.client, &self.metrics, object, &next).await
            }
            ConnectionKind::ClusterVaultConnection => {
                write_status::<ClusterVaultConnection>(&self.client, &self.metrics, object, &next)
                    .await
            }
        };
        match written {
            Ok(()) => self.written.note(&view.uid, next, Instant::now()),
            Err(WriteStatusError::Gone(_)) => {}
            // The next pass writes it again, so a failure needs no more than a line.
            Err(error @ WriteStatusError::Failed(..)) => {
                tracing::warn!(connection = %id, %error, "a status was not written");
            }
        }
    }
}

/// Why there is no transport.
enum Unprepared {
    /// Somebody has to change something.
    Refused(String),
    /// The apiserver did not answer.
    Failed(String),
}

/// What a look at Vault showed.
#[derive(Clone, Debug)]
pub enum Look {
    /// It answered.
    Answered(Health),
    /// It did not, and this is what happened.
    Silent(String),
    /// It was not asked, because somebody has to change something first.
    Refused(String),
}

async fn ask(entry: &Entry) -> Look {
    let transport = match entry {
        Entry::Usable { transport, .. } => transport,
        Entry::Refused(why) => return Look::Refused(why.clone()),
    };
    let request = Request::health();
    let answer = transport
        .send(&request, None)
        .await
        .and_then(|response| response.health());
    match answer {
        Ok(health) => Look::Answered(health),
        Err(VaultError { detail, kind, .. }) if detail.is_empty() => {
            Look::Silent(kind.phrase().to_owned())
        }
        Err(VaultError { detail, kind, .. }) => {
            Look::Silent(format!("{}: {detail}", kind.phrase()))
        }
    }
}

type Fetched<T> = Result<kube::Result<Option<T>>, tokio::time::error::Elapsed>;

fn fetched<T>(found: Fetched<T>, what: &str, key: &ObjectKey) -> Result<Option<T>, Unprepared> {
    match found {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(kube::Error::Api(status))) => Err(Unprepared::Failed(format!(
            "cannot read {what} {key}: the apiserver says {} ({})",
            status.reason, status.code
        ))),
        Ok(Err(_)) | Err(_) => Err(Unprepared::Failed(format!(
            "cannot read {what} {key}: the apiserver cannot be reached"
        ))),
    }
}
