//! Pure: the life of one Vault token.
//!
//! [`TokenState::decide`] says what to do with the token of one identity now; the other methods tell
//! the state what came of it. Nothing here sends anything or reads a clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff;
use super::error::VaultError;
use crate::sensitive::Sensitive;

/// Renewals start at this part of the life, so that two more tries fit in before the end.
const RENEW_AT: f64 = 2.0 / 3.0;
/// Tokens that were issued together are not renewed together.
const RENEW_JITTER: f64 = 0.1;
/// A token that cannot be renewed is replaced when this part of its life is left …
const REPLACE_LEFT: f64 = 0.1;
/// … but never earlier than this before the end.
const REPLACE_LEFT_MOST: Duration = Duration::from_mins(1);

/// A renewal that grants this much less than the login did is the last.
const ROUNDING: Duration = Duration::from_secs(2);

/// Waiting after a failed login: one second, doubling to a minute.
const LOGIN_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait between logins, and the wait after a mistake that only an edit heals.
const LOGIN_BACKOFF_MOST: Duration = Duration::from_mins(1);
/// The same after Vault itself was away: the gate of the connection spares it.
const OUTAGE_BACKOFF_MOST: Duration = Duration::from_secs(15);
/// Identities that failed together do not come back together.
const LOGIN_JITTER: f64 = 0.5;

/// A token that was refused is checked at most this often.
const VERIFY_EVERY: Duration = Duration::from_secs(5);
/// A new login that did not help against a refusal is not tried more often than this in the end.
const VERIFY_EVERY_MOST: Duration = Duration::from_mins(10);

/// Where a token came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// We logged in, so we may revoke it.
    Login,
    /// It was given to us and is not ours to end.
    Static,
}

/// What Vault granted.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The token.
    pub secret: Sensitive,
    /// Names the token without being one; empty for batch tokens.
    pub accessor: String,
    /// Where it came from.
    pub origin: Origin,
    /// How long it lives from now; zero for ever.
    pub ttl: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
}

/// One token; cheap to share while a request is in flight.
#[derive(Debug)]
pub struct Token {
    secret: Sensitive,
    accessor: String,
    origin: Origin,
    ttl: Duration,
    serial: u64,
}

impl Token {
    /// The token itself.
    pub fn secret(&self) -> &Sensitive {
        &self.secret
    }

    /// Names the token without being one; `None` for batch tokens.
    pub fn accessor(&self) -> Option<&str> {
        (!self.accessor.is_empty()).then_some(&self.accessor)
    }

    /// How long it was granted for; zero for ever.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

/// What to do now.
#[derive(Debug, Clone)]
pub enum Decision {
    /// Use this token.
    Use(Arc<Token>),
    /// Renew this token; it may be used meanwhile and if that fails.
    Renew(Arc<Token>),
    /// Log in anew; this token may be used meanwhile and if that fails.
    Replace(Arc<Token>),
    /// There is no token: log in.
    LogIn,
    /// There is no token, and it is too early to try again.
    Wait {
        /// When to try again.
        until: Instant,
        /// Why there is no token.
        error: VaultError,
    },
}

/// The token of one identity and what happened to it.
#[derive(Debug)]
pub struct TokenState {
    seed: u64,
    held: Option<Held>,
    logins: u64,
    login_failures: u32,
    login_held: Option<(Instant, VaultError)>,
    verify_not_before: Option<Instant>,
    fruitless_logins: u32,
    /// Whether leases depend on the token: then there has to be time to move them before it ends.
    bears_leases: bool,
    /// Since when nobody will use the token again. It is renewed for the leases that depend on it, and never replaced.
    retired: Option<Instant>,
    /// Tokens that were replaced before their end: accessor, since when, and their end.
    former: Vec<(String, Instant, Instant)>,
}

#[derive(Debug)]
struct Held {
    token: Arc<Token>,
    /// Whether it is left to end by itself, for what goes on depending on it.
    spared: bool,
    life: Option<Life>,
    renew_failures: u32,
}

/// The dates of a token that expires.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// When these dates became known.
    since: Instant,
    renew_at: Option<Instant>,
    replace_at: Instant,
    /// Half of what was granted is left: when a token that leases depend on is replaced, if it cannot be renewed.
    halfway: Instant,
    /// A little before Vault's own date: a request takes time.
    unusable_at: Instant,
    expires: Instant,
}

impl Life {
    fn new(ttl: Duration, renewable: bool, now: Instant, seed: u64) -> Option<Self> {
        if ttl.is_zero() {
            return None;
        }
        let renew_after = backoff::jittered(ttl.mul_f64(RENEW_AT), RENEW_JITTER, seed);
        let margin = ttl.mul_f64(REPLACE_LEFT).min(REPLACE_LEFT_MOST);
        // A date beyond what the clock can say is as good as none.
        let expires = now.checked_add(ttl)?;
        Some(Self {
            since: now,
            renew_at: renewable.then_some(now + renew_after),
            replace_at: now + ttl.saturating_sub(margin),
            halfway: now + ttl / 2,
            unusable_at: now + ttl.saturating_sub(margin / 4),
            expires,
        })
    }
}

