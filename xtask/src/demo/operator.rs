//! Effects: processes, stdout — the operator of this repository: built, started, ready.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use lockstep_testbed::{Bed, Operator, OperatorOptions};
use serde_json::Value;
use tokio::process::Command;

use crate::failure::Failure;

/// Nobody needs to be told of a build that takes less.
const QUIET: Duration = Duration::from_secs(3);

/// How long the operator may take to fill its caches.
const PATIENCE: Duration = Duration::from_secs(30);

/// The operator's program.
pub(super) struct Program(PathBuf);

impl Program {
    /// Builds it as `cargo build` does.
    pub(super) async fn build() -> Result<Self, Failure> {
        // Cargo names itself to what it runs.
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let name = format!("{} build --bin lockstep", cargo.to_string_lossy());
        let running = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "lockstep",
                "--bin",
                "lockstep",
            ])
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(run(&name))?
            .wait_with_output();
        tokio::pin!(running);
        let built = if let Ok(built) = tokio::time::timeout(QUIET, &mut running).await {
            built
        } else {
            println!("Building the operator; the first time takes some minutes.");
            running.await
        };
        let built = built.map_err(run(&name))?;
        executable(&built).map(Self).ok_or_else(|| Failure::Ended {
            program: name,
            output: format!("it ended with {} and no program", built.status),
        })
    }

    /// Starts it on `bed` and waits until it is ready.
    pub(super) async fn start(&self, bed: &Bed) -> Result<Operator, Failure> {
        let options = OperatorOptions {
            binary: self.0.clone(),
            // Whoever is killed here leaves a Lease behind that its successor would wait for.
            args: vec!["--leader-election=false".to_owned()],
            ..OperatorOptions::default()
        };
        let operator = bed.operator(&options)?;
        operator.wait_ready(PATIENCE).await?;
        Ok(operator)
    }
}

fn run(program: &str) -> impl Fn(std::io::Error) -> Failure {
    move |source| Failure::Run {
        program: program.to_owned(),
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
