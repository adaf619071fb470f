//! Pure: what to do with the Secret.

use jiff::Timestamp;

use super::{desired::Wanted, refusal::Refusal, resolve::Target};
use crate::{
    api::vault_secret::CreationPolicy,
    revision::Revision,
    secret_view::{Managed, SecretView},
};

/// What is known of the Secret before it is written.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The Secret of that name, if there is one.
    pub secret: Option<&'a SecretView>,
    /// Whether the VaultSecret that the Secret's mark names exists and still writes this Secret.
    pub mark_is_live: bool,
    /// Revision and time of the data that our status last reported.
    pub reported: Option<(&'a Revision, Timestamp)>,
}

/// What to do with the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretAction {
    /// It is as it shall be.
    Nothing,
    /// Apply it.
    Apply(Apply),
}

/// How to apply the Secret, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// Why.
    pub why: ApplyReason,
    /// Dates data that is older than this write, so that a write which changes no data restarts nothing.
    pub data_since: Option<Timestamp>,
    /// Whether the Secret was there before, with other data: pods may have read that.
    pub again: bool,
    /// Whether to take fields back from others. Only for a Secret that is wholly ours.
    pub force: bool,
}

/// Why a Secret is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyReason {
    /// There is none yet.
    Created,
    /// The data changed.
    DataChanged,
    /// Somebody changed or deleted what we wrote, or the target's metadata changed in the spec.
    Repaired,
    /// The data is the same; its revision is shown under another key.
    Relabelled,
}

impl ApplyReason {
    /// The word that log, event and metric print.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::DataChanged => "DataChanged",
            Self::Repaired => "Repaired",
            Self::Relabelled => "Relabelled",
        }
    }
}

impl Apply {
    /// The same write, if it turns out that the Secret holds the wanted data already, as of `since`.
    #[must_use]
    pub fn of_the_same_data(self, since: Timestamp) -> Self {
        Self {
            why: ApplyReason::Relabelled,
            data_since: Some(since),
            ..self
        }
    }
}

/// Whether `managed` was labelled under another key than `wanted`: then a different revision says nothing.
pub fn is_of_another_key(managed: &Managed, wanted: &Wanted) -> bool {
    managed.revision.key_id() != wanted.revision.key_id()
}

/// Decides what to do with the Secret `wanted`, named `target` and written by the VaultSecret `writer`.
pub fn plan(
    wanted: &Wanted,
    target: &Target,
    writer: &str,
    observed: Observed<'_>,
) -> Result<SecretAction, Refusal> {
    let merges = target.creation == CreationPolicy::Merge;
    let name = || target.name.clone();
    let Some(secret) = observed.secret else {
        if merges {
            return Err(Refusal::TargetMissing { name: name() });
        }
        let since = since_reported(wanted, observed);
        return Ok(SecretAction::Apply(Apply {
            why: ApplyReason::Created,
            again: since.is_none() && observed.reported.is_some(),
            data_since: since,
            force: false,
        }));
    };
    match &secret.managed {
        None if merges => Ok(apply(ApplyReason::Created, None, false)),
        None => Err(Refusal::TargetForeign { name: name() }),
        Some(managed) if managed.vault_secret != writer && observed.mark_is_live => {
            Err(Refusal::TargetTaken {
                name: name(),
                other: managed.vault_secret.clone(),
            })
        }
        // What we merged into was somebody's before, and stays theirs whatever the spec says now.
        Some(managed) if managed.merged && !merges => Err(Refusal::TargetForeign { name: name() }),
        Some(managed) => Ok(renew(wanted, managed, merges)),
    }
}

/// A Secret that is ours already.
fn renew(wanted: &Wanted, managed: &Managed, merges: bool) -> SecretAction {
    let force = !merges;
    if managed.revision != wanted.revision {
        return apply(ApplyReason::DataChanged, None, force);
    }
    if managed.fields != wanted.fields {
        return apply(ApplyReason::Repaired, Some(managed.data_since), force);
    }
    SecretAction::Nothing
}

fn apply(why: ApplyReason, data_since: Option<Timestamp>, force: bool) -> SecretAction {
    SecretAction::Apply(Apply {
        why,
        data_since,
        again: false,
        force,
    })
}

