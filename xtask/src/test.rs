//! Effects: processes, stdout — all tests, in an order that shows what a newcomer waits for.

use std::process::{ExitCode, ExitStatus};

use lockstep_testbed::parts::{self, Part};

use crate::{cargo, failure::Failure};

/// Builds the parts, then the operator, then runs the tests; the first failure ends it with its exit code.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, Failure> {
    for part in Part::ALL {
        parts::ensure(part)?;
    }
    let build = cargo::run(&["build", "--bin", "lockstep"], &[])?;
    if !build.success() {
        return Ok(code(build));
    }
    Ok(code(cargo::run(&["test", "--workspace"], arguments)?))
}

fn code(status: ExitStatus) -> ExitCode {
    // Ended by a signal, it has no code; it failed all the same.
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
