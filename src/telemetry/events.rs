//! Effects: apiserver — publishes Kubernetes Events.
//!
//! An Event is published when something changed for the user, never once per pass. The recorder folds
//! repeats within six minutes into one Event and keeps the first note, so what matters for long belongs
//! into a condition.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::chain::{chain, truncate};
use super::metrics::Metrics;

/// Longest note in bytes; the apiserver refuses more than 1024.
const MAX_NOTE_BYTES: usize = 1000;

/// How long the caller waits for an Event to be taken. Events are a courtesy, the caller has work to do.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an Event was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// What failed works again.
    Recovered,
    /// A source cannot be read; the Secret keeps its last good data.
    SourceFailing,
    /// Only an edit by the user helps.
    Stalled,
    /// Vault's policy does not allow all that keeping and revoking leases takes.
    PolicyMissing,
    /// The Secret has new data.
    SecretUpdated,
    /// The Secret was changed or deleted by somebody else and has been put back.
    SecretRepaired,
    /// A workload was stamped with a new hash.
    RolloutStarted,
    /// Every pod of a workload runs with the current data.
    RolloutVerified,
    /// A workload did not get there before its deadline.
    RolloutFailed,
    /// Another field manager keeps taking the stamp away.
    RestartConflict,
    /// Pods use a Secret that has new data, and belong to nothing that is restarted.
    NotRestarted,
}

impl EventReason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 11] = [
        Self::Recovered,
        Self::SourceFailing,
        Self::Stalled,
        Self::PolicyMissing,
        Self::SecretUpdated,
        Self::SecretRepaired,
        Self::RolloutStarted,
        Self::RolloutVerified,
        Self::RolloutFailed,
        Self::RestartConflict,
        Self::NotRestarted,
    ];

    /// The word in the `reason` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "Recovered",
            Self::SourceFailing => "SourceFailing",
            Self::Stalled => "Stalled",
            Self::PolicyMissing => "PolicyMissing",
            Self::SecretUpdated => "SecretUpdated",
            Self::SecretRepaired => "SecretRepaired",
            Self::RolloutStarted => "RolloutStarted",
            Self::RolloutVerified => "RolloutVerified",
            Self::RolloutFailed => "RolloutFailed",
            Self::RestartConflict => "RestartConflict",
            Self::NotRestarted => "NotRestarted",
        }
    }

    /// Whether somebody should look at it.
    pub fn is_warning(self) -> bool {
        match self {
            Self::SourceFailing
            | Self::Stalled
            | Self::PolicyMissing
            | Self::SecretRepaired
            | Self::RolloutFailed
            | Self::RestartConflict
            | Self::NotRestarted => true,
            Self::Recovered
            | Self::SecretUpdated
            | Self::RolloutStarted
            | Self::RolloutVerified => false,
        }
    }

    /// The word in the `action` field: what was being done.
    fn action(self) -> &'static str {
        match self {
            Self::Recovered | Self::SourceFailing => "Read",
            Self::Stalled | Self::PolicyMissing => "Resolve",
            Self::SecretUpdated | Self::SecretRepaired => "Apply",
            Self::RolloutStarted
            | Self::RolloutVerified
            | Self::RolloutFailed
            | Self::RestartConflict
            | Self::NotRestarted => "Rollout",
        }
    }
}

/// Publishes Events in the name of the controller `lockstep`. Cheap to clone; one per process, because the
/// memory of repeats lives in it.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    metrics: Arc<Metrics>,
}

impl Events {
    /// `pod` is the name of this pod, shown as the reporting instance.
    pub fn new(client: kube::Client, pod: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter {
            controller: "lockstep".to_owned(),
            instance: Some(pod.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            metrics,
        }
    }

    /// Publishes one Event about `object`; `note` is cut to 1000 bytes and must hold no secret value.
    ///
    /// Takes at most five seconds. A failure is counted (`lockstep_apiserver_writes_total`, resource
    /// `events`) and logged at debug level; the caller does not hear of it.
    pub async fn publish(&self, object: &ObjectReference, reason: EventReason, note: &str) {
        let event = event(reason, note);
        let result = match tokio::time::timeout(
            PUBLISH_TIMEOUT,
            self.recorder.publish(&event, object),
        )
        .await
        {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                tracing::debug!(
                    reason = reason.as_str(),
                    error = chain(&error),
                    "event was not published"
                );
                "error"
            }
            Err(_elapsed) => {
                tracing::debug!(reason = reason.as_str(), "event was not published in time");
                "error"
            }
        };
        self.metrics.apiserver_write("events", result);
    }
}

fn event(reason: EventReason, note: &str) -> Event {
    Event {
        type_: if reason.is_warning() {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: reason.as_str().to_owned(),
        note: Some(truncate(note, MAX_NOTE_BYTES).to_owned()),
        action: reason.action().to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_reason_is_its_name() {
        for reason in EventReason::ALL {
            assert_eq!(reason.as_str(), format!("{reason:?}"));
        }
    }

    #[test]
    fn long_notes_are_cut_between_characters() {
        let event = event(EventReason::SourceFailing, &"ü".repeat(800));
        assert_eq!(event.note.map(|note| note.len()), Some(1000));
        assert_eq!(event.type_, EventType::Warning);
    }
}