/// A Secret that was deleted by hand comes back with the same data: then the data is as old as it was.
fn since_reported(wanted: &Wanted, observed: Observed<'_>) -> Option<Timestamp> {
    let (revision, since) = observed.reported?;
    (*revision == wanted.revision).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::vault_secret::DeletionPolicy;

    fn wanted(revision: &str, fields: u64) -> Wanted {
        Wanted {
            revision: Revision::from_annotation(revision),
            fields,
        }
    }

    fn target(creation: CreationPolicy) -> Target {
        Target {
            name: "s".into(),
            type_: None,
            labels: [].into(),
            annotations: [].into(),
            creation,
            deletion: DeletionPolicy::Retain,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view(managed: Option<(&str, &str, u64)>) -> SecretView {
        SecretView {
            uid: "u".into(),
            resource_version: "1".into(),
            created: None,
            managed: managed.map(|(vault_secret, revision, fields)| Managed {
                vault_secret: vault_secret.into(),
                revision: Revision::from_annotation(revision),
                data_since: at(5),
                again: false,
                merged: false,
                remove_keys: false,
                holdings: None,
                fields,
            }),
        }
    }

    const NOTHING: Result<&str, &str> = Ok("Nothing");

    type Row = (
        Option<SecretView>,
        bool,
        CreationPolicy,
        Result<&'static str, &'static str>,
    );

    /// One row per outcome: observed, creation policy, what happens.
    #[test]
    fn every_outcome() {
        use CreationPolicy::{Merge, Orphan, Owner};
        let ours = |revision, fields| Some(view(Some(("me", revision, fields))));
        let theirs = Some(view(Some(("other", "r1", 1))));
        let merged = |vault_secret| {
            let mut secret = view(Some((vault_secret, "r1", 1)));
            let managed = secret.managed.as_mut().unwrap();
            managed.merged = true;
            Some(secret)
        };
        let rows: [Row; 17] = [
            (None, false, Owner, Ok("Created since- force-")),
            (None, false, Orphan, Ok("Created since- force-")),
            (None, false, Merge, Err("TargetMissing")),
            (Some(view(None)), false, Owner, Err("TargetForeign")),
            (Some(view(None)), false, Orphan, Err("TargetForeign")),
            (Some(view(None)), false, Merge, Ok("Created since- force-")),
            (ours("r1", 1), true, Owner, NOTHING),
            (ours("r1", 1), true, Merge, NOTHING),
            (ours("r0", 1), true, Owner, Ok("DataChanged since- force+")),
            (ours("r1", 7), true, Owner, Ok("Repaired since+ force+")),
            (ours("r1", 7), true, Merge, Ok("Repaired since+ force-")),
            (theirs.clone(), true, Owner, Err("TargetTaken")),
            (theirs, false, Owner, NOTHING),
            (merged("me"), true, Owner, Err("TargetForeign")),
            (merged("me"), true, Orphan, Err("TargetForeign")),
            (merged("other"), false, Owner, Err("TargetForeign")),
            (merged("me"), true, Merge, NOTHING),
        ];
        for (secret, mark_is_live, creation, expected) in rows {
            let observed = Observed {
                secret: secret.as_ref(),
                mark_is_live,
                reported: None,
            };
            let got = plan(&wanted("r1", 1), &target(creation), "me", observed);
            let got = match &got {
                Ok(SecretAction::Nothing) => Ok("Nothing".to_owned()),
                Ok(SecretAction::Apply(Apply {
                    why,
                    data_since,
                    again: _,
                    force,
                })) => Ok(format!(
                    "{} since{} force{}",
                    why.as_str(),
                    if data_since.is_some() { '+' } else { '-' },
                    if *force { '+' } else { '-' }
                )),
                Err(refusal) => Err(refusal.reason()),
            };
            assert_eq!(
                got.as_deref().map_err(|reason| *reason),
                expected,
                "{secret:?} {creation:?}"
            );
        }
    }

    #[test]
    fn a_secret_deleted_by_hand_comes_back_with_the_date_of_its_data() {
        let same = Revision::from_annotation("r1");
        let observed = Observed {
            secret: None,
            mark_is_live: false,
            reported: Some((&same, at(5))),
        };
        let again = plan(
            &wanted("r1", 1),
            &target(CreationPolicy::Owner),
            "me",
            observed,
        )
        .unwrap();
        assert_eq!(again, apply(ApplyReason::Created, Some(at(5)), false));
        let changed = plan(
            &wanted("r2", 1),
            &target(CreationPolicy::Owner),
            "me",
            observed,
        )
        .unwrap();
        let changed = match changed {
            SecretAction::Apply(apply) => (apply.data_since, apply.again),
            SecretAction::Nothing => panic!("it has to be created"),
        };
        assert_eq!(changed, (None, true), "other data was there before");
    }

    proptest::proptest! {
        #[test]
        fn what_was_applied_needs_nothing_more(revision in "r[0-3]", fields in 0u64..4, seen in "r[0-3]", seen_fields in 0u64..4, exists: bool) {
            let (wanted, target) = (wanted(&revision, fields), target(CreationPolicy::Owner));
            let before = exists.then(|| view(Some(("me", &seen, seen_fields))));
            let observed = Observed { secret: before.as_ref(), mark_is_live: true, reported: None };
            let first = plan(&wanted, &target, "me", observed).unwrap();
            let after = match first {
                SecretAction::Nothing => before,
                SecretAction::Apply(_) => Some(view(Some(("me", &revision, fields)))),
            };
            let observed = Observed { secret: after.as_ref(), mark_is_live: true, reported: None };
            proptest::prop_assert_eq!(plan(&wanted, &target, "me", observed).unwrap(), SecretAction::Nothing);
        }
    }
}
