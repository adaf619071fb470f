//! Effects: processes, stdout — what a first sync of many objects costs, and what they cost at rest.
//!
//! Beside the operator a plain loop does the least that any operator must do: one read in Vault and one write of a
//! Secret per object, with as many requests at once. Both run on the same bed, one after the other.

mod leases;
mod load;
mod report;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use lockstep_testbed::{Bed, Operator, OperatorOptions, eventually};

pub(crate) use self::leases::{LeasesArguments, leases};
use self::{
    load::{Load, Plain, all_ready},
    report::{Cost, Report},
};
use crate::{cargo, failure::Failure};

/// Longest time a first sync may take before the benchmark is given up.
const PATIENCE: Duration = Duration::from_mins(10);

/// The name the operator gives itself at the apiserver.
const AGENT: &str = "lockstep/";

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
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Prepare)?;
    let report = runtime.block_on(async {
        let binary = cargo::build_operator(cargo::Profile::Release).await?;
        measure(arguments, binary).await
    })?;
    print!("{report}");
    Ok(ExitCode::SUCCESS)
}

async fn measure(arguments: SyncArguments, binary: PathBuf) -> Result<Report, Failure> {
    let bed = Bed::start().await?;
    let load = Load::new(&bed, arguments).await?;
    println!(
        "{} objects in {} namespaces are prepared",
        arguments.objects, arguments.namespaces
    );
    let started_empty = rss_without_objects(&bed, &binary).await?;

    let plain = Plain::new(&bed, &load).await?;
    let before = plain.run("before").await?;
    load.apply_objects(&bed).await?;
    let (cold, operator) = cold(&bed, &load, arguments, &binary).await?;
    let rss_after_sync = operator.rss_kib()?;
    let after = plain.run("after").await?;

    let idle = idle(&bed, &operator, arguments).await?;
    let rss_at_rest = operator.rss_kib()?;
    Ok(Report {
        arguments,
        plain: (before, after),
        cold,
        idle,
        rss_kib: [started_empty, rss_after_sync, rss_at_rest],
    })
}

fn options(binary: &std::path::Path, workers: usize) -> OperatorOptions {
    OperatorOptions {
        binary: binary.to_owned(),
        args: vec!["--workers".to_owned(), workers.to_string()],
        ..OperatorOptions::default()
    }
}

/// What the process takes before there is anything to do.
async fn rss_without_objects(bed: &Bed, binary: &std::path::Path) -> Result<u64, Failure> {
    let operator = bed.operator(&options(binary, 16))?;
    operator.wait_ready(Duration::from_secs(30)).await?;
    eventually(Duration::from_secs(30), "the operator leads", async || {
        operator.log_text().contains("\"leading\"")
    })
    .await?;
    let rss = operator.rss_kib()?;
    operator.terminate()?;
    Ok(rss)
}

/// From the start of the operator, with all objects there, to the last Secret, and on until all is quiet.
async fn cold(
    bed: &Bed,
    load: &Load,
    arguments: SyncArguments,
    binary: &std::path::Path,
) -> Result<(Cost, Operator), Failure> {
    let (api, vault) = (bed.audit_mark().await?, bed.vault_audit_mark()?);
    let watch = load.watch_secrets(bed).await?;
    let started = Instant::now();
    let operator = bed.operator(&options(binary, arguments.workers))?;
    let secrets = tokio::time::timeout(PATIENCE, watch.all_there()).await;
    let wall = secrets
        .map_err(|_| Failure::Wrong("not all Secrets were seen in time".to_owned()))?
        .duration_since(started);
    eventually(PATIENCE, "all objects are reported ready", async || {
        all_ready(bed, arguments.objects).await
    })
    .await?;
    let cost = Cost {
        wall,
        until_ready: started.elapsed(),
        cpu_seconds: operator.cpu_seconds()?,
        api: bed
            .audit_since(api, |request| request.user_agent.starts_with(AGENT))
            .await?,
        vault: bed.vault_audit_since(vault, |request| !request.is_root)?,
    };
    Ok((cost, operator))
}

/// Three intervals in which nothing changes.
async fn idle(bed: &Bed, operator: &Operator, arguments: SyncArguments) -> Result<Cost, Failure> {
    let window = Duration::from_secs(arguments.interval) * 3;
    println!("three idle intervals, {} s", window.as_secs());
    let (api, vault) = (bed.audit_mark().await?, bed.vault_audit_mark()?);
    let cpu = operator.cpu_seconds()?;
    // The one place that waits for time to pass: what is measured is what happens in it.
    tokio::time::sleep(window).await;
    Ok(Cost {
        wall: window,
        until_ready: window,
        cpu_seconds: operator.cpu_seconds()? - cpu,
        api: bed
            .audit_since(api, |request| request.user_agent.starts_with(AGENT))
            .await?,
        vault: bed.vault_audit_since(vault, |request| !request.is_root)?,
    })
}
