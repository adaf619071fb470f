//! Pure: what is known of one pod, and which Secrets a pod spec uses.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStatus, EnvFromSource, EnvVar, LocalObjectReference, Pod, PodSpec,
        PodStatus, Volume,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use super::WorkloadKey;
use crate::{api::vault_secret::WorkloadKind, names::SECRETS_HASH};

/// The same of a Rollout of Argo.
const ROLLOUT_HASH: &str = "rollouts-pod-template-hash";

/// Label by which a Deployment tells its `ReplicaSets`, and they their pods, apart.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Grace period of a pod that does not tell it, in seconds.
const DEFAULT_GRACE: i64 = 30;

/// Longest explanation that goes into a status.
const LONGEST_TROUBLE: usize = 300;

/// One pod of a workload, at the time it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// UID.
    pub uid: String,
    /// When the apiserver made it.
    pub created: Timestamp,
    /// Every Secret it uses.
    pub secrets: BTreeSet<String>,
    /// Whether it has a node: before, nothing of it can have started.
    pub scheduled: bool,
    /// Whether a container of it is known to have started. The kubelet reports late: `false` proves little.
    pub started: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// The hash its template carried when it was made.
    pub stamp: Option<String>,
    /// Why it is not ready, in the words of the kubelet or the scheduler.
    pub trouble: Option<String>,
}

impl PodFacts {
    /// `pod`, unless it is finished, on its way out, or not one of `workload`'s.
    ///
    /// `is_there` says whether there is a workload of its kind and of that name in the namespace.
    pub fn project(
        pod: &Pod,
        workload: &WorkloadKey,
        uid: &str,
        is_there: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let status = pod.status.clone().unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || is_finished(&status) {
            return None;
        }
        if !belongs(pod, workload, uid, is_there) {
            return None;
        }
        let annotations = pod.metadata.annotations.as_ref();
        let spec = pod.spec.as_ref();
        Some(Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            created: pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::MIN, |time| time.0),
            secrets: spec.map(secrets_of).unwrap_or_default(),
            scheduled: spec.is_some_and(|spec| spec.node_name.is_some()),
            started: is_started(&status),
            ready: is_ready(&status),
            stamp: annotations.and_then(|all| all.get(SECRETS_HASH)).cloned(),
            trouble: trouble(&status).map(|why| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                format!("pod {name}: {why}")
            }),
        })
    }
}

/// UID of `pod` if it is on its way out, and for how long it may go on at most with older data than that of the hash `wanted`: its grace
/// period. `None` if it is not on its way out, has ended, or is not one of `workload`'s.
///
/// Source: `metadata.deletionGracePeriodSeconds` of <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/>.
pub fn leaves_within(
    pod: &Pod,
    workload: &WorkloadKey,
    uid: &str,
    wanted: &str,
    is_there: impl Fn(&str) -> bool,
) -> Option<(String, Duration)> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let seconds = pod.metadata.deletion_grace_period_seconds;
    let grace = Duration::from_secs(seconds.unwrap_or(DEFAULT_GRACE).try_into().ok()?);
    let annotations = pod.metadata.annotations.as_ref();
    let stamp = annotations.and_then(|all| all.get(SECRETS_HASH));
    let is_over = pod.status.as_ref().is_some_and(is_finished);
    let is_older = stamp.is_none_or(|stamp| stamp != wanted);
    (is_older && !is_over && belongs(pod, workload, uid, is_there))
        .then(|| (pod.metadata.uid.clone().unwrap_or_default(), grace))
}

/// What keeps a pod from becoming ready, if it says so.
fn trouble(status: &PodStatus) -> Option<String> {
    let containers = [&status.init_container_statuses, &status.container_statuses];
    let mut containers = containers.into_iter().flatten().flatten();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let unscheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    containers.find_map(trouble_of).or_else(|| {
        unscheduled
            .map(|condition| words(condition.reason.as_deref(), condition.message.as_deref()))
    })
}

