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
    /// Vault did not answer.
    #[error("ask Vault")]
    Http(#[source] reqwest::Error),
    /// The operator could not be handled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A program ended with an error.
    #[error("{program}: {output}")]
    Ended {
        /// Which one.
        program: String,
        /// What it wrote.
        output: String,
    },
    /// A file of this repository could not be read.
    #[error("read {path}")]
    File {
        /// Which one.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The apiserver refused or could not be reached.
    #[error("ask the apiserver")]
    Kube(#[from] kube::Error),
    /// What was to be seen was not.
    #[error(transparent)]
    NotSeen(#[from] NotYet),
    /// Something was seen that must not be.
    #[error("{0}")]
    Wrong(String),
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
