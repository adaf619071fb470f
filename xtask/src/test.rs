//! Effects: processes, stdout — all tests, in an order that shows what a newcomer waits for.

use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode, ExitStatus},
};

use lockstep_testbed::parts::{self, Part};

use crate::failure::Failure;

/// Builds the parts, then the operator, then runs the tests; the first failure ends it with its exit code.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, Failure> {
    for part in Part::ALL {
        parts::ensure(part)?;
    }
    let build = cargo(&["build", "--bin", "lockstep"], &[])?;
    if !build.success() {
        return Ok(code(build));
    }
    Ok(code(cargo(&["test", "--workspace"], arguments)?))
}

fn cargo(command: &[&str], arguments: &[String]) -> Result<ExitStatus, Failure> {
    println!("cargo {} {}", command.join(" "), arguments.join(" "));
    // Cargo names itself to what it runs.
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let run = Command::new(&program)
        .args(command)
        .args(arguments)
        .status();
    run.map_err(|source| Failure::Run {
        program: program.to_string_lossy().into_owned(),
        source,
    })
}

fn code(status: ExitStatus) -> ExitCode {
    // Ended by a signal, it has no code; it failed all the same.
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
