//! Effects: processes, network, files — finds a Go that is new enough, or fetches the pinned official one.

use std::{env::consts, ffi::OsString, path::PathBuf, process::Command};

use super::{PartError, archive, cache, download::Pinned, origin, progress::Progress};

/// What the `go` lines of the modules ask for.
const NEEDED: (u32, u32) = (1, 26);

/// The toolchain that is fetched where there is none.
const VERSION: &str = "go1.26.8";

/// SHA-256 of the module zip, per architecture in Go's naming.
const CHECKSUMS: [(&str, &str); 2] = [
    (
        "amd64",
        "30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7",
    ),
    (
        "arm64",
        "02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99",
    ),
];

/// The `go` program to use: the one on PATH where it is new enough, else the fetched one.
pub(crate) fn go() -> Result<PathBuf, PartError> {
    if version_on_path().is_some_and(|version| version >= NEEDED) {
        return Ok(PathBuf::from("go"));
    }
    Ok(fetched()?.join("bin").join("go"))
}

fn version_on_path() -> Option<(u32, u32)> {
    // No Go on PATH is an answer, not an error.
    let output = Command::new("go")
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", OsString::from("local"))
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    // "26rc1" counts as 26: it is what the release will be.
    let minor: String = numbers
        .next()?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    Some((major, minor.parse().ok()?))
}

fn fetched() -> Result<PathBuf, PartError> {
    let unpublished = || PartError::Platform {
        part: "go",
        platform: format!("{}-{}", consts::OS, consts::ARCH),
    };
    let architecture = match (consts::OS, consts::ARCH) {
        ("linux", "x86_64") => "amd64",
        ("linux", "aarch64") => "arm64",
        _ => return Err(unpublished()),
    };
    let (_, sha256) = CHECKSUMS
        .into_iter()
        .find(|(name, _)| *name == architecture)
        .ok_or_else(unpublished)?;
    let name = format!("v0.0.1-{VERSION}.linux-{architecture}.zip");
    let pinned = Pinned {
        url: format!("{}/golang.org/toolchain/@v/{name}", origin::go_proxy()),
        sha256,
    };
    cache::entry("go", &cache::key(&[sha256.as_bytes()]), |target| {
        let _progress = Progress::start(
            "go",
            "fetching the official toolchain, since there is no new enough go on PATH",
        );
        archive::unpack_zip(&name, &pinned.fetch()?, target)
    })
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert_eq!(parse_version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(parse_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_version("devel"), None);
        assert!(parse_version("go1.9") < Some((1, 26)));
    }
}