impl TokenState {
    /// No token yet. `seed` is that of the identity.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            held: None,
            logins: 0,
            login_failures: 0,
            login_held: None,
            verify_not_before: None,
            fruitless_logins: 0,
            bears_leases: false,
            retired: None,
            former: Vec::new(),
        }
    }

    /// What to do now. Never hands out a token that has expired.
    pub fn decide(&self, now: Instant) -> Decision {
        let login_held = self.login_held.as_ref().filter(|(until, _)| now < *until);
        let Some(held) = self.usable(now) else {
            return match login_held {
                Some((until, error)) => Decision::Wait {
                    until: *until,
                    error: error.clone(),
                },
                None => Decision::LogIn,
            };
        };
        let token = held.token.clone();
        match held.life {
            Some(life)
                if now >= self.replace_at(&life)
                    && login_held.is_none()
                    && self.retired.is_none() =>
            {
                Decision::Replace(token)
            }
            Some(life) if life.renew_at.is_some_and(|at| now >= at) => Decision::Renew(token),
            _ => Decision::Use(token),
        }
    }

    /// When the token should next be renewed, or replaced because leases depend on it; `None` when it need not be,
    /// or when it is too late for that.
    pub fn renew_at(&self, now: Instant) -> Option<Instant> {
        let life = self.held.as_ref()?.life?;
        if self.retired.is_some() {
            return life.renew_at.filter(|_| now < life.unusable_at);
        }
        if self.bears_leases && life.renew_at.is_none() {
            // A date that is past stays so: whoever compares it with his own now has read that before.
            let at = self.replace_at(&life);
            let held = self.login_held.as_ref().map(|(until, _)| *until);
            return Some(held.map_or(at, |held| held.max(at)));
        }
        life.renew_at.filter(|_| now < life.replace_at)
    }

    /// Whether leases depend on the token.
    pub fn bear_leases(&mut self, bears: bool) {
        self.bears_leases = bears;
    }

    /// Whether nobody will use the token again.
    pub fn retire(&mut self, retired: bool, now: Instant) {
        self.retired = retired.then(|| self.retired.unwrap_or(now));
    }

    /// The token as it is named, if there is one.
    pub fn accessor(&self) -> Option<&str> {
        self.held.as_ref()?.token.accessor()
    }

    /// For how long the token was granted; `None` when there is none, or for ever.
    pub fn granted(&self) -> Option<Duration> {
        let ttl = self.held.as_ref()?.token.ttl();
        (!ttl.is_zero()).then_some(ttl)
    }

    /// Since when it is known that the token `accessor` ends, and when. `None` while it is in use, or renewed.
    pub fn ends(&self, accessor: &str, now: Instant) -> Option<(Instant, Instant)> {
        self.former(accessor).or_else(|| {
            let retired = self.retired?;
            let held = self.held.as_ref()?;
            let life = held.life?;
            let renewed = life.renew_at.is_some() && now < life.unusable_at;
            let ends = held.token.accessor() == Some(accessor) && !renewed;
            ends.then(|| (life.since.max(retired), life.expires))
        })
    }

    /// Since when the token `accessor` is replaced, and when it ends. A login may give the same token again, which is
    /// not replaced then.
    pub fn former(&self, accessor: &str) -> Option<(Instant, Instant)> {
        if self.accessor() == Some(accessor) {
            return None;
        }
        let mut former = self.former.iter().rev();
        former
            .find(|(name, ..)| name == accessor)
            .map(|(_, since, at)| (*since, *at))
    }

    fn replace_at(&self, life: &Life) -> Instant {
        if self.bears_leases && life.renew_at.is_none() {
            life.halfway
        } else {
            life.replace_at
        }
    }

    /// When the token ends; `None` without a token or an end.
    #[cfg(test)]
    fn expires(&self) -> Option<Instant> {
        Some(self.held.as_ref()?.life?.expires)
    }

    /// The token, if it can still be used.
    #[cfg(test)]
    fn current(&self, now: Instant) -> Option<Arc<Token>> {
        self.usable(now).map(|held| held.token.clone())
    }

    /// The token `accessor` is never to be revoked: it ends by itself.
    pub fn spare(&mut self, accessor: &str) {
        if let Some(held) = &mut self.held
            && held.token.accessor() == Some(accessor)
        {
            held.spared = true;
        }
    }

    /// Gives the token away, to be revoked; `None` when there is none, or it is spared.
    pub fn take(&mut self) -> Option<Arc<Token>> {
        let held = self.held.take()?;
        (!held.spared).then_some(held.token)
    }

    /// A login succeeded.
    pub fn logged_in(&mut self, grant: Grant, now: Instant) -> Arc<Token> {
        let Grant {
            secret,
            accessor,
            origin,
            ttl,
            renewable,
        } = grant;
        self.logins += 1;
        self.login_failures = 0;
        self.login_held = None;
        self.remember_former(now);
        let token = Arc::new(Token {
            secret,
            accessor,
            origin,
            ttl,
            serial: self.logins,
        });
        self.held = Some(Held {
            token: token.clone(),
            spared: false,
            life: Life::new(ttl, renewable, now, self.seed),
            renew_failures: 0,
        });
        // A refusal of a token this young is about the path, not about the token.
        self.hold_verification(now + VERIFY_EVERY);
        token
    }

    /// A login failed; says when the next one may be tried. `longest` waits as long as after many
    /// failures: only an edit can help.
    pub fn login_failed(&mut self, error: VaultError, longest: bool, now: Instant) -> Instant {
        self.login_failures = self.login_failures.saturating_add(1);
        let attempt = if longest {
            u32::MAX
        } else {
            self.login_failures
        };
        let most = if error.concerns_connection() {
            OUTAGE_BACKOFF_MOST
        } else {
            LOGIN_BACKOFF_MOST
        };
        let wait = backoff::jittered(
            backoff::exponential(LOGIN_BACKOFF, most, attempt),
            LOGIN_JITTER,
            backoff::seed_for(self.seed, self.login_failures),
        );
        let wait = wait.max(error.retry_after.unwrap_or_default());
        let until = now + wait;
        self.login_held = Some((until, error));
        until
    }

    /// A renewal succeeded. One that adds nothing means that the end of the token's life is near:
    /// it is used up and then replaced.
    pub fn renewed(&mut self, token: &Token, ttl: Duration, renewable: bool, now: Instant) {
        let seed = self.seed;
        let Some(held) = self.held_for(token) else {
            return;
        };
        let left = held
            .life
            .map_or(Duration::ZERO, |life| life.expires.duration_since(now));
        // Vault counts whole seconds, up or down.
        let granted = token.ttl;
        let whole = ttl + ROUNDING.min(granted / 10) >= granted;
        let longer = ttl.is_zero() || (ttl > left && whole);
        held.life = Life::new(ttl, renewable && longer, now, seed);
        held.renew_failures = 0;
    }

    /// A renewal failed and may work later.
    pub fn renew_failed(&mut self, token: &Token, error: &VaultError, now: Instant) {
        let seed = self.seed;
        let Some(held) = self.held_for(token) else {
            return;
        };
        held.renew_failures = held.renew_failures.saturating_add(1);
        let wait = backoff::jittered(
            backoff::exponential(LOGIN_BACKOFF, LOGIN_BACKOFF_MOST, held.renew_failures),
            LOGIN_JITTER,
            backoff::seed_for(seed, held.renew_failures),
        );
        let wait = wait.max(error.retry_after.unwrap_or_default());
        if let Some(life) = &mut held.life {
            life.renew_at = Some(now + wait);
        }
    }

    /// Vault will not renew this token: it is used up and then replaced.
    pub fn renew_refused(&mut self, token: &Token, now: Instant) {
        if let Some(held) = self.held_for(token)
            && let Some(life) = &mut held.life
        {
            life.since = now;
            life.renew_at = None;
        }
    }

    /// Whether `token` is still the one in use.
    pub fn is_current(&self, token: &Token) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.token.serial == token.serial)
    }

    /// Whether a refused token should be looked up now.
    pub fn may_verify(&self, now: Instant) -> bool {
        self.verify_not_before.is_none_or(|at| now >= at)
    }

    /// The refused token lives: the refusal is real.
    pub fn verified_alive(&mut self, now: Instant) {
        self.hold_verification(now + VERIFY_EVERY);
    }

    /// The refused token is dead.
    pub fn verified_dead(&mut self, token: &Token) {
        if self.is_current(token) {
            self.held = None;
        }
    }

    /// A login after a refusal: did the repeated request get through?
    /// Where lookups are forbidden every token looks dead, and each refusal would cost a login.
    pub fn login_after_denial(&mut self, helped: bool, now: Instant) {
        if helped {
            self.fruitless_logins = 0;
            return;
        }
        self.fruitless_logins = self.fruitless_logins.saturating_add(1);
        let wait = backoff::exponential(2 * VERIFY_EVERY, VERIFY_EVERY_MOST, self.fruitless_logins);
        self.hold_verification(now + wait);
    }

    fn remember_former(&mut self, now: Instant) {
        self.former.retain(|(_, _, at)| *at > now);
        let Some(Held { token, life, .. }) = &self.held else {
            return;
        };
        if let (Some(accessor), Some(life)) = (token.accessor(), life) {
            self.former.push((accessor.to_owned(), now, life.expires));
        }
    }

    fn usable(&self, now: Instant) -> Option<&Held> {
        self.held
            .as_ref()
            .filter(|held| held.life.is_none_or(|life| now < life.unusable_at))
    }

    fn held_for(&mut self, token: &Token) -> Option<&mut Held> {
        self.held
            .as_mut()
            .filter(|held| held.token.serial == token.serial)
    }

    fn hold_verification(&mut self, until: Instant) {
        self.verify_not_before = self.verify_not_before.max(Some(until));
    }
}

#[cfg(test)]
mod tests;
