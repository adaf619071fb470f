//! Pure: what is kept in memory of a workload.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta},
};
use kube::{Resource, core::Selector};

use super::pod::{secrets_in_env, secrets_of};
use crate::names::{IN_STEP, RESTART, RESTART_ENV, RESTART_NEVER, ROLLOUT_MANAGER, SECRETS_HASH};

/// One Deployment, StatefulSet or DaemonSet, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadView {
    /// UID.
    pub uid: String,
    /// Labels of the workload itself.
    pub labels: BTreeMap<String, String>,
    /// When the apiserver made it.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Generation of the spec.
    pub generation: i64,
    /// Generation that the workload's own controller has seen.
    pub observed_generation: i64,
    /// For what it wants to be restarted.
    pub restart: Restart,
    /// Every Secret that its pod template uses, or, if it says so, only those in the environment.
    pub secrets: BTreeSet<String>,
    /// The hash its pod template carries.
    pub stamp: Option<String>,
    /// Whether our field manager (perhaps with others) put that hash there.
    pub stamp_is_ours: bool,
    /// The hash its pods were proved to run without a restart. Only there if our field manager wrote it.
    pub in_step: Option<String>,
    /// Who else wrote it last, as far as that left a trace.
    pub last_foreign: Option<ForeignWrite>,
    /// The object that made it, such as the custom resource of another operator, as `<kind> <name>`.
    pub owner: Option<String>,
    /// Its label selector, as the apiserver takes it.
    pub selector: String,
    /// Whether it is a paused Deployment.
    pub paused: bool,
    /// Why a new template does not replace its pods by itself.
    pub manual: Option<Manual>,
    /// How far its rollout is.
    pub counters: Counters,
    /// Why the apiserver lets it make no pods, such as a quota or an admission policy. Only Deployments tell.
    pub refused: Option<String>,
}

/// For what a workload wants to be restarted, by its annotation [`RESTART`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// For every Secret that it uses.
    Always,
    /// For Secrets in its environment.
    Env,
    /// For none.
    Never,
}

/// The newest entry of another field manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignWrite {
    /// Its name.
    pub manager: String,
    /// When it last took a field. Taking one away leaves no trace.
    pub at: Option<Timestamp>,
}

/// Why a new template does not replace all pods by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manual {
    /// The update strategy is `OnDelete`.
    OnDelete,
    /// The rolling update of the StatefulSet leaves out the pods below this ordinal.
    Partition(i32),
}

/// Numbers of pods, as the workload's own controller reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pods that should run.
    pub wanted: u32,
    /// Pods there are, of old and new templates.
    pub all: u32,
    /// Pods of the newest template.
    pub updated: u32,
    /// Pods that are ready, of old and new templates.
    pub ready: u32,
}

impl WorkloadView {
    /// Reads what is needed of a workload.
    pub fn project<K: Workload>(object: &K) -> Self {
        let (metadata, shape) = (object.meta(), object.shape());
        let annotation = |annotations: Option<&BTreeMap<String, String>>, name: &str| {
            annotations.and_then(|all| all.get(name)).cloned()
        };
        let template = shape
            .template
            .and_then(|template| template.metadata.as_ref());
        let restart = annotation(metadata.annotations.as_ref(), RESTART);
        let restart = match restart.as_deref() {
            Some(RESTART_NEVER) => Restart::Never,
            Some(RESTART_ENV) => Restart::Env,
            Some(_) | None => Restart::Always,
        };
        let owns = |path: &[&str]| own_entry(metadata).is_some_and(|entry| has_field(entry, path));
        let in_step_is_ours = owns(&["f:metadata", "f:annotations", &field(IN_STEP)]);
        Self {
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::MIN, |time| time.0),
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            generation: metadata.generation.unwrap_or_default(),
            observed_generation: shape.observed_generation.unwrap_or_default(),
            restart,
            secrets: shape
                .template
                .and_then(|template| template.spec.as_ref())
                .map(match restart {
                    Restart::Env => secrets_in_env,
                    Restart::Always | Restart::Never => secrets_of,
                })
                .unwrap_or_default(),
            stamp: annotation(
                template.and_then(|meta| meta.annotations.as_ref()),
                SECRETS_HASH,
            ),
            stamp_is_ours: owns(&[
                "f:spec",
                "f:template",
                "f:metadata",
                "f:annotations",
                &field(SECRETS_HASH),
            ]),
            in_step: annotation(metadata.annotations.as_ref(), IN_STEP).filter(|_| in_step_is_ours),
            last_foreign: last_foreign(metadata),
            owner: owner(metadata),
            selector: shape.selector.map(selector).unwrap_or_default(),
            paused: shape.paused,
            manual: shape.manual,
            counters: shape.counters,
            refused: shape.refused,
        }
    }

    /// Whether its pods are being replaced by those of a newer template, as far as its own controller says.
    pub fn is_rolling(&self) -> bool {
        let Counters {
            wanted,
            all,
            updated,
            ..
        } = self.counters;
        let stays = self.paused || self.manual.is_some();
        !stays && (self.observed_generation < self.generation || updated < all.max(wanted))
    }

    /// Whether the workload's own controller says that every pod is of the newest template and ready.
    pub fn is_complete(&self) -> bool {
        let Counters {
            wanted,
            all,
            updated,
            ready,
        } = self.counters;
        self.observed_generation >= self.generation
            && [all, updated, ready].iter().all(|count| *count == wanted)
    }
}

