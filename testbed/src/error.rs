//! Pure: what can go wrong with a bed.

use std::{error::Error, fmt, io, path::PathBuf};

use crate::{eventually::NotYet, parts::PartError, process::ProcessError};

/// Why a bed did not do what it was asked for. `Debug` prints the whole chain of causes, so that `unwrap` reads well.
#[derive(thiserror::Error)]
pub enum BedError {
    /// The shared bed could not be started, here or for another test.
    #[error("the shared bed did not start: {0}")]
    Shared(String),
    /// A part could not be had.
    #[error("provide a part of the testbed")]
    Part(#[from] PartError),
    /// A process could not be started or controlled.
    #[error("control a process of the testbed")]
    Process(#[from] ProcessError),
    /// Something that must come about did not.
    #[error("wait")]
    NotYet(#[from] NotYet),
    /// A process ended or stayed silent while it was to become ready; its last words are attached.
    #[error("{name} did not become ready: {reason}\n--- its log ends:\n{log}")]
    NotReady {
        /// Which process.
        name: &'static str,
        /// What was seen.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A file of the bed could not be read or written.
    #[error("write or read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The temporary directory or the ports could not be had.
    #[error("prepare the bed")]
    Prepare(#[source] io::Error),
    /// A certificate could not be made.
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A kubeconfig could not be read back.
    #[error("read the kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The apiserver refused or could not be reached.
    #[error("ask the apiserver")]
    Kube(#[from] kube::Error),
    /// kubectl ended with an error.
    #[error("kubectl {arguments}: {output}")]
    Kubectl {
        /// What it was called with.
        arguments: String,
        /// What it wrote to stderr.
        output: String,
    },
    /// Vault could not be reached.
    #[error("{method} {path} in Vault")]
    VaultRequest {
        /// The HTTP method.
        method: String,
        /// The path.
        path: String,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// Vault refused.
    #[error("{method} {path} in Vault: status {status}: {body}")]
    VaultRefused {
        /// The HTTP method.
        method: String,
        /// The path.
        path: String,
        /// The HTTP status.
        status: u16,
        /// What it answered.
        body: String,
    },
    /// The Vault client library failed.
    #[error("call Vault")]
    Vault(#[from] vaultrs::error::ClientError),
    /// The settings of the Vault client library are not acceptable.
    #[error("set up a Vault client")]
    VaultSettings(#[from] vaultrs::client::VaultClientSettingsBuilderError),
    /// An answer does not have the expected shape.
    #[error("{0} is missing in an answer")]
    Shape(&'static str),
    /// PostgreSQL refused or could not be reached.
    #[error("ask PostgreSQL")]
    Postgres(#[from] tokio_postgres::Error),
    /// The directory refused or could not be reached.
    #[error("ask the directory")]
    Ldap(#[from] ldap3::LdapError),
    /// The operator could not be asked.
    #[error("ask the operator for {path}")]
    Operator {
        /// The path of its admin server.
        path: String,
        /// Why it failed.
        source: reqwest::Error,
    },
}

impl BedError {
    /// Names the file for an I/O error.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

impl fmt::Debug for BedError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&chain(self))
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
