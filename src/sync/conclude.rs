//! Effects: log, clock. How a pass ends: refused, not read, or in step.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use super::{
    Object, ReadSource, Stop,
    holding::{self, holdings::Holdings},
    outcome::{InStep, Outcome, SourceFailure},
    plan::ApplyReason,
    refusal::Refusal,
    resolve::{Resolved, source::Source},
};
use crate::{
    api::source::SourceStatus,
    names::ObjectKey,
    secret_view::SecretView,
    vault::{clock::VaultClock, error::VaultError, readings::ReadFailure},
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
    let failure = SourceFailure::of(&source.name, &error);
    Stop::Unread(failure, retry_at.into())
}

/// Nothing was issued. Whoever has something from before goes on with that.
pub(super) fn issue_failed(
    source: &Source,
    error: &VaultError,
    (held, vault): (&Holdings, Option<VaultClock>),
) -> Result<SourceFailure, Stop> {
    let failure = holding::failure(held, source, error, vault);
    if held.sources.contains_key(&source.name) {
        return Ok(failure);
    }
    let now = Instant::now();
    let failures = held.failures.get(&source.name);
    let retry = failures.and_then(|failures| failures.held(now.into_std()));
    Err(Stop::Unread(failure, retry.map_or(now, Instant::from_std)))
}

/// How each source reads in the status.
pub(super) fn statuses(
    resolved: &Resolved,
    read: &[ReadSource<'_>],
    held: Option<&Holdings>,
) -> Vec<SourceStatus> {
    let status = |source: &Source| {
        let read = read.iter().find(|read| read.source.name == source.name);
        let version = read.and_then(|read| read.reading.version);
        let rotation = read.and_then(|read| read.reading.rotation);
        let status = SourceStatus {
            name: source.name.clone(),
            kind: source.ask.kind(),
            version: version.and_then(|version| i64::try_from(version).ok()),
            last_rotation: rotation.and_then(|rotation| rotation.last.map(Time)),
            lease_duration: None,
            renewable: None,
            serial_number: None,
            lease_expires: None,
        };
        match held.and_then(|held| held.sources.get(&source.name)) {
            Some(holding) => holding.describe(status),
            None => status,
        }
    };
    resolved.sources.iter().map(status).collect()
}

pub(super) fn in_step(
    object: &Object<'_>,
    resolved: &Resolved,
    sources: Vec<SourceStatus>,
    (secret, applied): (Option<&SecretView>, Option<ApplyReason>),
    unmatched: Option<String>,
) -> Option<InStep> {
    let managed = secret?.managed.as_ref()?;
    Some(InStep {
        target: resolved.target.name.clone(),
        revision: managed.revision.clone(),
        data_since: managed.data_since,
        sources,
        applied,
        refresh: object.view.refresh.clone(),
        missing_policy: None,
        left_behind: None,
        unmatched,
    })
}
