//! What becomes of leases when somebody changes the objects around them.

use k8s_openapi::api::core::v1::Secret;
use lockstep::{
    api::{source::SourceStatus, vault_auth::VaultAuth, vault_secret::VaultSecret},
    names::HOLDINGS,
};
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use super::{APP, consumer, vault_is_asked};
use crate::support::{LONG, Role, SOON, Stage, Team, Ttl};

/// What the status says of the source `db`.
async fn source_status(team: &Team<'_>) -> SourceStatus {
    let object = team.api::<VaultSecret>().get("app").await.unwrap();
    let sources = object.status.unwrap().sources;
    sources.into_iter().next().unwrap()
}

/// Waits until the one lease of `role` is renewed so often; nothing else is issued meanwhile.
pub async fn renewed(team: &Team<'_>, role: &Role<'_>, times: usize) {
    let mark = team.stage.vault_audit_mark().unwrap();
    let lease = role.one_lease().await;
    eventually(SOON, "the lease is renewed", async || {
        let seen = team
            .stage
            .vault_audit_since(mark, |request| {
                request.path == "sys/leases/renew" && team.made(request)
            })
            .unwrap();
        if seen.len() >= times {
            Ok(())
        } else {
            Err(seen.len())
        }
    })
    .await
    .unwrap();
    assert_eq!(role.leases().await, [lease]);
}

#[tokio::test]
async fn a_suspended_object_keeps_its_lease_alive_and_asks_for_no_other() {
    let stage = Stage::shared().await;
    let team = stage.team("suspended").await;
    let short = Ttl {
        default: "6s",
        max: "1h",
    };
    let role = Role::new(&team, "app", short).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let spec = json!({"spec": {"suspend": true}});
    team.patch::<VaultSecret>("app", spec).await;
    team.condition_is("app", "Ready", "True Suspended").await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    renewed(&team, &role, 3).await;
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
}

#[tokio::test]
async fn what_is_changed_or_deleted_by_hand_is_issued_anew_and_the_old_lease_revoked() {
    let stage = Stage::shared().await;
    let team = stage.team("by-hand").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let mut before = team.in_step("app", APP, None).await;
    let mut old = team.credentials_other_than("app", None).await;
    let mut lease = role.one_lease().await;
    for deleted in [true, false, true] {
        if deleted {
            team.delete::<Secret>("app").await;
        } else {
            let edit = json!({"stringData": {"password": "by-hand"}});
            team.patch::<Secret>("app", edit).await;
        }
        let new = eventually(SOON, "another login that works", async || {
            let found = team.credentials("app").await.ok_or("there is none")?;
            if found.username != old.username && team.logs_in(&found).await {
                Ok(found)
            } else {
                Err("not yet")
            }
        })
        .await
        .unwrap();
        before = team.restarted_once("app", &before).await;
        team.refused(&old).await;
        let next = role.one_lease().await;
        assert_ne!(next, lease);
        (old, lease) = (new, next);
    }
    let edit = json!({"stringData": {"password": "by-hand"}});
    team.patch::<Secret>("app", edit).await;
    let told = team
        .condition_is("app", "Stalled", "True TargetConflict")
        .await;
    assert!(
        told.contains("password is changed by \"somebody\""),
        "{told}"
    );
    team.polled_twice().await;
    assert_eq!(role.leases().await, [lease], "nothing is issued for now");
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    eventually(SOON, "it works", async || {
        team.logs_in(&team.credentials("app").await?)
            .await
            .then_some(())
    })
    .await
    .unwrap();
    assert_ne!(new, old);
    team.ready("app").await;
}

