//! Effects: Vault, memory. What is issued to one object alone, and kept for it: leases and certificates.
//!
//! ```text
//! tend     look up and renew what is held                        state (pure), vault::lease (pure)
//! issue    have something issued; it stays in hand …
//! write    … until it is in the Secret, with its record           record (pure)
//! end      revoke what was replaced, once nothing uses it         ending (pure)
//! ```
//!
//! The record in the Secret is what outlives the process. Memory holds more (when a lease ends, what failed), all of
//! which can be asked of Vault again.

mod certificate;
mod ending;
mod failures;
pub mod finish;
pub mod holdings;
mod keep;
mod learn;
mod lives;
pub mod maybe;
mod policy;
pub mod record;
mod revoke;
#[cfg(test)]
mod simulation;
pub mod state;
mod table;
mod useless;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use self::certificate::Differs;
pub(super) use self::certificate::LaidOut;
pub use self::ending::Verdict;
pub(super) use self::policy::missing_policy;
pub use self::table::Table;
use self::{
    ending::Ending,
    holdings::Holdings,
    maybe::Maybe,
    record::{Issued, Record, What},
    state::{Fresh, Holding, Moment, Need, Todo, Wanted, keys_of},
    useless::{Vain, leased},
};
use super::{
    Syncer,
    held::Scope,
    outcome::SourceFailure,
    resolve::{
        Resolved,
        source::{Ask, IssueAsk, IssueWhat, Source},
    },
};
use crate::{
    names::ObjectKey,
    vault::{
        backoff,
        clock::VaultClock,
        error::VaultError,
        lease::{Parent, Terms},
        request::Request,
        response::lease::Granted,
        session::Identity,
    },
};

/// Leases are not looked up more often than this, whatever the refresh interval says.
const CHECK_LEAST: Duration = Duration::from_secs(10);
/// How soon a source is looked at again that had more to be done than that.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What a status says besides when something may have been issued.
const UNANSWERED: &str = "a lease may exist all the same, and is looked for";
/// The most that is done for one source in one pass: look up, renew, decide.
const MOST_STEPS: usize = 3;

/// What tending the sources of one object came to.
#[derive(Debug, Default)]
pub(super) struct Tended<'a> {
    /// What has to be issued, and why.
    pub issue: Vec<(&'a Source, &'a IssueAsk, Need)>,
    /// Whose certificates are to be laid out anew: other key stores are wanted, or with other passwords.
    pub lay_out: Vec<&'a Source>,
    /// When to tend them again.
    pub next: Option<Instant>,
    /// What is wrong with one of them.
    pub failure: Option<SourceFailure>,
}

