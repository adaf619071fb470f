//! Pure: the status of a connection after a look at Vault.

use jiff::Timestamp;

use super::{Look, resolve::Refused};
use crate::{
    api::vault_connection::VaultConnectionStatus,
    status::condition::{Kind, Wanted, merge},
};

/// The status that follows `old`.
pub fn next(
    old: &VaultConnectionStatus,
    generation: i64,
    look: &Look,
    now: Timestamp,
) -> VaultConnectionStatus {
    let mut status = old.clone();
    status.observed_generation = Some(generation);
    if let Look::Answered(health) = look {
        status.sealed = Some(health.sealed);
        status.standby = Some(health.standby);
        if !health.version.is_empty() {
            status.version = Some(format!("{:?} {}", health.product, health.version));
        }
    }
    status.conditions = merge(&old.conditions, conditions(look), generation, now);
    status
}

fn conditions(look: &Look) -> Vec<Wanted> {
    match look {
        Look::Answered(health) if !health.initialized => {
            not_ready("NotInitialized", "Vault was never initialised")
        }
        Look::Answered(health) if health.sealed => not_ready("Sealed", "Vault is sealed"),
        Look::Answered(_) => vec![Wanted::yes(
            Kind::Ready,
            "Reachable",
            "Vault answers and is unsealed",
        )],
        Look::Silent(why) => not_ready("Unreachable", why),
        Look::Refused(Refused::Spec(why)) => stalled("InvalidSpec", why),
        Look::Refused(Refused::Address(why)) => stalled("AddressNotAllowed", why),
    }
}

fn stalled(reason: &str, message: &str) -> Vec<Wanted> {
    vec![
        Wanted::no(Kind::Ready, reason, message),
        Wanted::yes(Kind::Stalled, reason, message),
    ]
}

fn not_ready(reason: &str, message: &str) -> Vec<Wanted> {
    vec![
        Wanted::no(Kind::Ready, reason, message),
        Wanted::yes(Kind::Reconciling, reason, "Vault is asked again"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        status::condition::holds,
        vault::response::{Health, Product},
    };

    fn answered(initialized: bool, sealed: bool) -> Look {
        Look::Answered(Health {
            initialized,
            sealed,
            standby: false,
            version: "1.21.0".into(),
            product: Product::Vault,
        })
    }

    #[test]
    fn one_row_per_look() {
        let rows = [
            (answered(true, false), "Reachable", [true, false, false]),
            (answered(true, true), "Sealed", [false, true, false]),
            (
                answered(false, false),
                "NotInitialized",
                [false, true, false],
            ),
            (
                Look::Silent("no answer".into()),
                "Unreachable",
                [false, true, false],
            ),
            (
                Look::Refused(Refused::Spec("spec.x".into())),
                "InvalidSpec",
                [false, false, true],
            ),
            (
                Look::Refused(Refused::Address("spec.address".into())),
                "AddressNotAllowed",
                [false, false, true],
            ),
        ];
        for (look, reason, expected) in rows {
            let status = next(
                &VaultConnectionStatus::default(),
                3,
                &look,
                Timestamp::UNIX_EPOCH,
            );
            let got = [Kind::Ready, Kind::Reconciling, Kind::Stalled]
                .map(|kind| holds(&status.conditions, kind));
            assert_eq!(
                (status.conditions[0].reason.as_str(), got),
                (reason, expected),
                "{look:?}"
            );
        }
    }

    #[test]
    fn the_same_look_twice_changes_nothing() {
        let first = next(
            &VaultConnectionStatus::default(),
            3,
            &answered(true, false),
            Timestamp::UNIX_EPOCH,
        );
        let later = Timestamp::from_second(60).unwrap_or_default();
        assert_eq!(next(&first, 3, &answered(true, false), later), first);
        assert_eq!(first.version.as_deref(), Some("Vault 1.21.0"));
    }
}
