//! Pure: what one pass over a `VaultSecret` did, as a value. Status, events, metrics and the next look follow from it.

use jiff::Timestamp;

use super::{plan::ApplyReason, refusal::Refusal};
use crate::{api::source::SourceStatus, revision::Revision, vault::error::VaultErrorKind};

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
    /// The Secret could not be written; it is tried again.
    ApplyFailed {
        /// What the apiserver said, without any value.
        why: String,
    },
    /// Its connection was not looked at yet.
    ConnectionPending,
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
}

impl Outcome {
    /// The word that metrics print.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::InStep(_) => "InStep",
            Self::Suspended => "Suspended",
            Self::Refused(_) => "Refused",
            Self::SourceFailed(_) => "SourceFailed",
            Self::ApplyFailed { .. } => "ApplyFailed",
            Self::ConnectionPending => "ConnectionPending",
        }
    }
}
