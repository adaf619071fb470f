//! Effects: network — waits until a process answers, and tells its last words when it does not.

use std::time::Duration;

use crate::{error::BedError, eventually::eventually, process::Process};

/// Cold page caches and a busy machine included.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `GET url` succeeds. Certificates are not checked: this asks only whether somebody answers.
pub(crate) async fn answers(process: &Process, url: &str) -> Result<(), BedError> {
    until(process, async || {
        let client = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(5))
            .build()?;
        client.get(url).send().await?.error_for_status().map(drop)
    })
    .await
}

/// Waits until `attempt` succeeds, but not longer than the process lives.
pub(crate) async fn until<E: std::error::Error>(
    process: &Process,
    mut attempt: impl AsyncFnMut() -> Result<(), E>,
) -> Result<(), BedError> {
    let waited = eventually(PATIENCE, process.name(), async || {
        match process.exit_status() {
            Some(status) => Some(Err(format!("it ended with {status}"))),
            None => attempt().await.ok().map(Ok),
        }
    })
    .await;
    let reason = match waited {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(ended)) => ended,
        Err(not_yet) => not_yet.to_string(),
    };
    Err(BedError::NotReady {
        name: process.name(),
        reason,
        log: process.log_tail(),
    })
}
