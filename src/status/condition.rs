//! Pure: conditions, computed anew each time and merged with what was there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The conditions of our objects (kstatus conventions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The object does what it is there for.
    Ready,
    /// The Secret was written as the spec says.
    Synced,
    /// Vault answers for every source.
    SourcesReachable,
    /// Every workload that uses the Secret runs with its data.
    RolledOut,
    /// Work is under way or will be tried again. Only while true.
    Reconciling,
    /// Nothing more happens until somebody changes an object. Only while true.
    Stalled,
    /// Vault's policy does not allow all that keeping leases takes. Only while true.
    PolicyMissing,
}

impl Kind {
    /// The type of the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Synced => "Synced",
            Self::SourcesReachable => "SourcesReachable",
            Self::RolledOut => "RolledOut",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::PolicyMissing => "PolicyMissing",
        }
    }
}

/// A condition as it shall be, without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub kind: Kind,
    /// Whether it holds; `None` is `Unknown`.
    pub holds: Option<bool>,
    /// One word for why.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
}

impl Wanted {
    /// A condition that holds.
    pub fn yes(kind: Kind, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: Some(true),
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// A condition that does not hold.
    pub fn no(kind: Kind, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            holds: Some(false),
            ..Self::yes(kind, reason, message)
        }
    }
}

/// Longest message; the schema of conditions allows 32 KiB, nobody reads that.
const MESSAGE: usize = 1024;

/// The conditions in the order wanted. A transition time is kept unless the status flips.
pub fn merge(
    old: &[Condition],
    wanted: Vec<Wanted>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    wanted
        .into_iter()
        .map(
            |Wanted {
                 kind,
                 holds,
                 reason,
                 message,
             }| {
                let status = match holds {
                    Some(true) => "True",
                    Some(false) => "False",
                    None => "Unknown",
                };
                let before = find(old, kind).filter(|before| before.status == status);
                Condition {
                    type_: kind.as_str().to_owned(),
                    status: status.to_owned(),
                    reason,
                    message: message.chars().take(MESSAGE).collect(),
                    observed_generation: Some(generation),
                    last_transition_time: before
                        .map_or(Time(now), |before| before.last_transition_time.clone()),
                }
            },
        )
        .collect()
}

/// The condition of this kind.
pub fn find(conditions: &[Condition], kind: Kind) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition of this kind is there and true.
pub fn holds(conditions: &[Condition], kind: Kind) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    proptest! {
        #[test]
        fn the_transition_time_moves_if_and_only_if_the_status_flips(before: Option<bool>, after: Option<bool>, reason in "[A-Z]{1,3}") {
            let wanted = |holds| vec![Wanted { kind: Kind::Ready, holds, reason: reason.clone(), message: String::new() }];
            let old = merge(&[], wanted(before), 1, at(1));
            let new = merge(&old, wanted(after), 2, at(2));
            let expected = if before == after { at(1) } else { at(2) };
            prop_assert_eq!(new[0].last_transition_time.0, expected);
            prop_assert_eq!(new[0].observed_generation, Some(2));
        }
    }

    #[test]
    fn a_condition_that_is_no_longer_wanted_goes() {
        let old = merge(&[], vec![Wanted::yes(Kind::Stalled, "R", "m")], 1, at(1));
        assert!(holds(&old, Kind::Stalled));
        assert!(merge(&old, Vec::new(), 1, at(2)).is_empty());
    }
}
