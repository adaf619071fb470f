//! Effects: processes, stdout — the project's own commands.
#![expect(
    clippy::print_stdout,
    reason = "a command line program talks on stdout"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lockstep_testbed::parts::{self, Part, PartError};

/// The project's own commands: `cargo xtask <command>`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds or fetches every part of the testbed, so that later commands start at once.
    Parts,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let result = match command {
        Command::Parts => build_parts(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build_parts() -> Result<(), PartError> {
    for part in Part::ALL {
        println!("{:<12}{}", part.name(), parts::ensure(part)?.display());
    }
    Ok(())
}
