//! Pure: how a decision reads in the status of a VaultSecret and in events.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;

use super::{
    WorkloadKey,
    bind::Bound,
    decision::{Decision, Progress, Waiting},
    turn::Hold,
    view::Manual,
    window::WindowError,
};
use crate::{
    api::vault_secret::{WorkloadState, WorkloadStatus},
    names::{RESTART, RESTART_NEVER, SECRETS_HASH},
    telemetry::events::EventReason,
};

/// Something that happened to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Announcement {
    /// The pod template was stamped.
    Started,
    /// The same although no window is open.
    StartedEarly,
    /// Every pod was seen ready with the current data.
    Verified,
    /// That was not seen in time.
    Failed,
    /// Somebody else holds the stamp or takes it away.
    Conflict,
}

/// What to tell about a workload, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutNote {
    /// Which workload.
    pub workload: WorkloadKey,
    /// Its UID.
    pub uid: String,
    /// What happened.
    pub what: Announcement,
    /// The same for people.
    pub message: String,
}

impl Announcement {
    /// The reason of the event.
    pub fn reason(self) -> EventReason {
        match self {
            Self::Started | Self::StartedEarly => EventReason::RolloutStarted,
            Self::Verified => EventReason::RolloutVerified,
            Self::Failed => EventReason::RolloutFailed,
            Self::Conflict => EventReason::RestartConflict,
        }
    }
}

