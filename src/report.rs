//! Effects: apiserver. Turns what the passes did into status and events, when there is something new to say.
//!
//! Reporting has a queue of its own behind that of the Secrets: while many Secrets wait to be written, their
//! reports wait too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::time::{Instant, sleep};

use crate::{
    api::vault_secret::{VaultSecret, VaultSecretStatus, WorkloadStatus},
    names::ObjectKey,
    revision::Revision,
    status::{
        condition::{Kind, find, holds},
        vault_secret::{Facts, is_only_progress, next},
        write::{WriteStatusError, write_status},
        written::Written,
    },
    sync::{
        outcome::{InStep, Outcome},
        plan::ApplyReason,
        resolve::target_name,
    },
    telemetry::{
        events::{EventReason, Events},
        metrics::Metrics,
    },
    view::VaultSecretView,
    world::World,
};

/// How soon a status that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long one report waits for Secrets that wait to be written, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// How long it may take to tell how far workloads are on their way: until then more of that may come.
const PROGRESS: Duration = Duration::from_secs(10);

/// The same right after the data changed: by then all workloads were looked at.
const FIRST_PROGRESS: Duration = Duration::from_secs(1);

/// Looks up how far the workloads of a `VaultSecret` are with its data, and what in its `spec.rollout` does not fit them.
pub type WorkloadsOf = Box<
    dyn Fn(
            &ObjectKey,
            Option<(&Revision, Timestamp)>,
        ) -> Option<(Vec<WorkloadStatus>, Option<String>)>
        + Send
        + Sync,
>;

/// Writes the status of `VaultSecrets`.
pub struct Reporter {
    /// Talks to the apiserver.
    pub client: Client,
    /// What is known of the cluster.
    pub world: Arc<World>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Publishes events.
    pub events: Events,
    /// How long a Secret counts as usable while Vault cannot be read.
    pub staleness_budget: Duration,
    /// The workloads of a `VaultSecret`; `None` while not all were looked at.
    pub workloads: WorkloadsOf,
    /// Whether Secrets wait to be written.
    pub busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// What is to be reported.
    pub records: Records,
    /// What was written a moment ago.
    pub written: Written<VaultSecretStatus>,
}

/// The last outcome of each object.
#[derive(Default)]
pub struct Records(Mutex<HashMap<ObjectKey, Record>>);

#[derive(Clone)]
struct Record {
    /// UID and generation the outcome belongs to.
    version: (String, i64),
    outcome: Outcome,
    /// How many outcomes of the object came before this one.
    sequence: u64,
    /// What was written since the last report, and which outcome did.
    applied: Option<(u64, ApplyReason)>,
    /// When what is known of workloads on their way is to be told.
    due: Option<Instant>,
    /// Whether that was told since anything else was.
    told_progress: bool,
}

impl Records {
    /// Notes what a pass over an object of this UID and generation did.
    pub fn tell(&self, key: &ObjectKey, version: (String, i64), outcome: Outcome) {
        let mut records = self.lock();
        let before = records
            .remove(key)
            .filter(|before| before.version.0 == version.0);
        let sequence = before.as_ref().map_or(0, |before| before.sequence + 1);
        let pending = before.as_ref().and_then(|before| before.applied);
        let applied = match &outcome {
            Outcome::InStep(InStep {
                applied: Some(applied),
                ..
            })
            | Outcome::Degraded(
                InStep {
                    applied: Some(applied),
                    ..
                },
                _,
            ) => Some((sequence, *applied)),
            Outcome::InStep(_)
            | Outcome::Degraded(..)
            | Outcome::Suspended
            | Outcome::Refused(_)
            | Outcome::SourceFailed(_)
            | Outcome::ApplyFailed { .. }
            | Outcome::ConnectionPending
            | Outcome::Revoking(_) => pending,
        };
        records.insert(
            key.clone(),
            Record {
                version,
                outcome,
                sequence,
                applied,
                due: before.as_ref().and_then(|before| before.due),
                told_progress: before.is_some_and(|before| before.told_progress),
            },
        );
    }

    fn get(&self, key: &ObjectKey) -> Option<Record> {
        self.lock().get(key).cloned()
    }

    /// What was applied up to this outcome of the object was told. What a newer one applied is still to be told. `news` is whether there was
    /// any, and whether it was only progress.
    fn told(&self, key: &ObjectKey, (uid, sequence): (&str, u64), news: Option<bool>) {
        if let Some(record) = self.lock().get_mut(key)
            && record.version.0 == uid
        {
            record.applied = record.applied.filter(|(by, _)| *by > sequence);
            record.due = None;
            record.told_progress = news.unwrap_or(record.told_progress);
        }
    }

