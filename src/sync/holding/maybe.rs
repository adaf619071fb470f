//! Effects: Vault, memory. What may have been issued although no answer came.
//!
//! Nobody knows its id. It is looked for among the leases of its path: those issued while the request was under way,
//! known to no Secret and no pass of this operator. Vault does not say with whose token a lease was issued, so even the
//! only one may be in use in another cluster, where the same role was asked at the same moment. It is revoked only where the
//! admin says that nobody else uses the roles; otherwise people are told which it may be, and it ends with its TTL. To list
//! leases takes `sudo`, which is not granted unless somebody means it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::holdings::Holdings;
use crate::{
    names::ObjectKey,
    sync::{
        Syncer,
        resolve::source::{IssueAsk, IssueWhat},
    },
    vault::{
        error::{VaultError, VaultErrorKind},
        path::{ApiPath, VaultNamespace},
        request::{Request, lease::LeaseId},
        session::Identity,
    },
    world::World,
};

/// Vault's clock is known to about a second.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// How long to wait before it is looked for: a slow Vault finishes first, and so does whoever was told of his lease
/// at the same time.
const SETTLE: Duration = Duration::from_secs(5);
/// Each candidate is one lookup.
const CANDIDATES: usize = 50;
/// How long it is remembered what was found, or what was issued to whom.
const REMEMBERED: Duration = Duration::from_hours(1);

/// Something that may have been issued.
#[derive(Clone, Debug)]
pub struct Maybe {
    /// The source it was for.
    pub source: String,
    /// Where it was asked for.
    pub path: ApiPath,
    namespace: Option<VaultNamespace>,
    /// When the request was under way, by Vault's clock.
    span: (Timestamp, Timestamp),
    look_at: Instant,
    /// What is known of it.
    pub found: Found,
}

/// What came of looking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was not looked for yet.
    Open,
    /// It was not issued, or is gone.
    Nothing,
    /// Only one could be it, and was revoked.
    Revoked,
    /// So many may be it, or more: none is touched.
    Candidates(usize),
    /// Vault's policy does not allow to look.
    NotAllowed,
}

/// What this process has issued and is having issued, so that one object's lease is not taken for another's lost one.
#[derive(Debug, Default)]
pub struct Ours(Mutex<Issues>);

#[derive(Debug, Default)]
struct Issues {
    under_way: Vec<ApiPath>,
    recent: Vec<(Instant, LeaseId)>,
}

/// A request that is under way; it is until this is dropped.
pub(super) struct UnderWay<'a> {
    ours: &'a Ours,
    path: &'a ApiPath,
}

impl Ours {
    /// Something is asked for.
    pub(super) fn begin<'a>(&'a self, path: &'a ApiPath) -> UnderWay<'a> {
        self.issues().under_way.push(path.clone());
        UnderWay { ours: self, path }
    }

    fn is_asked_for(&self, path: &ApiPath) -> bool {
        self.issues().under_way.contains(path)
    }

    fn known(&self) -> BTreeSet<String> {
        let issues = self.issues();
        let known = issues.recent.iter();
        known.map(|(_, id)| id.as_str().to_owned()).collect()
    }

    fn issues(&self) -> MutexGuard<'_, Issues> {
        // Each change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay<'_> {
    /// It was answered.
    pub(super) fn issued(&self, id: LeaseId, now: Instant) {
        let mut issues = self.ours.issues();
        issues.recent.retain(|(at, _)| now < *at + REMEMBERED);
        issues.recent.push((now, id));
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut issues = self.ours.issues();
        let ours = issues.under_way.iter().position(|path| path == self.path);
        ours.map(|at| issues.under_way.swap_remove(at));
    }
}

/// Whether a lease that was issued at this time may be the one that was asked for within `span`.
fn may_be(issued: Timestamp, (from, until): (Timestamp, Timestamp)) -> bool {
    let from = from.checked_sub(SLACK).unwrap_or(Timestamp::MIN);
    let until = until.checked_add(SLACK).unwrap_or(Timestamp::MAX);
    (from..=until).contains(&issued)
}

impl Maybe {
    /// When it is to be looked for, if it still is.
    pub fn due(&self) -> Option<Instant> {
        (self.found == Found::Open).then_some(self.look_at)
    }
}

impl Syncer {
    /// Notes that something may have been issued: it was asked for at `asked`, and no answer came.
    pub(super) fn note_unanswered(
        &self,
        (source, ask): (&str, &IssueAsk),
        identity: &Identity,
        (error, asked): (&VaultError, Instant),
        held: &mut Holdings,
    ) {
        let IssueWhat::Dynamic { path, .. } = &ask.what else {
            return;
        };
        let now = tokio::time::Instant::now().into_std();
        let Some(clock) = self.vault_clock(identity) else {
            return;
        };
        if !error.unanswered || error.operation != "issue" {
            return;
        }
        tracing::warn!(
            source,
            %path,
            "a lease may exist that nobody uses: it was asked for and no answer came; it is looked for"
        );
        held.maybes.push(Maybe {
            source: source.to_owned(),
            path: path.clone(),
            namespace: ask.namespace.clone(),
            span: (clock.time(asked), clock.time(now)),
            look_at: now + SETTLE,
            found: Found::Open,
        });
    }

