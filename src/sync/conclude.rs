//! Effects: log, clock. How a pass ends: refused, not read, or in step.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Object, ReadSource, Stop,
    outcome::{InStep, Outcome, SourceFailure},
    plan::ApplyReason,
    refusal::Refusal,
    resolve::{Resolved, source::Source},
};
use crate::{
    api::source::SourceStatus, names::ObjectKey, secret_view::SecretView,
    vault::readings::ReadFailure,
};

/// A refusal heals by an event. This is the net below the events; looking costs no request.
const REFUSED: Duration = Duration::from_mins(10);

/// What a pass did, and when to look again.
pub(super) type Look = (Outcome, Option<Instant>);

/// A refusal is not retried; only where Vault could end it, of which no event tells, is it looked at in its turn.
pub(super) fn refused(refusal: Refusal, interval: Option<Duration>) -> Look {
    let pause = match interval {
        Some(interval) if refusal.may_heal_in_vault() => interval,
        _ => REFUSED,
    };
    (Outcome::Refused(refusal), Some(Instant::now() + pause))
}

pub(super) fn unread(key: &ObjectKey, source: &Source, failure: ReadFailure) -> Stop {
    let ReadFailure {
        error,
        attempts,
        retry_at,
    } = failure;
    if !error.held_back {
        let source = &source.name;
        // One warning per failure: the tries that follow say nothing new.
        if attempts == 1 {
            tracing::warn!(object = %key, source, attempts, error = %error, "a source was not read");
        } else {
            tracing::debug!(object = %key, source, attempts, error = %error, "a source was not read");
        }
    }
    // What goes into a status must not change from try to try, or each try would be a write.
    let message = if error.concerns_connection() {
        error.kind.phrase().to_owned()
    } else {
        error.to_string()
    };
    let failure = SourceFailure {
        source: source.name.clone(),
        kind: error.kind,
        message,
    };
    Stop::Unread(failure, retry_at.into())
}

pub(super) fn in_step(
    object: &Object<'_>,
    resolved: &Resolved,
    read: &[ReadSource<'_>],
    secret: Option<&SecretView>,
    applied: Option<ApplyReason>,
) -> Option<InStep> {
    let managed = secret?.managed.as_ref()?;
    let sources = read.iter().map(|read| SourceStatus {
        name: read.source.name.clone(),
        kind: read.source.ask.kind(),
        version: read
            .reading
            .version
            .and_then(|version| i64::try_from(version).ok()),
    });
    Some(InStep {
        target: resolved.target.name.clone(),
        revision: managed.revision.clone(),
        data_since: managed.data_since,
        sources: sources.collect(),
        applied,
        refresh: object.view.refresh.clone(),
    })
}
