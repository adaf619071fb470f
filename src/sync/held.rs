//! Effects: apiserver, Vault. One pass over an object of which some sources are issued to it alone.
//!
//! What is held is tended first, whatever becomes of the rest. Something is issued only when everything else is
//! there to write it, and what was issued is written with its record in one apply.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    Object, ReadSource, Stop, Syncer, apply,
    conclude::{issue_failed, statuses},
    desired::Wanted,
    holding::{
        Ends, LaidOut, holdings::Holdings, issuing, missing_policy, record::Records, state::Need,
    },
    outcome::{InStep, SourceFailure},
    render::Data,
    resolve::{
        Resolved,
        source::{IssueAsk, Source},
    },
    write::Values,
};
use crate::{
    api::vault_secret::VaultSecretSpec,
    names::ObjectKey,
    revision::Revision,
    secret_view::{self, SecretView},
    vault::session::Identity,
};

/// After something was issued, its dates are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// When key stores could not be made, which a change of the password's Secret mends, and that is an event.
const LAY_OUT_AGAIN: Duration = Duration::from_mins(1);
/// The next look when nothing has a date.
const NOTHING_DUE: Duration = Duration::from_mins(10);

/// For which object a pass is, what it wants, and as whom it asks Vault.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub object: &'a Object<'a>,
    pub resolved: &'a Resolved,
    pub identity: &'a Identity,
}

/// What came of reading the shared sources.
struct Shared<'a> {
    read: Vec<ReadSource<'a>>,
    failed: Option<(SourceFailure, Instant)>,
}

/// How a pass ended that found the Secret in step, or put it there.
pub(super) struct Passed {
    pub in_step: InStep,
    pub trouble: Option<SourceFailure>,
    pub next: Instant,
}

impl Passed {
    /// All is well.
    pub(super) fn well(in_step: InStep, next: Instant) -> Self {
        Self {
            in_step,
            trouble: None,
            next,
        }
    }
}

impl Syncer {
    /// Whether this object needs a pass of this kind.
    pub(super) fn holds(
        &self,
        object: &Object<'_>,
        resolved: &Resolved,
        secret: Option<&SecretView>,
    ) -> bool {
        issuing(resolved).next().is_some()
            || holdings_of(secret).is_some()
            || self.holdings.knows(object.key)
    }

    pub(super) async fn sync_held(&self, scope: Scope<'_>) -> Result<Passed, Stop> {
        let Scope {
            object,
            resolved,
            identity,
        } = scope;
        let held = self.holdings.of(object.key, &object.view.uid);
        let mut held = held.lock().await;
        let secret = self.observe(object, &resolved.target.name);
        self.take_over(scope, &mut held, secret.as_deref());
        let passed = self.pass_held(scope, &mut held).await;
        let secret = self.observe(object, &resolved.target.name);
        let ends = match &passed {
            Ok(_) => Ends::All((self.verdict)(object.key, secret.as_deref())),
            Err(_) => Ends::Unused,
        };
        let end = self.end_superseded(object, identity, &mut held, ends);
        let ended = self.stop.run_until_cancelled(end).await.flatten();
        self.note_lives(object.key, identity, &held);
        let mut passed = passed?;
        passed.next = ended.map_or(passed.next, |ended| ended.min(passed.next));
        passed.in_step.missing_policy =
            missing_policy(&held, |accessor| self.sessions.may_not_keep(accessor));
        Ok(passed)
    }

    /// Keeps the leases of an object that is suspended, and nothing else.
    pub(super) async fn keep_only(
        &self,
        object: &Object<'_>,
        spec: &VaultSecretSpec,
    ) -> Option<Instant> {
        let secret = self.observe(object, super::resolve::target_name(object.key, spec));
        if let Ok((resolved, identity)) = self.asks_as(object, spec)
            && holdings_of(secret.as_deref()).is_some()
        {
            let scope = Scope {
                object,
                resolved: &resolved,
                identity: &identity,
            };
            let held = self.holdings.of(object.key, &object.view.uid);
            let mut held = held.lock().await;
            self.take_over(scope, &mut held, secret.as_deref());
        }
        self.keep_held(object).await
    }

    /// Learns from the record in the Secret what earlier processes left.
    fn take_over(&self, scope: Scope<'_>, held: &mut Holdings, secret: Option<&SecretView>) {
        let Scope {
            object, resolved, ..
        } = scope;
        self.learn(object, held, secret, resolved.interval);
        self.depend(scope, held);
    }

    /// The same for an object whose leases nobody will need. The proof of a record costs something: it is looked at once.
    pub(super) fn learn(
        &self,
        object: &Object<'_>,
        held: &mut Holdings,
        secret: Option<&SecretView>,
        poll_every: Duration,
    ) {
        if !held.taken_over {
            let records = records_of(object, secret).believed(&self.revisions, object.key);
            held.take_over(records, poll_every, self.moment(), object.seed);
        }
    }

