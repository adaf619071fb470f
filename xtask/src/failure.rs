//! Pure: why a command did not do what it was asked for.

use std::{error::Error, io};

use lockstep_testbed::{BedError, eventually::NotYet, parts::PartError, process::ProcessError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A part of the testbed could not be had.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The testbed failed.
    #[error(transparent)]
    Bed(#[from] BedError),
    /// A program could not be run.
    #[error("run {program}")]
    Run {
        /// Which one.
        program: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The operator could not be built.
    #[error("cargo could not build the operator; what it said is above")]
    Build,
    /// The apiserver refused something.
    #[error("ask the apiserver")]
    Kubernetes(#[from] kube::Error),
    /// Vault did not answer.
    #[error("ask Vault")]
    Http(#[source] reqwest::Error),
    /// The operator could not be handled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Something did not come about in time.
    #[error(transparent)]
    NotYet(#[from] NotYet),
    /// Something was never seen.
    #[error("{0} were not seen in time")]
    Unseen(String),
    /// The async runtime or its signals could not be set up.
    #[error("prepare the program")]
    Prepare(#[source] io::Error),
}

impl Failure {
    /// The failure with its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}