impl Tended<'_> {
    /// Whether there is nothing to issue and nothing to make.
    pub fn is_quiet(&self) -> bool {
        self.issue.is_empty() && self.lay_out.is_empty()
    }

    fn next(&mut self, at: std::time::Instant) {
        let at = Instant::from_std(at);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// The sources of which something is issued.
pub(super) fn issuing(resolved: &Resolved) -> impl Iterator<Item = (&Source, &IssueAsk)> {
    resolved
        .sources
        .iter()
        .filter_map(|source| match &source.ask {
            Ask::Issue(ask) => Some((source, ask)),
            Ask::Read(_) => None,
        })
}

impl Syncer {
    /// Keeps what is held: looks leases up and renews them. Says what has to be issued, and issues nothing.
    pub(super) async fn tend<'a>(
        &self,
        scope: Scope<'a>,
        held: &mut Holdings,
        intact: Option<&BTreeSet<String>>,
    ) -> Tended<'a> {
        let Scope {
            object,
            resolved,
            identity,
        } = scope;
        self.give_up_stuck(scope, held).await;
        self.look_for_unanswered(object.key, identity, held).await;
        let mut tended = Tended::default();
        let connection = resolved.login.connection.to_string();
        for (source, ask) in issuing(resolved) {
            let digest = ask.digest(&connection);
            let differs = certificate::compare(held, source, ask);
            if matches!(differs, Differs::Layout) {
                tended.lay_out.push(source);
            }
            for step in 0..=MOST_STEPS {
                let wanted = Wanted {
                    ask: &digest,
                    rotate: object.view.rotate.as_deref(),
                    terms: self.terms(resolved, ask, held.sources.get(&source.name)),
                    vault: self.vault_clock(identity),
                    keys: &source.keys,
                    intact: intact.filter(|_| !matches!(differs, Differs::Lost)),
                };
                if step == MOST_STEPS {
                    tended.next(Instant::now().into_std() + LOOK_AGAIN);
                    break;
                }
                match held.decide(&source.name, &wanted, Instant::now().into_std()) {
                    Todo::Wait(until) => {
                        tended.next(until);
                        break;
                    }
                    Todo::Issue(need) => {
                        tended.issue.push((source, ask, need));
                        break;
                    }
                    Todo::LookUp => self.look_up(identity, &source.name, held).await,
                    Todo::Renew => self.renew(identity, &source.name, held).await,
                }
            }
            let trouble = trouble(held, source, self.vault_clock(identity));
            tended.failure = SourceFailure::worst([tended.failure.take(), trouble]);
        }
        for at in self.other_dates(held) {
            tended.next(at);
        }
        held.tend_at = tended.next.map(|at| at.max(Instant::now()).into_std());
        tended
    }

    /// When something is due that is no matter of one lease alone.
    fn other_dates(&self, held: &Holdings) -> Vec<std::time::Instant> {
        let parents = held.sources.values().filter_map(|holding| {
            let parent = holding.record.issued.parent()?;
            self.sessions.parent_due(parent)
        });
        let stuck = held.sources.values().filter_map(Holding::stuck_at);
        let sought = held.maybes.iter().filter_map(Maybe::due);
        let unused = held.superseded.iter().filter_map(Ending::unused_until);
        parents.chain(stuck).chain(sought).chain(unused).collect()
    }

    fn terms(&self, resolved: &Resolved, ask: &IssueAsk, holding: Option<&Holding>) -> Terms {
        Terms {
            renew_at: ask.renew_at(),
            check_every: resolved.interval.max(CHECK_LEAST),
            parent: holding.map_or(Parent::Lives, |holding| self.parent(&holding.record.issued)),
        }
    }

    /// The life of the token that a lease was issued with.
    fn parent(&self, issued: &Issued) -> Parent {
        let accessor = issued.parent();
        accessor.map_or(Parent::Lives, |accessor| self.sessions.parent(accessor))
    }

    /// Vault's clock; ours where Vault answers without telling the time.
    pub(super) fn vault_clock(&self, identity: &Identity) -> Option<VaultClock> {
        let now = Instant::now().into_std();
        identity.transport.heard().clock((self.clock)(), now)
    }

    /// Has something issued, which is in hand from then on.
    pub(super) async fn issue(
        &self,
        scope: Scope<'_>,
        (source, ask, need): (&Source, &IssueAsk, Need),
        held: &mut Holdings,
    ) -> Result<(), VaultError> {
        let Scope {
            object,
            resolved,
            identity,
        } = scope;
        // What was issued before and never written is used by nobody.
        self.take_back(scope, source, held).await;
        let seed = backoff::seed_of(&(&object.seed, &source.name));
        let asked = Instant::now().into_std();
        let result = self.ask_for(identity, ask, asked, resolved.interval).await;
        match result {
            Ok((what, data, fresh)) => {
                tracing::info!(object = %object.key, source = source.name, why = need.as_str(), "had something issued");
                let record = Record {
                    ask: ask.digest(&resolved.login.connection.to_string()),
                    issued: Issued {
                        namespace: ask.namespace.as_ref().map(ToString::to_string),
                        connection: Some(resolved.login.connection.to_string()),
                        given: resolved.login.is_given(),
                        what,
                    },
                    at: (self.clock)(),
                    keys: keys_of(&source.keys, data.keys()),
                    rotate: object.view.rotate.clone(),
                    unproven: false,
                };
                let previous = held.sources.remove(&source.name);
                self.count_issued(&record.issued, need, (previous.as_ref(), identity));
                let holding = Holding::issued(record, (data, fresh), previous, asked, seed);
                held.sources.insert(source.name.clone(), holding);
                held.failures.remove(&source.name);
                held.errors.remove(&source.name);
                if let Some(losses) = held.losses.get_mut(&source.name) {
                    losses.healed(asked);
                }
                self.depend(scope, held);
                Ok(())
            }
            Err(vain) => {
                let error = &vain.error;
                tracing::warn!(object = %object.key, source = source.name, why = need.as_str(), %error, "nothing was issued");
                self.note_unanswered((&source.name, ask), identity, (error, asked), held);
                Err(self.in_vain(scope, (source, ask), vain, held).await)
            }
        }
    }

    /// Counts what was issued, and what had ended by then.
    fn count_issued(
        &self,
        issued: &Issued,
        need: Need,
        (previous, identity): (Option<&Holding>, &Identity),
    ) {
        self.metrics.credential_issued(issued.kind(), need.as_str());
        let (vault, now) = (self.vault_clock(identity), Instant::now().into_std());
        if let Some(previous) = previous
            && previous.left(vault, now) == Some(Duration::ZERO)
        {
            self.metrics.credential_lost(previous.record.issued.kind());
        }
    }

    /// Says what lives of what is held, for whoever counts it.
    pub(super) fn note_lives(&self, key: &ObjectKey, identity: &Identity, held: &Holdings) {
        let lives = held.lives(self.vault_clock(identity), Instant::now().into_std());
        self.holdings.note(key, lives);
    }

    /// Notes that nothing came of asking, and takes back what Vault made all the same.
    async fn in_vain(
        &self,
        scope: Scope<'_>,
        (source, ask): (&Source, &IssueAsk),
        Vain { error, made }: Vain,
        held: &mut Holdings,
    ) -> VaultError {
        let Scope {
            object,
            resolved,
            identity,
        } = scope;
        let seed = backoff::seed_of(&(&object.seed, &source.name));
        let useless = match made {
            Some(made) => {
                let connection = Some(resolved.login.connection.to_string());
                let given = resolved.login.is_given();
                let made = Issued {
                    connection,
                    given,
                    ..made
                };
                Some(self.discard(identity, (&source.name, made), held).await)
            }
            None => None,
        };
        let now = Instant::now().into_std();
        let holding = held.sources.get(&source.name);
        let left = holding.and_then(|holding| holding.left(self.vault_clock(identity), now));
        let failures = held.failures.entry(source.name.clone()).or_default();
        failures.failed(error.clone(), left, seed, now);
        if let Some(useless) = useless {
            let ask = ask.digest(&resolved.login.connection.to_string());
            let asked = (ask, object.view.rotate.clone());
            failures.in_vain(useless, asked, left, (seed, now));
        }
        error
    }

    async fn ask_for(
        &self,
        identity: &Identity,
        ask: &IssueAsk,
        asked: std::time::Instant,
        interval: Duration,
    ) -> Result<(What, super::render::Data, Fresh), Vain> {
        let (path, parameters) = match &ask.what {
            IssueWhat::Dynamic { path, parameters } => (path, parameters),
            IssueWhat::Pki(pki) => return self.certify(identity, ask.namespace.clone(), pki).await,
        };
        let request =
            Request::issue(path, parameters.as_ref())?.in_namespace(ask.namespace.clone());
        let under_way = self.ours.begin(path);
        let (answer, parent) = self.sessions.issue(identity, &request).await?;
        let lease = answer.granted();
        if let Some(Granted { id, .. }) = &lease {
            under_way.issued(id.clone(), asked);
        }
        let what = lease.as_ref().map(|lease| leased(lease, parent));
        let issued = answer.issued().map_err(|error| Vain {
            error,
            made: what.clone().map(|what| Issued {
                namespace: ask.namespace.as_ref().map(ToString::to_string),
                connection: None,
                given: false,
                what,
            }),
        })?;
        let fresh = lease.map_or(
            Fresh::Unleased {
                poll_again: asked + interval,
            },
            |Granted { life, .. }| Fresh::Lease {
                ttl: life.ttl,
                renewable: life.renewable,
            },
        );
        let what = what.unwrap_or(What::Unleased {});
        Ok((what, issued.entries, fresh))
    }

    /// Now, on both clocks.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            clock: (self.clock)(),
            now: Instant::now().into_std(),
        }
    }

    /// Says which tokens this object's leases depend on. What was replaced is used until it is revoked.
    pub(super) fn depend(&self, scope: Scope<'_>, held: &Holdings) {
        let connection = &scope.resolved.login.connection;
        self.holdings
            .serve(scope.object.key, connection, scope.identity);
        // What the Secret still holds, and what pods may still use, depends on its token as well.
        let in_use = held.sources.values().flat_map(|holding| {
            let hand = holding.in_hand.as_ref();
            let previous = hand.and_then(|hand| hand.previous.as_deref());
            [
                Some(&holding.record),
                previous.map(|previous| &previous.record),
            ]
        });
        let ending = held.superseded.iter().filter(|ending| !ending.done);
        let parents: BTreeSet<&str> = in_use
            .flatten()
            .map(|record| &record.issued)
            .chain(ending.map(|ending| &ending.what.issued))
            .filter_map(Issued::parent)
            .collect();
        self.sessions
            .depend(&scope.object.key.to_string(), scope.identity, parents);
    }
}

/// What is wrong with what a source holds, or with what it is to hold.
fn trouble(held: &Holdings, source: &Source, vault: Option<VaultClock>) -> Option<SourceFailure> {
    let failing = held
        .failures
        .get(&source.name)
        .and_then(|failures| failures.error.as_ref());
    let error = failing.or_else(|| held.errors.get(&source.name))?;
    Some(failure(held, source, error, vault))
}

/// How an error about what is held reads in a status.
pub(super) fn failure(
    held: &Holdings,
    source: &Source,
    error: &VaultError,
    vault: Option<VaultClock>,
) -> SourceFailure {
    let mut failure = SourceFailure::of(&source.name, error);
    let holding = held.sources.get(&source.name);
    let left = holding.and_then(|holding| holding.left(vault, Instant::now().into_std()));
    failure.over = left == Some(Duration::ZERO);
    let open = |maybe: &Maybe| maybe.source == source.name && maybe.due().is_some();
    if held.maybes.iter().any(open) {
        failure.message = format!("{}; {UNANSWERED}", failure.message);
    }
    let failures = held.failures.get(&source.name);
    if let Some(useless) = failures.and_then(failures::IssueFailures::useless) {
        failure.message = format!("{}; {useless}", failure.message);
    }
    failure
}
