//! Pure: when a source is read, and from when on an answer is too old.
//!
//! Every key has a rhythm: boundaries `stride` apart, shifted by a phase of its own. A reading is
//! fresh until the next boundary. Since the stride is a little shorter than the interval, nothing is
//! ever older than the interval; since phase and stride come from the key's hash, ten thousand keys
//! are read evenly over time, also after a restart or an outage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::backoff;
use super::error::{VaultError, VaultErrorKind};
use super::fingerprint::Fingerprint;
use super::response::{Content, Rotation};

/// No polling faster than this, whatever the interval says.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// A year: keeps dates within what a clock can say.
const LONGEST_INTERVAL: Duration = Duration::from_hours(24 * 365);
/// The stride as a part of the interval, at least; jitter adds up to `STRIDE_RANGE`.
const STRIDE_LEAST: f64 = 0.85;
const STRIDE_RANGE: f64 = 0.10;
/// Objects that share a key come back within this part of a stride after the boundary.
const CALLER_SPREAD: f64 = 0.05;

/// How long after the announced change to read: Vault rounds its time to live to a second. Doubled with each reading
/// that finds the change not made, and a bit longer for each caller, up to twice as long.
const AFTER_ROTATION: Duration = Duration::from_secs(1);

/// A path that was refused: two seconds, doubling …
const PATH_BACKOFF: Duration = Duration::from_secs(2);
/// … to a minute, or to the interval if that is shorter, but …
const PATH_BACKOFF_MOST: Duration = Duration::from_mins(1);
/// … at least up to this.
const PATH_BACKOFF_MOST_LEAST: Duration = Duration::from_secs(10);
const PATH_JITTER: f64 = 0.2;

/// A connection that is away: one second, doubling …
const CONNECTION_BACKOFF: Duration = Duration::from_secs(1);
/// … to half the interval within these bounds, spread over the second half of it. So the reads that come back
/// after an outage are at most four times as many a second as usual, and nobody waits longer than need be.
const CONNECTION_BACKOFF_MOST: (Duration, Duration) =
    (Duration::from_secs(4), Duration::from_mins(1));
const CONNECTION_JITTER: f64 = 0.5;

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// From the current stride of the interval.
    WithinInterval,
    /// Asked of Vault at this time or later.
    NotBefore(Instant),
}

/// What a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The refresh interval of the caller.
    pub interval: Duration,
    /// How old the answer may be.
    pub freshness: Freshness,
    /// Whether the values are needed, or only their fingerprint.
    pub need_data: bool,
    /// Stands for the caller: spreads its retries away from those of others.
    pub seed: u64,
}

/// The boundaries of one key at one interval.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    origin: Instant,
    interval: Duration,
    stride: Duration,
    phase: Duration,
}

impl Rhythm {
    /// The rhythm of the key with `seed`. `origin` is the same for the life of the process.
    pub fn new(origin: Instant, interval: Duration, seed: u64) -> Self {
        let interval = interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let part = STRIDE_LEAST + STRIDE_RANGE * backoff::unit(seed);
        let stride = interval.mul_f64(part);
        Self {
            origin,
            interval,
            stride,
            phase: stride.mul_f64(backoff::unit(backoff::seed_for(seed, 1))),
        }
    }

    /// Whether a reading made at `read_at` still serves at `now`.
    pub fn is_fresh(&self, read_at: Instant, now: Instant) -> bool {
        self.window(read_at) == self.window(now)
            || now.saturating_duration_since(read_at) <= self.slack()
    }

    /// When a caller that was served with a reading made at `read_at` should come back: at the next
    /// boundary at which the reading is too old, a little later by `seed`, and never later than the
    /// interval after the reading.
    pub fn next_due(&self, read_at: Instant, seed: u64) -> Instant {
        let boundary = self.next_boundary(read_at);
        let due = if boundary.duration_since(read_at) <= self.slack() {
            boundary + self.stride
        } else {
            boundary
        };
        let room = (read_at + self.interval).saturating_duration_since(due);
        let spread = room.min(self.stride.mul_f64(CALLER_SPREAD));
        due + spread.mul_f64(backoff::unit(seed))
    }

