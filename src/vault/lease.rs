//! Pure: the life of one lease.
//!
//! [`Lease::decide`] says what to do with a lease now; the other methods tell it what came of that. Nothing here
//! sends anything or reads a clock. The rules:
//!
//! * A lease that lives is kept: it is renewed in time, and looked up now and then, so that one that was revoked
//!   by somebody else is noticed.
//! * Only a lease that is really gone, or that Vault extends no further, is replaced; a failure to renew is no
//!   reason as long as the lease may still be renewed later.
//! * What is not known is not assumed: a lease taken over from an earlier process is looked up before anything else.

use std::time::{Duration, Instant};

use super::backoff;
use super::error::{VaultError, VaultErrorKind};

/// Renewals of leases that were issued together are spread over this part of a life, to the early side.
const JITTER: f64 = 0.1;
/// When this part of its life is left and Vault refuses to renew it, a lease is given up …
const LAST_CHANCE: f64 = 0.1;
/// … and never later than this before its end.
const LAST_CHANCE_LEAST: Duration = Duration::from_secs(2);
/// Waiting after a failed renewal or lookup: one second, doubling …
const BACKOFF: Duration = Duration::from_secs(1);
/// … to a minute, or to a quarter of what is left of the lease if that is shorter.
const BACKOFF_MOST: Duration = Duration::from_mins(1);
/// Leases that failed together do not come back together.
const BACKOFF_JITTER: f64 = 0.5;
/// How long a lease whose lookup is refused is kept beyond the time it surely lives: a part, chosen by the seed, of the
/// time that is usually left at a renewal.
const PATIENCE: (f64, f64) = (0.25, 0.75);
/// Vault counts whole seconds: a renewal that grants this much less than asked for is not cut short.
const ROUNDING: Duration = Duration::from_secs(2);

/// One lease, as far as is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// How long Vault granted it for at issue: what each renewal asks for.
    full: Duration,
    state: State,
    seed: u64,
    /// Failures in a row since Vault last told us about this lease.
    failures: u32,
    /// Not to be asked about before.
    held_until: Option<Instant>,
    /// What was refused last, if the last failure was an answer about this lease, not an outage.
    refused: Option<Asked>,
    /// Since when Vault's policy forbids to look it up, as far as is known.
    lookup_denied: Option<Instant>,
    /// Whether Vault's policy forbids to renew it, as far as is known.
    renewal_denied: bool,
}

/// What Vault is asked about a lease. Its policy may allow one and forbid the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Whether it lives.
    LookUp,
    /// To extend it.
    Renewal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Taken over at `since`; it lives at least until this time unless somebody revoked it.
    Presumed { at_least: Instant, since: Instant },
    /// Vault told us at `contact`.
    Known {
        expires: Instant,
        contact: Instant,
        extends: bool,
    },
    /// Vault does not know it any more.
    Gone,
}

/// What the decision depends on besides the lease itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// At which part of its life a lease is renewed, or replaced if it cannot be: 0.1 to 0.9.
    pub renew_at: f64,
    /// How long nothing need be heard of a lease before it is looked up.
    pub check_every: Duration,
    /// The life of the token it was issued with.
    pub parent: Parent,
}

/// The token a lease was issued with: when it ends, the lease ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parent {
    /// It lives on; or it is the one that a new lease would be issued with too, so that replacing gains nothing.
    Lives,
    /// It is kept alive no longer than this, and another token is in use. Known since `since`.
    Ends {
        /// Since when that is known.
        since: Instant,
        /// The end of the token.
        at: Instant,
    },
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, before this time.
    Wait(Instant),
    /// Ask Vault whether it lives, and for how long.
    LookUp,
    /// Extend it.
    Renew,
    /// Have another one issued; this one is kept until that one is in use.
    Replace(Why),
}