impl RolloutNote {
    /// The workload, as events refer to it.
    pub fn object(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.workload.kind.api_version().to_owned()),
            kind: Some(self.workload.kind.as_str().to_owned()),
            namespace: Some(self.workload.namespace.clone()),
            name: Some(self.workload.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

/// How `workload` reads in the status of the VaultSecrets it is bound to; `None` when it is bound to none.
///
/// In a steady state it says nothing that changes by itself: a status is not written because pods come and go.
pub fn status(
    workload: &WorkloadKey,
    wanted: Option<&str>,
    decision: &Decision,
) -> Option<WorkloadStatus> {
    Some(WorkloadStatus {
        kind: workload.kind,
        name: workload.name.clone(),
        state: state(decision)?,
        hash: wanted.map(str::to_owned),
        pods: progress(decision).map(|Progress { ready, wanted }| format!("{ready}/{wanted}")),
        message: message(workload, decision),
    })
}

/// Whether the workload has pods that do not run with the current data yet and are going to.
pub fn waits(decision: &Decision) -> bool {
    match decision {
        Decision::ListPods
        | Decision::Settle { .. }
        | Decision::Retry { .. }
        | Decision::Ask
        | Decision::Stamp
        | Decision::Fold { .. }
        | Decision::Restarting { .. }
        | Decision::Paused { .. }
        | Decision::Waiting(
            Waiting::Turn { .. }
            | Waiting::ManualUpdate { .. }
            | Waiting::Unseen { .. }
            | Waiting::Lent { .. },
        ) => true,
        // A target that does not exist has no pods.
        Decision::Waiting(Waiting::NoSuchWorkload | Waiting::NoSuchKind { .. })
        | Decision::Unbound
        | Decision::InStep { .. }
        | Decision::Verified
        | Decision::Failed { .. }
        | Decision::Conflict { .. } => false,
    }
}

fn state(decision: &Decision) -> Option<WorkloadState> {
    Some(match decision {
        Decision::Unbound => return None,
        Decision::InStep { .. } | Decision::Verified => WorkloadState::Verified,
        Decision::ListPods
        | Decision::Settle { .. }
        | Decision::Retry { refused: false, .. }
        | Decision::Ask
        | Decision::Stamp => WorkloadState::Pending,
        Decision::Restarting { .. } | Decision::Fold { .. } => WorkloadState::Restarting,
        Decision::Retry { refused: true, .. }
        | Decision::Failed { .. }
        | Decision::Conflict { .. } => WorkloadState::Failed,
        Decision::Paused { .. } => WorkloadState::Paused,
        Decision::Waiting(_) => WorkloadState::Waiting,
    })
}

fn progress(decision: &Decision) -> Option<Progress> {
    match decision {
        Decision::Restarting { progress, .. }
        | Decision::Fold { progress, .. }
        | Decision::Failed { progress, .. }
        | Decision::Waiting(Waiting::ManualUpdate { progress, .. }) => Some(*progress),
        Decision::Unbound
        | Decision::ListPods
        | Decision::InStep { .. }
        | Decision::Settle { .. }
        | Decision::Retry { .. }
        | Decision::Ask
        | Decision::Stamp
        | Decision::Verified
        | Decision::Paused { .. }
        | Decision::Waiting(
            Waiting::NoSuchWorkload
            | Waiting::NoSuchKind { .. }
            | Waiting::Unseen { .. }
            | Waiting::Lent { .. }
            | Waiting::Turn { .. },
        )
        | Decision::Conflict { .. } => None,
    }
}

/// What it waits for, or what failed.
fn message(workload: &WorkloadKey, decision: &Decision) -> Option<String> {
    Some(match decision {
        Decision::Retry { message, .. } => message.clone(),
        Decision::Failed {
            progress: Progress { ready, wanted },
            why,
            after,
            ..
        } => {
            let why = why.as_ref().map(|why| format!(": {why}"));
            let after = (!after.is_zero()).then(|| format!(" after {}", length(*after)));
            format!(
                "{ready} of {wanted} pods are ready with the current data{}{}",
                after.unwrap_or_default(),
                why.unwrap_or_default()
            )
        }
        Decision::Paused { stamped } => paused(workload, *stamped),
        Decision::Waiting(Waiting::NoSuchWorkload) => {
            let kind = workload.kind.as_str();
            format!("no such {kind}: create it, or take it out of spec.rollout.targets")
        }
        Decision::Waiting(Waiting::Unseen { why }) => {
            format!("{}s cannot be seen: {why}", workload.kind.as_str())
        }
        Decision::Waiting(Waiting::NoSuchKind { target }) => {
            let place = target.map_or_else(String::new, |place| format!("[{place}].kind"));
            format!(
                "spec.rollout.targets{place}: Argo Rollouts is not installed: install it, or take the target away"
            )
        }
        Decision::Waiting(Waiting::Lent { to, .. }) => format!(
            "the Rollout {to} takes its template from it, so it is not restarted: scale it down, or delete its pods"
        ),
        Decision::Waiting(Waiting::ManualUpdate { manual, .. }) => by_hand(*manual),
        Decision::Waiting(Waiting::Turn { hold, .. }) => held(hold),
        Decision::Settle { .. } => {
            "other changes are waited for first: spec.rollout.settle".to_owned()
        }
        Decision::Fold { .. } => {
            "another rollout is under way; it is restarted after that if it has to be".to_owned()
        }
        Decision::Conflict {
            manager,
            holds,
            owner,
            ..
        } => conflict(manager.as_deref(), *holds, owner.as_deref()),
        Decision::Unbound
        | Decision::ListPods
        | Decision::InStep { .. }
        | Decision::Ask
        | Decision::Stamp
        | Decision::Restarting { .. }
        | Decision::Verified => return None,
    })
}

fn paused(workload: &WorkloadKey, stamped: bool) -> String {
    let kind = workload.kind.as_str();
    let what = if stamped {
        "its restart goes on"
    } else {
        "it is restarted"
    };
    format!("the {kind} is paused; {what} when it is resumed")
}

fn length(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

fn by_hand(manual: Manual) -> String {
    match manual {
        Manual::OnDelete => {
            "the update strategy is OnDelete: delete the pods to restart them".to_owned()
        }
        Manual::Partition(ordinal) => format!(
            "the partition of the rolling update keeps the pods below {ordinal} back: lower it to restart them"
        ),
        Manual::Step { number, of, timed } => format!(
            "the Rollout is paused at step {number} of {of}: {}",
            promote(timed)
        ),
        Manual::Promotion { timed } => {
            format!("the new pods are not active yet: {}", promote(timed))
        }
        Manual::OlderStay { seconds } => format!(
            "the new pods are in use; older ones stay for {seconds} seconds (scaleDownDelaySeconds)"
        ),
        Manual::Analysis => {
            "the Rollout is paused by an inconclusive analysis: promote or abort it".to_owned()
        }
    }
}

fn promote(timed: bool) -> &'static str {
    if timed {
        "it goes on after a time, or when it is promoted"
    } else {
        "promote it"
    }
}

fn held(hold: &Hold) -> String {
    match hold {
        Hold::Cluster { limit } => {
            format!("waits for its turn: at most {limit} workloads restart at once")
        }
        Hold::Namespace { limit } => {
            format!("waits for its turn: at most {limit} workloads of a namespace restart at once")
        }
        Hold::Window { opens: Some(opens) } => format!("window opens at {opens}"),
        Hold::Window { opens: None } => {
            "the windows of its Secrets are never open together: change one of them".to_owned()
        }
        Hold::NoWindow {
            vault_secret,
            error: WindowError { field, why },
        } => format!("{field} of VaultSecret {vault_secret}: {why}"),
        Hold::Wave {
            before,
            wave,
            state,
        } => {
            let who = format!(
                "{} {} of the wave {wave}",
                before.kind.as_str(),
                before.name
            );
            if *state == WorkloadState::Failed {
                format!("stopped: {who} failed, and comes before")
            } else {
                format!("waits for {who}, which is {}", state.as_str())
            }
        }
    }
}

fn conflict(manager: Option<&str>, holds: bool, owner: Option<&str>) -> String {
    let who = manager.map_or_else(
        || "another field manager".to_owned(),
        |name| format!("the field manager {name}"),
    );
    let does = if holds { "holds" } else { "twice took away" };
    let owner = owner.map(|owner| {
        format!("; {owner} owns the workload: have it leave {SECRETS_HASH} alone, or set {RESTART}={RESTART_NEVER} on the workload and restart its pods there")
    });
    format!(
        "RestartConflict: {who} {does} the annotation that restarts the pods{}",
        owner.unwrap_or_default()
    )
}

/// The note for `what`, which happened to `workload`.
pub fn note(
    workload: &WorkloadKey,
    uid: &str,
    what: Announcement,
    decision: &Decision,
    bound: &[Bound],
) -> RolloutNote {
    let secrets: Vec<_> = bound
        .iter()
        .map(|bound| bound.data.secret.as_str())
        .collect();
    let secrets = secrets.join(", ");
    let text = match what {
        Announcement::Started => format!("restarting the pods for new data of {secrets}"),
        Announcement::StartedEarly => format!(
            "restarting the pods for new data of {secrets} before a window opens: what they run with ends first"
        ),
        Announcement::Verified => format!("every pod runs with the current data of {secrets}"),
        Announcement::Failed | Announcement::Conflict => {
            message(workload, decision).unwrap_or_default()
        }
    };
    RolloutNote {
        workload: workload.clone(),
        uid: uid.to_owned(),
        what,
        message: text,
    }
}

#[cfg(test)]
mod tests;
