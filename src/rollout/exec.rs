//! Effects: apiserver. The requests a rollout makes; none of them chooses anything.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::Pod,
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::Status,
};
use serde_json::Value;
use tokio::time::timeout;

use super::{WorkloadKey, argo, refusal::REASON};
use crate::{
    api::vault_secret::WorkloadKind,
    names::{ROLLOUT_MANAGER, SECRETS_HASH},
    telemetry::{chain::chain, metrics::Metrics},
};

/// A request that takes longer is given up and made again later.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Pods per page, as kubectl does it: one page for nearly every workload, and a bound for the others.
const PAGE: u32 = 500;

/// Pods that have ended run nothing, and of Jobs there may be thousands.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Longest message of the apiserver that goes into a status.
const LONGEST_CAUSE: usize = 300;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The list of pods failed.
    #[error("listing the pods failed")]
    ListPods(#[source] Box<kube::Error>),
    /// The list of events failed.
    #[error("reading the events of the workload, which may say why, failed")]
    ListEvents(#[source] Box<kube::Error>),
    /// The write on the workload failed.
    #[error("writing the annotation failed")]
    Apply(#[source] Box<kube::Error>),
    /// There was no answer in time.
    #[error("the apiserver did not answer within {} seconds", TIMEOUT.as_secs())]
    TimedOut,
    /// Our annotation has another field manager too, which gave it another value.
    #[error("the annotation belongs to the field manager {manager}")]
    Conflict {
        /// The other field manager.
        manager: String,
    },
}

impl ExecError {
    /// The message and its cause in one line, fit for a status.
    pub fn line(&self) -> String {
        let cause = match self {
            Self::TimedOut | Self::Conflict { .. } => return self.to_string(),
            Self::ListPods(error) | Self::ListEvents(error) | Self::Apply(error) => {
                if let kube::Error::Api(status) = error.as_ref() {
                    status.message.clone()
                } else {
                    chain(error)
                }
            }
        };
        let cause: String = cause.chars().take(LONGEST_CAUSE).collect();
        format!("{self}: {cause}")
    }

    /// Whether the apiserver will go on to refuse it until somebody changes something: a right, a policy, or the workload.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ListPods(error) | Self::ListEvents(error) | Self::Apply(error) => {
                matches!(error.as_ref(), kube::Error::Api(status) if [403, 422].contains(&status.code))
            }
            Self::TimedOut | Self::Conflict { .. } => false,
        }
    }
}

/// All pods that `selector` selects in `namespace` and that have not ended.
pub async fn list_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<Pod>, ExecError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pods = Vec::new();
    let mut page = ListParams::default()
        .labels(selector)
        .fields(UNFINISHED)
        .limit(PAGE);
    loop {
        let list = timeout(TIMEOUT, api.list(&page))
            .await
            .map_err(|_| ExecError::TimedOut)?
            .map_err(|error| ExecError::ListPods(Box::new(error)))?;
        pods.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(pods),
        }
    }
}

/// The events that say why pods of the workload with this UID were refused; at most so many as a page holds.
pub async fn list_refusals(
    client: &Client,
    namespace: &str,
    uid: &str,
) -> Result<Vec<Event>, ExecError> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let fields = format!("regarding.uid={uid},reason={REASON}");
    let list = timeout(
        TIMEOUT,
        api.list(&ListParams::default().fields(&fields).limit(PAGE)),
    )
    .await
    .map_err(|_| ExecError::TimedOut)?
    .map_err(|error| ExecError::ListEvents(Box::new(error)))?;
    Ok(list.items)
}

/// Stamps `workload` with `body` and returns the generation it has then. A stamp of somebody else is not overwritten.
pub async fn stamp(
    client: &Client,
    metrics: &Metrics,
    workload: &WorkloadKey,
    body: &Value,
) -> Result<i64, ExecError> {
    apply(
        (client, metrics),
        workload,
        body,
        PatchParams::apply(ROLLOUT_MANAGER),
    )
    .await
}

/// Writes `body` on `workload`, also over what somebody else wrote there: that its pods are in step, for which nobody else has a use,
/// so that whoever wrote it copied it, as `kubectl rollout undo` does; a stamp over one that was copied like that; or `spec.restartAt` of a Rollout of Argo, with which whoever set it
/// before asked for a restart that was done meanwhile, or for one that comes too late.
pub async fn take_over(
    client: &Client,
    metrics: &Metrics,
    workload: &WorkloadKey,
    body: &Value,
) -> Result<i64, ExecError> {
    let params = PatchParams::apply(ROLLOUT_MANAGER).force();
    apply((client, metrics), workload, body, params).await
}

async fn apply(
    (client, metrics): (&Client, &Metrics),
    workload: &WorkloadKey,
    body: &Value,
    params: PatchParams,
) -> Result<i64, ExecError> {
    let resource = resource(workload.kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &workload.namespace, &resource);
    let patch = Patch::Apply(body);
    let written = timeout(TIMEOUT, api.patch_metadata(&workload.name, &params, &patch))
        .await
        .map_err(|_| ExecError::TimedOut)
        .and_then(|answer| answer.map_err(apply_error));
    let result = if written.is_ok() { "ok" } else { "error" };
    metrics.apiserver_write(plural(workload.kind), result);
    Ok(written?.metadata.generation.unwrap_or_default())
}

fn apply_error(error: kube::Error) -> ExecError {
    if let kube::Error::Api(status) = &error
        && let Some(manager) = conflicting_manager(status)
    {
        return ExecError::Conflict { manager };
    }
    ExecError::Apply(Box::new(error))
}

/// The field manager that a refused apply names: `conflict with "kubectl" using apps/v1`.
fn conflicting_manager(status: &Status) -> Option<String> {
    let causes = status.details.as_ref().map(|details| &details.causes)?;
    let conflict = causes.iter().find(|cause| {
        cause.reason == "FieldManagerConflict" && cause.field.ends_with(SECRETS_HASH)
    })?;
    conflict.message.split('"').nth(1).map(str::to_owned)
}

fn resource(kind: WorkloadKind) -> ApiResource {
    match kind {
        WorkloadKind::Deployment => ApiResource::erase::<Deployment>(&()),
        WorkloadKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        WorkloadKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        WorkloadKind::Rollout => argo::resource(),
    }
}

fn plural(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployments",
        WorkloadKind::StatefulSet => "statefulsets",
        WorkloadKind::DaemonSet => "daemonsets",
        WorkloadKind::Rollout => "rollouts",
    }
}

#[cfg(test)]
mod tests;
