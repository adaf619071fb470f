//! Effects: processes, stdout — how long new data takes to reach all pods of many workloads, beside what the control
//! plane alone needs to restart them.
//!
//! Beside the operator a plain loop does what `kubectl rollout restart` does, and waits until all pods are new and ready. Both
//! restart the same workloads, as many at once, on the same bed.

mod fleet;
mod plain;
mod report;
mod restarts;
mod watch;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use lockstep_testbed::{Bed, Operator, eventually};

use self::{
    fleet::Fleet,
    report::{Report, Rollout},
    watch::Watch,
};
use super::{
    figures::Cost,
    frame::{self, Meter, PATIENCE, leads},
    furniture::all_ready,
};
use crate::failure::Failure;

/// How long to look on while nothing happens.
const REST: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct RolloutsArguments {
    /// How many Deployments.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    workloads: u16,
    /// How many `VaultSecrets`, which the Deployments share evenly.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    secrets: u16,
    /// How many pods each Deployment has.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    pods: u16,
    /// How many restart at once, of the operator and of the plain loop.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
}

impl RolloutsArguments {
    fn flags(self) -> Vec<String> {
        vec![format!("--max-concurrent-rollouts={}", self.at_once)]
    }

    fn all_pods(self) -> usize {
        usize::from(self.workloads) * usize::from(self.pods)
    }
}

/// Measures and prints one run.
pub(crate) fn rollouts(arguments: RolloutsArguments) -> Result<ExitCode, Failure> {
    frame::run(async |binary| measure(arguments, binary).await)
}

async fn measure(arguments: RolloutsArguments, binary: PathBuf) -> Result<Report, Failure> {
    let bed = Bed::start().await?;
    let fleet = Fleet::new(&bed, arguments).await?;
    let (rss_empty, rest) = rest(&bed, &fleet, &binary).await?;
    let before = plain::run(&bed, &fleet, "before").await?;
    let rollout = rollout(&bed, &fleet, &binary).await?;
    let after = plain::run(&bed, &fleet, "after").await?;
    Ok(Report {
        arguments,
        rss_empty,
        rest,
        plain: [before, after],
        rollout,
    })
}

/// The memory of the operator, in KiB, with all `VaultSecrets` and no workload, and what it costs at rest with all of these.
async fn rest(bed: &Bed, fleet: &Fleet, binary: &Path) -> Result<(u64, Cost), Failure> {
    let operator = frame::start(bed, binary, &fleet.arguments.flags()).await?;
    fleet.apply_objects(bed).await?;
    let wanted = fleet.arguments.secrets.into();
    let ready = async || all_ready(bed, wanted).await;
    eventually(PATIENCE, "all objects are reported ready", ready).await?;
    let rss_empty = operator.rss_kib()?;
    fleet.apply_workloads(bed).await?;
    let run = async || fleet.all_run(bed).await;
    eventually(PATIENCE, "all pods run", run).await?;
    let in_step = async || fleet.all_in_step(bed).await;
    eventually(PATIENCE, "all workloads are in step", in_step).await?;
    println!(
        "{} workloads run {} pods, without a restart",
        fleet.arguments.workloads,
        fleet.arguments.all_pods()
    );
    calm(&operator).await?;
    let meter = Meter::start(bed, operator.cpu_seconds()?).await?;
    // What is measured is what happens while time passes.
    tokio::time::sleep(REST).await;
    let cost = meter.stop(&operator).await?;
    operator.terminate()?;
    Ok((rss_empty, cost))
}

/// All secrets change in Vault, until all workloads are reported as verified.
async fn rollout(bed: &Bed, fleet: &Fleet, binary: &Path) -> Result<Rollout, Failure> {
    let operator = frame::start(bed, binary, &fleet.arguments.flags()).await?;
    leads(&operator).await?;
    calm(&operator).await?;
    let watch = Watch::start(bed, fleet.arguments.workloads.into()).await?;
    let before = fleet.told(bed).await?;
    let meter = Meter::start(bed, operator.cpu_seconds()?).await?;
    let started = meter.started;
    let changed = async {
        tokio::try_join!(
            Box::pin(fleet.change(bed)),
            Box::pin(fleet.all_verified(bed, &before))
        )
    };
    let ((), verified) = tokio::time::timeout(PATIENCE, changed)
        .await
        .map_err(|_| Failure::Wrong("not all workloads were verified in time".to_owned()))??;
    let cost = meter.stop(&operator).await?;
    let seen = watch.all_done().await?;
    let rollout = Rollout {
        verified: verified.duration_since(started),
        started,
        seen,
        new_pods: fleet.new_pods(bed, &before).await?,
        cost,
    };
    println!("the operator took {:.2} s", rollout.verified.as_secs_f64());
    operator.terminate()?;
    Ok(rollout)
}

/// Waits until nothing waits to be done.
async fn calm(operator: &Operator) -> Result<(), Failure> {
    let calm = async || {
        let metrics = operator
            .metrics()
            .await
            .map_err(|error| error.to_string())?;
        let mut depths = metrics
            .lines()
            .filter(|line| line.starts_with("lockstep_queue_depth"));
        match depths.find(|line| !line.ends_with(" 0")) {
            Some(depth) => Err(depth.to_owned()),
            None => Ok(()),
        }
    };
    Ok(eventually(PATIENCE, "an operator with nothing to do", calm).await?)
}