    /// What the stride leaves of the interval: a reading this young serves beyond a boundary too.
    fn slack(&self) -> Duration {
        self.interval.saturating_sub(self.stride)
    }

    fn window(&self, at: Instant) -> u128 {
        // One stride ahead, so that the time before the first boundary is a window of its own.
        let since = at.saturating_duration_since(self.origin) + self.stride;
        since.saturating_sub(self.phase).as_nanos() / self.stride.as_nanos().max(1)
    }

    fn next_boundary(&self, after: Instant) -> Instant {
        let since = after.saturating_duration_since(self.origin) + self.stride;
        let into = since.saturating_sub(self.phase).as_nanos() % self.stride.as_nanos().max(1);
        let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
        after + self.stride.saturating_sub(into)
    }
}

/// What is remembered of one key.
#[derive(Debug, Default)]
pub struct Memory {
    /// The last successful reading.
    pub stored: Option<Stored>,
    /// Its values, for a short time.
    pub data: Option<Arc<Content>>,
    /// The failure of the last try, if it failed.
    pub failure: Option<Failure>,
}

/// The last successful reading, without its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Digest of the values.
    pub fingerprint: Fingerprint,
    /// Version, in KV version 2.
    pub version: Option<u64>,
    /// When Vault was asked.
    pub read_at: Instant,
    /// When Vault changes the values, where it says so.
    pub rotation: Option<SeenRotation>,
}

/// A change of the values that Vault announced, by our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRotation {
    /// From then on the reading is old.
    pub changes_at: Instant,
    /// When Vault last changed them, to the second.
    pub last: Option<Timestamp>,
    /// Readings in a row that found the change due and not made.
    overdue: u32,
}

impl SeenRotation {
    /// What Vault said when it was asked at `asked_at`, after `before` was known.
    pub fn new(rotation: Rotation, asked_at: Instant, before: Option<&Self>) -> Self {
        let Rotation { ttl, last } = rotation;
        let overdue = if ttl.is_zero() {
            before.map_or(0, |before| before.overdue).saturating_add(1)
        } else {
            0
        };
        let ttl = ttl.min(LONGEST_INTERVAL);
        Self {
            // Vault looks for due rotations every few seconds; a rotation that fails must not be asked for in a loop.
            changes_at: asked_at
                + ttl
                + backoff::exponential(AFTER_ROTATION, LONGEST_INTERVAL, overdue),
            last,
            overdue,
        }
    }

    /// When a caller that would come at `due` should come instead, not with all others at once.
    pub fn next_due(&self, due: Instant, seed: u64) -> Instant {
        due.min(self.changes_at + AFTER_ROTATION.mul_f64(backoff::unit(seed)))
    }
}

/// A failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub error: VaultError,
    /// Tries in a row that failed like this.
    pub attempts: u32,
    /// When Vault was asked.
    pub asked_at: Instant,
    /// Before this, a path that was refused is not asked again.
    pub retry_at: Instant,
}

/// What to do for a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What is remembered will do.
    Serve(Stored),
    /// It failed a moment ago, and would fail again.
    Fail(Failure),
    /// Ask Vault.
    Read,
}

/// Decides how to answer `want` at `now`.
pub fn answer(memory: &Memory, want: &Want, rhythm: &Rhythm, now: Instant) -> Answer {
    if let Some(failure) = &memory.failure
        && !failure.error.concerns_connection()
        && now < failure.retry_at
        && !asks_for_newer(want, failure.asked_at)
    {
        return Answer::Fail(failure.clone());
    }
    match memory.stored {
        Some(stored)
            if is_recent_enough(want, &stored, rhythm, now)
                && (memory.data.is_some() || !want.need_data) =>
        {
            Answer::Serve(stored)
        }
        _ => Answer::Read,
    }
}

