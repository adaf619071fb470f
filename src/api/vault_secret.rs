//! Pure: which secrets go into which Secret, and what restarts when they change.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    duration::GoDuration,
    refs::{AuthRef, LABEL_PATTERN, NAME_MAX, NAME_PATTERN},
    source::{SourceSpec, SourceStatus},
};

/// Keeps one Secret in step with Vault, and the workloads that use it in step with the Secret.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "VaultSecret",
    namespaced,
    shortname = "vsec",
    category = "lockstep",
    derive = "PartialEq",
    status = "VaultSecretStatus",
    selectable = ".spec.target.name",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Hash", type_ = "string", json_path = ".status.rotationHash"),
    printcolumn(name = "Changed", type_ = "date", json_path = ".status.lastChangeTime"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.target",
        priority = 1
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        json_path = ".status.sources[*].leaseExpires",
        priority = 1
    ),
    printcolumn(
        name = "Rollout",
        type_ = "string",
        json_path = ".status.rollout.summary",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct VaultSecretSpec {
    /// The login to read with. Default: the VaultAuth named `default` in this namespace, else the
    /// ClusterVaultAuth named `default` if it allows this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_ref: Option<AuthRef>,
    /// How old the data may get before it is read again: polling is spread out, and never later than this.
    /// At least `1s`. Default: the operator's `--default-refresh-interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_interval: Option<GoDuration>,
    /// Stops reading from Vault and writing the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What to read; merged into one Secret, written at once.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<SourceSpec>,
    /// The Secret to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetSpec>,
    /// What to restart when the data changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
}

/// The Secret to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.creationPolicy) || self.creationPolicy != 'Orphan' || !has(self.deletionPolicy) || self.deletionPolicy == 'Retain'")
        .message("creationPolicy: Orphan leaves the Secret behind, so deletionPolicy must be Retain or left out"),
    validation = Rule::new("!has(self.creationPolicy) || self.creationPolicy != 'Merge' || !has(self.type)")
        .message("creationPolicy: Merge writes into a Secret that is already there, so its type cannot be set"),
    validation = Rule::new("!has(self.creationPolicy) || self.creationPolicy != 'Merge' || (!has(self.labels) && !has(self.annotations))")
        .message("creationPolicy: Merge writes data only, so labels and annotations cannot be set")
)]
#[serde(rename_all = "camelCase")]
pub struct TargetSpec {
    /// Name of the Secret. Default: the name of the VaultSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub name: Option<String>,
    /// Type of the Secret. Default `Opaque`. Kubernetes does not allow a change; use a new name with a new type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self != 'kubernetes.io/service-account-token' && self != 'bootstrap.kubernetes.io/token'")
        .message("a Secret of this type would be a cluster credential and is refused"))]
    pub type_: Option<String>,
    /// Labels of the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('lockstep.dev/') && k != 'app.kubernetes.io/managed-by')").message("labels with the prefix lockstep.dev/ and app.kubernetes.io/managed-by are the operator's own"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('lockstep.dev/'))").message("annotations with the prefix lockstep.dev/ are the operator's own"))]
    pub annotations: BTreeMap<String, String>,
    /// `Owner` (default): create the Secret and keep it. `Merge`: add keys to a Secret that somebody else created.
    /// `Orphan`: like `Owner`, but the Secret always outlives the VaultSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_policy: Option<CreationPolicy>,
    /// What deleting the VaultSecret does to the Secret (with `Merge`: to the keys it wrote).
    /// Default: `Delete` with `Owner`, else `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Who creates the Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CreationPolicy {
    /// The operator, and it keeps it.
    #[default]
    Owner,
    /// Somebody else; the operator adds its keys.
    Merge,
    /// The operator, and it always leaves it behind.
    Orphan,
}

/// What becomes of the Secret when the VaultSecret goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays as it is.
    Retain,
    /// It goes too.
    Delete,
}

/// What to restart when the data changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Restart every Deployment, StatefulSet, DaemonSet and Rollout (of Argo) of the namespace whose pods use the Secret. Default `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<bool>,
    /// Workloads to restart besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub targets: Vec<WorkloadRef>,
    /// How long to wait for more changes before a restart, so that several are one. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<GoDuration>,
    /// How long a restart may take before it counts as failed. Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_timeout: Option<GoDuration>,
    /// When restarts are allowed: while one of these is open. Without any, always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["schedule".into()]))]
    pub windows: Vec<WindowSpec>,
    /// In which order the workloads restart. Without it, in any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<WavesSpec>,
}

/// A time at which restarts are allowed, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowSpec {
    /// When it opens, as five fields of cron: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// For how long.
    pub duration: GoDuration,
    /// The time zone of the schedule, as the IANA database names it, such as `Europe/Berlin`. Default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// In which order the workloads restart: each wave when every workload of the waves before it runs with the current data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WavesSpec {
    /// Label of the workload (not of its pods) that tells its wave.
    #[schemars(length(min = 1, max = 317), regex(pattern = LABEL_PATTERN))]
    pub by_label: String,
    /// Values of the label, first wave first. Workloads without the label, or with another value, are last.
    #[schemars(length(min = 1, max = 16), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub order: Vec<String>,
}

/// A workload in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
pub struct WorkloadRef {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

/// The kinds of workload that can be restarted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `argoproj.io/v1alpha1` Rollout, of Argo Rollouts.
    Rollout,
}

impl WorkloadKind {
    /// The name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Rollout => "Rollout",
        }
    }

    /// Group and version of its API.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps/v1",
            Self::Rollout => "argoproj.io/v1alpha1",
        }
    }
}

/// What the operator last did and saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultSecretStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Synced`, `SourcesReachable`, `RolledOut`; `Reconciling` and `Stalled` only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Name of the Secret that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Keyed digest of what the Secret holds, as `<key id>:<hex>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_hash: Option<String>,
    /// When the data last changed, by the apiserver's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
    /// The refresh request annotation that was last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_refresh: Option<String>,
    /// Each source as last read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<SourceStatus>,
    /// The workloads that use the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
}

/// The workloads that use the Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// How many of them are how far, such as `3/5 Verified`: those that failed if there are any, those that wait if nothing else
    /// goes on, otherwise those that are verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Each workload; at most 100 are listed, those that are not verified first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into(), "name".into()]))]
    pub workloads: Vec<WorkloadStatus>,
}

/// One workload that uses the Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Kind of the workload.
    pub kind: WorkloadKind,
    /// Name of the workload.
    pub name: String,
    /// How far it is.
    pub state: WorkloadState,
    /// Hash of all managed Secrets the workload uses: what its pod template carries after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Pods seen ready with the current data, of those wanted, as `14/15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// What it waits for, or what failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far a workload is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum WorkloadState {
    /// The restart was not seen to finish in time, or is not possible.
    Failed,
    /// The workload is paused; nothing is restarted until it goes on.
    Paused,
    /// The restart waits for somebody else, such as an `OnDelete` update strategy.
    Waiting,
    /// A restart is due, after the settle window.
    Pending,
    /// The restart is under way.
    Restarting,
    /// Every pod runs with the current data.
    Verified,
}

impl WorkloadState {
    /// Every state, in the order of the enum.
    pub const ALL: [Self; 6] = [
        Self::Failed,
        Self::Paused,
        Self::Waiting,
        Self::Pending,
        Self::Restarting,
        Self::Verified,
    ];

    /// As it reads in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Paused => "Paused",
            Self::Waiting => "Waiting",
            Self::Pending => "Pending",
            Self::Restarting => "Restarting",
            Self::Verified => "Verified",
        }
    }
}
