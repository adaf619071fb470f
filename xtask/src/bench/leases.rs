//! Effects: processes, stdout — what it costs to keep many leases, and what a restart of the operator does to them.
//!
//! The leases are logins of a real PostgreSQL, made by Vault's database engine, and so short that each is renewed
//! several times while the benchmark looks on. Most last; some end soon, whatever is done, and are replaced.

mod census;
mod least;
mod load;
mod report;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use lockstep_testbed::{Bed, Operator, eventually};

use self::{
    census::Census,
    load::{Load, Lot},
    report::{Report, Rest, Restart},
};
use super::{
    figures::Cost,
    frame::{self, Meter, PATIENCE},
    furniture::all_ready,
};
use crate::failure::Failure;

/// How often the leases in Vault are counted.
const COUNTING: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LeasesArguments {
    /// How many `VaultSecrets`, each with a lease of its own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    objects: u16,
    /// How long to look on, in seconds.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// For how long Vault grants leases and tokens, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..))]
    ttl: u32,
    /// `refreshInterval` of every object, in seconds.
    #[arg(long, default_value_t = 300)]
    interval: u64,
}

impl LeasesArguments {
    fn lifetime(&self) -> Duration {
        Duration::from_secs(self.ttl.into())
    }
}

/// Measures and prints one run.
pub(crate) fn leases(arguments: LeasesArguments) -> Result<ExitCode, Failure> {
    frame::run(async |binary| measure(arguments, binary).await)
}

async fn measure(arguments: LeasesArguments, binary: PathBuf) -> Result<Report, Failure> {
    let bed = Bed::start().await?;
    let load = Load::new(&bed, arguments).await?;
    let (first, operator) = first(&bed, &load, &binary).await?;
    let rest = rest(&bed, &load, &operator).await?;
    let deleted = delete(&bed, &load).await?;
    let restart = restart(&bed, &load, operator, &binary).await?;
    Ok(Report {
        arguments,
        lots: [Lot::Lasting, Lot::Turning].map(|lot| load.count(lot)),
        first,
        rest,
        deleted,
        restart,
    })
}

/// From the start of the operator until every object is ready. The objects come one by one, over the time between two
/// renewals of a lease, so that renewals are spread evenly from then on.
async fn first(bed: &Bed, load: &Load, binary: &Path) -> Result<(Cost, Operator), Failure> {
    let over = least::PERIOD * load.arguments.lifetime().as_secs_f64();
    println!("{} objects come within {over:.0} s", load.arguments.objects);
    let meter = Meter::start(bed, 0.0).await?;
    let operator = frame::start(bed, binary, &[]).await?;
    load.apply_objects(bed, Duration::from_secs_f64(over))
        .await?;
    let wanted = load.arguments.objects.into();
    let ready = async || all_ready(bed, wanted).await;
    eventually(PATIENCE, "all objects are reported ready", ready).await?;
    let cost = meter.stop(&operator).await?;
    load.apply_workloads(bed).await?;
    let run = async || load.all_run(bed).await;
    eventually(PATIENCE, "all pods run", run).await?;
    let verified = async || load.all_verified(bed).await;
    eventually(PATIENCE, "all workloads are in step", verified).await?;
    Ok((cost, operator))
}

/// Looks on while nothing happens but what time brings.
async fn rest(bed: &Bed, load: &Load, operator: &Operator) -> Result<Rest, Failure> {
    let window = Duration::from_secs(load.arguments.seconds);
    println!("{} seconds at rest", window.as_secs());
    let pods = load.pod_templates(bed).await?;
    let meter = Meter::start(bed, operator.cpu_seconds()?).await?;
    let end = meter.started + window;
    let mut census = Census::default();
    // What is measured is what happens while time passes.
    while Instant::now() < end {
        let alive = load.alive(bed).await?;
        census.saw(&alive, &load.recorded(bed).await?);
        let next = end.min(Instant::now() + COUNTING);
        tokio::time::sleep_until(next.into()).await;
    }
    let cost = meter.stop(operator).await?;
    let after = load.pod_templates(bed).await?;
    Ok(Rest {
        cost,
        census,
        restarts: [after[0] - pods[0], after[1] - pods[1]],
    })
}

/// Deletes the objects whose leases are replaced now and then; returns how long it was until none of these was left.
async fn delete(bed: &Bed, load: &Load) -> Result<Duration, Failure> {
    println!("{} objects are deleted", load.count(Lot::Turning));
    let started = Instant::now();
    load.delete(bed, Lot::Turning).await?;
    eventually(PATIENCE, "their leases are revoked", async || {
        let left = bed.vault().leases(Lot::Turning.path()).await;
        let left = left.map_err(|error| error.to_string())?.len();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} are left"))
        }
    })
    .await?;
    Ok(started.elapsed())
}

/// Ends the operator as a rollout of it would, starts another, and looks on for one and a half lives: whatever that
/// does not keep alive, leases and the tokens they depend on, has ended by then.
async fn restart(
    bed: &Bed,
    load: &Load,
    operator: Operator,
    binary: &Path,
) -> Result<Restart, Failure> {
    let window = load.arguments.lifetime().mul_f64(1.5);
    println!(
        "a restart of the operator, and {} seconds",
        window.as_secs()
    );
    let before = load.alive(bed).await?;
    let pods = load.pod_templates(bed).await?;
    let meter = Meter::start(bed, 0.0).await?;
    let (_, ending) = operator.terminate()?;
    let operator = frame::start(bed, binary, &[]).await?;
    let away = meter.started.elapsed();
    tokio::time::sleep(window).await;
    let wanted = load.count(Lot::Lasting);
    let ready = async || all_ready(bed, wanted).await;
    eventually(PATIENCE, "all objects are reported ready", ready).await?;
    let cost = meter.stop(&operator).await?;
    let after = load.alive(bed).await?;
    let missing = |from: &BTreeSet<String>, of: &BTreeSet<String>| of.difference(from).count();
    Ok(Restart {
        cost,
        ending,
        away,
        created: missing(&before, &after),
        lost: missing(&after, &before),
        restarts: load.pod_templates(bed).await?[0] - pods[0],
    })
}
