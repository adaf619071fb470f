//! Whatever is wrong with a path, a policy or the way to Vault: the Secret stays as it is, and so does the workload.

use lockstep_testbed::{Fault, FaultProxy, VaultRequest, eventually};
use serde_json::json;

use crate::support::{Front, Good, SOON, Stage, Team, good_data};

/// Breaks something, waits until the operator has said so and has tried again twice, and mends it.
///
/// `attempts` counts what the operator tries. Meanwhile nothing may be written but the status, once per change.
async fn outage(
    good: &Good<'_>,
    reason: &str,
    attempts: impl Fn() -> usize,
    fault: impl AsyncFnOnce(),
    mend: impl AsyncFnOnce(),
) {
    let (team, name) = (good.team, good.name.as_str());
    let mark = team.stage.audit_mark().await.unwrap();
    fault().await;
    team.condition_is(name, "SourcesReachable", &format!("False {reason}"))
        .await;
    team.condition_is(name, "Ready", "True LastGood").await;
    let seen = attempts();
    eventually(SOON, "two more tries", async || attempts() >= seen + 2)
        .await
        .unwrap();
    good.assert_untouched().await;
    mend().await;
    team.condition_is(name, "SourcesReachable", "True Reachable")
        .await;
    team.condition_is(name, "Ready", "True InStep").await;
    good.assert_untouched().await;

    let ours = team.writes(mark).await;
    assert!(
        ours.iter().all(|write| write.subresource == "status"),
        "{ours:#?}"
    );
    let about_it = ours.iter().filter(|write| write.name == name).count();
    // After an answer that makes no sense the mount is looked up again, and that fails with another message.
    let most = if reason == "Invalid" { 3 } else { 2 };
    assert!(
        about_it <= most,
        "one for the fault, one for its end: {ours:#?}"
    );

    team.put(name, &json!({"password": "after it"})).await;
    team.secret_with(name, "password", "after it").await;
}

/// How often the operator has asked Vault for the path.
fn asked(good: &Good<'_>) -> impl Fn() -> usize {
    let stage = good.team.stage;
    let mark = stage.vault_audit_mark().unwrap();
    let path = format!("secret/data/{}", good.path());
    move || {
        let wanted = |request: &VaultRequest| request.path == path && !request.is_root;
        stage.vault_audit_since(mark, wanted).unwrap().len()
    }
}

#[tokio::test]
async fn a_deleted_version_leaves_everything_as_it_is() {
    let team = Stage::shared().await.team("deleted").await;
    let good = Good::make(&team, "app").await;
    let vault = team.stage.vault();
    let path = format!("secret/data/{}", good.path());
    let fault = async || vault.delete(&path).await.unwrap();
    // The same data in a new version is no change either.
    let mend = async || team.put("app", &good_data()).await;
    outage(&good, "VersionDeleted", asked(&good), fault, mend).await;
}

#[tokio::test]
async fn a_destroyed_version_leaves_everything_as_it_is() {
    let team = Stage::shared().await.team("destroyed").await;
    let good = Good::make(&team, "app").await;
    let vault = team.stage.vault();
    let path = format!("secret/destroy/{}", good.path());
    let versions = json!({"versions": [1]});
    let fault = async || drop(vault.write(&path, &versions).await.unwrap());
    let mend = async || team.put("app", &good_data()).await;
    outage(&good, "VersionDeleted", asked(&good), fault, mend).await;
}

#[tokio::test]
async fn a_path_that_is_gone_leaves_everything_as_it_is() {
    let team = Stage::shared().await.team("gone").await;
    let good = Good::make(&team, "app").await;
    let vault = team.stage.vault();
    let path = format!("secret/metadata/{}", good.path());
    let fault = async || vault.delete(&path).await.unwrap();
    let mend = async || team.put("app", &good_data()).await;
    outage(&good, "NotFound", asked(&good), fault, mend).await;
}

#[tokio::test]
async fn a_policy_taken_away_leaves_everything_as_it_is_and_costs_no_login() {
    let team = Stage::shared().await.team("denied").await;
    team.role_of_its_own("kubernetes", "1h").await;
    let address = team.stage.vault_socket().unwrap();
    team.logs_in_at(address, "kubernetes", &team.namespace)
        .await;
    let good = Good::make(&team, "app").await;
    let vault = team.stage.vault();
    let mark = team.stage.vault_audit_mark().unwrap();
    let policy = format!("sys/policies/acl/{}", team.namespace);
    let fault = async || vault.delete(&policy).await.unwrap();
    let mend = async || team.allow_reads().await;
    outage(&good, "Denied", asked(&good), fault, mend).await;
    assert_eq!(team.asked(mark, "/login"), []);
}

/// A team whose way to Vault leads through a proxy.
async fn behind_a_proxy(team: &Team<'_>) -> FaultProxy {
    let proxy = FaultProxy::start(team.stage.vault_socket().unwrap()).unwrap();
    team.logs_in_at(proxy.address(), "kubernetes", "tenant")
        .await;
    proxy
}

async fn proxied_outage(prefix: &str, fault: Fault) {
    let team = Stage::shared().await.team(prefix).await;
    let proxy = behind_a_proxy(&team).await;
    let good = Good::make(&team, "app").await;
    let accepted = || usize::try_from(proxy.traffic().accepted).unwrap();
    let (fault, mend) = (async || proxy.set(fault), async || proxy.set(Fault::Pass));
    outage(&good, "Unreachable", accepted, fault, mend).await;
}

#[tokio::test]
async fn a_vault_that_refuses_connections_leaves_everything_as_it_is() {
    proxied_outage("refused", Fault::Refuse).await;
}

#[tokio::test]
async fn a_vault_that_hangs_leaves_everything_as_it_is() {
    proxied_outage("hangs", Fault::Hang).await;
}

/// The first 300 bytes of an answer are its head and the beginning of its data.
#[tokio::test]
async fn an_answer_cut_in_the_middle_leaves_everything_as_it_is() {
    proxied_outage("cut", Fault::CutAfterBytes(300)).await;
}

#[tokio::test]
async fn a_load_balancer_that_answers_for_vault_leaves_everything_as_it_is() {
    let team = Stage::shared().await.team("html").await;
    let front = Front::start(team.stage.vault_socket().unwrap()).await;
    team.logs_in_at(front.address(), "kubernetes", "tenant")
        .await;
    let good = Good::make(&team, "app").await;
    let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
    let fault = async || front.answer("502 Bad Gateway", "text/html", page);
    let mend = async || front.pass_on();
    let requests = || front.requests().len();
    outage(&good, "Unavailable", requests, fault, mend).await;
}

/// What a load balancer in maintenance does: a page that says all is well.
#[tokio::test]
async fn a_page_with_status_200_is_not_taken_for_data() {
    let team = Stage::shared().await.team("page").await;
    let front = Front::start(team.stage.vault_socket().unwrap()).await;
    team.logs_in_at(front.address(), "kubernetes", "tenant")
        .await;
    let good = Good::make(&team, "app").await;
    let fault = async || front.answer("200 OK", "text/html", "<html>Back soon</html>");
    let mend = async || front.pass_on();
    let requests = || front.requests().len();
    outage(&good, "Invalid", requests, fault, mend).await;
}
