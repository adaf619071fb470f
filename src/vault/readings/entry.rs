//! Effects: locks only — what is kept of one key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ReadFailure, Reading};
use crate::vault::response::{Content, Rotation};
use crate::vault::schedule::{self, Answer, Memory, Rhythm, SeenRotation, Stored, Tried, Want};

/// Values are kept this long after their last use: enough for all objects of one boundary.
const KEEP_DATA: Duration = Duration::from_secs(30);
/// A key that nobody asks for is forgotten after twice its interval, and not before this.
pub(super) const KEEP_LEAST: Duration = Duration::from_mins(10);

/// One key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seed: u64,
    state: Mutex<EntryState>,
    /// Held while Vault is asked: one at a time.
    pub(super) flight: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct EntryState {
    memory: Memory,
    data_until: Instant,
    forget_at: Instant,
}

impl Entry {
    /// Nothing known yet.
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            seed,
            state: Mutex::new(EntryState {
                memory: Memory::default(),
                data_until: now,
                forget_at: now + KEEP_LEAST,
            }),
            flight: tokio::sync::Mutex::new(()),
        }
    }

    /// What can be said without asking Vault; `None` when it must be asked.
    pub(super) fn answer(
        &self,
        want: &Want,
        rhythm: &Rhythm,
        now: Instant,
    ) -> Option<Result<Reading, ReadFailure>> {
        let mut state = self.state();
        match schedule::answer(&state.memory, want, rhythm, now) {
            Answer::Serve(stored) => Some(Ok(state.serve(stored, want, now))),
            Answer::Fail(failure) => {
                state.used(want, now);
                Some(Err(failure.into()))
            }
            Answer::Read => None,
        }
    }

    /// What a rotation that Vault told at `asked_at` means after what was known.
    pub(super) fn seen(&self, rotation: Rotation, asked_at: Instant) -> SeenRotation {
        let state = self.state();
        let before = state.memory.stored.and_then(|stored| stored.rotation);
        SeenRotation::new(rotation, asked_at, before.as_ref())
    }

    /// Remembers a successful reading.
    pub(super) fn keep(
        &self,
        stored: Stored,
        data: Arc<Content>,
        want: &Want,
        now: Instant,
    ) -> Reading {
        let mut state = self.state();
        state.memory = Memory {
            stored: Some(stored),
            data: Some(data),
            failure: None,
        };
        state.data_until = now + KEEP_DATA;
        state.serve(stored, want, now)
    }

    /// Remembers a failed try.
    pub(super) fn fail(&self, tried: Tried, want: &Want) -> ReadFailure {
        let mut state = self.state();
        let now = tried.ended_at;
        let previous = state.memory.failure.as_ref();
        let failure = schedule::failed(previous, tried, want, self.seed);
        state.memory.failure = Some(failure.clone());
        state.used(want, now);
        failure.into()
    }

    /// Forgets the values when it is time; false when the whole entry can go.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let mut state = self.state();
        if now >= state.data_until {
            state.memory.data = None;
        }
        now < state.forget_at
    }

    /// When there is something to forget.
    pub(super) fn next_date(&self) -> Instant {
        let state = self.state();
        if state.memory.data.is_some() {
            state.data_until.min(state.forget_at)
        } else {
            state.forget_at
        }
    }

    /// Whether the values are in memory.
    #[cfg(test)]
    pub(super) fn holds_data(&self) -> bool {
        self.state().memory.data.is_some()
    }

    fn state(&self) -> MutexGuard<'_, EntryState> {
        // Every change is one assignment: a panic leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EntryState {
    fn serve(&mut self, stored: Stored, want: &Want, now: Instant) -> Reading {
        self.used(want, now);
        let data = self.memory.data.clone().filter(|_| want.need_data);
        if data.is_some() {
            self.data_until = now + KEEP_DATA;
        }
        Reading {
            fingerprint: stored.fingerprint,
            version: stored.version,
            read_at: stored.read_at,
            rotation: stored.rotation,
            data,
        }
    }

    fn used(&mut self, want: &Want, now: Instant) {
        let keep = want.interval.saturating_mul(2).max(KEEP_LEAST);
        self.forget_at = self
            .forget_at
            .max(now.checked_add(keep).unwrap_or(now + KEEP_LEAST));
    }
}
