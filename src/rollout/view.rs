//! Pure: what is kept in memory of a workload.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ManagedFieldsEntry, ObjectMeta},
};
use kube::{Resource, core::Selector};

use super::{
    argo::{Argo, Pace},
    pod::{secrets_in_env, secrets_of},
};
use crate::{
    names::{IN_STEP, RESTART, RESTART_ENV, RESTART_NEVER, ROLLOUT_MANAGER, SECRETS_HASH},
    revision::is_combined,
};

/// One workload, as far as decisions need it.
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
    /// Every Secret that its pod template uses.
    pub secrets: BTreeSet<String>,
    /// Those of them that are in the environment.
    pub secrets_in_env: BTreeSet<String>,
    /// The hash its pod template carries; of a Rollout that is not restarted by its template, the hash it carries itself.
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
    /// Whether a new template waits because the workload is paused.
    pub paused: bool,
    /// Why a new template does not replace its pods by itself.
    pub manual: Option<Manual>,
    /// How far its rollout is.
    pub counters: Counters,
    /// Why the apiserver lets it make no pods, such as a quota or an admission policy. Only Deployments and Rollouts tell.
    pub refused: Option<String>,
    /// The Rollout of Argo that takes its template for its own, if one does.
    pub lent_to: Option<String>,
    /// What only a Rollout of Argo has.
    pub argo: Option<Box<Argo>>,
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
    /// The Rollout stands at a step of its canary.
    Step {
        /// Which, counted from 1.
        number: u64,
        /// How many there are.
        of: u64,
        /// Whether it goes on by itself after a time.
        timed: bool,
    },
    /// The new pods of a blue-green Rollout wait to become the active ones.
    Promotion {
        /// Whether they do by themselves after a time.
        timed: bool,
    },
    /// The new pods of the Rollout are in use, and older ones stay for a time.
    OlderStay {
        /// For how many seconds in all.
        seconds: u64,
    },
    /// An analysis of the Rollout said neither yes nor no.
    Analysis,
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
        let (metadata, mut shape) = (object.meta(), object.shape());
        let (stamp, stamp_is_ours) = shape.stamp(metadata);
        let restart = annotation(metadata, RESTART);
        let restart = match restart.as_deref() {
            Some(RESTART_NEVER) => Restart::Never,
            Some(RESTART_ENV) => Restart::Env,
            Some(_) | None => Restart::Always,
        };
        let in_step_is_ours = owns(metadata, &["f:metadata", "f:annotations", &field(IN_STEP)]);
        let template = shape.template.as_deref();
        let pod = template.and_then(|template| template.spec.as_ref());
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
            secrets: pod.map(secrets_of).unwrap_or_default(),
            secrets_in_env: pod.map(secrets_in_env).unwrap_or_default(),
            stamp,
            stamp_is_ours,
            in_step: annotation(metadata, IN_STEP).filter(|_| in_step_is_ours),
            last_foreign: last_foreign(metadata),
            owner: owner(metadata),
            selector: shape.selector.as_deref().map(selector).unwrap_or_default(),
            paused: shape.paused,
            manual: shape.manual,
            counters: shape.counters,
            refused: shape.refused,
            lent_to: None,
            argo: shape.argo.map(Box::new),
        }
    }

    /// Whether its pods use `secret` in a way for which it wants to be restarted, unless that is never.
    pub fn uses(&self, secret: &str) -> bool {
        match self.restart {
            Restart::Env => self.secrets_in_env.contains(secret),
            Restart::Always | Restart::Never => self.secrets.contains(secret),
        }
    }

    /// Whether its pod template carries a hash that we made and somebody else put there, as `kubectl rollout undo` does with the
    /// template of an older revision.
    pub fn carries_a_copy(&self) -> bool {
        let stamp = self.stamp.as_deref().filter(|_| !self.stamp_is_ours);
        stamp.is_some_and(is_combined)
    }

    /// The hash in its pod template, if our field manager put it there.
    pub fn our_template_stamp(&self) -> Option<&str> {
        match &self.argo {
            Some(argo) => argo.template_stamp.as_deref(),
            None => self.stamp.as_deref().filter(|_| self.stamp_is_ours),
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
        let argo = self.argo.as_deref();
        let behind = updated < all.max(wanted) && argo.is_none_or(|argo| argo.pace == Pace::Steps)
            || argo.is_some_and(|argo| argo.unfinished);
        !stays && (self.observed_generation < self.generation || behind)
    }

    /// Whether the workload's own controller says that every pod is of the newest template and ready.
    pub fn is_complete(&self) -> bool {
        let Counters {
            wanted,
            all,
            updated,
            ready,
        } = self.counters;
        if self.observed_generation < self.generation
            || self.argo.as_ref().is_some_and(|argo| argo.unfinished)
        {
            return false;
        }
        if self.is_restarted_by_time() {
            // Of which template they are does not matter, and beside those that are wanted there may be some of a release that is not
            // promoted yet, or not wanted any more: its controller counts none of those as ready where it is blue-green.
            return ready >= wanted && all >= wanted;
        }
        [all, updated, ready].iter().all(|count| *count == wanted)
    }

    /// Whether its controller replaces pods by their age, and not for a new template.
    pub fn is_restarted_by_time(&self) -> bool {
        self.argo.as_ref().is_some_and(|argo| !argo.by_template)
    }
}

