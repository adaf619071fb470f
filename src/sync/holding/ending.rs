//! Pure: when something that was replaced is revoked.

use std::time::{Duration, Instant};

use super::record::Superseded;
use crate::vault::{
    backoff,
    clock::VaultClock,
    error::VaultErrorKind,
    lease::{Asked, Lease, Parent, Step, Terms},
};

/// How long what was replaced stays valid where no workload is seen to use the Secret: a file in a volume follows
/// within a minute or so (kubelet's sync period and cache), and whoever watches the file needs a moment too.
const UNSEEN: Duration = Duration::from_mins(2);
/// How long it stays valid for workloads that do not run with the current data and are not known to wait for that.
const LONGEST: Duration = Duration::from_hours(1);
/// Waiting after a failure: five seconds, doubling to ten minutes.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
const JITTER: f64 = 0.3;
/// How soon to look again at what the Secret itself still holds. A change of the Secret is an event, too.
const HELD: Duration = Duration::from_secs(30);
/// How soon to look at a rollout again: two seconds, and more rarely the longer it takes, up to a minute.
const LOOK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));
/// How what was replaced is kept. It has a successor already, so there is nothing to be in time for.
const KEPT: Terms = Terms {
    renew_at: 0.67,
    check_every: Duration::from_mins(5),
    parent: Parent::Lives,
};

/// How long a deletion waits for Vault. A Vault that is gone for ever must not keep an object, or its namespace, for ever.
pub const DELETION: Duration = Duration::from_mins(5);

/// Whether an object may go of which so much is still to be revoked, after `waited`.
pub fn may_go(left: usize, waited: Duration) -> bool {
    left == 0 || waited >= DELETION
}

/// How far the workloads that use a Secret are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Some do not run with the current data yet, and are going to: their restart is due, under way, or waits for
    /// somebody, such as the end of a pause.
    Waiting,
    /// Some do not run with the current data, and none of them is known to wait: the restart failed, or was not looked at.
    Undecided,
    /// None uses it, as far as can be seen.
    NoneSeen,
    /// All run with the current data.
    Verified,
}

/// What to do about it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this time.
    Wait(Instant),
    /// It may still be needed: ask this about its lease.
    Keep(Asked),
    /// Revoke it.
    Revoke,
    /// Nothing ever: Vault has ended it by itself.
    Over,
}

/// Something that is to be revoked.
#[derive(Debug)]
pub struct Ending {
    /// What.
    pub what: Superseded,
    /// Its lease, which is kept as long as somebody may need it.
    lease: Option<Lease>,
    /// Since when it is not in the Secret any more.
    replaced: Instant,
    /// Since when this process knows.
    known: Instant,
    /// Since when nobody is known to wait, while some do not run with the current data.
    undecided: Option<Instant>,
    /// Whether it is revoked, or over.
    pub done: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Not to be tried before.
    pub held_until: Option<Instant>,
    /// What is in the way of revoking it.
    pub hindrance: Option<Hindrance>,
}

/// What is in the way of a revocation, until people change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Vault refuses for want of a policy.
    Denied,
    /// It was issued through a connection that this process has no login for.
    Stranded,
}

impl Ending {
    /// Something that was replaced, or is being replaced, at `replaced`, as this process knows since `known`.
    pub fn new(what: Superseded, lease: Option<Lease>, replaced: Instant, known: Instant) -> Self {
        Self {
            what,
            lease,
            replaced,
            known,
            undecided: None,
            done: false,
            failures: 0,
            held_until: None,
            hindrance: None,
        }
    }