/// The same for one container. That it is being made, or waits for the containers before it, is no trouble.
fn trouble_of(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    let last = container.last_state.as_ref();
    let ended = last.and_then(|last| last.terminated.as_ref());
    let why = match (reason, ended) {
        (Some("ContainerCreating" | "PodInitializing"), None) => return None,
        // Whether it waits for its next start right now, and how long, is no news.
        (None | Some("CrashLoopBackOff" | "ContainerCreating"), Some(ended))
            if !container.ready =>
        {
            format!("ends again and again, with exit code {}", ended.exit_code)
        }
        (Some(_), _) => words(
            reason,
            waiting.and_then(|waiting| waiting.message.as_deref()),
        ),
        (None, _) => return None,
    };
    Some(format!("container {}: {why}", container.name))
}

fn words(reason: Option<&str>, message: Option<&str>) -> String {
    let parts: Vec<_> = [reason, message].into_iter().flatten().collect();
    parts.join(": ").chars().take(LONGEST_TROUBLE).collect()
}

/// Whether it ran to its end.
pub fn is_finished(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn is_started(status: &PodStatus) -> bool {
    let pending = matches!(status.phase.as_deref(), None | Some("Pending"));
    let containers = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    !pending
        || containers
            .into_iter()
            .flatten()
            .flatten()
            .any(has_ever_started)
}

fn has_ever_started(container: &ContainerStatus) -> bool {
    let past_waiting = |state: &Option<ContainerState>| {
        state
            .as_ref()
            .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    past_waiting(&container.state)
        || past_waiting(&container.last_state)
        || container.restart_count > 0
        || container.started == Some(true)
}

fn is_ready(status: &PodStatus) -> bool {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether `pod`, which `workload` selects, is one of its pods. In doubt it is: that costs a restart, not a stale pod.
fn belongs(pod: &Pod, workload: &WorkloadKey, uid: &str, is_there: impl Fn(&str) -> bool) -> bool {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    match (workload.kind, controller) {
        (_, None) => may_be_adopted(pod, workload),
        (WorkloadKind::Deployment, Some(owner)) => {
            let labels = (TEMPLATE_HASH, ROLLOUT_HASH);
            may_have_made(workload, owner, pod, labels, is_there)
        }
        (WorkloadKind::Rollout, Some(owner)) => {
            let labels = (ROLLOUT_HASH, TEMPLATE_HASH);
            may_have_made(workload, owner, pod, labels, is_there)
        }
        (WorkloadKind::StatefulSet | WorkloadKind::DaemonSet, Some(owner)) => owner.uid == uid,
    }
}

/// Whether `workload` may have made `owner` of `pod`. `mine` is the label of its kind for the hash of the template, `other` that
/// of the other kind that makes `ReplicaSets`.
fn may_have_made(
    workload: &WorkloadKey,
    owner: &OwnerReference,
    pod: &Pod,
    (mine, other): (&str, &str),
    is_there: impl Fn(&str) -> bool,
) -> bool {
    let is_other = || maker(owner, pod, other).is_some() || is_of_experiment(owner, pod);
    owner.kind == "ReplicaSet"
        && maker(owner, pod, mine).map_or_else(
            || !is_other(),
            |name| name == workload.name || !is_there(name),
        )
}

/// Whether `owner` of `pod`, a ReplicaSet, was made for an Experiment of Argo: its pods carry the label of a Rollout's, whose selector
/// may well select them, but it is named `<experiment>-<template>`.
///
/// Source: `newReplicaSetFromTemplate` in <https://github.com/argoproj/argo-rollouts/blob/v1.10.1/experiments/replicaset.go>.
fn is_of_experiment(owner: &OwnerReference, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(ROLLOUT_HASH))
        && maker(owner, pod, ROLLOUT_HASH).is_none()
}

/// What made `owner` of `pod`, a ReplicaSet: its name is followed by the hash of the template, which `label` tells.
fn maker<'a>(owner: &'a OwnerReference, pod: &Pod, label: &str) -> Option<&'a str> {
    let hash = pod.metadata.labels.as_ref()?.get(label)?;
    owner.name.strip_suffix(hash)?.strip_suffix('-')
}

