//! Pure: from the spec of a connection to values that cannot be wrong.

use std::time::Duration;

use crate::{
    api::{
        refs::ConnectionKind,
        vault_connection::{CaSpec, ConnectionSpec},
    },
    names::ObjectKey,
    sync::resolve::ConnectionId,
    vault::path::VaultAddress,
};

/// Time for one request when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest and longest time for one request that make sense.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(2);

/// A connection that can be prepared.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where Vault is.
    pub address: VaultAddress,
    /// Whom to trust.
    pub ca: Ca,
    /// Trust everybody.
    pub insecure_skip_verify: bool,
    /// Time for one request.
    pub timeout: Duration,
}

/// Where the certificate authorities stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ca {
    /// The system's.
    System,
    /// In the spec.
    Inline(String),
    /// In this key of this Secret.
    Secret(ObjectKey, String),
    /// In this key of this ConfigMap.
    ConfigMap(ObjectKey, String),
}

/// Checks the spec. The error names the field and what to do.
pub fn resolve(
    id: &ConnectionId,
    spec: &ConnectionSpec,
    allow_insecure_tls: bool,
) -> Result<Prepared, String> {
    let address = VaultAddress::parse(&spec.address).map_err(|error| {
        format!("spec.address: {error}; use a URL such as https://vault.vault.svc:8200")
    })?;
    let insecure_skip_verify = spec
        .tls
        .as_ref()
        .and_then(|tls| tls.insecure_skip_verify)
        .unwrap_or_default();
    if insecure_skip_verify && !allow_insecure_tls {
        return Err("spec.tls.insecureSkipVerify: the operator does not allow it; remove it and set tls.ca, or start the operator with --allow-insecure-tls".to_owned());
    }
    let timeout = spec.timeout.as_ref().map_or(
        TIMEOUT,
        super::super::api::duration::GoDuration::as_duration,
    );
    if !TIMEOUTS.contains(&timeout) {
        return Err("spec.timeout: it must be from 100ms to 2m".to_owned());
    }
    let ca = spec.tls.as_ref().and_then(|tls| tls.ca.as_ref());
    Ok(Prepared {
        address,
        ca: ca.map_or(Ok(Ca::System), |ca| certificate_authority(id, ca))?,
        insecure_skip_verify,
        timeout,
    })
}

fn certificate_authority(id: &ConnectionId, ca: &CaSpec) -> Result<Ca, String> {
    match ca {
        CaSpec {
            secret: Some(secret),
            config_map: None,
            bundle: None,
        } => Ok(Ca::Secret(
            place(id, secret.namespace.as_deref(), &secret.name)?,
            secret.key.clone(),
        )),
        CaSpec {
            secret: None,
            config_map: Some(map),
            bundle: None,
        } => Ok(Ca::ConfigMap(
            place(id, map.namespace.as_deref(), &map.name)?,
            map.key.clone(),
        )),
        CaSpec {
            secret: None,
            config_map: None,
            bundle: Some(bundle),
        } => Ok(Ca::Inline(bundle.clone())),
        CaSpec { .. } => {
            Err("spec.tls.ca: exactly one of secret, configMap and bundle must be set".to_owned())
        }
    }
}

/// A connection of one namespace reads there and nowhere else; one for the cluster has to say where.
fn place(id: &ConnectionId, namespace: Option<&str>, name: &str) -> Result<ObjectKey, String> {
    match (id.kind, namespace) {
        (ConnectionKind::VaultConnection, None) => Ok(ObjectKey::new(&id.key.namespace, name)),
        (ConnectionKind::ClusterVaultConnection, Some(namespace)) => Ok(ObjectKey::new(namespace, name)),
        (ConnectionKind::VaultConnection, Some(_)) => {
            Err("spec.tls.ca: a VaultConnection reads only its own namespace; remove namespace or use a ClusterVaultConnection".to_owned())
        }
        (ConnectionKind::ClusterVaultConnection, None) => Err("spec.tls.ca: namespace is required on a ClusterVaultConnection".to_owned()),
    }
}

/// The Secret this connection reads its certificate authorities from.
pub fn ca_secret(id: &ConnectionId, spec: &ConnectionSpec) -> Option<ObjectKey> {
    let ca = spec.tls.as_ref()?.ca.as_ref()?;
    match certificate_authority(id, ca) {
        Ok(Ca::Secret(key, _)) => Some(key),
        Ok(Ca::System | Ca::Inline(_) | Ca::ConfigMap(..)) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::vault_connection::VaultConnectionSpec;

    fn resolved(
        spec: serde_json::Value,
        kind: ConnectionKind,
        allow: bool,
    ) -> Result<Prepared, String> {
        let spec: VaultConnectionSpec = serde_json::from_value(spec).unwrap();
        let id = ConnectionId {
            kind,
            key: ObjectKey::new("shop", "main"),
        };
        resolve(&id, &spec.into(), allow)
    }

    #[test]
    fn each_refusal_names_its_field() {
        use ConnectionKind::{ClusterVaultConnection as Cluster, VaultConnection as Local};
        let ca = |ca: serde_json::Value| json!({"address": "https://v", "tls": {"ca": ca}});
        let rows = [
            (json!({"address": "vault:8200"}), Local, "spec.address:"),
            (
                json!({"address": "https://v", "tls": {"insecureSkipVerify": true}}),
                Local,
                "spec.tls.insecureSkipVerify:",
            ),
            (
                json!({"address": "https://v", "timeout": "5m"}),
                Local,
                "spec.timeout:",
            ),
            (ca(json!({})), Local, "spec.tls.ca: exactly one"),
            (
                ca(json!({"bundle": "x", "secret": {"name": "a", "key": "b"}})),
                Local,
                "spec.tls.ca: exactly one",
            ),
            (
                ca(json!({"secret": {"name": "a", "key": "b", "namespace": "other"}})),
                Local,
                "spec.tls.ca: a VaultConnection",
            ),
            (
                ca(json!({"configMap": {"name": "a", "key": "b"}})),
                Cluster,
                "spec.tls.ca: namespace is required",
            ),
        ];
        for (spec, kind, expected) in rows {
            let why = resolved(spec.clone(), kind, false).unwrap_err();
            assert!(why.starts_with(expected), "{spec}: {why}");
        }
    }

    #[test]
    fn an_admin_can_allow_insecure_tls() {
        let spec = json!({"address": "https://v", "tls": {"insecureSkipVerify": true}});
        assert!(
            resolved(spec, ConnectionKind::VaultConnection, true)
                .unwrap()
                .insecure_skip_verify
        );
    }

    #[test]
    fn a_secret_of_the_own_namespace_is_found() {
        let spec = json!({"address": "https://v/prefix", "timeout": "5s", "tls": {"ca": {"secret": {"name": "a", "key": "b"}}}});
        let prepared = resolved(spec, ConnectionKind::VaultConnection, false).unwrap();
        assert_eq!(
            prepared.ca,
            Ca::Secret(ObjectKey::new("shop", "a"), "b".into())
        );
        assert_eq!(prepared.timeout, Duration::from_secs(5));
    }
}
