//! Effects: the process — parses the command line, does it, and turns the result into an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use lockstep::cli::{self, args::Args};
use lockstep::telemetry::chain::chain;

fn main() -> ExitCode {
    // Every TLS client of the process uses it. It can be refused only when one is installed already, and this
    // is the first line.
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli::dispatch(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says why the process failed: as a log line when there is a log, so that whoever collects it can read it.
fn report(error: &cli::CliError) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!(error = chain(error), "stopped");
    } else {
        // With stderr gone there is nobody left to tell.
        _ = writeln!(std::io::stderr(), "error: {}", chain(error));
    }
}
