//! Effects: processes — builds the operator with cargo.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::failure::Failure;

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As it is shipped.
    Release,
}

/// Builds the operator and returns where cargo put it.
pub(crate) fn build_operator(profile: Profile) -> Result<PathBuf, Failure> {
    // Cargo names itself to what it runs.
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&program);
    command.args([
        "build",
        "--package",
        "lockstep",
        "--bin",
        "lockstep",
        "--message-format",
        "json-render-diagnostics",
    ]);
    match profile {
        Profile::Release => command.arg("--release"),
    };
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Failure::Run {
            program: program.to_string_lossy().into_owned(),
            source,
        })?;
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from));
    built
        .filter(|_| output.status.success())
        .ok_or(Failure::Build)
}