impl Counters {
    /// Pods that are surely ready and of the newest template: any pod of an old one is taken for ready.
    pub fn ready_and_updated(&self) -> u32 {
        let old = self.all.saturating_sub(self.updated);
        self.ready.saturating_sub(old).min(self.updated)
    }
}

/// What the kinds differ in.
#[derive(Debug, Default)]
pub struct Shape<'a> {
    pub(super) template: Option<Cow<'a, PodTemplateSpec>>,
    pub(super) selector: Option<Cow<'a, LabelSelector>>,
    pub(super) observed_generation: Option<i64>,
    pub(super) paused: bool,
    pub(super) manual: Option<Manual>,
    pub(super) counters: Counters,
    pub(super) refused: Option<String>,
    pub(super) argo: Option<Argo>,
}

impl Shape<'_> {
    /// The hash for which the workload was restarted last, and whether our field manager wrote it.
    fn stamp(&mut self, metadata: &ObjectMeta) -> (Option<String>, bool) {
        let template = self.template.as_deref();
        let in_template = template
            .and_then(|template| template.metadata.as_ref()?.annotations.as_ref())
            .and_then(|all| all.get(SECRETS_HASH))
            .cloned();
        let hash = field(SECRETS_HASH);
        let path = ["f:spec", "f:template", "f:metadata", "f:annotations", &hash];
        let is_ours = owns(metadata, &path);
        let Some(argo) = &mut self.argo else {
            return (in_template, is_ours);
        };
        argo.template_stamp = in_template.clone().filter(|_| is_ours);
        if argo.by_template {
            return (in_template, is_ours);
        }
        let is_ours = owns(metadata, &["f:metadata", "f:annotations", &hash]);
        // A copy of it, such as a manifest that was exported, restarted nothing.
        (
            annotation(metadata, SECRETS_HASH).filter(|_| is_ours),
            is_ours,
        )
    }
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
            template: Some(Cow::Borrowed(&spec.template)),
            selector: Some(Cow::Borrowed(&spec.selector)),
            observed_generation: status.observed_generation,
            paused: spec.paused == Some(true),
            manual: None,
            refused: failure.and_then(|failure| failure.message),
            argo: None,
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
            template: Some(Cow::Borrowed(&spec.template)),
            selector: Some(Cow::Borrowed(&spec.selector)),
            observed_generation: status.observed_generation,
            paused: false,
            manual: on_delete(strategy.type_.as_deref()).or(kept_back),
            refused: None,
            argo: None,
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
            template: Some(Cow::Borrowed(&spec.template)),
            selector: Some(Cow::Borrowed(&spec.selector)),
            observed_generation: status.observed_generation,
            paused: false,
            manual: on_delete(strategy.and_then(|update| update.type_.as_deref())),
            refused: None,
            argo: None,
            counters: Counters {
                wanted: count(Some(status.desired_number_scheduled)),
                all: count(Some(status.current_number_scheduled)),
                updated: count(status.updated_number_scheduled),
                ready: count(Some(status.number_ready)),
            },
        }
    }
}

pub(super) fn count(value: Option<i32>) -> u32 {
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

fn annotation(metadata: &ObjectMeta, name: &str) -> Option<String> {
    metadata.annotations.as_ref()?.get(name).cloned()
}

/// Whether our field manager wrote the field at `path`.
fn owns(metadata: &ObjectMeta, path: &[&str]) -> bool {
    own_entry(metadata).is_some_and(|entry| has_field(entry, path))
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