    /// Its lease, unless it is done with.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|_| !self.done)
    }

    /// Its lease, to tell it what came of a step.
    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        self.lease.as_mut()
    }

    /// When it ends by itself, if that is known and cannot be put off any more.
    pub fn ends(&self, vault: Option<VaultClock>, now: Instant) -> Option<Instant> {
        if let Some((facts, _)) = self.what.issued.certificate() {
            return Some(vault?.when(facts.not_after, now));
        }
        let lease = self.lease()?;
        let last = matches!(lease.decide(&KEPT, now), Step::Replace(_));
        lease.expires().filter(|_| last)
    }

    /// When it is tried again to revoke something that nobody ever used.
    pub fn unused_until(&self) -> Option<Instant> {
        self.held_until.filter(|_| self.what.unused && !self.done)
    }

    /// What to do now. What pods may still use is kept alive as long as Vault extends it, and is revoked only when its
    /// time has come:
    ///
    /// | the workloads | it is revoked |
    /// | --- | --- |
    /// | all run with the current data | at once |
    /// | none is seen | after two minutes |
    /// | some wait for their restart | never: it ends by itself, when Vault extends it no further |
    /// | some failed, or nothing is known of them, and none waits | when that was so for an hour |
    ///
    /// What nobody ever used is revoked at once.
    pub fn decide(&mut self, verdict: Verdict, now: Instant) -> Next {
        let undecided = match verdict {
            Verdict::Undecided => Some(self.undecided.unwrap_or(now)),
            Verdict::Waiting | Verdict::NoneSeen | Verdict::Verified => None,
        };
        self.undecided = undecided;
        let due = if self.what.unused {
            Some(now)
        } else {
            match verdict {
                Verdict::Verified => Some(now),
                // The record tells when its successor was issued, which may be long before that was written.
                Verdict::NoneSeen => Some(self.known + UNSEEN),
                Verdict::Undecided => undecided.map(|since| since + LONGEST),
                Verdict::Waiting => None,
            }
        };
        let is_due = due.is_some_and(|due| due <= now);
        // That a revocation is tried once also of what should have ended costs little.
        if self.is_over(now) && !(is_due && self.failures == 0) {
            return Next::Over;
        }
        if is_due {
            let held = self.held_until.filter(|until| now < *until);
            return held.map_or(Next::Revoke, Next::Wait);
        }
        let look = match verdict {
            Verdict::NoneSeen | Verdict::Verified => None,
            Verdict::Waiting | Verdict::Undecided => Some(now + self.look(now)),
        };
        let stranded = self.hindrance == Some(Hindrance::Stranded);
        let again = self.held_until.filter(|until| stranded && now < *until);
        let step = self.lease.as_ref().map(|lease| lease.decide(&KEPT, now));
        match (step, again) {
            // Nobody can ask about it now.
            (Some(Step::LookUp | Step::Renew), Some(again)) => {
                Next::Wait(earliest(again, [due, look]))
            }
            (Some(Step::LookUp), None) => Next::Keep(Asked::LookUp),
            (Some(Step::Renew), None) => Next::Keep(Asked::Renewal),
            (Some(Step::Wait(step)), _) => Next::Wait(earliest(step, [due, look])),
            // Vault extends it no further.
            (Some(Step::Replace(_)) | None, _) => Next::Wait(earliest(now + LOOK.1, [due, look])),
        }
    }

    /// Whether it has ended by itself, as far as is known.
    fn is_over(&self, now: Instant) -> bool {
        let whole = self.what.ends_after();
        match &self.lease {
            Some(lease) if lease.expires().is_some() || lease.is_over(now) => lease.is_over(now),
            // An earlier process may have renewed it for the last time just before this one began.
            Some(_) => now >= self.known + whole,
            None => now >= self.replaced + whole,
        }
    }

    fn look(&self, now: Instant) -> Duration {
        let age = now.saturating_duration_since(self.known);
        (age / 16).clamp(LOOK.0, LOOK.1)
    }

    /// The Secret still holds it, or nobody can say: it is looked at again.
    pub fn is_still_held(&mut self, now: Instant) {
        self.held_until = Some(now + HELD);
    }

    /// Nobody can revoke it, or ask about it; in ten minutes somebody may.
    pub fn strand(&mut self, now: Instant) {
        self.hindrance = Some(Hindrance::Stranded);
        self.failures = self.failures.saturating_add(1);
        self.held_until = Some(now + BACKOFF.1);
    }

    /// Somebody can ask about it, and revoke it.
    pub fn reached(&mut self) {
        self.hindrance = self
            .hindrance
            .filter(|hindrance| *hindrance != Hindrance::Stranded);
    }

    /// It is revoked, or gone.
    pub fn revoked(&mut self) {
        self.done = true;
        self.hindrance = None;
    }

    /// It could not be revoked; it is tried again.
    pub fn failed(&mut self, kind: VaultErrorKind, seed: u64, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.hindrance = (kind == VaultErrorKind::Denied).then_some(Hindrance::Denied);
        let longest = backoff::exponential(BACKOFF.0, BACKOFF.1, self.failures);
        let seed = backoff::seed_for(seed, self.failures);
        self.held_until = Some(now + backoff::jittered(longest, JITTER, seed));
    }
}

fn earliest(one: Instant, others: [Option<Instant>; 2]) -> Instant {
    others.into_iter().flatten().fold(one, Instant::min)
}

#[cfg(test)]
mod tests;
