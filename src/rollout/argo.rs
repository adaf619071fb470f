//! Pure: what is different about a Rollout of Argo.
//!
//! Its controller evicts every pod that is older than `spec.restartAt`, without a new template and so without the steps of its
//! strategy, and only while fewer than `maxUnavailable` (at least one) are not ready. That is how it is restarted, unless it says otherwise ([`RESTART_BY`]). The time is that of the
//! data, by the apiserver's clock: pods that are younger read it already, and ours is not asked. The hash stands on the Rollout itself.
//!
//! The kind is not ours and need not be installed, so it is read field by field; what does not fit is taken as not there.

use std::{borrow::Cow, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    bind::Bound,
    pod::PodFacts,
    proof::fresh_from,
    view::{Counters, Manual, Restart, Shape, Workload, WorkloadView, count},
};
use crate::{
    cache::Change,
    names::{RESTART_BY, RESTART_BY_TEMPLATE},
};

/// Name of the `CustomResourceDefinition`.
pub const DEFINITION: &str = "rollouts.argoproj.io";

/// For how many seconds older pods stay, unless it says otherwise.
const USUALLY_STAY: u64 = 30;

/// How its controller begins to say that the spec cannot be used.
const INVALID: &str = "InvalidSpec";

/// Why older pods may stay, where nothing else tells.
pub const EVICTS: &str = "its controller evicts older pods, but none while as many as maxUnavailable (at least one) are not ready, or a PodDisruptionBudget allows none";

/// What only a Rollout has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argo {
    /// Whether it wants to be restarted by a change of its template.
    pub by_template: bool,
    /// The hash in its template, if our field manager put it there.
    pub template_stamp: Option<String>,
    /// The Deployment its template stands in, if that is not its own.
    pub template_of: Option<String>,
    /// Pods that are older are to be replaced: `spec.restartAt`.
    pub restart_at: Option<Timestamp>,
    /// For which of these times its controller did that: `status.restartedAt`.
    pub restarted_at: Option<Timestamp>,
    /// Whether its controller is not done with what replaces pods.
    pub unfinished: bool,
    /// Whether a new template makes its steps.
    pub pace: Pace,
    /// Why its controller gave up.
    pub gave_up: Option<String>,
    /// Which field keeps its template from being read, so that nobody knows which Secrets it uses.
    pub unreadable: Option<String>,
    /// For how many seconds pods of older templates stay when a newer one is in use, if they do.
    pub older_stay: Option<u64>,
}

/// Whether a new template makes its steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// It does, or there is none.
    #[default]
    Steps,
    /// It waits for somebody, or for a time.
    Stands,
    /// It was given up for an older one.
    Aborted,
}

impl Argo {
    /// When pods have to be younger than this so that all are younger than `fresh`.
    ///
    /// A restart that was asked for already and is due is not taken back. Its controller does nothing for a time it is done with.
    fn restart_at(&self, fresh: Timestamp, now: Timestamp) -> Timestamp {
        let standing = self.restart_at.filter(|at| (fresh..=now).contains(at));
        let at = standing.unwrap_or(fresh);
        let later = at.checked_add(SignedDuration::from_secs(1)).unwrap_or(at);
        if self.restarted_at == Some(at) {
            later
        } else {
            at
        }
    }
}

/// What to set `spec.restartAt` to, so that every pod reads the data of `bound`; `None` if the workload is restarted by its template.
///
/// `now` only tells a restart that somebody asked for from one that somebody asked for later on.
pub fn restart_at(view: &WorkloadView, bound: &[Bound], now: Timestamp) -> Option<Timestamp> {
    let argo = view.argo.as_ref().filter(|argo| !argo.by_template)?;
    Some(argo.restart_at(fresh_from(bound)?, now))
}

/// `view` for these data: a hash counts only with a `spec.restartAt` that replaces every pod with older data, which somebody may
/// have taken back; and a restart that somebody asked for besides is not waited for.
pub fn for_data(view: Arc<WorkloadView>, bound: &[Bound]) -> Arc<WorkloadView> {
    let argo = view.argo.as_ref().filter(|argo| !argo.by_template);
    let (Some(argo), Some(fresh)) = (argo, fresh_from(bound)) else {
        return view;
    };
    let is_taken_back = view.stamp.is_some() && argo.restart_at < Some(fresh);
    let is_another = argo.unfinished && argo.restart_at > Some(fresh);
    if !is_taken_back && !is_another {
        return view;
    }
    let mut view = WorkloadView::clone(&view);
    view.stamp.take_if(|_| is_taken_back);
    if let Some(argo) = &mut view.argo {
        argo.unfinished &= !is_another;
    }
    Arc::new(view)
}