/// Why a lease is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Vault does not know it any more.
    Gone,
    /// Its time is over.
    Expired,
    /// Vault extends it no further.
    Ending,
    /// The token it was issued with ends.
    ParentEnding,
    /// Vault refuses to renew it, and there is no more time to wait for another answer.
    RenewalRefused,
}

impl Why {
    /// The word that logs and metrics print.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Ending => "Ending",
            Self::ParentEnding => "ParentEnding",
            Self::RenewalRefused => "RenewalRefused",
        }
    }
}

impl Lease {
    /// A lease that was asked for at `asked` and granted for `ttl`.
    pub fn issued(ttl: Duration, renewable: bool, asked: Instant, seed: u64) -> Self {
        Self {
            full: ttl,
            state: State::Known {
                expires: asked + ttl,
                contact: asked,
                extends: renewable,
            },
            seed,
            failures: 0,
            held_until: None,
            refused: None,
            lookup_denied: None,
            renewal_denied: false,
        }
    }

    /// A lease of an earlier process, once granted for `ttl`, as found at `since`. It lives until `at_least` unless
    /// somebody revoked it, and longer if it was renewed.
    pub fn taken_over(ttl: Duration, at_least: Instant, since: Instant, seed: u64) -> Self {
        Self {
            full: ttl,
            state: State::Presumed { at_least, since },
            seed,
            failures: 0,
            held_until: None,
            refused: None,
            lookup_denied: None,
            renewal_denied: false,
        }
    }

    /// How long it was granted for at issue.
    pub fn full(&self) -> Duration {
        self.full
    }

    /// When it ends unless it is renewed; `None` when Vault was not asked yet. In the past for one that is gone.
    pub fn expires(&self) -> Option<Instant> {
        match self.state {
            State::Known { expires, .. } => Some(expires),
            State::Presumed { .. } | State::Gone => None,
        }
    }

    /// Whether it is known to have ended.
    pub fn is_over(&self, now: Instant) -> bool {
        match self.state {
            State::Gone => true,
            State::Known { expires, .. } => now >= expires,
            State::Presumed { .. } => false,
        }
    }

    /// Whether Vault's policy forbids to ask this about it. Only another answer to the same tells otherwise.
    pub fn is_denied(&self, asked: Asked) -> bool {
        match asked {
            Asked::LookUp => self.lookup_denied.is_some(),
            Asked::Renewal => self.renewal_denied,
        }
    }

    /// What to do now. Never renews a lease after its end, and never replaces one that may still be renewed.
    pub fn decide(&self, terms: &Terms, now: Instant) -> Step {
        match self.state {
            State::Gone => Step::Replace(Why::Gone),
            State::Presumed { at_least, since } => {
                self.decide_presumed(terms, (at_least, since), now)
            }
            State::Known { expires, .. } if now >= expires => Step::Replace(Why::Expired),
            State::Known {
                expires,
                contact,
                extends,
            } => {
                if let Some(step) = self.ending(terms, expires, extends, now) {
                    return step;
                }
                self.decide_known(terms, (expires, contact, extends), now)
            }
        }
    }

    /// What to try while it is to be replaced because Vault refuses to renew it, and no other can be had.
    pub fn cling(&self, now: Instant) -> Step {
        let (step, asked) = match self.state {
            State::Known { expires, .. } if now < expires => (Step::Renew, Asked::Renewal),
            State::Presumed { .. } => (Step::LookUp, Asked::LookUp),
            State::Known { .. } | State::Gone => return Step::Replace(Why::Expired),
        };
        self.held(asked, now).map_or(step, Step::Wait)
    }

    /// Vault was asked at `asked` and extended it by `ttl`.
    pub fn renewed(&mut self, ttl: Duration, renewable: bool, asked: Instant) {
        let cut_short = ttl + ROUNDING.min(self.full / 10) < self.full;
        self.renewal_denied = false;
        self.heard(asked + ttl, renewable && !cut_short, asked);
    }

