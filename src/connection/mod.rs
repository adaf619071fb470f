//! Effects: apiserver, Vault. Keeps one transport per connection, and says in its status how Vault is.
//!
//! Everybody else takes the transport from the [`Table`]; nobody else builds one.

mod material;
pub mod resolve;
pub mod status;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use kube::Client;
use tokio::time::Instant;

use self::{
    material::Material,
    resolve::{Permitted, Prepared, Refused},
};
use crate::{
    api::{
        refs::ConnectionKind,
        vault_connection::{ClusterVaultConnection, VaultConnection, VaultConnectionStatus},
    },
    status::{
        write::{WriteStatusError, write_status},
        written::Written,
    },
    sync::resolve::ConnectionId,
    telemetry::metrics::Metrics,
    vault::{
        error::{VaultError, VaultErrorKind},
        request::Request,
        response::Health,
        transport::{Transport, TransportSettings, Turned},
    },
    view::ConnectionView,
    world::World,
};

/// How often a healthy server is looked at, and what its TLS needs is read again.
const HEALTHY: Duration = Duration::from_mins(1);
/// How often one that does not answer is looked at. The gate of the transport spares it the rest.
const UNHEALTHY: Duration = Duration::from_secs(5);

/// A connection as others see it.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It can be used. Whether Vault answers is another matter.
    Usable {
        /// What requests are sent through.
        transport: Arc<Transport>,
        /// Changes with every other server, certificate authority or setting; the same in every process of one build.
        version: u64,
    },
    /// Somebody has to change something first.
    Refused(Refused),
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
    /// What connections may do.
    pub permitted: Permitted,
    /// What was written a moment ago: several looks in a row write once.
    pub written: Written<VaultConnectionStatus>,
    /// Told when a connection became another one.
    pub changed: Box<dyn Fn(&ConnectionId) + Send + Sync>,
    /// Has a connection looked at soon, because its Vault began to fail for others, or answers them again.
    pub look_again: Arc<dyn Fn(&ConnectionId) + Send + Sync>,
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

    /// The apiserver did not say what the certificates are. What was prepared before stays in use.
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
            .map_err(|bad| Refused::Spec(format!("{}: {}", bad.field, bad.why)))
            .map_err(Unprepared::Refused)?;
        let prepared = resolve::resolve(id, spec, &self.permitted).map_err(Unprepared::Refused)?;
        let material = material::fetch(&self.client, &prepared).await?;
        let mut hasher = DefaultHasher::new();
        (&view.uid, view.generation, material.version, id).hash(&mut hasher);
        let version = hasher.finish();
        if let Some(Entry::Usable {
            transport,
            version: before,
        }) = self.table.get(id)
            && before == version
        {
            return Ok(Entry::Usable { transport, version });
        }
        let settings = self.settings(id, prepared, material);
        let transport = Transport::new(settings, Arc::clone(&self.metrics)).map_err(|error| {
            Unprepared::Refused(Refused::Spec(format!("spec.{}", error.detail)))
        })?;
        Ok(Entry::Usable {
            transport: Arc::new(transport),
            version,
        })
    }

    fn settings(
        &self,
        id: &ConnectionId,
        prepared: Prepared,
        material: Material,
    ) -> TransportSettings {
        let Prepared {
            address,
            namespace,
            ca: _,
            client_certificate: _,
            server_name,
            insecure_skip_verify,
            headers,
            timeout,
            max_in_flight,
            requests_per_second,
        } = prepared;
        let Material {
            ca,
            client_certificate,
            version: _,
        } = material;
        let (look_again, id) = (Arc::clone(&self.look_again), id.clone());
        TransportSettings {
            turned: Turned::tell(move || look_again(&id)),
            address,
            namespace,
            ca,
            client_certificate,
            server_name,
            insecure_skip_verify,
            headers,
            timeout,
            max_in_flight,
            requests_per_second,
            reach: self.permitted.reach.clone(),
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
    Refused(Refused),
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
    Refused(Refused),
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
        // Its name leads where nobody may go.
        Err(VaultError {
            kind: VaultErrorKind::Refused,
            detail,
            ..
        }) => Look::Refused(Refused::Address(format!("spec.address: {detail}"))),
        Err(VaultError { detail, kind, .. }) if detail.is_empty() => {
            Look::Silent(kind.phrase().to_owned())
        }
        Err(VaultError { detail, kind, .. }) => {
            Look::Silent(format!("{}: {detail}", kind.phrase()))
        }
    }
}
