//! Pure: what one pass over a `VaultSecret` did, as a value. Status, events, metrics and the next look follow from it.

use jiff::Timestamp;

use super::{plan::ApplyReason, refusal::Refusal};
use crate::{
    api::source::SourceStatus,
    revision::Revision,
    vault::error::{VaultError, VaultErrorKind},
};

/// What one pass did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The Secret holds what Vault holds.
    InStep(InStep),
    /// Nothing is done because the user said so.
    Suspended,
    /// Somebody has to change an object.
    Refused(Refusal),
    /// A source could not be read; the Secret keeps what it has.
    SourceFailed(SourceFailure),
    /// A source is in trouble; the others are in step, and the Secret is as it should be without it.
    Degraded(InStep, SourceFailure),
    /// The Secret could not be written; it is tried again.
    ApplyFailed {
        /// What the apiserver said, without any value.
        why: String,
    },
    /// Its connection was not looked at yet.
    ConnectionPending,
    /// It is being deleted, and waits for that all that was issued for it is revoked.
    Revoking(Revoking),
}

/// What a deletion waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoking {
    /// When it waits no longer, by the apiserver's clock.
    pub until: Timestamp,
    /// What Vault's policy lacks, in words.
    pub missing_policy: Option<String>,
}

/// The Secret holds what Vault holds.
#[derive(Clone, Debug, PartialEq)]
pub struct InStep {
    /// Name of the Secret.
    pub target: String,
    /// Revision of its data.
    pub revision: Revision,
    /// Since when the data is what it is, by the apiserver's clock.
    pub data_since: Timestamp,
    /// What was read.
    pub sources: Vec<SourceStatus>,
    /// What was written, if anything.
    pub applied: Option<ApplyReason>,
    /// The refresh request that this answers.
    pub refresh: Option<String>,
    /// What Vault's policy lacks, in words.
    pub missing_policy: Option<String>,
    /// What was replaced and cannot be revoked, in words.
    pub left_behind: Option<String>,
    /// What `keys` names and the sources do not have, in words.
    pub unmatched: Option<String>,
}

/// A source could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFailure {
    /// Name of the source.
    pub source: String,
    /// What went wrong, sorted.
    pub kind: VaultErrorKind,
    /// The same for people, without any value and without anything that changes from try to try.
    pub message: String,
    /// Whether what the Secret holds for this source is known to work no longer.
    pub over: bool,
}

impl SourceFailure {
    /// How an error about `source` reads in a status. Nothing in it changes from try to try, or each try would be a write.
    pub fn of(source: &str, error: &VaultError) -> Self {
        Self {
            source: source.to_owned(),
            kind: error.kind,
            message: if error.concerns_connection() {
                error.kind.phrase().to_owned()
            } else {
                error.to_string()
            },
            over: false,
        }
    }

    /// The one of several failures to tell: one that makes the Secret useless, else the first.
    pub fn worst(failures: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        failures.into_iter().flatten().reduce(|worst, next| {
            if next.over && !worst.over {
                next
            } else {
                worst
            }
        })
    }
}

impl Outcome {
    /// Revision and age of the data that the Secret holds, if the pass tells.
    pub fn data(&self) -> Option<(&Revision, Timestamp)> {
        match self {
            Self::InStep(in_step) | Self::Degraded(in_step, _) => {
                Some((&in_step.revision, in_step.data_since))
            }
            Self::Suspended
            | Self::Refused(_)
            | Self::SourceFailed(_)
            | Self::ApplyFailed { .. }
            | Self::ConnectionPending
            | Self::Revoking(_) => None,
        }
    }

    /// The word that metrics print.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::InStep(_) => "InStep",
            Self::Suspended => "Suspended",
            Self::Refused(_) => "Refused",
            Self::SourceFailed(_) => "SourceFailed",
            Self::Degraded(..) => "Degraded",
            Self::ApplyFailed { .. } => "ApplyFailed",
            Self::ConnectionPending => "ConnectionPending",
            Self::Revoking(_) => "Revoking",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_told_before_what_cannot_be_read() {
        let failure = |source: &str, over| {
            Some(SourceFailure {
                source: source.to_owned(),
                kind: VaultErrorKind::Unreachable,
                message: String::new(),
                over,
            })
        };
        let rows = [
            (vec![None, None], None),
            (vec![failure("kv", false), None], failure("kv", false)),
            (
                vec![failure("kv", false), failure("login", false)],
                failure("kv", false),
            ),
            (
                vec![failure("kv", false), failure("login", true)],
                failure("login", true),
            ),
            (
                vec![failure("login", true), failure("other", true)],
                failure("login", true),
            ),
        ];
        for (failures, expected) in rows {
            assert_eq!(SourceFailure::worst(failures), expected);
        }
    }
}