    async fn pass_held(&self, scope: Scope<'_>, held: &mut Holdings) -> Result<Passed, Stop> {
        let Scope {
            object, resolved, ..
        } = scope;
        let names = issuing(resolved).map(|(source, _)| source.name.as_str());
        let dropped = held.drop_others(&names.collect(), self.moment());
        let in_hand = held.is_in_hand();
        let short = object.start.known.is_some() && !in_hand;
        let shared = self.read_shared(scope, !short).await?;
        let secret = self.observe(object, &resolved.target.name);
        let intact = holdings_of(secret.as_deref()).map(|holdings| &holdings.intact);
        let tend = self.tend(scope, held, intact);
        let tended = self.stop.run_until_cancelled(tend).await;
        let tended = tended.ok_or(Stop::Ending)?;
        let next = shared.next(tended.next);
        let trouble = shared.failure().or_else(|| tended.failure.clone());
        let quiet = tended.is_quiet() && !in_hand && !dropped;
        if quiet && shared.failed.is_none() {
            let statuses = statuses(resolved, &shared.read, Some(held));
            if let Some(in_step) = self.known_step(object, resolved, &shared.read, statuses)? {
                self.memories.succeeded(object.key, None, &object.start);
                return Ok(Passed {
                    in_step,
                    trouble,
                    next,
                });
            }
        }
        let ours = secret.is_some_and(|secret| secret.managed.is_some());
        if let Some((failure, at)) = &shared.failed
            && (quiet || !ours)
        {
            return Err(Stop::Unread(failure.clone(), next.min(*at)));
        }
        let issue = tended.issue;
        let lenient = ours && may_lack_one(held, dropped);
        let failed = self.issue_all(scope, issue, (held, lenient)).await?;
        let shared = if short && shared.failed.is_none() {
            self.read_shared(scope, true).await?
        } else {
            shared
        };
        if let Some(stop) = nothing_to_write(resolved, held, trouble.as_ref(), next)
            && !(ours && may_lack_one(held, dropped))
        {
            return Err(stop);
        }
        let (in_step, unmade) = self
            .write_held(scope, &shared, &tended.lay_out, held)
            .await?;
        // What was just issued has dates of its own.
        let soon = unmade.as_ref().map_or(LOOK_AGAIN, |_| LAY_OUT_AGAIN);
        let next = next.min(Instant::now() + soon);
        Ok(Passed {
            in_step,
            trouble: failed.or(unmade).or(trouble),
            next,
        })
    }

    /// Writes what there is; says which key stores could not be made.
    async fn write_held(
        &self,
        scope: Scope<'_>,
        shared: &Shared<'_>,
        lay_out: &[&Source],
        held: &mut Holdings,
    ) -> Result<(InStep, Option<SourceFailure>), Stop> {
        let Scope {
            object, resolved, ..
        } = scope;
        let laid_out = self.lay_out(scope, lay_out, held).await?;
        let written = async {
            let values = self.values(scope, shared, held, &laid_out).await?;
            self.write(object, resolved, values, Some(held)).await
        };
        match written.await {
            Ok(in_step) => {
                held.written(&resolved.sources, Instant::now().into_std());
                Ok((in_step, laid_out.failure()))
            }
            Err(stop) => {
                laid_out.undo(held);
                Err(stop)
            }
        }
    }

    /// Has everything issued that is needed. A source that has nothing to fall back on stops the pass.
    async fn issue_all(
        &self,
        scope: Scope<'_>,
        issue: Vec<(&Source, &IssueAsk, Need)>,
        (held, lenient): (&mut Holdings, bool),
    ) -> Result<Option<SourceFailure>, Stop> {
        if issue.is_empty() {
            return Ok(None);
        }
        self.check_target(scope.object, scope.resolved)?;
        self.ensure_finalizer(scope.object).await?;
        let mut failed = None;
        for (source, ask, need) in issue {
            if self.stop.is_cancelled() {
                return Err(Stop::Ending);
            }
            let wanted = (source, ask, need);
            if let Err(error) = self.issue(scope, wanted, held).await {
                failed = match issue_failed(source, &error, held) {
                    Err(Stop::Unread(failure, _)) if lenient => Some(failure),
                    failed => Some(failed?),
                };
            }
        }
        Ok(failed)
    }

    /// What cannot be written need not be issued: the refusals that are known before.
    fn check_target(&self, object: &Object<'_>, resolved: &Resolved) -> Result<(), Stop> {
        let secret = self.observe(object, &resolved.target.name);
        let any = Wanted {
            revision: Revision::from_annotation(""),
            fields: 0,
        };
        self.plan(object, resolved, &any, secret.as_deref())?;
        Ok(())
    }

