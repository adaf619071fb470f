//! Effects: processes, stdout — the project's own commands.
#![expect(
    clippy::print_stdout,
    reason = "a command line program talks on stdout"
)]

mod bed;
mod bench;
mod cargo;
mod demo;
mod failure;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lockstep_testbed::parts::{self, Part};

use crate::failure::Failure;

/// The project's own commands: `cargo xtask <command>`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds or fetches parts of the testbed, so that later commands start at once.
    Parts {
        /// Which ones; all of them when none is named.
        #[arg(value_parser = part)]
        parts: Vec<Part>,
    },
    /// Starts a control plane and a Vault, says how to reach them, and stays until Ctrl-C.
    Bed,
    /// Measures the operator, built for release, against a plain loop.
    #[command(subcommand)]
    Bench(Bench),
    /// Shows what the operator does, on a real control plane and a real Vault, in less than a minute.
    Demo {
        /// Leave everything up at the end, say how to reach it, and stay until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Runs all tests, against real parts; what follows is passed to `cargo test`.
    Test {
        /// Passed to `cargo test --workspace` as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Bench {
    /// A first sync of many objects, and three intervals at rest.
    Sync(bench::SyncArguments),
    /// Many leases of a database: what keeping them costs, and whether they survive a restart of the operator.
    Leases(bench::LeasesArguments),
    /// Many workloads restarted for new data, beside as many `kubectl rollout restart`s.
    Rollouts(bench::RolloutsArguments),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Parts { parts } => provide(&parts),
        Command::Bed => bed::run(),
        Command::Bench(Bench::Sync(arguments)) => bench::sync(arguments),
        Command::Bench(Bench::Leases(arguments)) => bench::leases(arguments),
        Command::Bench(Bench::Rollouts(arguments)) => bench::rollouts(arguments),
        Command::Demo { keep } => demo::run(keep),
        Command::Test { arguments } => test::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            println!("error: {}", failure.chain());
            ExitCode::FAILURE
        }
    }
}

fn provide(chosen: &[Part]) -> Result<ExitCode, Failure> {
    let chosen = if chosen.is_empty() {
        &Part::ALL
    } else {
        chosen
    };
    for part in chosen {
        println!("{:<12}{}", part.name(), parts::ensure(*part)?.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn part(name: &str) -> Result<Part, String> {
    let names = Part::ALL.map(Part::name).join(", ");
    Part::ALL
        .into_iter()
        .find(|part| part.name() == name)
        .ok_or_else(|| format!("there is {names}"))
}