#[tokio::test]
async fn another_path_is_another_lease_and_the_old_one_is_revoked() {
    let stage = Stage::shared().await;
    let team = stage.team("path").await;
    let (first, second) = (
        Role::new(&team, "first", LONG).await,
        Role::new(&team, "second", LONG).await,
    );
    team.issue("app", &[first.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    team.issue("app", &[second.source()], json!({})).await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    team.restarted_once("app", &before).await;
    team.refused(&old).await;
    assert!(team.logs_in(&new).await);
    assert_eq!(first.leases().await, Vec::<String>::new());
    second.one_lease().await;
}

#[tokio::test]
async fn a_secret_that_is_retained_keeps_its_lease() {
    let stage = Stage::shared().await;
    let team = stage.team("retained").await;
    let role = Role::new(&team, "app", LONG).await;
    let extra = json!({"target": {"deletionPolicy": "Retain"}});
    team.issue("app", &[role.source()], extra).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;
    team.delete::<VaultSecret>("app").await;
    eventually(SOON, "the object is gone", async || {
        (!team.exists("app").await).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(role.leases().await, [lease]);
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
}

/// A login of the namespace's own, with a policy that allows what leases take.
pub async fn own_login(team: &Team<'_>, role: &Role<'_>, ttl: &str) {
    team.role_of_its_own("kubernetes", ttl).await;
    let rules = format!(
        r#"path "{}" {{ capabilities = ["read"] }}
        path "sys/leases/revoke" {{ capabilities = ["update"] }}
        path "auth/token/renew-accessor" {{ capabilities = ["update"] }}"#,
        role.path
    );
    let vault = team.stage.vault();
    vault.policy(&team.namespace, &rules).await.unwrap();
    let address = team.stage.vault_socket().unwrap();
    team.logs_in_at(address, "kubernetes", &team.namespace)
        .await;
}

#[tokio::test]
async fn a_login_that_is_edited_or_deleted_and_made_again_keeps_the_lease() {
    let stage = Stage::shared().await;
    let team = stage.team("login").await;
    let short = Ttl {
        default: "20s",
        max: "1h",
    };
    let role = Role::new(&team, "app", short).await;
    own_login(&team, &role, "15s").await;
    let extra = json!({"authRef": {"kind": "VaultAuth", "name": "default"}});
    team.issue("app", &[role.source()], extra).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;

    let mark = stage.vault_audit_mark().unwrap();
    let edit = json!({"spec": {"kubernetes": {"tokenTTL": "20m"}}});
    team.patch::<VaultAuth>("default", edit).await;
    eventually(SOON, "another login", async || {
        let logins = team.asked(mark, "auth/kubernetes/login");
        (!logins.is_empty()).then_some(())
    })
    .await
    .unwrap();
    renewed(&team, &role, 2).await;

    let api = team.api::<VaultAuth>();
    let auth = api.get("default").await.unwrap();
    team.delete::<VaultAuth>("default").await;
    team.condition_is("app", "Stalled", "True AuthNotFound")
        .await;
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth",
        "metadata": {"name": "default"}, "spec": auth.spec,
    }))
    .await;
    team.ready("app").await;
    renewed(&team, &role, 2).await;
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
}

#[tokio::test]
async fn a_token_revoked_by_hand_takes_its_leases_along_and_others_come() {
    let stage = Stage::shared().await;
    let team = stage.team("token").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let old = team.credentials_other_than("app", None).await;
    let secret = team.secret("app").await.unwrap();
    let record = secret.metadata.annotations.unwrap()[HOLDINGS].clone();
    let record: Value = serde_json::from_str(&record).unwrap();
    let accessor = record["held"]["db"]["lease"]["parent"].as_str().unwrap();
    stage.vault().revoke_accessor(accessor).await.unwrap();
    team.refused(&old).await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&new).await);
    role.one_lease().await;
    team.ready("app").await;
}

#[tokio::test]
async fn what_the_policy_lacks_is_said_with_the_line_to_add() {
    let stage = Stage::shared().await;
    let team = stage.team("policy").await;
    let role = Role::new(&team, "app", LONG).await;
    own_login(&team, &role, "1h").await;
    let rules = format!("path \"{}\" {{ capabilities = [\"read\"] }}", role.path);
    let vault = stage.vault();
    vault.policy(&team.namespace, &rules).await.unwrap();
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    let told = team.condition_is("app", "PolicyMissing", "True").await;
    let line = r#"path "sys/leases/revoke" { capabilities = ["update"] }"#;
    assert!(told.contains(line), "{told}");
    assert!(team.logs_in(&old).await && team.logs_in(&new).await);

    own_login(&team, &role, "1h").await;
    team.refused(&old).await;
    eventually(SOON, "the condition is gone", async || {
        team.condition("app", "PolicyMissing")
            .await
            .is_none()
            .then_some(())
    })
    .await
    .unwrap();
    assert!(team.logs_in(&new).await);
}

#[tokio::test]
async fn a_path_without_a_lease_is_polled_and_the_status_says_so() {
    let stage = Stage::shared().await;
    let team = stage.team("unleased").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let leased = source_status(&team).await;
    let found = (leased.lease_duration.as_deref(), leased.renewable);
    assert_eq!(found, (Some("3600s"), Some(true)), "{leased:?}");
    assert_eq!(leased.lease_expires, None);

    let path = format!("kv1/{}", team.path("app"));
    _ = stage.vault().enable_engine("kv1", "kv").await;
    let write = async |value: &str| {
        let data = json!({"flag": value});
        stage.vault().write(&path, &data).await.unwrap();
    };
    write("one").await;
    let source = json!({"name": "plain", "dynamic": {"path": path}});
    team.issue("app", &[source], json!({"refreshInterval": "2s"}))
        .await;
    team.secret_with("app", "flag", "one").await;
    write("two").await;
    team.secret_with("app", "flag", "two").await;
    let polled = eventually(SOON, "the status of the source", async || {
        let status = source_status(&team).await;
        if status.name == "plain" {
            Ok(status)
        } else {
            Err(status.name)
        }
    })
    .await
    .unwrap();
    assert_eq!((polled.lease_duration, polled.renewable), (None, None));
    let (mark, writes) = (
        stage.vault_audit_mark().unwrap(),
        stage.audit_mark().await.unwrap(),
    );
    vault_is_asked(stage, mark, &path, 3).await;
    assert_eq!(team.writes(writes).await, [], "the data stayed the same");
}

/// What was replaced is used by nobody, whatever the spec says meanwhile.
#[tokio::test]
async fn what_was_replaced_is_revoked_although_nothing_else_can_be_done() {
    let stage = Stage::shared().await;
    let team = stage.team("ended").await;
    let role = Role::new(&team, "app", LONG).await;
    team.auth("own", "10m").await;
    let extra = json!({
        "authRef": {"kind": "VaultAuth", "name": "own"}, "rollout": {"settle": "5s"},
    });
    team.issue("app", &[role.source()], extra).await;
    team.ready("app").await;
    consumer(&team).await;
    team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    team.delete::<VaultAuth>("own").await;
    team.condition_is("app", "Stalled", "True AuthNotFound")
        .await;
    assert!(team.logs_in(&old).await, "it is used until the restart");
    team.refused(&old).await;
    assert!(team.logs_in(&new).await);
}
