//! Effects: network, files — PostgreSQL as published for embedded use: a zip with a `.txz` in it.

use std::{env::consts, path::PathBuf};

use super::{PartError, archive, cache, download::Pinned, origin, progress::Progress};

const VERSION: &str = "18.6.0";

/// The artifact's suffix and its SHA-256, per operating system and architecture in Rust's naming.
const ARTIFACTS: [(&str, &str, &str, &str); 2] = [
    (
        "linux",
        "x86_64",
        "linux-amd64",
        "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1",
    ),
    (
        "linux",
        "aarch64",
        "linux-arm64v8",
        "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be",
    ),
];

/// The directory that holds `bin`, `lib` and `share`.
pub(crate) fn ensure() -> Result<PathBuf, PartError> {
    let (_, _, suffix, sha256) = ARTIFACTS
        .into_iter()
        .find(|(system, architecture, ..)| *system == consts::OS && *architecture == consts::ARCH)
        .ok_or_else(|| PartError::Platform {
            part: "postgres",
            platform: format!("{}-{}", consts::OS, consts::ARCH),
        })?;
    let artifact = format!("embedded-postgres-binaries-{suffix}");
    let name = format!("{artifact}-{VERSION}.jar");
    let pinned = Pinned {
        url: format!(
            "{}/io/zonky/test/postgres/{artifact}/{VERSION}/{name}",
            origin::maven()
        ),
        sha256,
    };
    cache::entry("postgres", &cache::key(&[sha256.as_bytes()]), |target| {
        let _progress = Progress::start("postgres", "downloading (15 MB)");
        archive::unpack_txz_in_zip(&name, &pinned.fetch()?, target)
    })
}