    /// There is news of the object that may wait; returns until when, unless it has waited long enough.
    fn put_off(&self, key: &ObjectKey, now: Instant) -> Option<Instant> {
        let mut records = self.lock();
        let record = records.get_mut(key)?;
        let pause = if record.told_progress {
            PROGRESS
        } else {
            FIRST_PROGRESS
        };
        let due = *record.due.get_or_insert(now + pause);
        (now < due).then_some(due)
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Record>> {
        // Every change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Brings the status of one `VaultSecret` up to date; returns when to look again.
    pub async fn report(&self, key: &ObjectKey) -> Option<Instant> {
        self.let_secrets_go_first().await;
        let record = self.records.get(key)?;
        let view = self
            .world
            .vault_secrets
            .get(key)
            .filter(|view| view.uid == record.version.0)?;
        let old = self.written.newest(&view.uid, &view.status, Instant::now());
        let data = record.outcome.data();
        let (workloads, remark) = (self.workloads)(key, data).unzip();
        let facts = Facts {
            generation: record.version.1,
            outcome: &record.outcome,
            secret_exists: self.secret_exists(key, &view),
            workloads: workloads.as_deref(),
            remark: remark.as_ref().and_then(|remark| remark.as_deref()),
            staleness_budget: self.staleness_budget,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "this shell reads the clock once per pass"
        )]
        let new = next(&old, &facts, Timestamp::now());
        let progress = is_only_progress(&old, &new);
        if progress && let Some(until) = self.records.put_off(key, Instant::now()) {
            return Some(until);
        }
        if new != *old {
            match write_status::<VaultSecret>(&self.client, &self.metrics, (key, &view.uid), &new)
                .await
            {
                Ok(()) => {}
                Err(WriteStatusError::Gone(_)) => return None,
                Err(error) => {
                    tracing::warn!(object = %key, %error, "a status was not written");
                    return Some(Instant::now() + RETRY);
                }
            }
        }
        let applied = record.applied.map(|(_, applied)| applied);
        let notes = notes(&old, &new, applied);
        let news = (new != *old).then_some(progress);
        if new != *old {
            self.written.note(&view.uid, new, Instant::now());
        }
        let told = (record.version.0.as_str(), record.sequence);
        self.records.told(key, told, news);
        for (reason, note) in notes {
            self.events
                .publish(&reference(key, &view), reason, &note)
                .await;
        }
        None
    }

    async fn let_secrets_go_first(&self) {
        let start = Instant::now();
        while (self.busy)() && start.elapsed() < PATIENCE {
            sleep(LOOK).await;
        }
    }

    fn secret_exists(&self, key: &ObjectKey, view: &VaultSecretView) -> bool {
        let Ok(spec) = &view.spec else {
            return false;
        };
        let secret = self
            .world
            .secrets
            .get(&ObjectKey::new(&key.namespace, target_name(key, spec)));
        secret.is_some_and(|secret| {
            secret
                .managed
                .as_ref()
                .is_some_and(|managed| managed.vault_secret == key.name)
        })
    }
}

/// What people should hear of: transitions, and writes to a Secret that was there before.
fn notes(
    old: &VaultSecretStatus,
    new: &VaultSecretStatus,
    applied: Option<ApplyReason>,
) -> Vec<(EventReason, String)> {
    let written = applied.and_then(|applied| about_the_secret(old, new, applied));
    written
        .into_iter()
        .chain(about_the_sources(old, new))
        .chain(about_the_policy(old, new))
        .collect()
}

fn about_the_secret(
    old: &VaultSecretStatus,
    new: &VaultSecretStatus,
    applied: ApplyReason,
) -> Option<(EventReason, String)> {
    let target = new.target.as_deref().unwrap_or_default();
    match applied {
        ApplyReason::DataChanged => {
            let hash = new.rotation_hash.as_deref().unwrap_or_default();
            let note = format!("Secret {target} has new data, rotation hash {hash}");
            Some((EventReason::SecretUpdated, note))
        }
        // The wanted Secret changed with the spec: nobody touched the one that was there.
        ApplyReason::Repaired if old.observed_generation != new.observed_generation => None,
        ApplyReason::Repaired => {
            let note = format!("Secret {target} was not as it was written, and was put right");
            Some((EventReason::SecretRepaired, note))
        }
        ApplyReason::Created if old.rotation_hash.is_some() && old.target == new.target => {
            let note = format!("Secret {target} was deleted, and was created again");
            Some((EventReason::SecretRepaired, note))
        }
        // The first Secret of an object that works at once is no news: the status says it.
        ApplyReason::Created | ApplyReason::Relabelled => None,
    }
}

fn about_the_policy(
    old: &VaultSecretStatus,
    new: &VaultSecretStatus,
) -> Option<(EventReason, String)> {
    let missing = find(&new.conditions, Kind::PolicyMissing)?;
    let known = holds(&old.conditions, Kind::PolicyMissing);
    (!known).then(|| (EventReason::PolicyMissing, missing.message.clone()))
}

fn about_the_sources(
    old: &VaultSecretStatus,
    new: &VaultSecretStatus,
) -> Option<(EventReason, String)> {
    let (before, now) = (Trouble::of(old), Trouble::of(new));
    match (before, now) {
        (before, Some(now))
            if before.as_ref().map(|before| &before.reason) != Some(&now.reason) =>
        {
            Some((now.event, format!("{}: {}", now.reason, now.message)))
        }
        (Some(_), None) if holds(&new.conditions, Kind::Ready) => {
            let target = new.target.as_deref().unwrap_or_default();
            Some((
                EventReason::Recovered,
                format!("Secret {target} is in step with Vault again"),
            ))
        }
        (_, _) => None,
    }
}

/// What is wrong with one object, if anything.
struct Trouble {
    event: EventReason,
    reason: String,
    message: String,
}

impl Trouble {
    fn of(status: &VaultSecretStatus) -> Option<Self> {
        let found =
            |kind, wanted| find(&status.conditions, kind).filter(|found| found.status == wanted);
        let (event, condition) = match found(Kind::Stalled, "True") {
            Some(stalled) => (EventReason::Stalled, stalled),
            None => (
                EventReason::SourceFailing,
                found(Kind::SourcesReachable, "False")?,
            ),
        };
        // An outage of a whole connection is told once, in the status of the connection.
        let told_there = CONNECTION_WIDE.contains(&condition.reason.as_str());
        (!told_there).then(|| Self {
            event,
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        })
    }
}

/// Reasons that concern a whole connection. Not `Throttled`: a quota of Vault concerns a path.
const CONNECTION_WIDE: [&str; 3] = ["Sealed", "Unavailable", "Unreachable"];

/// A `VaultSecret`, as events refer to it.
pub fn reference(key: &ObjectKey, view: &VaultSecretView) -> ObjectReference {
    ObjectReference {
        api_version: Some("lockstep.dev/v1alpha1".to_owned()),
        kind: Some("VaultSecret".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(view.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        revision::Revision,
        status::vault_secret::{Facts, next},
        sync::{
            outcome::{Revoking, SourceFailure},
            refusal::Refusal,
        },
        vault::error::VaultErrorKind,
    };

    fn after(old: &VaultSecretStatus, outcome: &Outcome) -> VaultSecretStatus {
        let facts = Facts {
            generation: 1,
            outcome,
            secret_exists: true,
            workloads: Some(&[]),
            remark: None,
            staleness_budget: Duration::from_hours(1),
        };
        next(old, &facts, Timestamp::UNIX_EPOCH)
    }

    fn in_step(applied: Option<ApplyReason>) -> Outcome {
        Outcome::InStep(InStep {
            target: "s".into(),
            revision: Revision::from_annotation("k1:1"),
            data_since: Timestamp::UNIX_EPOCH,
            sources: Vec::new(),
            applied,
            refresh: None,
            missing_policy: None,
            left_behind: None,
            unmatched: None,
        })
    }

    fn failed(kind: VaultErrorKind) -> Outcome {
        Outcome::SourceFailed(SourceFailure {
            source: "a".into(),
            kind,
            message: "m".into(),
            over: false,
        })
    }

    #[test]
    fn news_that_may_wait_is_put_off_once_and_not_for_ever() {
        let records = Records::default();
        let key = ObjectKey::new("ns", "a");
        let start = Instant::now();
        let put_off = |seconds| records.put_off(&key, start + Duration::from_secs(seconds));
        let tell = |uid: &str| records.tell(&key, (uid.to_owned(), 1), in_step(None));
        assert_eq!(put_off(0), None, "nothing is known");
        tell("uid");
        assert_eq!(put_off(0), Some(start + FIRST_PROGRESS));
        tell("uid");
        assert_eq!(put_off(0), Some(start + FIRST_PROGRESS));
        assert_eq!(put_off(1), None);
        records.told(&key, ("uid", 1), Some(true));
        let second = Some(start + Duration::from_secs(2) + PROGRESS);
        assert_eq!(put_off(2), second);
        tell("uid");
        assert_eq!(put_off(11), second);
        assert_eq!(put_off(12), None);
        records.told(&key, ("uid", 2), None);
        assert_eq!(
            put_off(20),
            Some(start + Duration::from_secs(20) + PROGRESS)
        );
        records.told(&key, ("uid", 2), Some(false));
        let first = Some(start + Duration::from_secs(30) + FIRST_PROGRESS);
        assert_eq!(put_off(30), first);
        tell("another");
        let new = Some(start + Duration::from_secs(31) + FIRST_PROGRESS);
        assert_eq!(put_off(31), new);
    }

    #[test]
    fn what_a_newer_outcome_applied_is_not_taken_for_told() {
        let records = Records::default();
        let key = ObjectKey::new("ns", "a");
        let tell = |applied| records.tell(&key, ("uid".to_owned(), 1), in_step(applied));
        let applied = || Some(records.get(&key)?.applied?.1);
        tell(Some(ApplyReason::DataChanged));
        let reported = records.get(&key).unwrap();
        tell(Some(ApplyReason::Repaired));
        records.told(&key, ("uid", reported.sequence), None);
        assert_eq!(applied(), Some(ApplyReason::Repaired));
        let sequence = records.get(&key).unwrap().sequence;
        records.told(&key, ("uid", sequence), None);
        assert_eq!(applied(), None);
    }

    #[test]
    fn what_was_told_is_not_told_again_because_a_pass_ended_meanwhile() {
        let records = Records::default();
        let key = ObjectKey::new("ns", "a");
        let tell = |applied| records.tell(&key, ("uid".to_owned(), 1), in_step(applied));
        tell(Some(ApplyReason::Created));
        let reported = records.get(&key).unwrap();
        // While the status is being written.
        tell(None);
        records.told(&key, ("uid", reported.sequence), None);
        assert_eq!(records.get(&key).unwrap().applied, None);
    }

    #[test]
    fn a_secret_that_follows_an_edit_of_the_spec_was_not_repaired() {
        let told = |from, to| {
            let status = |generation| VaultSecretStatus {
                observed_generation: Some(generation),
                ..VaultSecretStatus::default()
            };
            notes(&status(from), &status(to), Some(ApplyReason::Repaired)).len()
        };
        assert_eq!((told(1, 1), told(1, 2)), (1, 0));
    }

    #[test]
    fn what_the_policy_lacks_is_told_once_also_of_an_object_that_is_being_deleted() {
        let lacks = |missing: Option<&str>| {
            Outcome::Revoking(Revoking {
                until: Timestamp::UNIX_EPOCH,
                missing_policy: missing.map(str::to_owned),
            })
        };
        let mut status = after(&VaultSecretStatus::default(), &in_step(None));
        for (missing, expected) in [
            (None, vec![]),
            (
                Some("line"),
                vec![(EventReason::PolicyMissing, "line".to_owned())],
            ),
            (Some("line"), vec![]),
            (None, vec![]),
        ] {
            let next = after(&status, &lacks(missing));
            assert_eq!(notes(&status, &next, None), expected);
            status = next;
        }
    }

    #[test]
    fn each_transition_is_told_once() {
        use EventReason::{Recovered, SecretRepaired, SecretUpdated, SourceFailing, Stalled};
        let refused = Outcome::Refused(Refusal::TargetMissing { name: "s".into() });
        let steps = [
            (in_step(Some(ApplyReason::Created)), vec![]),
            (in_step(Some(ApplyReason::DataChanged)), vec![SecretUpdated]),
            (in_step(Some(ApplyReason::Repaired)), vec![SecretRepaired]),
            (in_step(Some(ApplyReason::Created)), vec![SecretRepaired]),
            (failed(VaultErrorKind::Denied), vec![SourceFailing]),
            (failed(VaultErrorKind::Denied), vec![]),
            (failed(VaultErrorKind::NotFound), vec![SourceFailing]),
            (in_step(None), vec![Recovered]),
            (failed(VaultErrorKind::Sealed), vec![]),
            (in_step(None), vec![]),
            (refused.clone(), vec![Stalled]),
            (refused, vec![]),
            (
                in_step(Some(ApplyReason::DataChanged)),
                vec![SecretUpdated, Recovered],
            ),
        ];
        let mut status = VaultSecretStatus::default();
        for (number, (outcome, expected)) in steps.iter().enumerate() {
            let next = after(&status, outcome);
            let applied = if let Outcome::InStep(in_step) = outcome {
                in_step.applied
            } else {
                None
            };
            let told: Vec<_> = notes(&status, &next, applied)
                .into_iter()
                .map(|(reason, _)| reason)
                .collect();
            assert_eq!(told, *expected, "step {number}");
            status = next;
        }
    }
}
