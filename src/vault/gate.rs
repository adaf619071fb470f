//! Pure: the gate of one connection, a circuit breaker.
//!
//! While a Vault is sealed or away, asking it again for every object costs timeouts here and a storm
//! there. After a failure of the whole connection the gate closes for a growing time and answers with
//! the remembered failure; then one probe goes through, and its result opens or closes the gate.

use std::time::{Duration, Instant};

use super::backoff;
use super::error::{VaultError, VaultErrorKind};

/// The first rest after a failure: shorter than any refresh interval, longer than a failover's hiccup.
const FIRST_REST: Duration = Duration::from_millis(500);
/// The longest rest: a Vault that comes back is used again within this time.
const LONGEST_REST: Duration = Duration::from_secs(15);
/// The longest wait that a `Retry-After` may ask for: a wrong header must not silence us for an hour.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);
/// Replicas and connections do not probe at the same moment.
const JITTER: f64 = 0.2;

/// The state of the gate.
#[derive(Debug)]
pub struct Gate {
    seed: u64,
    closed: Option<Closed>,
    last_success: Option<Instant>,
}

#[derive(Debug)]
struct Closed {
    error: VaultError,
    failures: u32,
    until: Instant,
    probing: bool,
}

/// The right to send one request. Hand it back with what happened.
#[derive(Debug)]
pub struct Pass {
    sent_at: Instant,
    probe: bool,
}

/// Why nothing may be sent now.
#[derive(Debug)]
pub struct Shut<'a> {
    /// The failure that closed the gate.
    pub error: &'a VaultError,
    /// How long until a probe is let through.
    pub reopens_in: Duration,
}

impl Gate {
    /// An open gate.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            closed: None,
            last_success: None,
        }
    }

    /// Whether it closed and did not open since.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Asks to send one request.
    pub fn admit(&mut self, now: Instant) -> Result<Pass, Shut<'_>> {
        let Some(closed) = &mut self.closed else {
            return Ok(Pass {
                sent_at: now,
                probe: false,
            });
        };
        if now < closed.until || closed.probing {
            return Err(closed.shut(now));
        }
        closed.probing = true;
        Ok(Pass {
            sent_at: now,
            probe: true,
        })
    }

    /// Why a request would not be sent now; `None` when it would.
    pub fn shut(&self, now: Instant) -> Option<Shut<'_>> {
        self.closed
            .as_ref()
            .filter(|closed| now < closed.until || closed.probing)
            .map(|closed| closed.shut(now))
    }

    /// Vault answered, with whatever it had to say about this path.
    pub fn succeeded(&mut self, pass: &Pass, now: Instant) {
        self.last_success = Some(now);
        // The answer to a request from before the failure says nothing about after it.
        if pass.probe {
            self.closed = None;
        }
    }

    /// The request failed; only failures of the whole connection count.
    pub fn failed(&mut self, pass: &Pass, error: &VaultError, now: Instant) {
        if error.kind == VaultErrorKind::Refused {
            self.abandoned(pass);
            return;
        }
        if !error.concerns_connection() {
            self.succeeded(pass, now);
            return;
        }
        let failures = match &self.closed {
            // In flight together with the one that closed the gate: the same outage.
            Some(_) if !pass.probe => return,
            Some(closed) => closed.failures.saturating_add(1),
            // Others got answers while this one waited: it is the path that is slow, not the connection.
            None if self.answered_since(pass) => return,
            None => 1,
        };
        self.closed = Some(Closed {
            error: error.clone(),
            failures,
            until: now + self.rest(failures, error),
            probing: false,
        });
    }

    /// The request was given up without a result. The next caller may probe.
    pub fn abandoned(&mut self, pass: &Pass) {
        if let Some(closed) = &mut self.closed
            && pass.probe
        {
            closed.probing = false;
        }
    }

    /// How long until a request may go through: `None` when the gate is open.
    #[cfg(test)]
    pub fn reopens_in(&self, now: Instant) -> Option<Duration> {
        self.closed.as_ref().map(|closed| closed.reopens_in(now))
    }

    fn answered_since(&self, pass: &Pass) -> bool {
        self.last_success.is_some_and(|at| at > pass.sent_at)
    }

    fn rest(&self, failures: u32, error: &VaultError) -> Duration {
        let longest = backoff::exponential(FIRST_REST, LONGEST_REST, failures);
        let rest = backoff::jittered(longest, JITTER, backoff::seed_for(self.seed, failures));
        let asked = error.retry_after.unwrap_or_default();
        rest.max(asked.min(LONGEST_RETRY_AFTER))
    }
}

impl Closed {
    fn shut(&self, now: Instant) -> Shut<'_> {
        Shut {
            error: &self.error,
            reopens_in: self.reopens_in(now),
        }
    }

    fn reopens_in(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests;
