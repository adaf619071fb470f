//! Effects: apiserver. The only place that writes Secrets of users.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use tokio::time::timeout;

use super::{
    desired::DesiredSecret, holding::record::Records, merge, plan::Apply, refusal::Refusal,
    render::Data,
};
use crate::{
    api::vault_secret::CreationPolicy,
    names::{ObjectKey, SECRET_MANAGER},
    secret_view::{self, SecretView},
    sensitive::Sensitive,
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
    /// The Secret is not any more the one that was to be written over.
    #[error("Secret {0} changed meanwhile")]
    Outdated(String),
    /// It may work later.
    #[error("cannot write Secret {name}: {why}")]
    Failed {
        /// Name of the Secret.
        name: String,
        /// What the apiserver said, without any value.
        why: String,
    },
    /// The same, and it may have worked.
    #[error("cannot write Secret {name}: {why}")]
    Unanswered {
        /// Name of the Secret.
        name: String,
        /// What was seen of it.
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
    let mut secret = desired.to_secret(how.data_since, how.again);
    if desired.creation == CreationPolicy::Merge {
        let live = live(&api, &desired.key.name).await?;
        merge::check(&live, &desired.key.name, desired.keys())?;
        let over = &mut secret.metadata.resource_version;
        *over = over.take().or(live.metadata.resource_version);
    }
    let written = timeout(
        LIMIT,
        api.patch(&desired.key.name, &params, &Patch::Apply(&secret)),
    )
    .await;
    let written = record(metrics, &desired.key.name, written)?;
    Ok(AppliedSecret(SecretView::project(&written.metadata)))
}

/// Whether the Secret holds the data of `desired` already.
pub async fn holds(client: &Client, desired: &DesiredSecret) -> Result<bool, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &desired.key.namespace);
    Ok(desired.is_held_by(&live(&api, &desired.key.name).await?))
}

/// What a Secret holds.
#[derive(Default)]
pub struct Live {
    /// Its data.
    pub data: Data,
    /// The keys that are still as we wrote them.
    pub intact: BTreeSet<String>,
    /// UID and resource version; `None` if there is no Secret.
    pub version: Option<(String, String)>,
}

/// What the Secret holds now; nothing if there is none.
pub async fn live_data(client: &Client, key: &ObjectKey) -> Result<Live, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    let secret = match live(&api, &key.name).await {
        Ok(secret) => secret,
        Err(ApplyError::Refused(Refusal::TargetMissing { .. })) => return Ok(Live::default()),
        Err(error) => return Err(error),
    };
    let data = secret.data.unwrap_or_default();
    Ok(Live {
        version: Some(SecretView::project(&secret.metadata).version()),
        intact: secret_view::owned_data(&secret.metadata),
        data: data
            .into_iter()
            .map(|(key, value)| (key, Sensitive::new(value.0)))
            .collect(),
    })
}

/// What the Secret says at this moment of what was issued for it; nothing if there is none.
pub async fn live_records(client: &Client, key: &ObjectKey) -> Result<Records, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    let metadata = match timeout(LIMIT, api.get_metadata_opt(&key.name)).await {
        Ok(Ok(found)) => found.map(|found| found.metadata),
        Ok(Err(error)) => return Err(classify(&key.name, &error)),
        Err(_) => return Err(unanswered(&key.name)),
    };
    let managed = metadata.and_then(|metadata| SecretView::project(&metadata).managed);
    let holdings = managed.and_then(|managed| managed.holdings);
    Ok(holdings.map_or_else(Records::default, |holdings| holdings.records.clone()))
}

/// Takes the record of what was issued out of a Secret that is not kept any more, as long as it is the one of this UID and
/// resource version: its record may be in use again a moment later.
pub async fn clear_record(
    client: &Client,
    metrics: &Metrics,
    key: &ObjectKey,
    version: &(String, String),
) -> Result<(), ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    let params = PatchParams {
        field_manager: Some(SECRET_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(merge::forget(version));
    let written = timeout(LIMIT, api.patch_metadata(&key.name, &params, &patch)).await;
    match written {
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        written => record(metrics, &key.name, written).map(|_| ()),
    }
}

/// Takes our keys out of a Secret that was only merged into; the rest of it stays.
pub async fn release(
    client: &Client,
    metrics: &Metrics,
    key: &ObjectKey,
    uid: &str,
) -> Result<(), ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    let live = match live(&api, &key.name).await {
        Ok(live) if live.metadata.uid.as_deref() == Some(uid) => live,
        Ok(_) | Err(ApplyError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let params = PatchParams {
        field_manager: Some(SECRET_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(merge::release(&live));
    let written = timeout(LIMIT, api.patch(&key.name, &params, &patch)).await;
    record(metrics, &key.name, written).map(|_| ())
}

/// The Secret as it is now. What is written next names its version, so that nobody can come between.
async fn live(api: &Api<Secret>, name: &str) -> Result<Secret, ApplyError> {
    match timeout(LIMIT, api.get_opt(name)).await {
        Ok(Ok(Some(secret))) => Ok(secret),
        Ok(Ok(None)) => Err(Refusal::TargetMissing {
            name: name.to_owned(),
        }
        .into()),
        Ok(Err(error)) => Err(classify(name, &error)),
        Err(_) => Err(unanswered(name)),
    }
}

fn unanswered(name: &str) -> ApplyError {
    ApplyError::Unanswered {
        name: name.to_owned(),
        why: "no answer from the apiserver in time".to_owned(),
    }
}

type Written<T> = Result<kube::Result<T>, tokio::time::error::Elapsed>;

fn record<T>(metrics: &Metrics, name: &str, written: Written<T>) -> Result<T, ApplyError> {
    let result = match written {
        Ok(Ok(secret)) => Ok(secret),
        Ok(Err(error)) => Err(classify(name, &error)),
        Err(_) => Err(unanswered(name)),
    };
    metrics.apiserver_write("secrets", if result.is_ok() { "ok" } else { "error" });
    result
}

/// Sorts an answer of the apiserver. Its text is used only where it is known to hold no value.
fn classify(name: &str, error: &kube::Error) -> ApplyError {
    let name = name.to_owned();
    let kube::Error::Api(status) = error else {
        return ApplyError::Unanswered {
            name,
            why: "the apiserver cannot be reached".to_owned(),
        };
    };
    match status.code {
        409 if status.reason == "Conflict" && is_about_fields(status) => Refusal::TargetConflict {
            name,
            why: shorten(&status.message),
        }
        .into(),
        409 if status.reason == "Conflict" => ApplyError::Outdated(name),
        422 | 400 => Refusal::TargetInvalid {
            name,
            why: invalid_fields(status),
        }
        .into(),
        code @ 500.. => ApplyError::Unanswered {
            name,
            why: format!("{} ({code})", status.reason),
        },
        code => ApplyError::Failed {
            name,
            why: format!("{} ({code})", status.reason),
        },
    }
}

/// Whether another field manager is in the way, and not just a newer version of the object.
fn is_about_fields(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "FieldManagerConflict")
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
            // What begins with a quotation mark is the value, not the rule.
            Some((_, rule)) if !rule.starts_with('"') => format!("{}: {rule}", cause.field),
            _ => format!("{}: {}", cause.field, cause.reason),
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