/// Gives `pods` of a workload that is restarted by time the hash that they were restarted for, as a template would.
pub fn mark(pods: &mut [PodFacts], view: &WorkloadView, bound: &[Bound], wanted: &str) {
    let Some(fresh) = fresh_from(bound).filter(|_| view.is_restarted_by_time()) else {
        return;
    };
    for pod in pods {
        pod.stamp = (pod.created >= fresh).then(|| wanted.to_owned());
    }
}

/// Name of the Deployment whose template the workload takes for its own.
pub fn template_of(view: &WorkloadView) -> Option<&str> {
    view.argo.as_ref()?.template_of.as_deref()
}

/// `view`, whose template stands in `lender`, with the Secrets that this one's pods would use. For which of them it wants to be
/// restarted it says itself; where it does not, the lender may say that it is only those in the environment.
pub fn with_template_of(view: &WorkloadView, lender: &WorkloadView) -> WorkloadView {
    let mut view = view.clone();
    view.secrets.clone_from(&lender.secrets);
    view.secrets_in_env.clone_from(&lender.secrets_in_env);
    if (view.restart, lender.restart) == (Restart::Always, Restart::Env) {
        view.restart = Restart::Env;
    }
    if view.selector.is_empty() {
        view.selector.clone_from(&lender.selector);
    }
    view
}

/// Why `view` still has pods of older templates though all of its newest are there and in use, if it keeps them on purpose.
pub fn older_stay(view: &WorkloadView) -> Option<Manual> {
    let argo = view.argo.as_ref().filter(|argo| argo.by_template)?;
    let Counters {
        wanted,
        all,
        updated,
        ready,
    } = view.counters;
    let is_in_use = !argo.unfinished && view.observed_generation >= view.generation;
    let is_there = updated >= wanted && ready >= wanted;
    let seconds = argo.older_stay?;
    (is_in_use && is_there && all > updated).then_some(Manual::OlderStay { seconds })
}

/// The field that keeps the template of a Rollout from being read, once for each generation of it.
pub fn unreadable(change: &Change<WorkloadView>) -> Option<&str> {
    fn field(view: Option<&WorkloadView>) -> Option<(i64, &str)> {
        let view = view?;
        Some((view.generation, view.argo.as_ref()?.unreadable.as_deref()?))
    }
    let new = field(change.new.as_deref())?;
    (field(change.old.as_deref()) != Some(new)).then_some(new.1)
}

/// How the apiserver is asked for Rollouts.
pub fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout");
    ApiResource::from_gvk_with_plural(&kind, "rollouts")
}

impl Workload for DynamicObject {
    fn shape(&self) -> Shape<'_> {
        let by = self.metadata.annotations.as_ref();
        let wants_template = by
            .and_then(|all| all.get(RESTART_BY))
            .is_some_and(|by| by == RESTART_BY_TEMPLATE);
        let rollout = Fields(&self.data);
        let observed_generation = rollout
            .text("/status/observedGeneration")
            .and_then(|text| text.parse().ok());
        let (template, unreadable) = template(rollout);
        let mut argo = argo(rollout, wants_template);
        argo.unreadable = unreadable;
        // It may have been about what somebody changed since.
        argo.gave_up
            .take_if(|_| observed_generation < self.metadata.generation);
        let pause = pause(rollout).filter(|_| argo.by_template);
        Shape {
            template: template.map(Cow::Owned),
            selector: rollout
                .read::<LabelSelector>("/spec/selector")
                .map(Cow::Owned),
            observed_generation,
            paused: argo.by_template && rollout.is("/spec/paused"),
            manual: pause,
            refused: refused(rollout),
            counters: Counters {
                wanted: rollout.count("/spec/replicas").unwrap_or(1),
                all: rollout.count("/status/replicas").unwrap_or_default(),
                updated: rollout.count("/status/updatedReplicas").unwrap_or_default(),
                ready: rollout.count("/status/readyReplicas").unwrap_or_default(),
            },
            argo: Some(argo),
        }
    }
}

/// Its template, or the field that keeps it from being read; what is wrong with that is not told, as it may name values.
fn template(rollout: Fields<'_>) -> (Option<PodTemplateSpec>, Option<String>) {
    let Some(template) = rollout.0.pointer("/spec/template") else {
        return (None, None);
    };
    match serde_path_to_error::deserialize(template) {
        Ok(template) => (Some(template), None),
        Err(error) => {
            let path = error.path().to_string();
            let inside = if path == "." { "" } else { &format!(".{path}") };
            (None, Some(format!("spec.template{inside}")))
        }
    }
}