/// Whether a pod without a controller is one that `workload` takes over when it gets to it,
/// as after `kubectl delete --cascade=orphan` and a new workload of the same name.
fn may_be_adopted(pod: &Pod, workload: &WorkloadKey) -> bool {
    let labels = pod.metadata.labels.as_ref();
    match workload.kind {
        WorkloadKind::Deployment => labels.is_some_and(|labels| labels.contains_key(TEMPLATE_HASH)),
        WorkloadKind::Rollout => labels.is_some_and(|labels| labels.contains_key(ROLLOUT_HASH)),
        WorkloadKind::StatefulSet => pod
            .metadata
            .name
            .as_deref()
            .and_then(|name| name.strip_prefix(&workload.name)?.strip_prefix('-'))
            .is_some_and(|ordinal| ordinal.parse::<u32>().is_ok()),
        WorkloadKind::DaemonSet => true,
    }
}

/// The Secrets in the environment of pods of `spec`: these never change while a pod runs.
pub fn secrets_in_env(spec: &PodSpec) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        from_environment(
            container.env.as_ref(),
            container.env_from.as_ref(),
            &mut names,
        );
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        from_environment(
            container.env.as_ref(),
            container.env_from.as_ref(),
            &mut names,
        );
    }
    names.remove("");
    names
}

/// Every Secret that pods of `spec` use.
pub fn secrets_of(spec: &PodSpec) -> BTreeSet<String> {
    let mut names = secrets_in_env(spec);
    for volume in spec.volumes.iter().flatten() {
        names.extend(of_volume(volume));
    }
    names.extend(
        spec.image_pull_secrets
            .iter()
            .flatten()
            .map(|secret| secret.name.clone()),
    );
    names.remove("");
    names
}

fn from_environment(
    variables: Option<&Vec<EnvVar>>,
    sources: Option<&Vec<EnvFromSource>>,
    names: &mut BTreeSet<String>,
) {
    let single = variables.into_iter().flatten().filter_map(|variable| {
        let key = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some(key.name.clone())
    });
    let whole = sources
        .into_iter()
        .flatten()
        .filter_map(|source| Some(source.secret_ref.as_ref()?.name.clone()));
    names.extend(single.chain(whole));
}

/// The Secrets of one volume. Each kind of volume that can name one has a row.
fn of_volume(volume: &Volume) -> Vec<String> {
    let local = |secret: &Option<LocalObjectReference>| Some(secret.as_ref()?.name.clone());
    let single = [
        volume
            .secret
            .as_ref()
            .and_then(|source| source.secret_name.clone()),
        volume
            .csi
            .as_ref()
            .and_then(|source| local(&source.node_publish_secret_ref)),
        volume
            .cephfs
            .as_ref()
            .and_then(|source| local(&source.secret_ref)),
        volume
            .cinder
            .as_ref()
            .and_then(|source| local(&source.secret_ref)),
        volume
            .flex_volume
            .as_ref()
            .and_then(|source| local(&source.secret_ref)),
        volume
            .iscsi
            .as_ref()
            .and_then(|source| local(&source.secret_ref)),
        volume
            .rbd
            .as_ref()
            .and_then(|source| local(&source.secret_ref)),
        volume
            .storageos
            .as_ref()
            .and_then(|source| local(&source.secret_ref)),
        volume
            .scale_io
            .as_ref()
            .map(|source| source.secret_ref.name.clone()),
        volume
            .azure_file
            .as_ref()
            .map(|source| source.secret_name.clone()),
    ];
    let projected = volume
        .projected
        .iter()
        .flat_map(|source| source.sources.iter().flatten())
        .filter_map(|source| Some(source.secret.as_ref()?.name.clone()));
    single.into_iter().flatten().chain(projected).collect()
}

#[cfg(test)]
mod tests;
