//! Pure: the status of a `VaultSecret` after a pass.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::condition::{Kind, Wanted, find, holds, merge};
use crate::{
    api::vault_secret::{RolloutStatus, VaultSecretStatus, WorkloadState, WorkloadStatus},
    sync::outcome::{InStep, Outcome, Revoking, SourceFailure},
};

/// How many workloads a status lists.
const MAX_WORKLOADS: usize = 100;

/// What a status is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Generation of the spec the outcome belongs to.
    pub generation: i64,
    /// What the pass did.
    pub outcome: &'a Outcome,
    /// Whether the Secret exists and carries our mark.
    pub secret_exists: bool,
    /// The workloads that use the Secret; `None` while not all were looked at.
    pub workloads: Option<&'a [WorkloadStatus]>,
    /// What in `spec.rollout` does not fit these workloads.
    pub remark: Option<&'a str>,
    /// How long a Secret counts as usable while Vault cannot be read.
    pub staleness_budget: Duration,
}

/// The status that follows `old`. It is written only if it differs.
pub fn next(old: &VaultSecretStatus, facts: &Facts<'_>, now: Timestamp) -> VaultSecretStatus {
    let mut status = old.clone();
    if *facts.outcome == Outcome::ConnectionPending
        && old.observed_generation == Some(facts.generation)
    {
        // The process has only just begun to look: what the last one said still holds.
        return status;
    }
    status.observed_generation = Some(facts.generation);
    if let Outcome::InStep(in_step) | Outcome::Degraded(in_step, _) = facts.outcome {
        in_step_fields(&mut status, in_step);
    }
    if let Some(workloads) = facts.workloads {
        status.rollout = rollout(workloads);
    }
    status.conditions = merge(
        &old.conditions,
        conditions(old, facts, now),
        facts.generation,
        now,
    );
    status
}

/// Reasons of `RolledOut` while workloads are on their way: some restart, or all that do not run with the current data wait.
const RESTARTING: &str = "Restarting";
const WAITING: &str = "Waiting";
const ON_THE_WAY: [&str; 2] = [RESTARTING, WAITING];

/// What `RolledOut` says where nothing is to be done.
const NOTHING: &str = "no workload is restarted for the Secret";

/// Whether `new` says more than `old` only of workloads that are on their way. More of it comes soon, so it may wait for that.
pub fn is_only_progress(old: &VaultSecretStatus, new: &VaultSecretStatus) -> bool {
    let besides = |status: &VaultSecretStatus| {
        let mut status = status.clone();
        let on_the_way = status.rollout.take().is_some();
        for condition in &mut status.conditions {
            if condition.type_ == Kind::RolledOut.as_str() {
                condition.message.clear();
                if ON_THE_WAY.contains(&condition.reason.as_str()) {
                    condition.reason.clear();
                }
            }
        }
        (on_the_way, status)
    };
    old != new && besides(old) == besides(new)
}

fn in_step_fields(status: &mut VaultSecretStatus, in_step: &InStep) {
    let InStep {
        target,
        revision,
        data_since,
        sources,
        applied: _,
        refresh,
        missing_policy: _,
        left_behind: _,
        unmatched: _,
    } = in_step;
    status.target = Some(target.clone());
    status.rotation_hash = Some(revision.to_string());
    status.last_change_time = Some(Time(*data_since));
    status.last_handled_refresh.clone_from(refresh);
    status.sources.clone_from(sources);
}

/// Those that are not verified first, so that a cut list still shows what matters.
fn rollout(workloads: &[WorkloadStatus]) -> Option<RolloutStatus> {
    let mut listed = workloads.to_vec();
    listed.sort_by(|a, b| (a.state, a.kind, &a.name).cmp(&(b.state, b.kind, &b.name)));
    listed.truncate(MAX_WORKLOADS);
    (!listed.is_empty()).then_some(RolloutStatus {
        summary: Some(summary(workloads)),
        workloads: listed,
    })
}

/// What somebody wants to know first, in a few characters.
fn summary(workloads: &[WorkloadStatus]) -> String {
    use WorkloadState::{Failed, Paused, Pending, Restarting, Verified, Waiting};
    let count = |states: &[WorkloadState]| {
        let found = workloads.iter().filter(|one| states.contains(&one.state));
        found.count()
    };
    let (failed, held) = (count(&[Failed]), count(&[Waiting, Paused]));
    let (number, state) = if failed > 0 {
        (failed, Failed)
    } else if held > 0 && count(&[Pending, Restarting]) == 0 {
        (held, Waiting)
    } else {
        (count(&[Verified]), Verified)
    };
    format!("{number}/{} {}", workloads.len(), state.as_str())
}

