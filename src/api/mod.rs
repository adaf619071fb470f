//! Pure: the custom resources, their schemas and the rules the apiserver checks for us.
//!
//! A field stands here only when the operator acts on it. Rules that one object can break on its own
//! are CEL, so that `kubectl apply` answers at once; whatever needs other objects is decided in
//! [`crate::sync::resolve`].

pub mod cloud_login;
pub mod duration;
pub mod login;
pub mod pki;
pub mod refs;
pub mod source;
pub mod vault_auth;
pub mod vault_connection;
pub mod vault_secret;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;

use self::{
    vault_auth::{ClusterVaultAuth, VaultAuth},
    vault_connection::{ClusterVaultConnection, VaultConnection},
    vault_secret::VaultSecret,
};

/// The API group of every kind.
pub const GROUP: &str = "lockstep.dev";

/// Every custom resource definition, in the order in which people read them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        VaultConnection::crd(),
        ClusterVaultConnection::crd(),
        VaultAuth::crd(),
        ClusterVaultAuth::crd(),
        VaultSecret::crd(),
    ]
    .into_iter()
    .map(with_unobserved_status)
    .collect()
}

/// Gives `status` the default `observedGeneration: -1`.
///
/// A tool that follows kstatus then sees a new object as "in progress" until the operator has looked at it,
/// instead of taking an absent status for "nothing to wait for".
fn with_unobserved_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let status = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|root| root.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            set_status_default(status);
        }
    }
    crd
}

fn set_status_default(status: &mut JSONSchemaProps) {
    status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
    status.nullable = None;
}

#[cfg(test)]
mod tests;