    /// Vault was asked at `asked` and said how much is left.
    pub fn looked_up(&mut self, left: Duration, renewable: bool, asked: Instant) {
        // A renewal that was cut short stays so: only another renewal can tell better.
        let extends = match self.state {
            State::Known { extends, .. } => extends && renewable,
            State::Presumed { .. } | State::Gone => renewable,
        };
        self.lookup_denied = None;
        self.heard(asked + left, extends, asked);
    }

    /// Vault does not know it.
    pub fn gone(&mut self) {
        self.state = State::Gone;
    }

    /// A renewal or lookup failed.
    pub fn failed(&mut self, asked: Asked, error: &VaultError, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let about = is_about_the_lease(error);
        self.refused = about.then_some(asked);
        if about {
            let denied = error.kind == VaultErrorKind::Denied;
            match asked {
                Asked::LookUp => self.lookup_denied = denied.then_some(now),
                Asked::Renewal => self.renewal_denied = denied,
            }
        }
        let left = match self.state {
            State::Known { expires, .. } => expires.saturating_duration_since(now),
            State::Presumed { .. } | State::Gone => BACKOFF_MOST * 4,
        };
        let most = BACKOFF_MOST.min(left / 4).max(BACKOFF);
        let seed = backoff::seed_for(self.seed, self.failures);
        let pause = backoff::jittered(
            backoff::exponential(BACKOFF, most, self.failures),
            BACKOFF_JITTER,
            seed,
        );
        let asked_for = error.retry_after.unwrap_or_default().min(most);
        self.held_until = Some(now + pause.max(asked_for));
    }

    fn heard(&mut self, expires: Instant, extends: bool, asked: Instant) {
        self.state = State::Known {
            expires,
            contact: asked,
            extends,
        };
        self.failures = 0;
        self.held_until = None;
        self.refused = None;
    }

    fn decide_presumed(
        &self,
        terms: &Terms,
        (at_least, since): (Instant, Instant),
        now: Instant,
    ) -> Step {
        let leaves = self.leaves_parent(terms);
        let refused = self.refused == Some(Asked::LookUp);
        if refused && leaves.is_some_and(|at| now >= at) {
            return Step::Replace(Why::ParentEnding);
        }
        // Whoever refuses to look it up and has had all the time it surely lives: it cannot be kept knowingly. Not all
        // that were taken over together are given up together, and none for one answer.
        let last = at_least.checked_sub(self.last_chance()).unwrap_or(at_least);
        let part = PATIENCE.0 + (PATIENCE.1 - PATIENCE.0) * backoff::unit(self.seed);
        let usual = self.full.mul_f64(1.0 - renew_at(terms));
        let last = last.max(since + usual.mul_f64(part));
        if refused && now >= last {
            return Step::Replace(Why::RenewalRefused);
        }
        match self.held(Asked::LookUp, now) {
            Some(until) if refused => {
                let until = until.min(last);
                Step::Wait(leaves.map_or(until, |at| until.min(at)))
            }
            Some(until) => Step::Wait(until),
            None => Step::LookUp,
        }
    }

    /// When the lease cannot be kept beyond a known time, it is replaced with as much time left as there is
    /// usually left at a renewal.
    fn ending(&self, terms: &Terms, expires: Instant, extends: bool, now: Instant) -> Option<Step> {
        // All leases of one token end at once: they are replaced one after the other.
        if self.leaves_parent(terms).is_some_and(|at| now >= at) {
            return Some(Step::Replace(Why::ParentEnding));
        }
        let due = self.due(terms, expires);
        (!extends && now >= due).then_some(Step::Replace(Why::Ending))
    }

