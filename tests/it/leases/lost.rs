//! What was issued and did not arrive: no answer came from Vault, or the Secret could not be written.

use k8s_openapi::api::core::v1::ResourceQuota;
use lockstep_testbed::{AuditMark, VaultRequest, eventually};
use serde_json::json;

use crate::support::{Front, KEEP, LONG, Pause, Role, SOON, Stage, Team, Ttl};

/// What was asked of the role since `mark`, by anybody but the test.
fn issues(role: &Role<'_>, team: &Team<'_>, mark: AuditMark) -> Vec<VaultRequest> {
    let wanted = |request: &VaultRequest| request.path == role.path && !request.is_root;
    team.stage.vault_audit_since(mark, wanted).unwrap()
}

/// A team whose first request for a login is answered, and the answer is lost; `list` says whether it may list leases.
async fn lost_answer<'a>(team: &'a Team<'a>, list: bool) -> (Front, Role<'a>, AuditMark) {
    let role = Role::new(team, "app", LONG).await;
    let front = Front::start(team.stage.vault_socket().unwrap()).await;
    let path = format!("sys/leases/lookup/{}/", role.path);
    let line = (path.as_str(), "\"list\", \"sudo\"");
    let lines = [KEEP[0], KEEP[1], if list { line } else { KEEP[0] }];
    team.of_its_own(front.address(), "1h", &lines[..if list { 3 } else { 2 }])
        .await;
    front.hold(Pause::Answer, &[format!("GET /v1/{}", role.path)]);
    let mark = team.stage.vault_audit_mark().unwrap();
    team.issue("app", &[role.source()], json!({})).await;
    front.sprung().await;
    (front, role, mark)
}

/// Waits until so many leases live.
async fn leases_are(role: &Role<'_>, count: usize) {
    let counted = async || {
        let found = role.leases().await.len();
        (found == count).then_some(()).ok_or(found)
    };
    let what = format!("{count} leases");
    eventually(SOON, &what, counted).await.unwrap();
}

/// Waits until the operator has said so.
async fn said(team: &Team<'_>, role: &Role<'_>, words: &str) {
    let line = |line: &str| line.contains(&role.path) && line.contains(words);
    let said = async || team.stage.operator().log_text().lines().any(line);
    eventually(SOON, words, said).await.unwrap();
}

#[tokio::test]
async fn a_lease_whose_answer_was_lost_is_found_and_told_and_not_revoked() {
    let team = Stage::shared().await.team("found").await;
    let (_front, role, mark) = lost_answer(&team, true).await;
    said(&team, &role, "a lease may exist that nobody uses").await;
    team.ready("app").await;
    said(&team, &role, "Candidates(1)").await;
    let leases = role.leases().await;
    let recorded = team.recorded_lease("app").await.unwrap();
    let lost: Vec<_> = leases.iter().filter(|lease| **lease != recorded).collect();
    assert_eq!((leases.len(), lost.len()), (2, 1), "{leases:?}");
    said(&team, &role, lost[0]).await;
    let asked = issues(&role, &team, mark);
    assert_eq!(asked.len(), 2, "{asked:#?}");
    let pause = asked[1].time.duration_since(asked[0].time);
    assert!(pause.as_millis() >= 1500, "a timeout and a pause: {pause}");
}

#[tokio::test]
async fn where_nobody_else_uses_the_roles_a_lost_lease_is_found_and_revoked() {
    let stage = Stage::own_with(&["--revoke-unanswered-leases"]).await;
    let team = stage.team("sole").await;
    let (_front, role, mark) = lost_answer(&team, true).await;
    team.ready("app").await;
    leases_are(&role, 1).await;
    assert_eq!(
        role.one_lease().await,
        team.recorded_lease("app").await.unwrap()
    );
    assert_eq!(issues(&role, &team, mark).len(), 2);
}

#[tokio::test]
async fn a_lost_lease_that_may_not_be_looked_for_is_told_with_the_line_that_is_missing() {
    let team = Stage::shared().await.team("unsought").await;
    let (_front, role, _) = lost_answer(&team, false).await;
    team.ready("app").await;
    let told = team.condition_is("app", "PolicyMissing", "True").await;
    let line = format!(
        "path \"sys/leases/lookup/{}/\" {{ capabilities = [\"list\", \"sudo\"] }}",
        role.path
    );
    assert!(told.contains(&line), "{told}");
    assert_eq!(role.leases().await.len(), 2);
}

/// Another cluster may use the same role at the same moment.
#[tokio::test]
async fn leases_of_others_that_may_be_the_lost_one_are_counted_and_not_revoked() {
    let team = Stage::shared().await.team("doubtful").await;
    let (_front, role, _) = lost_answer(&team, true).await;
    team.stage.vault().read(&role.path).await.unwrap();
    team.ready("app").await;
    said(&team, &role, "Candidates(2)").await;
    leases_are(&role, 3).await;
}

/// A quota that lets no Secret be created.
async fn no_secrets(team: &Team<'_>) {
    team.apply(&json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"secrets": "0"}},
    }))
    .await;
    let counted = async || {
        let quota = team.api::<ResourceQuota>().get("none").await.unwrap();
        quota.status.and_then(|status| status.hard).is_some()
    };
    eventually(SOON, "the quota counts", counted).await.unwrap();
}

#[tokio::test]
async fn a_login_that_cannot_be_written_stays_in_hand_and_is_not_issued_again() {
    let team = Stage::shared().await.team("inhand").await;
    let role = Role::new(&team, "app", LONG).await;
    no_secrets(&team).await;
    let mark = team.stage.vault_audit_mark().unwrap();
    let writes = team.stage.audit_mark().await.unwrap();
    team.issue("app", &[role.source()], json!({})).await;
    team.condition_is("app", "Ready", "False ApplyFailed").await;
    let tried = async || {
        let tried = team.writes(writes).await;
        tried
            .iter()
            .filter(|write| write.resource == "secrets")
            .count()
            >= 3
    };
    eventually(SOON, "three tries", tried).await.unwrap();
    let lease = role.one_lease().await;
    team.delete::<ResourceQuota>("none").await;
    team.ready("app").await;
    assert_eq!(team.recorded_lease("app").await, Some(lease));
    assert_eq!(issues(&role, &team, mark).len(), 1);
}

#[tokio::test]
async fn a_login_that_cannot_be_written_for_long_is_revoked() {
    let team = Stage::shared().await.team("givenup").await;
    let ttl = Ttl {
        default: "20s",
        max: "1h",
    };
    let role = Role::new(&team, "app", ttl).await;
    no_secrets(&team).await;
    let mark = team.stage.vault_audit_mark().unwrap();
    team.issue("app", &[role.source()], json!({})).await;
    let revoked = async || {
        let wanted = |request: &VaultRequest| {
            request.path == "sys/leases/revoke" && team.made(request) && request.error.is_empty()
        };
        !team
            .stage
            .vault_audit_since(mark, wanted)
            .unwrap()
            .is_empty()
    };
    eventually(SOON, "it is revoked", revoked).await.unwrap();
    leases_are(&role, 0).await;
    let told = team
        .condition_is("app", "Ready", "False ApplyFailed: what was issued")
        .await;
    assert!(told.contains("was revoked"), "{told}");
    assert_eq!(issues(&role, &team, mark).len(), 1);
}
