//! Effects: apiserver. The only place that writes Secrets of users.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{desired::DesiredSecret, plan::Apply, refusal::Refusal};
use crate::{
    names::{ObjectKey, SECRET_MANAGER},
    secret_view::SecretView,
    telemetry::metrics::Metrics,
};

/// How long one write may take. The apiserver's own limit is a minute; a write that slow is better repeated.
const LIMIT: Duration = Duration::from_secs(20);

/// The Secret as it stands on the cluster after our write.
#[derive(Debug)]
pub struct AppliedSecret(pub SecretView);

/// Why a Secret was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The user has to change something.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may work later.
    #[error("cannot write Secret {name}: {why}")]
    Failed {
        /// Name of the Secret.
        name: String,
        /// What the apiserver said, without any value.
        why: String,
    },
}

/// Applies `desired` as `how` says.
pub async fn apply(
    client: &Client,
    metrics: &Metrics,
    desired: &DesiredSecret,
    how: &Apply,
) -> Result<AppliedSecret, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &desired.key.namespace);
    let params = PatchParams {
        force: how.force,
        ..PatchParams::apply(SECRET_MANAGER)
    };
    let secret = desired.to_secret(how.data_since);
    let written = timeout(
        LIMIT,
        api.patch(&desired.key.name, &params, &Patch::Apply(&secret)),
    )
    .await;
    let written = record(metrics, &desired.key.name, written)?;
    Ok(AppliedSecret(SecretView::project(&written.metadata)))
}

/// Takes back every field we own of a Secret that was only merged into; the rest of it stays.
pub async fn release(
    client: &Client,
    metrics: &Metrics,
    key: &ObjectKey,
    uid: &str,
) -> Result<(), ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    // Without `data` the apiserver would take away all of it that nobody owns, too: after an apply with
    // `stringData` nobody owns the keys that came of it.
    let nothing = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
        "data": {},
    });
    let params = PatchParams::apply(SECRET_MANAGER).force();
    let written = timeout(
        LIMIT,
        api.patch(&key.name, &params, &Patch::Apply(&nothing)),
    )
    .await;
    record(metrics, &key.name, written).map(|_| ())
}

type Written = Result<kube::Result<Secret>, tokio::time::error::Elapsed>;

fn record(metrics: &Metrics, name: &str, written: Written) -> Result<Secret, ApplyError> {
    let result = match written {
        Ok(Ok(secret)) => Ok(secret),
        Ok(Err(error)) => Err(classify(name, &error)),
        Err(_) => Err(ApplyError::Failed {
            name: name.to_owned(),
            why: "no answer from the apiserver in time".to_owned(),
        }),
    };
    metrics.apiserver_write("secrets", if result.is_ok() { "ok" } else { "error" });
    result
}

/// Sorts an answer of the apiserver. Its text is used only where it is known to hold no value.
fn classify(name: &str, error: &kube::Error) -> ApplyError {
    let name = name.to_owned();
    let kube::Error::Api(status) = error else {
        return ApplyError::Failed {
            name,
            why: "the apiserver cannot be reached".to_owned(),
        };
    };
    match status.code {
        409 if status.reason == "Conflict" => Refusal::TargetConflict {
            name,
            why: shorten(&status.message),
        }
        .into(),
        422 | 400 => Refusal::TargetInvalid {
            name,
            why: invalid_fields(status),
        }
        .into(),
        code => ApplyError::Failed {
            name,
            why: format!("{} ({code})", status.reason),
        },
    }
}

/// Which fields are wrong and why, without the values that the message quotes.
fn invalid_fields(status: &kube::core::Status) -> String {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.as_slice())
        .unwrap_or_default();
    let fields: Vec<_> = causes
        .iter()
        .map(|cause| match cause.message.rsplit_once(": ") {
            // A policy of the cluster, which may quote what it pleases after its name.
            _ if cause.field.is_empty() => format!("{} denied it", policy(&cause.message)),
            Some((_, rule)) => format!("{}: {rule}", cause.field),
            None => cause.field.clone(),
        })
        .collect();
    if fields.is_empty() {
        return status.reason.clone();
    }
    shorten(&fields.join("; "))
}

/// The name of the admission policy that refused, out of its message.
fn policy(message: &str) -> &str {
    message
        .split_once(" denied request")
        .map_or("an admission policy", |(name, _)| name)
}

/// Longest part of an apiserver's message that is passed on.
const MESSAGE: usize = 300;

fn shorten(message: &str) -> String {
    message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(MESSAGE)
        .collect()
}