fn conditions(old: &VaultSecretStatus, facts: &Facts<'_>, now: Timestamp) -> Vec<Wanted> {
    let mut wanted = match facts.outcome {
        Outcome::InStep(in_step) => in_step_conditions(in_step),
        Outcome::Suspended => suspended(old, facts),
        Outcome::Refused(refusal) => {
            let (reason, message) = (refusal.reason(), refusal.to_string());
            vec![
                Wanted::no(Kind::Ready, reason, &message),
                Wanted::no(Kind::Synced, reason, &message),
                Wanted::yes(Kind::Stalled, reason, message),
            ]
        }
        Outcome::SourceFailed(failure) => source_failed(old, facts, failure, now),
        Outcome::Degraded(in_step, failure) => degraded(old, facts, (in_step, failure), now),
        Outcome::ApplyFailed { why } => {
            vec![
                Wanted::no(Kind::Ready, "ApplyFailed", why),
                Wanted::no(Kind::Synced, "ApplyFailed", why),
                Wanted::yes(Kind::Reconciling, "ApplyFailed", "it is tried again"),
            ]
        }
        Outcome::ConnectionPending => {
            vec![
                Wanted::no(
                    Kind::Ready,
                    "ConnectionPending",
                    "the connection to Vault is being set up",
                ),
                Wanted::yes(
                    Kind::Reconciling,
                    "ConnectionPending",
                    "the connection to Vault is being set up",
                ),
            ]
        }
        Outcome::Revoking(revoking) => revoking_conditions(revoking),
    };
    let mut carried = vec![Kind::Synced, Kind::SourcesReachable];
    if matches!(facts.outcome, Outcome::Revoking(_)) {
        carried.push(Kind::Ready);
    }
    for kind in carried {
        if !wanted.iter().any(|condition| condition.kind == kind) {
            wanted.extend(find(&old.conditions, kind).and_then(|before| kept(kind, before)));
        }
    }
    wanted.extend(rolled_out(old, facts).map(|condition| remarked(condition, facts)));
    wanted.sort_by_key(|condition| condition.kind as u8);
    wanted
}

/// A condition that this pass has nothing new to say about.
fn kept(kind: Kind, before: &Condition) -> Option<Wanted> {
    let holds = match before.status.as_str() {
        "True" => true,
        "False" => false,
        _ => return None,
    };
    Some(Wanted {
        kind,
        holds: Some(holds),
        reason: before.reason.clone(),
        message: before.message.clone(),
    })
}

fn in_step_conditions(in_step: &InStep) -> Vec<Wanted> {
    let message = format!("Secret {} is in step with Vault", in_step.target);
    let besides = [&in_step.left_behind, &in_step.unmatched];
    let synced = besides
        .into_iter()
        .flatten()
        .fold(message.clone(), |said, more| format!("{said}; {more}"));
    vec![
        Wanted::yes(Kind::Ready, "InStep", &message),
        Wanted::yes(Kind::Synced, "InStep", synced),
        Wanted::yes(
            Kind::SourcesReachable,
            "Reachable",
            "Vault answers for every source",
        ),
    ]
    .into_iter()
    .chain(policy_missing(in_step.missing_policy.as_deref()))
    .collect()
}

fn policy_missing(lacks: Option<&str>) -> Option<Wanted> {
    lacks.map(|lacks| Wanted::yes(Kind::PolicyMissing, "PolicyMissing", lacks))
}

fn revoking_conditions(revoking: &Revoking) -> Vec<Wanted> {
    let message = format!(
        "it is being deleted and waits until Vault has revoked all that was issued for it, at the latest until {}; what is left then lives until its TTL",
        revoking.until
    );
    let reconciling = Wanted::yes(Kind::Reconciling, "Revoking", message);
    let lacks = policy_missing(revoking.missing_policy.as_deref());
    [reconciling].into_iter().chain(lacks).collect()
}

fn suspended(old: &VaultSecretStatus, facts: &Facts<'_>) -> Vec<Wanted> {
    let usable = facts.secret_exists && old.rotation_hash.is_some();
    let message = "spec.suspend is true: nothing is read and nothing is written";
    vec![if usable {
        Wanted::yes(Kind::Ready, "Suspended", message)
    } else {
        Wanted::no(Kind::Ready, "Suspended", message)
    }]
}

/// A Vault outage is no reason to call a good Secret bad, until it has lasted too long.
fn source_failed(
    old: &VaultSecretStatus,
    facts: &Facts<'_>,
    failure: &SourceFailure,
    now: Timestamp,
) -> Vec<Wanted> {
    let (kind, message) = (failure.kind, about(failure));
    let unreachable = Wanted::no(Kind::SourcesReachable, kind.as_str(), &message);
    // An edit that could not be synced yet makes this `False`, so it also tells the generation.
    let from_this_generation =
        old.observed_generation == Some(facts.generation) && holds(&old.conditions, Kind::Synced);
    if !facts.secret_exists || !from_this_generation {
        return vec![
            Wanted::no(Kind::Ready, kind.as_str(), &message),
            Wanted::no(Kind::Synced, kind.as_str(), &message),
            unreachable,
            Wanted::yes(Kind::Reconciling, kind.as_str(), "it is tried again"),
        ];
    }
    vec![usable(old, facts, failure, now), unreachable]
}