    /// Looks for what may have been issued.
    pub(in crate::sync) async fn look_for_unanswered(
        &self,
        object: &ObjectKey,
        identity: &Identity,
        held: &mut Holdings,
    ) {
        let now = tokio::time::Instant::now().into_std();
        held.maybes.retain(|maybe| now < maybe.look_at + REMEMBERED);
        for maybe in &mut held.maybes {
            if maybe.due().is_none_or(|due| now < due) {
                continue;
            }
            match self.look_for(identity, maybe).await {
                Ok(found) => maybe.found = found,
                Err(error) if error.kind == VaultErrorKind::Denied && !error.concerns_login() => {
                    maybe.found = Found::NotAllowed;
                }
                Err(error) => {
                    tracing::debug!(%object, %error, "a lease that may exist was not looked for; it is tried again");
                    maybe.look_at = now + SETTLE;
                    continue;
                }
            }
            let (path, found) = (&maybe.path, maybe.found);
            match found {
                Found::Open => maybe.look_at = now + SETTLE,
                Found::Nothing => {
                    tracing::info!(%object, %path, "no lease was issued when no answer came");
                }
                Found::Revoked => {
                    tracing::info!(%object, %path, "revoked the lease of which no answer came");
                }
                Found::Candidates(_) | Found::NotAllowed => {
                    tracing::warn!(%object, %path, ?found, "a lease that may exist ends with its TTL");
                }
            }
        }
    }

    async fn look_for(&self, identity: &Identity, maybe: &Maybe) -> Result<Found, VaultError> {
        if self.ours.is_asked_for(&maybe.path) {
            return Ok(Found::Open);
        }
        let send = |request: Request| {
            let request = request.in_namespace(maybe.namespace.clone());
            async move { self.sessions.send(identity, &request).await }
        };
        let keys = match send(Request::lease_list(&maybe.path)).await {
            Ok(answer) => answer.lease_keys()?,
            Err(error) if error.kind == VaultErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let mut known = self.ours.known();
        known.extend(recorded(&self.world));
        let ids = keys.iter().map(|key| format!("{}/{key}", maybe.path));
        let ids = ids.filter(|id| !known.contains(id));
        let ids: Vec<LeaseId> = ids.filter_map(LeaseId::new).collect();
        if ids.len() > CANDIDATES {
            return Ok(Found::Candidates(ids.len()));
        }
        let mut fit = Vec::new();
        for id in ids {
            match send(Request::lease_lookup(&id)?).await {
                Ok(answer) if may_be(answer.lease_issued_at()?, maybe.span) => fit.push(id),
                Ok(_) => {}
                Err(error) if crate::vault::lease::says_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        match fit.as_slice() {
            [] => return Ok(Found::Nothing),
            [one] if self.revoke_unanswered => {
                send(Request::lease_revoke(one)?).await?;
                return Ok(Found::Revoked);
            }
            [_, ..] => {}
        }
        for id in &fit {
            tracing::warn!(
                lease = id.as_str(),
                "this may be the lease of which no answer came; revoke it if nobody else uses the role"
            );
        }
        Ok(Found::Candidates(fit.len()))
    }
}

/// The leases that Secrets say are held, or still to be revoked.
fn recorded(world: &World) -> BTreeSet<String> {
    let secrets = world.secrets.all();
    let holdings = secrets
        .iter()
        .filter_map(|(_, secret)| secret.managed.as_ref()?.holdings.as_ref());
    holdings
        .flat_map(|holdings| {
            let records = &holdings.records;
            let held = records.held.values().map(|record| &record.issued);
            let replaced = records.superseded.iter().map(|ending| &ending.issued);
            held.chain(replaced)
                .filter_map(super::record::Issued::lease)
        })
        .map(|id| id.as_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000 + second).unwrap()
    }

    /// Asked for at second 10, given up at second 20. One row per time of issue.
    #[test]
    fn only_what_was_issued_meanwhile_may_be_it() {
        let rows = [(7, false), (8, true), (15, true), (22, true), (23, false)];
        for (second, expected) in rows {
            let got = may_be(at(second), (at(10), at(20)));
            assert_eq!(got, expected, "{second}");
        }
    }

    #[test]
    fn what_is_asked_for_is_known_until_it_is_answered() {
        let (ours, path) = (Ours::default(), ApiPath::parse("db/creds/a").unwrap());
        let (first, second) = (ours.begin(&path), ours.begin(&path));
        drop(first);
        assert!(ours.is_asked_for(&path));
        second.issued(LeaseId::new("db/creds/a/1").unwrap(), Instant::now());
        drop(second);
        assert!(!ours.is_asked_for(&path));
        assert!(ours.known().contains("db/creds/a/1"));
    }
}
