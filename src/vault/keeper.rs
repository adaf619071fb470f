//! Pure: the life of a token that this process does not have, but whose leases are in use.
//!
//! Leases end with the token they were issued with. After a restart of the process, a login of an edited auth
//! object or the end of a token's own life there is another token, and the one before is kept alive through its
//! accessor (`auth/token/renew-accessor`) until nothing depends on it any more.

use std::time::{Duration, Instant};

use super::backoff;
use super::error::{VaultError, VaultErrorKind};
use super::lease::Parent;

/// Renewals start at this part of the life …
const RENEW_AT: f64 = 2.0 / 3.0;
/// … or up to this part of that earlier.
const JITTER: f64 = 0.2;
/// Waiting after a failure: one second, doubling to a minute.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
const BACKOFF_JITTER: f64 = 0.5;
/// A renewal that grants this much less than was granted before ends the token's life.
const ROUNDING: Duration = Duration::from_secs(2);
/// How long a token is given whose life is not known at all.
const UNKNOWN: Duration = Duration::from_mins(10);

/// One token, by its accessor.
#[derive(Clone, Debug)]
pub struct Keeper {
    seed: u64,
    /// Until when the token surely lives, and for how long it was granted last.
    life: Option<(Instant, Duration)>,
    renew_at: Instant,
    failures: u32,
    /// Known since, and at the latest: it ends then.
    ends: Option<(Instant, Instant)>,
    /// Whether Vault's policy does not let us keep it.
    denied: bool,
}

impl Keeper {
    /// A token of which nothing is known yet; it is renewed at once.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self {
            seed,
            life: None,
            renew_at: now,
            failures: 0,
            ends: None,
            denied: false,
        }
    }

    /// When to renew it; `None` when that is of no use.
    pub fn renew_at(&self) -> Option<Instant> {
        self.ends.is_none().then_some(self.renew_at)
    }

    /// What its leases have to expect.
    pub fn parent(&self) -> Parent {
        self.ends
            .map_or(Parent::Lives, |(since, at)| Parent::Ends { since, at })
    }

    /// Whether Vault's policy does not let us keep it.
    pub fn is_denied(&self) -> bool {
        self.denied
    }

    /// It was renewed at `asked` for `ttl`; zero is for ever.
    pub fn renewed(&mut self, ttl: Duration, renewable: bool, asked: Instant) {
        self.failures = 0;
        self.denied = false;
        if ttl.is_zero() {
            self.life = None;
            self.renew_at = asked + Duration::from_hours(24);
            return;
        }
        let cut_short = self
            .life
            .is_some_and(|(_, before)| ttl + ROUNDING.min(before / 10) < before);
        if !renewable || cut_short {
            self.ends = Some((asked, asked + ttl));
        }
        let full = self.life.map_or(ttl, |(_, before)| before.max(ttl));
        self.life = Some((asked + ttl, full));
        self.renew_at = asked + backoff::jittered(ttl.mul_f64(RENEW_AT), JITTER, self.seed);
    }

    /// A renewal failed. `login_ttl` is the life of the tokens of the same login: the best guess at how long this one has.
    pub fn failed(&mut self, error: &VaultError, login_ttl: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match error.kind {
            VaultErrorKind::Denied if !error.concerns_login() => {
                self.denied = true;
                self.leave(login_ttl, now);
            }
            // There is no such token: its leases are gone, or about to be.
            VaultErrorKind::NotFound | VaultErrorKind::Invalid
                if error.by_vault && !error.concerns_login() =>
            {
                self.ends = Some((now, now));
            }
            VaultErrorKind::Denied
            | VaultErrorKind::NotFound
            | VaultErrorKind::Deleted
            | VaultErrorKind::Sealed
            | VaultErrorKind::Throttled
            | VaultErrorKind::Unavailable
            | VaultErrorKind::Unreachable
            | VaultErrorKind::Invalid
            | VaultErrorKind::TooMany
            | VaultErrorKind::Refused
            | VaultErrorKind::CredentialUnavailable => {
                let longest = backoff::exponential(BACKOFF.0, BACKOFF.1, self.failures);
                let seed = backoff::seed_for(self.seed, self.failures);
                let pause = backoff::jittered(longest, BACKOFF_JITTER, seed);
                self.renew_at = now + pause.max(error.retry_after.unwrap_or_default());
            }
        }
    }

    /// It is not kept, and ends by itself. Tokens are renewed when a third of their life is left.
    pub fn leave(&mut self, login_ttl: Option<Duration>, now: Instant) {
        let at = match self.life {
            Some((expires, _)) => expires,
            None => now + login_ttl.map_or(UNKNOWN, |ttl| ttl / 3),
        };
        self.ends = self.ends.or(Some((now, at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::request::Request;

    const HOUR: Duration = Duration::from_hours(1);

    fn error(kind: VaultErrorKind) -> VaultError {
        VaultError {
            by_vault: true,
            ..VaultError::new(kind, &Request::accessor_renew("a").unwrap(), "")
        }
    }

    type Event = Box<dyn Fn(&mut Keeper)>;

    fn events(now: Instant, later: Instant) -> [(&'static str, Event, Parent, bool); 7] {
        [
            ("nothing yet", Box::new(|_| {}), Parent::Lives, true),
            (
                "renewed",
                Box::new(move |k| k.renewed(HOUR, true, later)),
                Parent::Lives,
                true,
            ),
            (
                "renewed for less",
                Box::new(move |k| {
                    k.renewed(HOUR, true, now);
                    k.renewed(HOUR / 2, true, later);
                }),
                Parent::Ends {
                    since: later,
                    at: later + HOUR / 2,
                },
                false,
            ),
            (
                "not renewable",
                Box::new(move |k| k.renewed(HOUR, false, later)),
                Parent::Ends {
                    since: later,
                    at: later + HOUR,
                },
                false,
            ),
            (
                "denied",
                Box::new(move |k| k.failed(&error(VaultErrorKind::Denied), Some(3 * HOUR), later)),
                Parent::Ends {
                    since: later,
                    at: later + HOUR,
                },
                false,
            ),
            (
                "not there",
                Box::new(move |k| k.failed(&error(VaultErrorKind::Invalid), None, later)),
                Parent::Ends {
                    since: later,
                    at: later,
                },
                false,
            ),
            (
                "an outage",
                Box::new(move |k| k.failed(&error(VaultErrorKind::Sealed), None, later)),
                Parent::Lives,
                true,
            ),
        ]
    }

    /// One row per event: what the leases have to expect, and whether it is renewed again.
    #[test]
    fn every_event() {
        let now = Instant::now();
        let rows = events(now, now + HOUR / 2);
        for (name, event, parent, renewed_again) in rows {
            let mut keeper = Keeper::new(now, 1);
            event(&mut keeper);
            assert_eq!(keeper.parent(), parent, "{name}");
            assert_eq!(keeper.renew_at().is_some(), renewed_again, "{name}");
        }
    }
}
