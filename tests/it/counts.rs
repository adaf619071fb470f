//! A steady system costs one read per path and interval, and nothing else. Each test has its stage to itself.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{ApiRequest, AuditMark, VaultRequest, eventually};
use serde_json::{Value, json};

use crate::support::{Stage, Team, env_from, settle, workload};

const INTERVAL: f64 = 2.0;

/// How late a read may be on a busy machine, in seconds.
const LATE: f64 = 0.1;

/// Requests of the operator to the apiserver since `mark`, apart from those about its lease and from the
/// watches that end and begin again.
async fn requests(stage: &Stage, mark: AuditMark) -> Vec<ApiRequest> {
    let wanted = |request: &ApiRequest| {
        request.user_agent.starts_with("lockstep/")
            && !request.is_lease()
            && request.verb != "watch"
    };
    stage.audit_since(mark, wanted).await.unwrap()
}

/// Asserts that reads of one path, polled every two seconds, come once per interval: none is doubled, and
/// they are not later than the interval. One stall of the machine is forgiven.
fn once_per_interval(name: &str, reads: &[VaultRequest]) {
    let apart = |pair: &[VaultRequest]| pair[1].time.duration_since(pair[0].time).as_secs_f64();
    let mut gaps: Vec<_> = reads.windows(2).map(apart).collect();
    gaps.sort_by(f64::total_cmp);
    let count = f64::from(u32::try_from(gaps.len()).unwrap());
    let mean = gaps.iter().sum::<f64>() / count;
    let median = gaps[gaps.len() / 2];
    assert!(mean >= 0.8 * INTERVAL, "{name}: {gaps:?} s apart");
    assert!(median <= INTERVAL + LATE, "{name}: {gaps:?} s apart");
}

/// Requests of tenants to Vault since `mark`.
fn to_vault(stage: &Stage, mark: AuditMark) -> Vec<VaultRequest> {
    let all = stage.vault_audit_since(mark, |request| !request.is_root);
    all.unwrap()
}

#[tokio::test]
async fn a_steady_system_reads_each_path_once_per_interval_and_asks_the_apiserver_nothing() {
    let stage = Stage::own_with(&["--leader-election=true"]).await;
    let team = stage.team("steady").await;
    let names = ["a", "b", "c"];
    for name in names {
        team.put(name, &json!({"password": "one"})).await;
        team.vault_secret(name, settle("1s")).await;
        team.ready(name).await;
    }
    team.apply(&workload("Deployment", "web", &env_from(&names)))
        .await;
    let before = team.in_step("a", ("Deployment", "web"), None).await;
    team.settled("web").await;
    team.put("a", &json!({"password": "two"})).await;
    team.restarted_once("a", &before).await;
    for name in names {
        team.polled(name).await;
    }

    let (mark, vault_mark) = (
        stage.audit_mark().await.unwrap(),
        stage.vault_audit_mark().unwrap(),
    );
    // Four reads are three intervals.
    let all = join_all(names.map(|name| team.was_read(vault_mark, name, 4))).await;
    for (name, reads) in names.iter().zip(&all) {
        once_per_interval(name, reads);
    }
    assert_eq!(requests(&stage, mark).await, []);
    let others: Vec<_> = to_vault(&stage, vault_mark)
        .into_iter()
        .filter(|request| request.operation != "read" || !request.path.starts_with("secret/data/"))
        .filter(|request| !request.path.starts_with("sys/"))
        .collect();
    assert_eq!(others, []);
}

/// Creates fifty objects at once; `path` says which secret each one reads.
async fn fifty(team: &Team<'_>, interval: &str, path: impl Fn(usize) -> String) -> Vec<String> {
    let names: Vec<_> = (0..50).map(|number| format!("s{number}")).collect();
    let objects = names.iter().enumerate().map(|(number, name)| {
        object(
            name,
            &json!({
                "refreshInterval": interval,
                "sources": [{"name": "main", "kv": {"mount": "secret", "path": path(number)}}],
            }),
        )
    });
    let api = team.api::<VaultSecret>();
    let params = PostParams::default();
    join_all(objects.map(async |object| api.create(&params, &object).await.unwrap())).await;
    names
}

fn object(name: &str, spec: &Value) -> VaultSecret {
    let whole = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
        "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(whole).unwrap()
}

/// Waits until all of these are ready.
async fn all_ready(team: &Team<'_>, names: &[String]) {
    for name in names {
        team.ready(name).await;
    }
}

