//! Effects: processes, stdout — what cargo does for the other commands.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use crate::failure::Failure;

/// Nobody needs to be told of a build that takes less.
const QUIET: Duration = Duration::from_secs(3);

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As tests are.
    Dev,
    /// As it is shipped.
    Release,
}

/// Runs cargo, which says what it does itself.
pub(crate) fn run(command: &[&str], arguments: &[String]) -> Result<ExitStatus, Failure> {
    println!("cargo {} {}", command.join(" "), arguments.join(" "));
    let run = std::process::Command::new(program())
        .args(command)
        .args(arguments)
        .status();
    run.map_err(failed)
}

/// Builds the operator and returns where cargo put it.
pub(crate) async fn build_operator(profile: Profile) -> Result<PathBuf, Failure> {
    let mut command = Command::new(program());
    command.args([
        "build",
        "--quiet",
        "--package",
        "lockstep",
        "--bin",
        "lockstep",
    ]);
    command.arg("--message-format=json-render-diagnostics");
    if profile == Profile::Release {
        command.arg("--release");
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let running = command.spawn().map_err(failed)?.wait_with_output();
    tokio::pin!(running);
    let built = if let Ok(built) = tokio::time::timeout(QUIET, &mut running).await {
        built
    } else {
        println!("Building the operator; the first time takes some minutes.");
        running.await
    };
    let built = built.map_err(failed)?;
    executable(&built).ok_or_else(|| Failure::Ended {
        program: "cargo build".to_owned(),
        output: format!("it ended with {} and no program", built.status),
    })
}

/// Cargo names itself to what it runs.
fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

fn failed(source: std::io::Error) -> Failure {
    Failure::Run {
        program: program().to_string_lossy().into_owned(),
        source,
    }
}

/// The program that cargo says it made.
fn executable(built: &Output) -> Option<PathBuf> {
    let messages = String::from_utf8_lossy(&built.stdout);
    let mut paths = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?; // Other lines are not cargo's.
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    paths.next_back().filter(|_| built.status.success())
}