/// The Secret is as it should be, but one source is in trouble.
fn degraded(
    old: &VaultSecretStatus,
    facts: &Facts<'_>,
    (in_step, failure): (&InStep, &SourceFailure),
    now: Timestamp,
) -> Vec<Wanted> {
    let mut wanted = in_step_conditions(in_step);
    wanted.retain(|condition| !matches!(condition.kind, Kind::Ready | Kind::SourcesReachable));
    let unreachable = Wanted::no(
        Kind::SourcesReachable,
        failure.kind.as_str(),
        about(failure),
    );
    wanted.extend([usable(old, facts, failure, now), unreachable]);
    wanted
}

fn about(failure: &SourceFailure) -> String {
    let SourceFailure {
        source, message, ..
    } = failure;
    format!("source {source}: {message}")
}

/// Whether a Secret with its last good data still counts as good.
fn usable(
    old: &VaultSecretStatus,
    facts: &Facts<'_>,
    failure: &SourceFailure,
    now: Timestamp,
) -> Wanted {
    if failure.over {
        let SourceFailure {
            source, message, ..
        } = failure;
        let message = format!(
            "what was issued for source {source} is over, so what the Secret holds works no longer, and no other can be had: {message}"
        );
        return Wanted::no(Kind::Ready, "LeaseOver", message);
    }
    let since = find(&old.conditions, Kind::SourcesReachable)
        .filter(|before| before.status == "False")
        .map_or(now, |before| before.last_transition_time.0);
    let outage = now.duration_since(since).unsigned_abs();
    if outage <= facts.staleness_budget {
        Wanted::yes(
            Kind::Ready,
            "LastGood",
            "Vault cannot be read; the Secret keeps its last good data",
        )
    } else {
        let budget = facts.staleness_budget.as_secs();
        Wanted::no(
            Kind::Ready,
            "Stale",
            format!(
                "Vault could not be read for more than {budget}s; the Secret keeps its last good data"
            ),
        )
    }
}

/// The remark changes the message and nothing else: what is left to the user's order is no failure.
fn remarked(mut condition: Wanted, facts: &Facts<'_>) -> Wanted {
    if let (Some(_), Some(remark)) = (facts.workloads, facts.remark) {
        condition.message = format!("{}; {remark}", condition.message);
    }
    condition
}

fn rolled_out(old: &VaultSecretStatus, facts: &Facts<'_>) -> Option<Wanted> {
    let Some(workloads) = facts.workloads else {
        return find(&old.conditions, Kind::RolledOut)
            .and_then(|before| kept(Kind::RolledOut, before));
    };
    if old.rotation_hash.is_none()
        && !matches!(facts.outcome, Outcome::InStep(_) | Outcome::Degraded(..))
    {
        return None;
    }
    let count = |state| {
        workloads
            .iter()
            .filter(|workload| workload.state == state)
            .count()
    };
    let total = workloads.len();
    let kind = Kind::RolledOut;
    let first_failed = workloads
        .iter()
        .find(|workload| workload.state == WorkloadState::Failed);
    let open = total - count(WorkloadState::Verified);
    Some(if let Some(failed) = first_failed {
        let why = failed
            .message
            .as_deref()
            .unwrap_or("the restart was not seen to finish");
        Wanted::no(
            kind,
            "RolloutFailed",
            format!("{} {}: {why}", failed.kind.as_str(), failed.name),
        )
    } else if total == 0 {
        Wanted::yes(kind, "NothingToRestart", NOTHING)
    } else if open == 0 {
        Wanted::yes(
            kind,
            "Verified",
            format!("all pods of {total} workload(s) run with the current data"),
        )
    } else if count(WorkloadState::Restarting) + count(WorkloadState::Pending) > 0 {
        Wanted::no(
            kind,
            RESTARTING,
            format!("{open} of {total} workload(s) do not run with the current data yet"),
        )
    } else {
        let first = workloads.first().map(|first| {
            let why = first.message.as_deref().unwrap_or("see status.rollout");
            format!(": {} {}: {why}", first.kind.as_str(), first.name)
        });
        let first = first.unwrap_or_default();
        Wanted::no(
            kind,
            WAITING,
            format!("{open} of {total} workload(s) wait{first}"),
        )
    })
}

#[cfg(test)]
mod tests;