#[tokio::test]
async fn fifty_objects_on_one_path_cost_one_read_per_interval() {
    let mut stage = Stage::own().await;
    stage.operator.take().unwrap().terminate().unwrap();
    let team = stage.team("one").await;
    team.put("app", &json!({"password": "one"})).await;
    let names = fifty(&team, "2s", |_| team.path("app")).await;
    let (mark, vault_mark) = (
        stage.audit_mark().await.unwrap(),
        stage.vault_audit_mark().unwrap(),
    );
    let operator = crate::crashes::start(&stage, "late", None).await;
    all_ready(&team, &names).await;
    let first = team.reads(vault_mark, "app");
    // While fifty Secrets are written, the next interval may begin.
    assert!(first.len() <= 2, "{} reads at first", first.len());
    let logins = |request: &VaultRequest| request.path == "auth/kubernetes/login";
    let logins = stage.vault_audit_since(vault_mark, logins).unwrap();
    assert_eq!(logins.len(), 1);
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    assert!(writes.len() <= 150 + FIXED, "{} writes", writes.len());

    let (mark, vault_mark) = (
        stage.audit_mark().await.unwrap(),
        stage.vault_audit_mark().unwrap(),
    );
    let reads = team.was_read(vault_mark, "app", 4).await;
    once_per_interval("app", &reads);
    assert_eq!(requests(&stage, mark).await, []);
    drop(operator);
}

/// Writes that do not come with the number of objects: the status of the connection and of the login, and the
/// events about them.
const FIXED: usize = 6;

#[tokio::test]
async fn the_first_sync_of_fifty_objects_costs_each_a_read_and_at_most_three_writes() {
    let mut stage = Stage::own().await;
    stage.operator.take().unwrap().terminate().unwrap();
    let team = stage.team("many").await;
    for number in 0..50 {
        let data = json!({"password": number.to_string()});
        team.put(&format!("p{number}"), &data).await;
    }
    let names = fifty(&team, "5m", |number| team.path(&format!("p{number}"))).await;
    let (mark, vault_mark) = (
        stage.audit_mark().await.unwrap(),
        stage.vault_audit_mark().unwrap(),
    );
    let operator = crate::crashes::start(&stage, "late", None).await;
    all_ready(&team, &names).await;
    for name in &names {
        team.condition_is(name, "RolledOut", "True").await;
    }
    for number in 0..50 {
        let reads = team.reads(vault_mark, &format!("p{number}"));
        assert_eq!(reads.len(), 1, "p{number}");
    }
    let logins = |request: &VaultRequest| request.path == "auth/kubernetes/login";
    let logins = stage.vault_audit_since(vault_mark, logins).unwrap();
    assert_eq!(logins.len(), 1);
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    assert!(writes.len() <= 150 + FIXED, "{} writes", writes.len());
    let looks = |request: &ApiRequest| {
        request.user_agent.starts_with("lockstep/")
            && ["get", "list"].contains(&request.verb.as_str())
    };
    let looks = stage.audit_since(mark, looks).await.unwrap();
    // One list of each kind that is watched, and the key of the hashes.
    assert!(looks.len() <= 15, "{looks:?}");
    drop(operator);
}

#[tokio::test]
async fn a_refresh_request_is_answered_at_once_and_echoed() {
    let stage = Stage::shared().await;
    let team = stage.team("refresh").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", json!({"refreshInterval": "1h"}))
        .await;
    team.ready("app").await;
    let mark = stage.vault_audit_mark().unwrap();
    team.put("app", &json!({"password": "two"})).await;

    team.refresh("app", "first").await;
    let answered = async |token: &str| {
        let handled = async || {
            let object = team.api::<VaultSecret>().get("app").await.unwrap();
            let handled = object.status?.last_handled_refresh?;
            (handled == token).then_some(())
        };
        eventually(Duration::from_secs(5), "the refresh is echoed", handled)
            .await
            .unwrap();
    };
    answered("first").await;
    team.secret_with("app", "password", "two").await;
    assert_eq!(team.reads(mark, "app").len(), 1);
    team.refresh("app", "second").await;
    answered("second").await;
    assert_eq!(team.reads(mark, "app").len(), 2);
}

#[tokio::test]
async fn a_suspended_object_is_neither_read_nor_written_until_it_goes_on() {
    let stage = Stage::shared().await;
    let team = stage.team("suspend").await;
    for name in ["app", "other"] {
        team.put(name, &json!({"password": "one"})).await;
        team.vault_secret(name, json!({})).await;
        team.ready(name).await;
    }
    let suspend = |yes: bool| json!({"spec": {"suspend": yes}});
    team.patch::<VaultSecret>("app", suspend(true)).await;
    team.condition_is("app", "Ready", "True Suspended").await;
    let mark = stage.vault_audit_mark().unwrap();
    team.put("app", &json!({"password": "two"})).await;
    team.refresh("app", "now").await;
    let by_hand = json!({"stringData": {"password": "by hand"}});
    team.patch::<Secret>("app", by_hand).await;
    team.was_read(mark, "other", 3).await;
    assert_eq!(team.reads(mark, "app"), []);
    team.secret_with("app", "password", "by hand").await;
    team.delete::<Secret>("app").await;
    team.polled("other").await;
    assert_eq!(team.secret("app").await, None);

    team.patch::<VaultSecret>("app", suspend(false)).await;
    team.secret_with("app", "password", "two").await;
    team.condition_is("app", "Ready", "True InStep").await;
}