    fn decide_known(
        &self,
        terms: &Terms,
        (expires, contact, extends): (Instant, Instant, bool),
        now: Instant,
    ) -> Step {
        let due = self.due(terms, expires);
        // Where it may not be looked up, that is tried as rarely as it would be done.
        let check = contact.max(self.lookup_denied.unwrap_or(contact)) + terms.check_every;
        let (wanted, asked) = if extends && now >= due {
            (Step::Renew, Asked::Renewal)
        } else if now >= check {
            (Step::LookUp, Asked::LookUp)
        } else {
            return Step::Wait(self.next(terms, (due, check, expires)));
        };
        let last = expires
            .checked_sub(self.last_chance())
            .unwrap_or(expires)
            .max(due);
        let refused = self.refused == Some(asked);
        if wanted == Step::Renew && refused && now >= last {
            return Step::Replace(Why::RenewalRefused);
        }
        let until = match self.held(asked, now) {
            // Not beyond the end, nor beyond the last moment at which a refusal would be accepted …
            Some(until) if refused && now < last => until.min(last),
            Some(until) => until.min(expires),
            None => return wanted,
        };
        // … nor beyond the moment at which it is renewed, or replaced whatever Vault says of it.
        let replaced = (due > now).then_some(due);
        let leaves = self.leaves_parent(terms);
        Step::Wait(replaced.into_iter().chain(leaves).fold(until, Instant::min))
    }

    /// The next date, when nothing is to be done now.
    fn next(&self, terms: &Terms, (due, check, expires): (Instant, Instant, Instant)) -> Instant {
        let next = due.min(check).min(expires);
        self.leaves_parent(terms).map_or(next, |at| next.min(at))
    }

    /// When to leave a token that ends: within the first half of what is left of it, so that there is time to move on.
    fn leaves_parent(&self, terms: &Terms) -> Option<Instant> {
        let Parent::Ends { since, at } = terms.parent else {
            return None;
        };
        let window = at.saturating_duration_since(since) / 2;
        Some(since + window.mul_f64(backoff::unit(self.seed)))
    }

    /// When to renew or replace a lease that ends at `expires`: a part of a full life before that, a little
    /// earlier by the seed.
    fn due(&self, terms: &Terms, expires: Instant) -> Instant {
        let renew_at = renew_at(terms);
        let early = renew_at * JITTER * backoff::unit(self.seed);
        let margin = self.full.mul_f64(1.0 - renew_at + early);
        expires.checked_sub(margin).unwrap_or(expires)
    }

    fn last_chance(&self) -> Duration {
        self.full
            .mul_f64(LAST_CHANCE)
            .max(LAST_CHANCE_LEAST.min(self.full / 4))
    }

    /// Until when this is not to be asked. A refusal of the other is no reason to wait.
    fn held(&self, asked: Asked, now: Instant) -> Option<Instant> {
        let counts = self.refused.is_none_or(|refused| refused == asked);
        self.held_until.filter(|until| counts && now < *until)
    }
}

fn renew_at(terms: &Terms) -> f64 {
    terms.renew_at.clamp(0.1, 0.9)
}

/// Whether Vault answered about this lease, so that it is not a matter of reaching Vault.
fn is_about_the_lease(error: &VaultError) -> bool {
    !error.concerns_connection()
        && !error.concerns_login()
        && !error.held_back
        && match error.kind {
            VaultErrorKind::Denied
            | VaultErrorKind::NotFound
            | VaultErrorKind::Deleted
            | VaultErrorKind::Invalid
            | VaultErrorKind::TooMany
            | VaultErrorKind::Unavailable
            | VaultErrorKind::Refused => true,
            VaultErrorKind::Sealed
            | VaultErrorKind::Throttled
            | VaultErrorKind::Unreachable
            | VaultErrorKind::CredentialUnavailable => false,
        }
}

/// Whether Vault says that there is no such lease.
///
/// `sys/leases/lookup` and `sys/leases/renew` answer 400 with one of these texts.
pub fn says_gone(error: &VaultError) -> bool {
    const TEXTS: [&str; 3] = ["invalid lease", "lease not found", "lease expired"];
    error.by_vault
        && error.status == Some(400)
        && TEXTS.iter().any(|text| error.detail.contains(text))
}

#[cfg(test)]
mod tests;
