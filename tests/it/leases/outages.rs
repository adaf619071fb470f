//! What becomes of leases when Vault, or the apiserver, does not do as it is asked.

use k8s_openapi::api::core::v1::Secret;
use lockstep_testbed::eventually;
use serde_json::json;

use super::by_hand::{own_login, renewed};
use crate::support::{LONG, Role, SOON, Stage, Ttl};

/// Renewed after nine seconds, with twenty-one left to be tried again.
const SHORT: Ttl = Ttl {
    default: "30s",
    max: "1h",
};

#[tokio::test]
async fn a_lease_outlives_a_seal_of_vault() {
    let stage = Stage::own().await;
    let team = stage.team("sealed").await;
    let role = Role::new(&team, "app", SHORT).await;
    let mut source = role.source();
    source["renewAt"] = json!("30%");
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;
    stage.vault().seal().await.unwrap();
    team.condition_is("app", "SourcesReachable", "False Sealed")
        .await;
    team.condition_is("app", "Ready", "True LastGood").await;
    stage.vault().unseal().await.unwrap();
    team.condition_is("app", "SourcesReachable", "True").await;
    renewed(&team, &role, 1).await;
    assert_eq!(role.leases().await, [lease]);
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
}

#[tokio::test]
async fn a_lease_that_ends_in_an_outage_is_told_although_another_source_fails_too() {
    let stage = Stage::own().await;
    let team = stage.team("ended").await;
    let ends = Ttl {
        default: "15s",
        max: "15s",
    };
    let role = Role::new(&team, "app", ends).await;
    team.put("app", &json!({"k": "v"})).await;
    let kv = json!({"name": "a-kv", "kv": {"mount": "secret", "path": team.path("app")}});
    team.issue("app", &[kv, role.source()], json!({})).await;
    team.ready("app").await;
    stage.vault().seal().await.unwrap();
    let told = team.condition_is("app", "Ready", "False LeaseOver").await;
    assert!(told.contains(": Vault is sealed"), "{told}");
    stage.vault().unseal().await.unwrap();
    team.condition_is("app", "Ready", "True InStep").await;
}

#[tokio::test]
async fn a_renewal_that_is_forbidden_is_tried_again_and_costs_no_lease() {
    let stage = Stage::shared().await;
    let team = stage.team("forbidden").await;
    let role = Role::new(&team, "app", SHORT).await;
    own_login(&team, &role, "1h").await;
    let rules = format!(
        r#"path "{}" {{ capabilities = ["read"] }}
        path "sys/leases/renew" {{ capabilities = ["deny"] }}"#,
        role.path
    );
    let vault = stage.vault();
    vault.policy(&team.namespace, &rules).await.unwrap();
    let mut source = role.source();
    source["renewAt"] = json!("30%");
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;
    let told = team.condition_is("app", "PolicyMissing", "True").await;
    assert!(told.contains("sys/leases/renew"), "{told}");
    team.condition_is("app", "SourcesReachable", "False Denied")
        .await;

    own_login(&team, &role, "1h").await;
    renewed(&team, &role, 1).await;
    team.condition_is("app", "SourcesReachable", "True").await;
    assert_eq!(role.leases().await, [lease]);
    assert!(team.logs_in(&login).await);
}

#[tokio::test]
async fn what_cannot_be_written_stays_in_hand_and_is_issued_once() {
    let stage = Stage::shared().await;
    let team = stage.team("in-hand").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let old = team.credentials_other_than("app", None).await;
    team.patch::<Secret>("app", json!({"immutable": true}))
        .await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    team.condition_is("app", "Stalled", "True TargetInvalid")
        .await;
    for token in ["one", "two", "three"] {
        team.refresh("app", token).await;
        let issued = eventually(SOON, "two leases", async || {
            let leases = role.leases().await;
            if leases.len() == 2 {
                Ok(leases)
            } else {
                Err(leases.len())
            }
        });
        issued.await.unwrap();
    }
    let leases = role.leases().await;
    assert_eq!(leases.len(), 2, "one in use, one in hand");
    assert_eq!(team.credentials("app").await, Some(old.clone()));
    assert!(team.logs_in(&old).await);

    team.delete::<Secret>("app").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&new).await);
    let kept = team.recorded_lease("app").await.unwrap();
    assert!(leases.contains(&kept), "what was in hand is in use");
    assert_eq!(role.leases().await, leases);
}

#[tokio::test]
async fn a_lease_that_vault_extends_no_further_is_replaced_before_its_end() {
    let stage = Stage::shared().await;
    let team = stage.team("extended").await;
    let ends = Ttl {
        default: "9s",
        max: "15s",
    };
    let role = Role::new(&team, "app", ends).await;
    let mark = stage.vault_audit_mark().unwrap();
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let old = team.credentials_other_than("app", None).await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&new).await);
    let name = role.path.rsplit('/').next().unwrap();
    let issues = team.asked(mark, &format!("creds/{name}"));
    let [first, second, ..] = issues.as_slice() else {
        panic!("{issues:#?}");
    };
    let renewals = team.asked(mark, "sys/leases/renew");
    assert!(
        renewals.iter().any(|renewal| renewal.time < second.time),
        "it was renewed before it was replaced"
    );
    let lived = second.time.duration_since(first.time).as_secs();
    assert!((9..15).contains(&lived), "replaced after {lived} s of 15");
}
