//! What becomes of leases when the Secret gets another name, or Vault another connection.

use k8s_openapi::api::core::v1::Secret;
use lockstep::{api::vault_auth::VaultAuth, names::HOLDINGS};
use lockstep_testbed::{Bed, eventually};
use serde_json::json;

use super::{APP, consumer};
use crate::support::{Front, KEEP, LONG, Role, SOON, Stage, env_from, options, workload};

#[tokio::test]
async fn another_name_while_no_operator_runs_ends_what_the_old_secret_holds() {
    let mut stage = Stage::own().await;
    let operator = stage.operator.take().unwrap();
    let team = stage.team("renamed").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let old = team.credentials_other_than("app", None).await;
    operator.kill().unwrap();
    let target = json!({"target": {"name": "next"}});
    team.issue("app", &[role.source()], target).await;
    team.apply(&workload(APP.0, APP.1, &env_from(&["next"])))
        .await;

    let operator = || Bed::operator(&stage, &options(vec!["--leader-election=false".into()]));
    let first = operator().unwrap();
    first.wait_ready(SOON).await.unwrap();
    let new = team.credentials_other_than("next", None).await;
    assert!(team.logs_in(&new).await);
    team.refused(&old).await;
    let record = async || {
        let secret = team.api::<Secret>().get("app").await.unwrap();
        let annotations = secret.metadata.annotations.unwrap_or_default();
        annotations.get(HOLDINGS).cloned().map_or(Ok(()), Err)
    };
    eventually(SOON, "its record is gone", record)
        .await
        .unwrap();
    let lease = role.one_lease().await;
    assert_eq!(team.recorded_lease("next").await, Some(lease.clone()));

    first.kill().unwrap();
    let mark = stage.audit_mark().await.unwrap();
    let second = operator().unwrap();
    second.wait_ready(SOON).await.unwrap();
    team.ready("app").await;
    assert_eq!(role.leases().await, [lease]);
    assert_eq!(stage.writes_by(mark, "lockstep/").await.unwrap(), []);
}

#[tokio::test]
async fn what_was_issued_through_another_connection_is_revoked_there() {
    let team = Stage::shared().await.team("moved").await;
    let role = Role::new(&team, "app", LONG).await;
    let (first, second) = (
        Front::start(team.stage.vault_socket().unwrap()).await,
        Front::start(team.stage.vault_socket().unwrap()).await,
    );
    team.of_its_own(first.address(), "1h", &KEEP).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    let connection = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultConnection",
        "metadata": {"name": "other"},
        "spec": {"address": format!("http://{}", second.address())},
    });
    team.apply(&connection).await;
    let edit = json!({"spec": {"connectionRef": {"kind": "VaultConnection", "name": "other"}}});
    team.patch::<VaultAuth>("default", edit).await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&new).await);
    team.refused(&old).await;
    let revoked = |front: &Front| {
        let heads = front.heads();
        heads.iter().any(|head| head.contains("sys/leases/revoke"))
    };
    assert_eq!((revoked(&first), revoked(&second)), (true, false));
}
