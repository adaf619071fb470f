//! Effects: apiserver. The only place that writes the status of our objects.

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, Status},
};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    names::{ObjectKey, STATUS_MANAGER},
    telemetry::metrics::Metrics,
};

/// How long one write may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteStatusError {
    /// The object is gone; nobody needs its status.
    #[error("{0} is gone")]
    Gone(ObjectKey),
    /// It may work later.
    #[error("cannot write the status of {0}: {1}")]
    Failed(ObjectKey, String),
}

/// Puts `status` in the place of that of the object of kind `K` with this key and UID.
///
/// It is replaced and not applied: server-side apply does not work on an object that was stored under another
/// schema, whatever is applied, and nobody but us writes there.
/// The UID makes sure that an object created meanwhile under the same name does not get its predecessor's status.
pub async fn write_status<K>(
    client: &Client,
    metrics: &Metrics,
    (key, uid): (&ObjectKey, &str),
    status: &impl Serialize,
) -> Result<(), WriteStatusError>
where
    K: Resource<DynamicType = ()>,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = if key.namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &key.namespace, &resource)
    };
    let write = async {
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]);
        let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        let params = PatchParams {
            field_manager: Some(STATUS_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        api.patch_status(&key.name, &params, &Patch::Json::<()>(patch))
            .await
    };
    let result = match timeout(LIMIT, write).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if is_gone(&status) => {
            Err(WriteStatusError::Gone(key.clone()))
        }
        Ok(Err(error)) => Err(WriteStatusError::Failed(key.clone(), error.to_string())),
        Err(_) => Err(WriteStatusError::Failed(
            key.clone(),
            "no answer from the apiserver in time".to_owned(),
        )),
    };
    metrics.apiserver_write(
        status_resource(&resource.kind),
        if result.is_ok() { "ok" } else { "error" },
    );
    result
}

/// Whether the object we looked at is no more: there is none of its name, or one with another UID.
///
/// The apiserver does not pass on which part of a JSON patch failed: it answers 422 with this text for every patch
/// that does not apply, and of ours only the test of the UID can fail. An invalid status has another text.
fn is_gone(status: &Status) -> bool {
    const NOT_APPLICABLE: &str = "the server rejected our request due to an error in our request";
    status.code == 404 || (status.code == 422 && status.message.starts_with(NOT_APPLICABLE))
}

fn status_resource(kind: &str) -> &'static str {
    match kind {
        "VaultSecret" => "vaultsecrets/status",
        "VaultAuth" => "vaultauths/status",
        "ClusterVaultAuth" => "clustervaultauths/status",
        "VaultConnection" => "vaultconnections/status",
        "ClusterVaultConnection" => "clustervaultconnections/status",
        _ => "other/status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_that_is_no_more_is_gone() {
        let rows = [
            (404, "vaultsecrets.lockstep.dev \"a\" not found", true),
            (
                422,
                "the server rejected our request due to an error in our request",
                true,
            ),
            (
                422,
                "VaultSecret.lockstep.dev \"a\" is invalid: status.conditions: Required value",
                false,
            ),
            (409, "the object has been modified", false),
            (500, "etcdserver: request timed out", false),
        ];
        for (code, message, gone) in rows {
            let status = Status {
                code,
                message: message.to_owned(),
                ..Status::default()
            };
            assert_eq!(is_gone(&status), gone, "{code} {message}");
        }
    }
}
