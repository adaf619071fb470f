//! Effects: memory, and whoever writes for it. The tokens that outlive the process, where that is wanted.
//!
//! Each is stored under a name that tells whose it is without saying it: digests of the identity and of the server
//! that issued it, and the accessor. A token that was replaced is named by no identity any more, and stays for as long
//! as leases depend on it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::identity::IdentityKey;
use super::transport::now;
use crate::sensitive::Sensitive;

/// Stands for the identity of a token that was replaced.
const REPLACED: &str = "replaced";
/// How long a token of an earlier process may wait for somebody to use it.
const UNCLAIMED: Duration = Duration::from_mins(15);
/// How long a token stays that was stored or replaced just now, although no lease is known to depend on it.
const YOUNG: Duration = Duration::from_mins(1);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Where tokens are stored.
pub trait TokenStore: Send + Sync {
    /// A digest of `parts` with a key: the same in every process, and in hex.
    fn digest(&self, parts: &[String]) -> String;

    /// Stores exactly these tokens. Fails with what to tell people.
    fn write(&self, tokens: BTreeMap<String, Sensitive>) -> BoxFuture<'_, Result<(), String>>;
}

/// What is stored.
pub struct Stored {
    store: Box<dyn TokenStore>,
    known: Mutex<Known>,
    /// Held during a write: whoever waits for it is served by the next.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    tokens: BTreeMap<Name, Entry>,
    /// How often something changed, and as of which change everything is written.
    changes: u64,
    written: u64,
    /// When to try a failed write again.
    again: Option<Instant>,
}

struct Entry {
    token: Sensitive,
    /// Whether an earlier process stored it, and nobody has used it yet.
    inherited: bool,
    /// Until when it stays although nobody is known to need it.
    spared_until: Instant,
}

/// How a token is called in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    login: String,
    server: String,
    accessor: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.login, self.server, self.accessor)
    }
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.').map(str::to_owned);
        Some(Self {
            login: parts.next()?,
            server: parts.next()?,
            accessor: parts.next()?,
        })
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").finish_non_exhaustive()
    }
}