/// A try that failed.
#[derive(Debug)]
pub struct Tried {
    /// What went wrong.
    pub error: VaultError,
    /// When Vault was asked.
    pub asked_at: Instant,
    /// When that was known.
    pub ended_at: Instant,
}

/// The failure to remember after a try.
///
/// A refusal of the path is shared: its time to retry is the same for all callers. A failure of the
/// connection is not: each caller comes back by its own seed, so that there is no herd at the end.
pub fn failed(previous: Option<&Failure>, tried: Tried, want: &Want, key_seed: u64) -> Failure {
    let Tried {
        error,
        asked_at,
        ended_at,
    } = tried;
    let attempts = attempts_after(previous, &error, want.interval, ended_at);
    let pause = if error.concerns_connection() {
        connection_wait(&error, attempts, want)
    } else {
        path_wait(&error, attempts, want.interval, key_seed)
    };
    Failure {
        error,
        attempts,
        asked_at,
        retry_at: ended_at + pause,
    }
}

fn attempts_after(
    previous: Option<&Failure>,
    error: &VaultError,
    interval: Duration,
    ended_at: Instant,
) -> u32 {
    let connection = error.concerns_connection();
    match previous {
        // Another kind of trouble starts anew.
        Some(failure) if failure.error.concerns_connection() != connection => 1,
        // Another caller in the same round, not another round.
        Some(failure)
            if connection
                && ended_at < failure.asked_at + round(failure.attempts, interval) / 2 =>
        {
            failure.attempts
        }
        Some(failure) => failure.attempts.saturating_add(1),
        None => 1,
    }
}

fn connection_wait(error: &VaultError, attempts: u32, want: &Want) -> Duration {
    let seed = backoff::seed_for(want.seed, attempts);
    let spread = backoff::jittered(round(attempts, want.interval), CONNECTION_JITTER, seed);
    if error.held_back {
        // Trying is cheap while the gate is closed.
        return spread;
    }
    // Added, not the larger of both: what Vault asks of all must not bring all back together.
    spread + error.retry_after.unwrap_or_default()
}

fn path_wait(error: &VaultError, attempts: u32, interval: Duration, key_seed: u64) -> Duration {
    let longest = if error.kind == VaultErrorKind::TooMany {
        // To find out costs as much each time, and it does not go away in seconds.
        interval.max(PATH_BACKOFF_MOST_LEAST)
    } else {
        let most = PATH_BACKOFF_MOST.min(interval.max(PATH_BACKOFF_MOST_LEAST));
        backoff::exponential(PATH_BACKOFF, most, attempts)
    };
    let seed = backoff::seed_for(key_seed, attempts);
    backoff::jittered(longest, PATH_JITTER, seed).max(error.retry_after.unwrap_or_default())
}

/// The longest wait of a round of tries against a connection that is away.
fn round(attempts: u32, interval: Duration) -> Duration {
    let (least, most) = CONNECTION_BACKOFF_MOST;
    backoff::exponential(
        CONNECTION_BACKOFF,
        (interval / 2).clamp(least, most),
        attempts,
    )
}

fn asks_for_newer(want: &Want, asked_at: Instant) -> bool {
    matches!(want.freshness, Freshness::NotBefore(wanted) if asked_at < wanted)
}

fn is_recent_enough(want: &Want, stored: &Stored, rhythm: &Rhythm, now: Instant) -> bool {
    match want.freshness {
        Freshness::NotBefore(wanted) => stored.read_at >= wanted,
        Freshness::WithinInterval => {
            let changed = stored.rotation.is_some_and(|seen| now >= seen.changes_at);
            !changed && rhythm.is_fresh(stored.read_at, now)
        }
    }
}

#[cfg(test)]
mod tests;
