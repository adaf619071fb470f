//! Pure: why the apiserver refuses pods of a workload, such as for a quota or an admission policy.
//!
//! A Deployment says so in its status. A StatefulSet and a DaemonSet do not: their controllers tell it in events.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;

use super::bind::Bound;
use crate::api::vault_secret::WorkloadKind;

/// The reason of these events.
pub const REASON: &str = "FailedCreate";

/// Longest explanation that goes into a status.
const LONGEST: usize = 300;

/// Whether workloads of `kind` tell in events only that their pods are refused.
pub fn tells_in_events(kind: WorkloadKind) -> bool {
    match kind {
        WorkloadKind::Deployment | WorkloadKind::Rollout => false,
        WorkloadKind::StatefulSet | WorkloadKind::DaemonSet => true,
    }
}

/// What the newest of `events` says, unless it is older than the data of `bound`: then it is about something else.
pub fn newest(events: &[Event], bound: &[Bound]) -> Option<String> {
    let since = bound.iter().map(|bound| bound.data.since).max()?;
    let newest = events.iter().max_by_key(|event| time(event))?;
    if time(newest)? < since {
        return None;
    }
    Some(words(newest.note.as_deref()?))
}

/// When the event was last seen.
fn time(event: &Event) -> Option<Timestamp> {
    let last = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let again = event
        .series
        .as_ref()
        .map(|series| series.last_observed_time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    [last, again, first].into_iter().flatten().max()
}

/// The words of the apiserver. Not the name of the pod: that is another one with each attempt.
fn words(note: &str) -> String {
    let said = note
        .split_once("pods \"")
        .and_then(|(_, named)| named.split_once("\" "))
        .map_or_else(|| note.to_owned(), |(_, said)| format!("a new pod {said}"));
    said.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests;