    async fn read_shared<'a>(&self, scope: Scope<'a>, need_data: bool) -> Result<Shared<'a>, Stop> {
        let Scope {
            object,
            resolved,
            identity,
        } = scope;
        match self.read(object, resolved, identity, need_data).await {
            Ok(read) => Ok(Shared { read, failed: None }),
            Err(Stop::Unread(failure, at)) => Ok(Shared {
                read: Vec::new(),
                failed: Some((failure, at)),
            }),
            Err(stop) => Err(stop),
        }
    }

    /// The values of every source: just read, in hand, or as they stand in the Secret.
    async fn values<'a>(
        &self,
        scope: Scope<'a>,
        shared: &'a Shared<'a>,
        held: &'a Holdings,
        laid_out: &'a LaidOut,
    ) -> Result<Values<'a>, Stop> {
        let Scope {
            object, resolved, ..
        } = scope;
        let carries = |name: &str| {
            let holding = held.sources.get(name);
            holding.is_some_and(|holding| holding.in_hand.is_none())
        };
        let lacks = |name: &str| !held.sources.contains_key(name);
        let mut issued = issuing(resolved).map(|(source, _)| source.name.as_str());
        let needs_live = shared.failed.is_some() || issued.any(|name| carries(name) || lacks(name));
        let mut lacks_one = false;
        let live = if needs_live {
            let key = ObjectKey::new(&object.key.namespace, &resolved.target.name);
            apply::live_data(&self.client, &key).await?
        } else {
            apply::Live::default()
        };
        let statuses = statuses(resolved, &shared.read, Some(held));
        let mut values = Values::read(&shared.read, statuses);
        for (source, _) in issuing(resolved) {
            let Some(holding) = held.sources.get(&source.name) else {
                // It could not be issued yet. The others do not wait for it.
                lacks_one = true;
                continue;
            };
            let data = match (&holding.in_hand, laid_out.data(&source.name)) {
                (Some(hand), _) => Cow::Borrowed(&hand.data),
                (None, Some(data)) => Cow::Borrowed(data),
                (None, None) if holding.is_whole(&source.keys, &live.intact) => {
                    Cow::Owned(holding.carried(&live.data))
                }
                // Somebody changed the Secret just now: the next pass sees that, and has it issued anew.
                (None, None) => return Err(Stop::Pending),
            };
            values.parts.push((source, data));
        }
        if shared.failed.is_some() || lacks_one {
            values.rest = rest(&live, held);
            values.fingerprints = None;
        }
        Ok(values)
    }
}

/// Whether the Secret, which is there, may be written although a source holds nothing yet: not when that would part it
/// from something that another source gave before, and that is revoked afterwards.
fn may_lack_one(held: &Holdings, dropped: bool) -> bool {
    !dropped && held.superseded.iter().all(|ending| ending.done)
}

/// A source that holds nothing and cannot be issued now leaves nothing to write.
fn nothing_to_write(
    resolved: &Resolved,
    held: &Holdings,
    trouble: Option<&SourceFailure>,
    next: Instant,
) -> Option<Stop> {
    let (source, _) =
        issuing(resolved).find(|(source, _)| !held.sources.contains_key(&source.name))?;
    Some(match trouble {
        Some(failure) => Stop::Unread(failure.clone(), next),
        None => Stop::Unwritten(format!(
            "what was issued for source {} could not be written for long and was revoked; another is issued within half an hour",
            source.name
        )),
    })
}

fn records_of(object: &Object<'_>, secret: Option<&SecretView>) -> Records {
    let ours = secret
        .and_then(|secret| secret.managed.as_ref())
        .filter(|managed| managed.vault_secret == object.key.name);
    let holdings = ours.and_then(|managed| managed.holdings.as_ref());
    holdings.map_or_else(Records::default, |holdings| holdings.records.clone())
}

impl Shared<'_> {
    fn failure(&self) -> Option<SourceFailure> {
        self.failed.as_ref().map(|(failure, _)| failure.clone())
    }

    fn next(&self, tended: Option<Instant>) -> Instant {
        let read = self.read.iter().map(|read| read.next);
        let failed = self.failed.as_ref().map(|(_, at)| *at);
        let next = read.chain(tended).chain(failed).min();
        next.unwrap_or_else(|| Instant::now() + NOTHING_DUE)
    }
}

/// What the sources that could not be read gave before: the keys that are still as we wrote them, and that no other
/// source gave.
fn rest(live: &apply::Live, held: &Holdings) -> Data {
    let given: BTreeSet<&str> = held
        .sources
        .values()
        .flat_map(|holding| holding.record.keys.values().map(String::as_str))
        .collect();
    let data = live.data.iter();
    data.filter(|(key, _)| live.intact.contains(*key) && !given.contains(key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn holdings_of(secret: Option<&SecretView>) -> Option<&secret_view::Holdings> {
    secret?.managed.as_ref()?.holdings.as_deref()
}
