//! Effects: processes, stdout — a bed for a person: start it, say how to reach it, stay.

use std::{path::Path, process::ExitCode};

use lockstep_testbed::{Bed, parts::Tool};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Runs until Ctrl-C or `SIGTERM`.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Prepare)?;
    runtime.block_on(stay())
}

async fn stay() -> Result<ExitCode, Failure> {
    let interruption = Interruption::watch()?;
    let bed = Bed::start().await?;
    // A shell may read these lines; everything else is a comment to it.
    println!(
        "# Up in {:.1} s; Ctrl-C ends it. Logs: {}",
        bed.started_in().as_secs_f32(),
        bed.directory().display()
    );
    print_exports(&bed)?;
    interruption.wait().await?;
    println!("# Ending.");
    drop(bed);
    Ok(ExitCode::SUCCESS)
}

/// Says how to reach the bed from a shell.
pub(crate) fn print_exports(bed: &Bed) -> Result<(), Failure> {
    println!("export KUBECONFIG={}", bed.kubeconfig().display());
    println!("export VAULT_ADDR={}", bed.vault_address());
    println!("export VAULT_TOKEN={}", bed.vault().token());
    let (kubectl, vault) = (Tool::Kubectl.locate()?, Tool::Vault.locate()?);
    println!(
        "export PATH={}:{}:$PATH",
        directory(&kubectl),
        directory(&vault)
    );
    Ok(())
}

/// Ctrl-C or `SIGTERM`.
pub(crate) struct Interruption(Signal);

impl Interruption {
    /// From now on `SIGTERM` does not end the process at once.
    pub(crate) fn watch() -> Result<Self, Failure> {
        signal(SignalKind::terminate())
            .map(Self)
            .map_err(Failure::Prepare)
    }

    /// Returns when it comes.
    pub(crate) async fn wait(mut self) -> Result<(), Failure> {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::Prepare),
            _ = self.0.recv() => Ok(()),
        }
    }
}

fn directory(program: &Path) -> std::path::Display<'_> {
    program.parent().unwrap_or(program).display()
}
