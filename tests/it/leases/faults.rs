//! Whatever is wrong with Vault, a policy or a path: no lease is replaced that could have been kept.

use k8s_openapi::api::{authentication::v1::SelfSubjectReview, core::v1::Event};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use lockstep_testbed::{VaultRequest, eventually};
use serde_json::{Value, json};

use super::{APP, consumer};
use crate::support::{KEEP, LONG, Role, SOON, Stage, Team, Ttl, text_of};

/// A lease that is renewed every few seconds, and ends only after minutes.
const OFTEN: Ttl = Ttl {
    default: "80s",
    max: "1h",
};

fn often(role: &Role<'_>) -> Value {
    let mut source = role.source();
    source["renewAt"] = json!("10%");
    source
}

#[tokio::test]
async fn a_sealed_vault_costs_no_lease_and_is_not_stormed_when_it_is_back() {
    const COUNT: usize = 20;
    let stage = Stage::own().await;
    let team = stage.team("sealed").await;
    let role = Role::new(&team, "app", OFTEN).await;
    for number in 0..COUNT {
        let name = format!("app-{number}");
        team.issue(&name, &[often(&role)], json!({})).await;
    }
    team.all_are("Ready", "True InStep").await;
    let before = role.leases().await;
    assert_eq!(before.len(), COUNT);
    let vault = stage.vault();
    vault.seal().await.unwrap();
    team.all_are("SourcesReachable", "False Sealed").await;
    team.all_are("Ready", "True LastGood").await;
    let mark = stage.vault_audit_mark().unwrap();
    vault.unseal().await.unwrap();
    team.all_are("SourcesReachable", "True").await;
    let asked = |path: &str| {
        let wanted = |request: &VaultRequest| request.path == path && !request.is_root;
        stage.vault_audit_since(mark, wanted).unwrap().len()
    };
    let (renewals, lookups) = (asked("sys/leases/renew"), asked("sys/leases/lookup"));
    assert!(
        renewals + lookups <= 3 * COUNT,
        "{renewals} renewals, {lookups} lookups"
    );
    assert_eq!(asked("auth/kubernetes/login"), 0);
    assert_eq!(asked(&role.path), 0);
    assert_eq!(role.leases().await, before);
}