impl Stored {
    /// What an earlier process left in the store.
    pub fn new(store: Box<dyn TokenStore>, found: BTreeMap<String, Sensitive>) -> Self {
        let spared_until = now() + UNCLAIMED;
        let entry = |token| Entry {
            token,
            inherited: true,
            spared_until,
        };
        let tokens = found.into_iter();
        let tokens = tokens.filter_map(|(name, token)| Some((Name::parse(&name)?, entry(token))));
        Self {
            store,
            known: Mutex::new(Known {
                tokens: tokens.collect(),
                ..Known::default()
            }),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    /// The token that an earlier process had as `identity`, until somebody says how it is.
    pub(super) fn inherited(&self, identity: &IdentityKey) -> Option<Sensitive> {
        self.of_earlier(identity, |_| true)
    }

    /// Whether the token `accessor` is that one.
    pub(super) fn inherits(&self, identity: &IdentityKey, accessor: &str) -> bool {
        self.of_earlier(identity, |name| name.accessor == accessor)
            .is_some()
    }

    /// The inherited token of `identity` is in use.
    pub(super) fn taken(&self, identity: &IdentityKey) {
        let login = self.login(identity);
        for (name, entry) in &mut self.known().tokens {
            if name.login == login {
                entry.inherited = false;
            }
        }
    }

    /// The token `accessor`, to be sent to the server it is from: that of `identity`.
    pub(super) fn by_accessor(&self, identity: &IdentityKey, accessor: &str) -> Option<Sensitive> {
        let server = self.server(identity);
        let known = self.known();
        let mut tokens = known.tokens.iter();
        let found = tokens.find(|(name, _)| name.accessor == accessor && name.server == server);
        found.map(|(_, entry)| entry.token.clone())
    }

    /// Stores the token of a new login, and comes back when it is written, or could not be.
    pub(super) async fn save(&self, identity: &IdentityKey, accessor: &str, token: &Sensitive) {
        // What no key of a Secret can hold is no accessor of Vault's.
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if !accessor.chars().all(is_plain) {
            return;
        }
        let name = Name {
            login: self.login(identity),
            server: self.server(identity),
            accessor: accessor.to_owned(),
        };
        self.replace(&name);
        let entry = Entry {
            token: token.clone(),
            inherited: false,
            spared_until: now() + YOUNG,
        };
        {
            let mut known = self.known();
            known.tokens.insert(name, entry);
            known.changes += 1;
        }
        self.flush().await;
    }

    /// The token of `identity` has ended.
    pub(super) fn forget(&self, identity: &IdentityKey) {
        let login = self.login(identity);
        self.retain(|name, _| name.login != login);
    }

    /// The token `accessor` has ended.
    pub(super) fn forget_accessor(&self, accessor: &str) {
        self.retain(|name, _| name.accessor != accessor);
    }

    /// All tokens by their accessors, and as whom each may be sent: as its own identity, or another one at its server.
    /// Leaves out batch tokens, which nobody can revoke.
    pub(super) fn all<'a>(
        &self,
        users: impl Iterator<Item = &'a IdentityKey>,
    ) -> Vec<(String, Sensitive, Option<IdentityKey>)> {
        let users: Vec<_> = users
            .map(|user| (self.login(user), self.server(user), user))
            .collect();
        let user_of = |name: &Name| {
            let mut at_server = users.iter().filter(|(_, server, _)| *server == name.server);
            let own = at_server.clone().find(|(login, ..)| *login == name.login);
            own.or_else(|| at_server.next())
                .map(|(.., user)| (*user).clone())
        };
        let known = self.known();
        let named = known
            .tokens
            .iter()
            .filter(|(name, _)| !name.accessor.is_empty());
        named
            .map(|(name, entry)| (name.accessor.clone(), entry.token.clone(), user_of(name)))
            .collect()
    }

    /// Stores neither the tokens `ended` any longer nor batch tokens, and writes that at once.
    pub(super) async fn give_up(&self, ended: &BTreeSet<&str>) {
        self.retain(|name, _| !name.accessor.is_empty() && !ended.contains(name.accessor.as_str()));
        self.known().again = None;
        self.flush().await;
    }

    /// Lets go of the tokens that no lease and no session needs, and writes what is not written yet.
    pub(super) async fn tend(&self, sessions: &[IdentityKey], needed: &HashSet<Arc<str>>) {
        let logins: Vec<String> = sessions.iter().map(|key| self.login(key)).collect();
        let now = now();
        self.retain(|name, entry| {
            logins.contains(&name.login)
                || needed.contains(name.accessor.as_str())
                || now < entry.spared_until
        });
        self.flush().await;
    }

    /// When to tend it again.
    pub(super) fn next_date(&self) -> Option<Instant> {
        let known = self.known();
        if known.changes != known.written {
            return Some(known.again.unwrap_or_else(now));
        }
        let now = now();
        let spared = known.tokens.values().map(|entry| entry.spared_until);
        spared.filter(|until| *until > now).min()
    }

    /// Writes what is not written yet, unless that failed just now: then whoever waited here does not try it once more.
    async fn flush(&self) {
        let _turn = self.writing.lock().await;
        let (changes, tokens) = {
            let known = self.known();
            let rests = known.again.is_some_and(|again| now() < again);
            if known.changes == known.written || rests {
                return;
            }
            let tokens = known.tokens.iter();
            let tokens = tokens.map(|(name, entry)| (name.to_string(), entry.token.clone()));
            (known.changes, tokens.collect())
        };
        let result = self.store.write(tokens).await;
        let mut known = self.known();
        known.again = None;
        match result {
            Ok(()) => known.written = changes,
            Err(why) => {
                tracing::warn!(
                    why,
                    "the tokens of Vault were not stored; it is tried again"
                );
                known.again = Some(now() + AGAIN);
            }
        }
    }

    /// Another token has come in the place of `name`.
    fn replace(&self, new: &Name) {
        let mut known = self.known();
        let replaced = known
            .tokens
            .extract_if(.., |name, _| name.login == new.login);
        let replaced: Vec<_> = replaced.collect();
        for (name, entry) in replaced {
            let name = Name {
                login: REPLACED.to_owned(),
                ..name
            };
            let entry = Entry {
                inherited: false,
                spared_until: now() + YOUNG,
                ..entry
            };
            // Without an accessor nobody could ask for it.
            if !name.accessor.is_empty() {
                known.tokens.insert(name, entry);
            }
        }
    }

    fn retain(&self, mut keep: impl FnMut(&Name, &Entry) -> bool) {
        let mut known = self.known();
        let before = known.tokens.len();
        known.tokens.retain(|name, entry| keep(name, entry));
        if known.tokens.len() != before {
            known.changes += 1;
        }
    }

    fn of_earlier(
        &self,
        identity: &IdentityKey,
        fits: impl Fn(&Name) -> bool,
    ) -> Option<Sensitive> {
        let login = self.login(identity);
        let known = self.known();
        let mut tokens = known.tokens.iter();
        let found =
            tokens.find(|(name, entry)| entry.inherited && name.login == login && fits(name));
        found.map(|(_, entry)| entry.token.clone())
    }

    fn login(&self, identity: &IdentityKey) -> String {
        self.store.digest(&identity.login())
    }

    fn server(&self, identity: &IdentityKey) -> String {
        self.store.digest(&identity.server())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is complete in itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
