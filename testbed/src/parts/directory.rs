//! Effects: network, files — an LDAP directory that can be written to: `UnboundID`'s, which runs in Java, and Rhino, which
//! runs the script that sets it up.

use std::{fs, path::PathBuf};

use super::{PartError, cache, download::Pinned, origin, progress::Progress};

/// Path in a Maven repository and SHA-256 of what Java loads.
const JARS: [(&str, &str); 2] = [
    (
        "com/unboundid/unboundid-ldapsdk/7.0.5/unboundid-ldapsdk-7.0.5.jar",
        "463f0ee93f8046c6f72766f111fc27b18ab4727541968b9fa72699023e1b0ff0",
    ),
    (
        "org/mozilla/rhino/1.7.15.1/rhino-1.7.15.1.jar",
        "f3520a0e2e22d550f1216a456be233eb5385bf08e3219407dece7a16369eb38f",
    ),
];

/// The directory that holds the jars and nothing else.
pub(crate) fn ensure() -> Result<PathBuf, PartError> {
    let pins = JARS.map(|(_, sha256)| sha256.as_bytes());
    cache::entry("directory", &cache::key(&pins), |target| {
        let _progress = Progress::start("directory", "downloading (7 MB)");
        for (path, sha256) in JARS {
            let url = format!("{}/{path}", origin::maven());
            let jar = target.join(path.rsplit('/').next().unwrap_or(path));
            fs::write(&jar, Pinned { url, sha256 }.fetch()?)
                .map_err(PartError::file("write", &jar))?;
        }
        Ok(())
    })
}
