//! Pure: when something that was replaced is revoked.

use std::time::{Duration, Instant};

use super::record::Superseded;
use crate::vault::{backoff, error::VaultErrorKind};

/// How long what was replaced stays valid where no workload is seen to use the Secret: a file in a volume follows
/// within a minute or so (kubelet's sync period and cache), and whoever watches the file needs a moment too.
const UNSEEN: Duration = Duration::from_mins(2);
/// How long a rollout may keep alive what it replaces.
const LONGEST: Duration = Duration::from_hours(1);
/// Waiting after a failure: five seconds, doubling to ten minutes.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
const JITTER: f64 = 0.3;
/// How soon to look again at what the Secret itself still holds. A change of the Secret is an event, too.
const HELD: Duration = Duration::from_secs(30);
/// How soon to look at a rollout again.
const LOOK: Duration = Duration::from_secs(2);

/// How long a deletion waits for Vault. A Vault that is gone for ever must not keep an object, or its namespace, for ever.
const DELETION: Duration = Duration::from_mins(5);

/// Whether an object may go of which so much is still to be revoked, after `waited`.
pub fn may_go(left: usize, waited: Duration) -> bool {
    left == 0 || waited >= DELETION
}

/// How far the workloads that use a Secret are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not all were looked at, or some do not run with the current data yet.
    Pending,
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
    /// Since when it is not in the Secret any more.
    pub replaced: Instant,
    /// Since when this process knows.
    pub known: Instant,
    /// Whether nothing ever used it: no workload is waited for.
    pub unused: bool,
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
    pub fn new(what: Superseded, replaced: Instant, known: Instant) -> Self {
        Self {
            what,
            replaced,
            known,
            unused: false,
            done: false,
            failures: 0,
            held_until: None,
            hindrance: None,
        }
    }

    /// What to do now.
    pub fn decide(&self, verdict: Verdict, now: Instant) -> Next {
        let age = now.saturating_duration_since(self.replaced);
        if age >= self.what.ends_after() && self.failures > 0 {
            return Next::Over;
        }
        let wait = match verdict {
            _ if self.unused => Duration::ZERO,
            Verdict::Verified => Duration::ZERO,
            // The record tells when its successor was issued, which may be long before that was written.
            Verdict::NoneSeen => UNSEEN.saturating_sub(now.saturating_duration_since(self.known)),
            Verdict::Pending => LONGEST.saturating_sub(age).min(LOOK),
        };
        let due = (now + wait).max(self.held_until.unwrap_or(now));
        if due > now {
            Next::Wait(due)
        } else {
            Next::Revoke
        }
    }

    /// The Secret still holds it, or nobody can say: it is looked at again.
    pub fn is_still_held(&mut self, now: Instant) {
        self.held_until = Some(now + HELD);
    }

    /// Nobody can revoke it.
    pub fn strand(&mut self, now: Instant) {
        self.hindrance = Some(Hindrance::Stranded);
        self.failures = self.failures.saturating_add(1);
        self.held_until = Some(now + BACKOFF.1);
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::sync::holding::record::{Issued, Superseded, What};

    const SECOND: Duration = Duration::from_secs(1);

    fn ending(ttl: u64, now: Instant) -> Ending {
        let what = Superseded {
            issued: Issued {
                namespace: None,
                connection: None,
                what: What::Lease {
                    id: "a/b".into(),
                    ttl,
                    renewable: true,
                    parent: None,
                },
            },
            since: Timestamp::UNIX_EPOCH,
        };
        Ending::new(what, now, now)
    }

    /// One row per verdict and age: what happens.
    #[test]
    fn every_verdict() {
        let now = Instant::now();
        let day = 86_400;
        let rows = [
            (Verdict::Verified, 0, Next::Revoke),
            (Verdict::NoneSeen, 0, Next::Wait(now + UNSEEN)),
            (Verdict::NoneSeen, 119, Next::Wait(now + UNSEEN)),
            (Verdict::NoneSeen, 120, Next::Revoke),
            (Verdict::Pending, 0, Next::Wait(now + LOOK)),
            (Verdict::Pending, 3599, Next::Wait(now + LONGEST)),
            (Verdict::Pending, 3600, Next::Revoke),
        ];
        for (verdict, age, expected) in rows {
            let got = ending(day, now).decide(verdict, now + age * SECOND);
            assert_eq!(got, expected, "{verdict:?} {age}");
        }
    }

    #[test]
    fn nobody_is_waited_for_when_nothing_used_it() {
        let now = Instant::now();
        for verdict in [Verdict::Pending, Verdict::NoneSeen, Verdict::Verified] {
            let unused = Ending {
                unused: true,
                held_until: Some(now + SECOND),
                ..ending(60, now)
            };
            assert_eq!(unused.decide(verdict, now), Next::Wait(now + SECOND));
            assert_eq!(unused.decide(verdict, now + SECOND), Next::Revoke);
        }
    }

    #[test]
    fn a_vault_that_is_gone_keeps_no_object_for_longer_than_five_minutes() {
        for (left, seconds, goes) in [(0, 0, true), (2, 0, false), (2, 299, false), (2, 300, true)]
        {
            assert_eq!(may_go(left, seconds * SECOND), goes, "{left} {seconds}");
        }
    }

    #[test]
    fn a_failed_revocation_is_tried_again_until_the_lease_ends_by_itself() {
        let now = Instant::now();
        let mut ending = ending(60, now);
        ending.failed(VaultErrorKind::Denied, 1, now);
        assert_eq!(ending.hindrance, Some(Hindrance::Denied));
        assert!(matches!(
            ending.decide(Verdict::Verified, now + SECOND),
            Next::Wait(_)
        ));
        assert_eq!(
            ending.decide(Verdict::Verified, now + 10 * SECOND),
            Next::Revoke
        );
        assert_eq!(
            ending.decide(Verdict::Verified, now + 60 * SECOND),
            Next::Over
        );
    }

    #[test]
    fn what_nobody_can_revoke_ends_by_itself() {
        let now = Instant::now();
        let mut ending = ending(3600, now);
        ending.strand(now);
        let next = |after: u32| ending.decide(Verdict::Verified, now + after * SECOND);
        assert_eq!(next(1), Next::Wait(now + BACKOFF.1));
        assert_eq!(next(3600), Next::Over);
    }

    /// The record says since when: its successor was issued then, and may have been written only now.
    #[test]
    fn a_new_process_gives_unseen_users_time_again_but_keeps_the_deadline() {
        let now = Instant::now() + 2 * LONGEST;
        let long_ago = now.checked_sub(LONGEST).unwrap();
        let what = ending(86_400, now).what;
        let taken_over = Ending::new(what, long_ago, now);
        let rows = [
            (Verdict::NoneSeen, 0, Next::Wait(now + UNSEEN)),
            (Verdict::NoneSeen, 120, Next::Revoke),
            (Verdict::Pending, 0, Next::Revoke),
        ];
        for (verdict, later, expected) in rows {
            let got = taken_over.decide(verdict, now + later * SECOND);
            assert!(got == expected, "{verdict:?} {later}: {got:?}");
        }
    }
}