/// For how many seconds pods of older templates stay when a newer one is in use; a canary without traffic routing keeps none.
///
/// Source: `scaleDownDelaySeconds` in <https://argo-rollouts.readthedocs.io/en/stable/features/specification/>.
fn stays(rollout: Fields<'_>) -> Option<u64> {
    let part = |path: &str| rollout.0.pointer(path);
    let canary = || {
        let canary = part("/spec/strategy/canary");
        canary.filter(|canary| canary.get("trafficRouting").is_some())
    };
    let strategy = part("/spec/strategy/blueGreen").or_else(canary)?;
    let given = strategy.get("scaleDownDelaySeconds");
    Some(given.and_then(Value::as_u64).unwrap_or(USUALLY_STAY))
}

fn argo(rollout: Fields<'_>, wants_template: bool) -> Argo {
    let template_of = rollout
        .text("/spec/workloadRef/kind")
        .filter(|kind| *kind == "Deployment")
        .and_then(|_| rollout.text("/spec/workloadRef/name"))
        .map(str::to_owned);
    // A template that stands elsewhere is not ours to change.
    let by_template = wants_template && rollout.0.pointer("/spec/workloadRef").is_none();
    let restart_at = rollout.time("/spec/restartAt");
    let restarted_at = rollout.time("/status/restartedAt");
    let stands = rollout.is("/spec/paused") || pause(rollout).is_some();
    let pace = match (rollout.is("/status/abort"), stands) {
        (true, _) => Pace::Aborted,
        (false, true) => Pace::Stands,
        (false, false) => Pace::Steps,
    };
    let is_promoted = rollout.text("/status/stableRS") == rollout.text("/status/currentPodHash");
    let is_degraded = rollout.text("/status/phase") == Some("Degraded");
    let message = rollout.text("/status/message").unwrap_or_default();
    // Pods are replaced by their age whatever became of a new template.
    let concerns = by_template || message.starts_with(INVALID);
    Argo {
        by_template,
        template_stamp: None,
        template_of,
        restart_at,
        restarted_at,
        unfinished: if by_template {
            !is_promoted
        } else {
            restart_at > restarted_at
        },
        pace,
        gave_up: (is_degraded && concerns).then(|| message.to_owned()),
        unreadable: None,
        older_stay: stays(rollout),
    }
}

/// Why the apiserver lets its `ReplicaSets` make no pods, if it refuses any.
fn refused(rollout: Fields<'_>) -> Option<String> {
    let conditions = rollout.0.pointer("/status/conditions")?.as_array()?;
    let fails = |condition: &&Value| {
        let condition = Fields(condition);
        condition.text("/type") == Some("ReplicaFailure")
            && condition.text("/status") == Some("True")
    };
    let failure = conditions.iter().find(fails)?;
    Fields(failure).text("/message").map(str::to_owned)
}

/// Why its controller waits with a new template, if it does.
fn pause(rollout: Fields<'_>) -> Option<Manual> {
    let reason = rollout.text("/status/pauseConditions/0/reason")?;
    Some(match reason {
        "CanaryPauseStep" => {
            let index = rollout.0.pointer("/status/currentStepIndex");
            let index = index.and_then(Value::as_u64).unwrap_or_default();
            let steps = rollout.0.pointer("/spec/strategy/canary/steps");
            let duration = format!("/spec/strategy/canary/steps/{index}/pause/duration");
            Manual::Step {
                number: index + 1,
                of: steps
                    .and_then(Value::as_array)
                    .map_or(0, |all| all.len() as u64),
                timed: rollout.0.pointer(&duration).is_some(),
            }
        }
        "BlueGreenPause" => {
            let blue_green = "/spec/strategy/blueGreen";
            let by_itself = rollout
                .0
                .pointer(&format!("{blue_green}/autoPromotionEnabled"));
            let after = rollout
                .0
                .pointer(&format!("{blue_green}/autoPromotionSeconds"));
            let timed = by_itself != Some(&Value::Bool(false));
            Manual::Promotion {
                timed: timed && after.is_some(),
            }
        }
        _ => Manual::Analysis,
    })
}

/// A JSON object of which nothing is sure.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn text(self, path: &str) -> Option<&'a str> {
        let text = self.0.pointer(path)?.as_str()?;
        (!text.is_empty()).then_some(text)
    }

    fn is(self, path: &str) -> bool {
        self.0.pointer(path) == Some(&Value::Bool(true))
    }

    fn count(self, path: &str) -> Option<u32> {
        let number = self.0.pointer(path)?.as_i64()?;
        Some(count(i32::try_from(number).ok()))
    }

    fn time(self, path: &str) -> Option<Timestamp> {
        self.text(path)?.parse().ok()
    }

    fn read<T: DeserializeOwned>(self, path: &str) -> Option<T> {
        T::deserialize(self.0.pointer(path)?).ok()
    }
}

#[cfg(test)]
mod tests;
