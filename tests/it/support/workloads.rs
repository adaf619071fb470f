//! Workloads of a team, and the proofs that they were restarted, or were not.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use lockstep::{
    api::vault_secret::{VaultSecret, WorkloadState, WorkloadStatus},
    names::{REFRESH, RESTART_BY, SECRETS_HASH},
};
use lockstep_testbed::{AuditMark, VaultRequest, eventually};
use serde_json::{Value, json};

use super::{SOON, Team};

/// How long the restart of a Rollout may take: what its controller does not notice at once it looks for after 30 seconds.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// By which a Deployment counts its templates.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// A workload at a moment when it was in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InStep {
    /// Kind of the workload.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The hash that was wanted.
    pub hash: String,
    /// The hash in its pod template; of a Rollout that is restarted by time, the one it carries itself.
    pub stamp: Option<String>,
    /// Counts the changes of its pod template, each of which restarts the pods; those of the time, too.
    pub template: i64,
}

/// In which API the workloads of `kind` are.
fn api_of(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "Rollout" => ("argoproj.io", "v1alpha1"),
        _ => ("apps", "v1"),
    }
}

/// A manifest of two pods (a DaemonSet: one per node) with this pod spec.
pub fn workload(kind: &str, name: &str, pod: &Value) -> Value {
    let (group, version) = api_of(kind);
    let mut manifest = json!({
        "apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    });
    if kind != "DaemonSet" {
        manifest["spec"]["replicas"] = json!(2);
    }
    if kind == "StatefulSet" {
        manifest["spec"]["serviceName"] = json!(name);
        manifest["spec"]["podManagementPolicy"] = json!("Parallel");
    }
    if kind == "Rollout" {
        manifest["spec"]["strategy"] = json!({"canary": {}});
    }
    manifest
}

/// A pod spec whose container takes its environment from these Secrets. Its pods have two seconds to end, so nobody waits long for them.
pub fn env_from(secrets: &[&str]) -> Value {
    let sources: Vec<_> = secrets
        .iter()
        .map(|secret| json!({"secretRef": {"name": secret}}))
        .collect();
    let containers = json!([{"name": "app", "image": "app", "envFrom": sources}]);
    json!({"terminationGracePeriodSeconds": 2, "containers": containers})
}

/// What goes into a `VaultSecret` so that restarts begin after `settle`.
pub fn settle(settle: &str) -> Value {
    json!({"rollout": {"settle": settle}})
}

impl Team<'_> {
    /// The workloads of `kind` in the namespace.
    pub fn workloads(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_of(kind);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// What the status of the `VaultSecret` says about a workload.
    pub async fn workload_status(&self, vault_secret: &str, name: &str) -> Option<WorkloadStatus> {
        let object = self.api::<VaultSecret>().get(vault_secret).await.unwrap();
        let all = object.status?.rollout?.workloads;
        all.into_iter().find(|workload| workload.name == name)
    }

    /// Waits until the status says that the workload is in this state.
    pub async fn workload_is(
        &self,
        vault_secret: &str,
        name: &str,
        state: WorkloadState,
    ) -> WorkloadStatus {
        let what = format!("{name} is {state:?}");
        eventually(SOON, &what, async || {
            let found = self.workload_status(vault_secret, name).await;
            found
                .clone()
                .filter(|status| status.state == state)
                .ok_or_else(|| format!("{found:?}"))
        })
        .await
        .unwrap()
    }

    /// Waits until the workload is in step with a hash other than `before`.
    pub async fn in_step(
        &self,
        vault_secret: &str,
        (kind, name): (&'static str, &str),
        before: Option<&str>,
    ) -> InStep {
        let what = format!("{name} is in step, and not with {before:?}");
        let patience = if kind == "Rollout" { PATIENCE } else { SOON };
        let status = eventually(patience, &what, async || {
            let found = self.workload_status(vault_secret, name).await;
            found
                .clone()
                .filter(|status| {
                    status.state == WorkloadState::Verified && status.hash.as_deref() != before
                })
                .ok_or_else(|| format!("{found:?}"))
        })
        .await
        .unwrap();
        let (stamp, template) = self.template(kind, name).await;
        InStep {
            kind,
            name: name.to_owned(),
            hash: status.hash.unwrap(),
            stamp,
            template,
        }
    }

    /// The workload, when its own controller has seen it as it is.
    async fn looked_after(&self, kind: &str, name: &str) -> DynamicObject {
        eventually(SOON, &format!("{name} is looked after"), async || {
            let found = self.workloads(kind).get(name).await.unwrap();
            let seen = &found.data["status"]["observedGeneration"];
            // A Rollout writes it as text.
            let text = || seen.as_str()?.parse().ok();
            (seen.as_i64().or_else(text) == found.metadata.generation).then_some(found)
        })
        .await
        .unwrap()
    }

    /// The hash in the pod template of a workload, and how often the template has changed; of a Rollout that is restarted by time,
    /// the hash it carries itself.
    pub async fn template(&self, kind: &str, name: &str) -> (Option<String>, i64) {
        let found = self.looked_after(kind, name).await;
        let stamp = stamp_of(&found);
        // The generation of a Deployment also changes with its annotations and with the number of pods.
        let revision = || {
            found
                .metadata
                .annotations
                .as_ref()?
                .get(REVISION)?
                .parse()
                .ok()
        };
        let template = if kind == "Deployment" {
            revision()
        } else {
            found.metadata.generation
        };
        (stamp, template.unwrap())
    }

    /// Waits until the workload is in step with other data than `before`, and proves that it was restarted
    /// exactly once for it and that every pod runs it.
    pub async fn restarted_once(&self, vault_secret: &str, before: &InStep) -> InStep {
        let workload = (before.kind, before.name.as_str());
        let after = self
            .in_step(vault_secret, workload, Some(&before.hash))
            .await;
        let pods = self.pods(&before.name).await;
        assert!(!pods.is_empty());
        let found = self.workloads(before.kind).get(&before.name).await.unwrap();
        for pod in &pods {
            if is_restarted_by_time(&found) {
                let time = found.data["spec"]["restartAt"].as_str().unwrap();
                let created = pod.metadata.creation_timestamp.as_ref().unwrap().0;
                assert!(created >= time.parse().unwrap(), "{}", before.name);
            } else {
                assert_eq!(pod_stamp(pod), Some(after.hash.as_str()), "{}", before.name);
            }
            assert!(is_ready(pod), "{}", before.name);
        }
        assert_eq!(after.stamp.as_ref(), Some(&after.hash), "{}", before.name);
        assert_eq!(after.template, before.template + 1, "{}", before.name);
        after
    }

    /// Asserts that the workload was not restarted since `before`.
    pub async fn not_restarted(&self, before: &InStep) {
        let now = self.template(before.kind, &before.name).await;
        assert_eq!(
            now,
            (before.stamp.clone(), before.template),
            "{}",
            before.name
        );
    }

    /// Annotates a `VaultSecret`.
    pub async fn annotate(&self, vault_secret: &str, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.patch::<VaultSecret>(vault_secret, patch).await;
    }

    /// Asks for a read now.
    pub async fn refresh(&self, vault_secret: &str, token: &str) {
        let patch = json!({"metadata": {"annotations": {REFRESH: token}}});
        self.patch::<VaultSecret>(vault_secret, patch).await;
    }

    /// The reads of the secret `name` in Vault since `mark`.
    pub fn reads(&self, mark: AuditMark, name: &str) -> Vec<VaultRequest> {
        let path = format!("secret/data/{}", self.path(name));
        let wanted = |request: &VaultRequest| request.path == path && request.operation == "read";
        self.stage.vault_audit_since(mark, wanted).unwrap()
    }

    /// Waits until the secret `name` was read so often since `mark`. All but the last of these reads were acted on.
    pub async fn was_read(&self, mark: AuditMark, name: &str, often: usize) -> Vec<VaultRequest> {
        eventually(SOON, &format!("{often} reads of {name}"), async || {
            let reads = self.reads(mark, name);
            if reads.len() >= often {
                Ok(reads)
            } else {
                Err(format!("{} reads", reads.len()))
            }
        })
        .await
        .unwrap()
    }

    /// Waits until the secret `name`, polled every two seconds, was polled three times from now on:
    /// longer than a settle window of a second, so what it brings about has been done.
    pub async fn polled(&self, name: &str) {
        let mark = self.stage.vault_audit_mark().unwrap();
        self.was_read(mark, name, 3).await;
    }
}

/// Whether it is a Rollout whose pods are replaced by their age.
fn is_restarted_by_time(workload: &DynamicObject) -> bool {
    let kind = workload.types.as_ref().map(|types| types.kind.as_str());
    let annotations = workload.metadata.annotations.as_ref();
    kind == Some("Rollout") && annotations.is_none_or(|all| !all.contains_key(RESTART_BY))
}

/// The hash for which a workload was restarted last.
pub fn stamp_of(workload: &DynamicObject) -> Option<String> {
    if is_restarted_by_time(workload) {
        let annotations = workload.metadata.annotations.as_ref()?;
        return annotations.get(SECRETS_HASH).cloned();
    }
    let annotations = &workload.data["spec"]["template"]["metadata"]["annotations"];
    annotations[SECRETS_HASH].as_str().map(str::to_owned)
}

/// The hash that a pod carries.
pub fn pod_stamp(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(SECRETS_HASH).map(String::as_str)
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