#[tokio::test]
async fn a_renewal_that_is_denied_is_tried_again_and_nothing_is_replaced() {
    let stage = Stage::shared().await;
    let team = stage.team("denied").await;
    let address = stage.vault_socket().unwrap();
    team.of_its_own(address, "1h", &KEEP).await;
    let role = Role::new(&team, "app", OFTEN).await;
    team.issue("app", &[often(&role)], json!({})).await;
    team.ready("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;

    team.may(&[KEEP[0], KEEP[1], ("sys/leases/renew", "\"deny\"")])
        .await;
    team.unreachable("app", "Denied", &["sys/leases/renew"])
        .await;
    let told = team.condition_is("app", "PolicyMissing", "True").await;
    let line = "path \"sys/leases/renew\" { capabilities = [\"update\"] }";
    assert!(told.contains(line), "{told}");
    team.condition_is("app", "Ready", "True LastGood").await;
    team.may(&KEEP).await;
    team.condition_is("app", "SourcesReachable", "True").await;
    assert_eq!(role.leases().await, [lease]);
    assert_eq!(team.credentials("app").await, Some(login));
}

#[tokio::test]
async fn a_lease_at_its_longest_is_replaced_while_it_still_works() {
    let team = Stage::shared().await.team("longest").await;
    let ttl = Ttl {
        default: "24s",
        max: "24s",
    };
    let role = Role::new(&team, "app", ttl).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    let new = team.credentials_other_than("app", Some(&old)).await;
    assert!(team.logs_in(&old).await, "until nobody uses it");
    assert!(team.logs_in(&new).await);
    team.restarted_once("app", &before).await;
    team.refused(&old).await;
    assert_eq!(role.leases().await.len(), 1);
}

#[tokio::test]
async fn leases_move_on_from_a_token_that_ends() {
    let stage = Stage::shared().await;
    let team = stage.team("parent").await;
    let address = stage.vault_socket().unwrap();
    team.of_its_own(address, "30s", &KEEP).await;
    let limit = json!({"token_max_ttl": "30s"});
    let path = format!("auth/kubernetes/role/{}", team.namespace);
    stage.vault().write(&path, &limit).await.unwrap();
    let role = Role::new(&team, "app", LONG).await;
    team.issue("app", &[role.source()], json!({})).await;
    team.ready("app").await;
    let mut login = team.credentials_other_than("app", None).await;
    for _ in 0..2 {
        let next = team.credentials_other_than("app", Some(&login)).await;
        assert!(team.logs_in(&login).await, "the one before still works");
        assert!(team.logs_in(&next).await);
        login = next;
    }
}

#[tokio::test]
async fn what_has_no_lease_is_asked_for_again_and_the_status_says_so() {
    let team = Stage::shared().await.team("unleased").await;
    let vault = team.stage.vault();
    let mount = format!("transit-{}", team.namespace);
    vault.enable_engine(&mount, "transit").await.unwrap();
    let path = format!("{mount}/random/16");
    let address = team.stage.vault_socket().unwrap();
    team.of_its_own(address, "1h", &[(&path, "\"update\"")])
        .await;
    let source = json!({"name": "db", "dynamic": {"path": path, "method": "POST", "parameters": {"format": "hex"}}});
    let often = json!({"refreshInterval": "10s"});
    team.issue("app", &[source], often).await;
    team.ready("app").await;
    let value = async || {
        let secret = team.secret("app").await?;
        text_of(&secret, "random_bytes")
    };
    let first = value().await.unwrap();
    let status = serde_json::to_value(team.status("app").await.sources).unwrap();
    assert_eq!(status[0]["kind"], "Dynamic", "{status}");
    assert_eq!(status[0]["leaseDuration"], Value::Null, "{status}");
    assert_eq!(status[0]["renewable"], Value::Null, "{status}");
    let another = async || value().await != Some(first.clone());
    eventually(SOON, "another value", another).await.unwrap();
}

/// One row per mistake: the path, the reason, and words of the message.
#[tokio::test]
async fn a_path_that_issues_nothing_is_named_and_the_last_good_login_goes_on() {
    let stage = Stage::shared().await;
    let team = stage.team("wrong").await;
    let nowhere = format!("nowhere-{}/creds/app", team.namespace);
    let address = stage.vault_socket().unwrap();
    let lines = [
        KEEP[0],
        KEEP[1],
        (nowhere.as_str(), "\"read\""),
        ("identity/oidc/.well-known/keys", "\"read\""),
    ];
    team.of_its_own(address, "1h", &lines).await;
    let role = Role::new(&team, "app", LONG).await;
    let unknown = format!("{}-unknown", role.path);
    let rows = [
        (unknown.as_str(), "Invalid", "unknown role"),
        (nowhere.as_str(), "NotFound", "no handler for route"),
        ("database/creds/of-another", "Denied", "permission denied"),
        ("identity/oidc/.well-known/keys", "Invalid", "'data'"),
    ];
    for (number, (_, _, _)) in rows.iter().enumerate() {
        let name = format!("app-{number}");
        team.issue(&name, &[role.source()], json!({})).await;
        team.ready(&name).await;
    }
    let before = role.leases().await;
    for (number, (path, reason, word)) in rows.iter().enumerate() {
        let name = format!("app-{number}");
        let login = team.credentials(&name).await.unwrap();
        let wrong = json!({"name": "db", "dynamic": {"path": path}});
        team.issue(&name, &[wrong], json!({})).await;
        team.unreachable(&name, reason, &[path, word]).await;
        team.told(
            &name,
            "SourceFailing",
            &format!("{reason}: source db: issue {path}"),
        )
        .await;
        let metrics = stage.operator().metrics().await.unwrap();
        let label = format!("operation=\"issue\",result=\"{reason}\"");
        assert!(metrics.contains(&label), "{metrics}");
        assert_eq!(team.credentials(&name).await, Some(login.clone()));
        assert!(team.logs_in(&login).await);
    }
    assert_eq!(role.leases().await, before);
}

impl Team<'_> {
    /// Waits for an event about the `VaultSecret` whose note begins like this.
    async fn told(&self, name: &str, reason: &str, note: &str) {
        let events: Api<Event> = self.api();
        let told = async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            let notes: Vec<_> = all
                .items
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(name))
                .filter(|event| event.reason.as_deref() == Some(reason))
                .filter_map(|event| event.message)
                .collect();
            let found = notes.iter().any(|told| told.starts_with(note));
            found.then_some(()).ok_or_else(|| format!("{notes:?}"))
        };
        eventually(SOON, note, told).await.unwrap();
    }
}

#[tokio::test]
async fn the_apiserver_accepts_a_token_of_the_kubernetes_engine() {
    let stage = Stage::shared().await;
    let team = stage.team("engine").await;
    let mount = format!("k8s-{}", team.namespace);
    stage.enable_kubernetes_engine(&mount).await.unwrap();
    let role = json!({
        "allowed_kubernetes_namespaces": team.namespace,
        "service_account_name": "default",
    });
    let vault = stage.vault();
    vault
        .write(&format!("{mount}/roles/app"), &role)
        .await
        .unwrap();
    let path = format!("{mount}/creds/app");
    let address = stage.vault_socket().unwrap();
    team.of_its_own(address, "1h", &[KEEP[0], KEEP[1], (&path, "\"update\"")])
        .await;
    let parameters = json!({"kubernetes_namespace": team.namespace});
    let source = json!({"name": "db", "dynamic": {"path": path, "method": "POST", "parameters": parameters}});
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    let secret = team.secret("app").await.unwrap();
    let token = text_of(&secret, "service_account_token").unwrap();
    let reviews: Api<SelfSubjectReview> = Api::all(stage.client_as(&token).await.unwrap());
    let (params, question) = (PostParams::default(), SelfSubjectReview::default());
    let review = reviews.create(&params, &question).await.unwrap();
    let user = review.status.unwrap().user_info.unwrap().username.unwrap();
    let expected = format!("system:serviceaccount:{}:default", team.namespace);
    assert_eq!(user, expected);
    let sources = team.status("app").await.sources;
    assert_eq!(sources[0].renewable, Some(false));
    assert!(sources[0].lease_expires.is_some());
    assert!(team.recorded_lease("app").await.is_some());
}
