//! Effects: processes, stdout — what a first sync of many objects costs, and what they cost at rest.
//!
//! Beside the operator a plain loop does the least that any operator must do: one read in Vault and one write of a
//! Secret per object, with as many requests at once. Both run on the same bed, one after the other.

mod load;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use lockstep_testbed::{Bed, Operator, eventually};

use self::{
    load::{Load, Plain},
    report::Report,
};
use super::{
    figures::Cost,
    frame::{self, Meter, PATIENCE, launch, leads},
    furniture::all_ready,
};
use crate::failure::Failure;

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct SyncArguments {
    /// How many `VaultSecrets`, each with a Secret of 10 keys of 64 characters.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// How many namespaces they are spread over; each has an identity of its own in Vault.
    #[arg(long, default_value_t = 20)]
    namespaces: usize,
    /// How many syncs at once, in the operator and in the plain loop.
    #[arg(long, default_value_t = 16)]
    workers: usize,
    /// `refreshInterval` of every object, in seconds.
    #[arg(long, default_value_t = 60)]
    interval: u64,
    /// All objects of a namespace read the same path.
    #[arg(long)]
    shared: bool,
}

/// Measures and prints one run.
pub(crate) fn sync(arguments: SyncArguments) -> Result<ExitCode, Failure> {
    frame::run(async |binary| measure(arguments, binary).await)
}

async fn measure(arguments: SyncArguments, binary: PathBuf) -> Result<Report, Failure> {
    let bed = Bed::start().await?;
    let load = Load::new(&bed, arguments).await?;
    println!(
        "{} objects in {} namespaces are prepared",
        arguments.objects, arguments.namespaces
    );
    let rss_empty = rss_without_objects(&bed, &binary).await?;

    let plain = Plain::new(&bed, &load).await?;
    let before = plain.run("before").await?;
    load.apply_objects(&bed).await?;
    let (secrets, cold, operator) = cold(&bed, &load, &binary).await?;
    let after = plain.run("after").await?;

    let idle = idle(&bed, &operator, arguments).await?;
    Ok(Report {
        arguments,
        plain: (before, after),
        rss_empty,
        secrets,
        cold,
        idle,
    })
}

fn flags(workers: usize) -> Vec<String> {
    vec!["--workers".to_owned(), workers.to_string()]
}

/// What the process takes before there is anything to do, in KiB.
async fn rss_without_objects(bed: &Bed, binary: &Path) -> Result<u64, Failure> {
    let operator = frame::start(bed, binary, &flags(16)).await?;
    leads(&operator).await?;
    let rss = operator.rss_kib()?;
    operator.terminate()?;
    Ok(rss)
}

/// From the start of the operator, with all objects there, to the last Secret, and on until all objects are reported ready.
async fn cold(
    bed: &Bed,
    load: &Load,
    binary: &Path,
) -> Result<(Duration, Cost, Operator), Failure> {
    let watch = load.watch_secrets(bed).await?;
    let meter = Meter::start(bed, 0.0).await?;
    let operator = launch(bed, binary, &flags(load.arguments.workers))?;
    let secrets = tokio::time::timeout(PATIENCE, watch.all_there()).await;
    let secrets = secrets
        .map_err(|_| Failure::Wrong("not all Secrets were seen in time".to_owned()))?
        .duration_since(meter.started);
    eventually(PATIENCE, "all objects are reported ready", async || {
        all_ready(bed, load.arguments.objects).await
    })
    .await?;
    Ok((secrets, meter.stop(&operator).await?, operator))
}

/// Three intervals in which nothing changes.
async fn idle(bed: &Bed, operator: &Operator, arguments: SyncArguments) -> Result<Cost, Failure> {
    let window = Duration::from_secs(arguments.interval) * 3;
    println!("three idle intervals, {} s", window.as_secs());
    let meter = Meter::start(bed, operator.cpu_seconds()?).await?;
    // The one place that waits for time to pass: what is measured is what happens in it.
    tokio::time::sleep(window).await;
    meter.stop(operator).await
}
