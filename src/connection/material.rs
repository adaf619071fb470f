//! Effects: apiserver. Fetches what a connection needs for TLS: certificate authorities, our certificate and its key.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client};
use tokio::time::timeout;

use super::{
    Unprepared,
    resolve::{Ca, Prepared, Refused},
};
use crate::{names::ObjectKey, sensitive::Sensitive};

/// How long one request to the apiserver may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What was found where the spec refers to.
pub(super) struct Material {
    /// PEM of the certificate authorities; `None` for the system's.
    pub ca: Option<Vec<u8>>,
    /// PEM of our certificate and its key.
    pub client_certificate: Option<Sensitive>,
    /// Differs when any of it does. Stays in memory.
    pub version: u64,
}

/// Fetches everything; what is not there is told with the field that names it.
pub(super) async fn fetch(client: &Client, prepared: &Prepared) -> Result<Material, Unprepared> {
    let mut version = DefaultHasher::new();
    let ca = certificate_authority(client, &prepared.ca).await?;
    ca.hash(&mut version);
    let client_certificate = match &prepared.client_certificate {
        None => None,
        Some(key) => Some(client_certificate(client, key, &mut version).await?),
    };
    Ok(Material {
        ca,
        client_certificate,
        version: version.finish(),
    })
}

async fn certificate_authority(client: &Client, ca: &Ca) -> Result<Option<Vec<u8>>, Unprepared> {
    let found = match ca {
        Ca::System => return Ok(None),
        Ca::Inline(pem) => return Ok(Some(pem.clone().into_bytes())),
        Ca::Secret(key, data_key) => {
            let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
            let secret = fetched(timeout(LIMIT, api.get_opt(&key.name)).await, "Secret", key)?;
            let data = secret.and_then(|secret| secret.data);
            let pem = data.and_then(|mut data| data.remove(data_key));
            pem.map(|ByteString(pem)| pem)
                .ok_or_else(|| missing("ca", data_key, "Secret", key))
        }
        Ca::ConfigMap(key, data_key) => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), &key.namespace);
            let found = timeout(LIMIT, api.get_opt(&key.name)).await;
            let map = fetched(found, "ConfigMap", key)?;
            let data = map.and_then(|map| map.data);
            let pem = data.and_then(|mut data| data.remove(data_key));
            pem.map(String::into_bytes)
                .ok_or_else(|| missing("ca", data_key, "ConfigMap", key))
        }
    };
    found.map(Some)
}

/// The certificate and the key of a Secret of type `kubernetes.io/tls`, one behind the other.
async fn client_certificate(
    client: &Client,
    key: &ObjectKey,
    version: &mut DefaultHasher,
) -> Result<Sensitive, Unprepared> {
    const PARTS: [&str; 2] = ["tls.crt", "tls.key"];
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    let secret = fetched(timeout(LIMIT, api.get_opt(&key.name)).await, "Secret", key)?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let mut parts = Vec::with_capacity(PARTS.len());
    for part in PARTS {
        let pem = data.get(part);
        let ByteString(pem) =
            pem.ok_or_else(|| missing("clientCertificate", part, "Secret", key))?;
        pem.hash(version);
        parts.push(pem.as_slice());
    }
    Ok(Sensitive::new(parts.join(&b"\n"[..])))
}

fn missing(field: &str, data_key: &str, what: &str, key: &ObjectKey) -> Unprepared {
    Unprepared::Refused(Refused::Spec(format!(
        "spec.tls.{field}: there is no key {data_key} in {what} {key}; create it or correct the reference"
    )))
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
