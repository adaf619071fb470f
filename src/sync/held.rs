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
        LaidOut, Verdict,
        holdings::{Agreed, Holdings},
        issuing, missing_policy,
        state::Need,
    },
    outcome::{InStep, SourceFailure},
    refusal::Refusal,
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
        held.note_lacking(issuing(resolved).map(|(source, _)| source.name.as_str()));
        // What was replaced is no matter of what became of the rest.
        let target = &resolved.target.name;
        let verdict = self.verdict_on(object, target);
        let end = self.end_superseded((object, Some(target)), identity, &mut held, verdict);
        let ended = self.stop.run_until_cancelled(end).await.flatten();
        self.note_lives(object.key, identity, &held);
        let mut passed = passed.inspect_err(|_| held.tend_by(ended.map(Instant::into_std)))?;
        passed.next = ended.map_or(passed.next, |ended| ended.min(passed.next));
        passed.in_step.left_behind = held.stranded();
        passed.in_step.missing_policy =
            missing_policy(&held, |accessor| self.sessions.may_not_keep(accessor));
        Ok(passed)
    }

    /// How far the workloads are that use the Secret called `target`.
    fn verdict_on(&self, object: &Object<'_>, target: &str) -> Verdict {
        let secret = self.observe(object, target);
        (self.verdict)(object.key, secret.as_deref())
    }

    /// Keeps what is held, and ends what was replaced, of an object whose spec cannot be acted on.
    pub(super) async fn keep_refused(
        &self,
        object: &Object<'_>,
        spec: &VaultSecretSpec,
    ) -> Option<Instant> {
        let target = super::resolve::target_name(object.key, spec);
        let verdict = self.verdict_on(object, target);
        self.keep_held(object, Some(target), verdict).await
    }

    /// Keeps the leases of an object that is suspended, and nothing else.
    pub(super) async fn keep_only(
        &self,
        object: &Object<'_>,
        spec: &VaultSecretSpec,
    ) -> Option<Instant> {
        let target = super::resolve::target_name(object.key, spec);
        let secret = self.observe(object, target);
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
        // Nothing is written meanwhile, so what was replaced may be in use.
        self.keep_held(object, Some(target), Verdict::Waiting).await
    }

    /// Learns from the record in the Secret what earlier processes, and answers that were lost, left there.
    fn take_over(&self, scope: Scope<'_>, held: &mut Holdings, secret: Option<&SecretView>) {
        let Scope {
            object, resolved, ..
        } = scope;
        self.learn(object, held, secret, resolved.interval);
        self.learn_former(object, &resolved.target.name, held);
        self.depend(scope, held);
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
        not_fought_over(&resolved.target.name, held, secret.as_deref())?;
        let next = shared.next(tended.next);
        let trouble = SourceFailure::worst([shared.failure(), tended.failure.clone()]);
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
        if let Some(failure) = &trouble
            && shared.failed.is_some()
            && (quiet || !ours)
        {
            return Err(Stop::Unread(failure.clone(), next));
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
            trouble: SourceFailure::worst([failed, unmade, trouble]),
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
                let writes = in_step.applied.is_some();
                held.written(&resolved.sources, writes, Instant::now().into_std());
                Ok((in_step, laid_out.failure()))
            }
            Err(stop) => {
                if matches!(stop, Stop::Unanswered(_)) {
                    held.tried();
                }
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
                let vault = self.vault_clock(scope.identity);
                let failure = match issue_failed(source, &error, (held, vault)) {
                    Err(Stop::Unread(failure, _)) if lenient => failure,
                    failure => failure?,
                };
                failed = SourceFailure::worst([failed, Some(failure)]);
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

    /// The Secret as it is at this moment, if that is the one whose record is known: data of another one may belong to
    /// another lease.
    pub(super) async fn live(
        &self,
        object: &Object<'_>,
        target: &str,
        held: &Holdings,
    ) -> Result<apply::Live, Stop> {
        let key = ObjectKey::new(&object.key.namespace, target);
        let live = apply::live_data(&self.client, &key).await?;
        let known = match &held.agreed {
            Agreed::Secret(uid, version) => live.version == Some((uid.clone(), version.clone())),
            Agreed::NoSecret | Agreed::Not => live.version.is_none(),
        };
        // The watch shows it soon.
        known.then_some(live).ok_or(Stop::Pending)
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
        let needs_live = shared.failed.is_some()
            || held.agreed == Agreed::NoSecret
            || issued.any(|name| carries(name) || lacks(name));
        let mut lacks_one = false;
        let live = if needs_live {
            self.live(object, &resolved.target.name, held).await?
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

/// Refuses while somebody else takes the values of a source out of the Secret, again and again.
fn not_fought_over(
    target: &str,
    held: &Holdings,
    secret: Option<&SecretView>,
) -> Result<(), Refusal> {
    let Some(lost) = held.fought_over(Instant::now().into_std()) else {
        return Ok(());
    };
    let taken = holdings_of(secret).map(|holdings| &holdings.taken);
    let mut keys = lost.record.keys.values();
    let by = keys.find_map(|key| taken?.get_key_value(key));
    Err(Refusal::TargetFoughtOver {
        name: target.to_owned(),
        how: match by {
            Some((key, manager)) => format!("its key {key} is changed by {manager:?}"),
            None => "what Vault issued for it is changed or deleted".to_owned(),
        },
    })
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
