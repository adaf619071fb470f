//! What becomes of leases when objects go.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::DeleteParams};
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::eventually;
use serde_json::json;

use crate::support::{Front, GARBAGE, KEEP, LONG, Role, SOON, Stage, Team};

async fn gone(team: &Team<'_>) {
    let gone = async || {
        (!team.exists("app").await)
            .then_some(())
            .ok_or("it is there")
    };
    eventually(SOON, "the object is gone", gone).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_stays_keeps_its_lease() {
    let team = Stage::shared().await.team("retained").await;
    let role = Role::new(&team, "app", LONG).await;
    let retain = json!({"target": {"deletionPolicy": "Retain"}});
    team.issue("app", &[role.source()], retain).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;
    team.delete::<VaultSecret>("app").await;
    gone(&team).await;
    assert_eq!(role.leases().await, [lease]);
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
}

#[tokio::test]
async fn a_deletion_waits_for_vault_and_revokes_when_it_is_back() {
    let stage = Stage::shared().await;
    let team = stage.team("waits").await;
    let role = Role::new(&team, "app", LONG).await;
    let front = Front::start(stage.vault_socket().unwrap()).await;
    team.logs_in_at(front.address(), "kubernetes", "tenant")
        .await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;

    front.answer("502 Bad Gateway", "text/html", "<html></html>");
    let before = front.requests().len();
    team.delete::<VaultSecret>("app").await;
    let asked = async || front.requests().len() >= before + 2;
    eventually(SOON, "two more tries", asked).await.unwrap();
    assert!(team.exists("app").await);
    assert!(team.logs_in(&login).await);
    front.pass_on();
    gone(&team).await;
    assert_eq!(role.leases().await, Vec::<String>::new());
    assert!(!team.logs_in(&login).await);
}

#[tokio::test]
async fn a_deletion_that_the_policy_holds_up_says_so_and_goes_on_when_it_is_allowed() {
    let stage = Stage::shared().await;
    let team = stage.team("held-up").await;
    team.of_its_own(stage.vault_socket().unwrap(), "1h", &[])
        .await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    team.delete::<VaultSecret>("app").await;
    let told = team
        .condition_is("app", "Reconciling", "True Revoking")
        .await;
    assert!(told.contains("at the latest until"), "{told}");
    let told = team.condition_is("app", "PolicyMissing", "True").await;
    assert!(told.contains("sys/leases/revoke"), "{told}");
    team.may(&[KEEP[0]]).await;
    gone(&team).await;
    assert_eq!(role.leases().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_namespace_goes_and_takes_its_leases_with_it() {
    let team = Stage::shared().await.team("ends").await;
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    role.one_lease().await;
    let namespaces: Api<Namespace> = Api::all(team.client.clone());
    namespaces
        .delete(&team.namespace, &DeleteParams::default())
        .await
        .unwrap();
    let gone = async || {
        let found = namespaces.get_opt(&team.namespace).await.unwrap();
        found.is_none().then_some(()).ok_or("it is there")
    };
    eventually(GARBAGE, "the namespace is gone", gone)
        .await
        .unwrap();
    assert_eq!(role.leases().await, Vec::<String>::new());
}