impl Counters {
    /// Pods that are surely ready and of the newest template: any pod of an old one is taken for ready.
    pub fn ready_and_updated(&self) -> u32 {
        let old = self.all.saturating_sub(self.updated);
        self.ready.saturating_sub(old).min(self.updated)
    }
}

/// What the three kinds differ in.
#[derive(Debug, Default)]
pub struct Shape<'a> {
    template: Option<&'a PodTemplateSpec>,
    selector: Option<&'a LabelSelector>,
    observed_generation: Option<i64>,
    paused: bool,
    manual: Option<Manual>,
    counters: Counters,
    refused: Option<String>,
}

/// A kind of workload that can be restarted.
pub trait Workload: Resource {
    /// What is needed of its spec and status.
    fn shape(&self) -> Shape<'_>;
}

impl Workload for Deployment {
    fn shape(&self) -> Shape<'_> {
        let (Some(spec), status) = (&self.spec, self.status.clone().unwrap_or_default()) else {
            return Shape::default();
        };
        let mut conditions = status.conditions.into_iter().flatten();
        let failure = conditions
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        Shape {
            template: Some(&spec.template),
            selector: Some(&spec.selector),
            observed_generation: status.observed_generation,
            paused: spec.paused == Some(true),
            manual: None,
            refused: failure.and_then(|failure| failure.message),
            counters: Counters {
                wanted: count(spec.replicas.or(Some(1))),
                all: count(status.replicas),
                updated: count(status.updated_replicas),
                ready: count(status.ready_replicas),
            },
        }
    }
}

impl Workload for StatefulSet {
    fn shape(&self) -> Shape<'_> {
        let (Some(spec), status) = (&self.spec, self.status.clone().unwrap_or_default()) else {
            return Shape::default();
        };
        let strategy = spec.update_strategy.clone().unwrap_or_default();
        let partition = strategy.rolling_update.and_then(|update| update.partition);
        let kept_back = partition
            .filter(|ordinal| *ordinal > 0)
            .map(Manual::Partition);
        Shape {
            template: Some(&spec.template),
            selector: Some(&spec.selector),
            observed_generation: status.observed_generation,
            paused: false,
            manual: on_delete(strategy.type_.as_deref()).or(kept_back),
            refused: None,
            counters: Counters {
                wanted: count(spec.replicas.or(Some(1))),
                all: count(Some(status.replicas)),
                updated: count(status.updated_replicas),
                ready: count(status.ready_replicas),
            },
        }
    }
}

impl Workload for DaemonSet {
    fn shape(&self) -> Shape<'_> {
        let (Some(spec), status) = (&self.spec, self.status.clone().unwrap_or_default()) else {
            return Shape::default();
        };
        let strategy = spec.update_strategy.as_ref();
        Shape {
            template: Some(&spec.template),
            selector: Some(&spec.selector),
            observed_generation: status.observed_generation,
            paused: false,
            manual: on_delete(strategy.and_then(|update| update.type_.as_deref())),
            refused: None,
            counters: Counters {
                wanted: count(Some(status.desired_number_scheduled)),
                all: count(Some(status.current_number_scheduled)),
                updated: count(status.updated_number_scheduled),
                ready: count(Some(status.number_ready)),
            },
        }
    }
}

fn count(value: Option<i32>) -> u32 {
    value
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or_default()
}

fn on_delete(strategy: Option<&str>) -> Option<Manual> {
    (strategy == Some("OnDelete")).then_some(Manual::OnDelete)
}

/// The selector as a query. One that this cannot express selects everything: the owner of each pod is
/// looked at besides.
fn selector(selector: &LabelSelector) -> String {
    Selector::try_from(selector.clone())
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}

/// The controller among the owners.
fn owner(metadata: &ObjectMeta) -> Option<String> {
    let mut owners = metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true))?;
    Some(format!("{} {}", controller.kind, controller.name))
}

fn field(name: &str) -> String {
    format!("f:{name}")
}

fn own_entry(metadata: &ObjectMeta) -> Option<&ManagedFieldsEntry> {
    entries(metadata).find(|entry| {
        entry.manager.as_deref() == Some(ROLLOUT_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
    })
}

fn has_field(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let root = entry.fields_v1.as_ref().map(|fields| &fields.0);
    path.iter()
        .try_fold(root, |node, name| node?.get(name).map(Some))
        .is_some_and(|node| node.is_some())
}

/// The manager with the newest entry that is not ours.
fn last_foreign(metadata: &ObjectMeta) -> Option<ForeignWrite> {
    let write = |entry: &ManagedFieldsEntry| {
        let at = entry.time.as_ref().map(|time| time.0);
        let manager = entry.manager.clone()?;
        Some(ForeignWrite { manager, at })
    };
    entries(metadata)
        .filter(|entry| entry.manager.as_deref() != Some(ROLLOUT_MANAGER))
        .filter_map(write)
        .max_by_key(|write| write.at)
}

/// Entries for the object itself, not for its `status` or `scale`.
fn entries(metadata: &ObjectMeta) -> impl Iterator<Item = &ManagedFieldsEntry> {
    let all = metadata.managed_fields.as_deref().unwrap_or_default();
    all.iter()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
}

#[cfg(test)]
mod tests;
