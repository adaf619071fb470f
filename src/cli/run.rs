//! Effects: the process, stdout — `lockstep run` and `lockstep uninstall`.

use super::args::RunArgs;
use super::settings::Settings;
use super::{CliError, print};
use crate::{runtime, telemetry::log};

/// Checks the flags, sets up the log, and runs the operator until it is told to stop.
pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    let settings = Settings::new(args, &random_suffix()?)?;
    log::init(settings.log_format, &settings.log_filter)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = settings.namespace,
        identity = settings.identity,
        leader_election = settings.leader_election,
        workers = settings.workers,
        rollout_workers = settings.rollout_workers,
        "starting"
    );
    threads()?
        .block_on(runtime::run(settings))
        .map_err(CliError::Run)
}

/// Revokes everything that was issued, and says so.
pub(super) fn uninstall(args: RunArgs) -> Result<(), CliError> {
    let settings = Settings::new(args, &random_suffix()?)?;
    log::init(settings.log_format, &settings.log_filter)?;
    let done = threads()?
        .block_on(runtime::uninstall::uninstall(settings))
        .map_err(CliError::Run)?;
    for line in &done.lines {
        print(&format!("{line}\n"))?;
    }
    match done.left {
        0 => Ok(()),
        count => Err(CliError::Left { count }),
    }
}

fn threads() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::StartRuntime)
}

/// Sets this process apart from the one that had the same pod name before it.
fn random_suffix() -> Result<String, CliError> {
    let number = getrandom::u32().map_err(CliError::Random)?;
    Ok(format!("{number:08x}"))
}
