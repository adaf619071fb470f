//! Effects: everything — the testbed itself, tried once end to end.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test, and the times it took are worth a line"
)]

mod cluster;
mod faults;
mod vault;

use std::time::Duration;

/// Longer than anything here takes, on a busy machine, too.
const PATIENCE: Duration = Duration::from_secs(30);
