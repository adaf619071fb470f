//! The operator is killed, asked to end, started again, and followed by another one.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use lockstep_testbed::{
    AuditMark, Bed, Fault, FaultProxy, OPERATOR_NAMESPACE, Operator, OperatorOptions, eventually,
};
use serde_json::json;

use crate::support::{
    InStep, LONG, Pki, Role, SOON, Stage, Team, env_from, options, settle, workload,
};

const APP: (&str, &str) = ("Deployment", "app");

/// A Deployment that was restarted by the operator, and is in step.
async fn restarted(team: &Team<'_>) -> InStep {
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.apply(&workload(APP.0, APP.1, &env_from(&["app"])))
        .await;
    let before = team.in_step("app", APP, None).await;
    team.polled("app").await;
    team.put("app", &json!({"password": "two"})).await;
    team.restarted_once("app", &before).await
}

#[tokio::test]
async fn a_restart_that_was_due_when_the_operator_was_killed_still_happens_once() {
    let mut stage = Stage::own().await;
    let operator = stage.operator.take().unwrap();
    let team = stage.team("killed").await;
    let before = restarted(&team).await;
    team.vault_secret("app", settle("60s")).await;
    team.ready("app").await;

    team.put("app", &json!({"password": "three"})).await;
    team.secret_with("app", "password", "three").await;
    operator.kill().unwrap();
    team.not_restarted(&before).await;
    team.vault_secret("app", settle("1s")).await;
    let again = start(&stage, "again", None).await;
    let after = team.restarted_once("app", &before).await;
    team.polled("app").await;
    team.not_restarted(&after).await;
    drop(again);
}

#[tokio::test]
async fn a_new_operator_finds_everything_in_step_and_writes_nothing() {
    let mut stage = Stage::own().await;
    let mut operator = stage.operator.take().unwrap();
    let team = stage.team("quiet").await;
    let stamped = restarted(&team).await;
    // In step without a restart: its pods are younger than the data.
    team.polled("app").await;
    for (kind, name) in [("Deployment", "young"), ("StatefulSet", "db")] {
        team.apply(&workload(kind, name, &env_from(&["app"]))).await;
    }
    team.put("lone", &json!({"password": "one"})).await;
    team.vault_secret("lone", json!({})).await;
    team.ready("lone").await;
    let mut all = vec![stamped];
    for workload in [("Deployment", "young"), ("StatefulSet", "db")] {
        let found = team.in_step("app", workload, None).await;
        assert_eq!(found.stamp, None);
        all.push(found);
    }
    team.settled("young").await;
    team.polled("app").await;

    for kill in [false, true] {
        let mark = stage.audit_mark().await.unwrap();
        if kill {
            operator.kill().unwrap();
        } else {
            let (status, after) = operator.terminate().unwrap();
            assert!(status.success(), "{status}");
            assert!(after < Duration::from_secs(5), "{after:?}");
        }
        operator = start(&stage, "again", None).await;
        team.polled("app").await;
        team.polled("lone").await;
        no_writes(&stage, mark).await;
        for one in &all {
            team.not_restarted(one).await;
        }
    }
}

async fn no_writes(stage: &Stage, mark: AuditMark) {
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    assert_eq!(writes, []);
}

#[tokio::test]
async fn the_operator_ends_within_seconds_although_vault_hangs() {
    let stage = Stage::own().await;
    let proxy = FaultProxy::start(stage.vault_socket().unwrap()).unwrap();
    let address: SocketAddr = proxy.address();
    let connection = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterVaultConnection",
        "metadata": {"name": "main"}, "spec": {"address": format!("http://{address}")},
    });
    stage.apply_yaml(&connection.to_string()).await.unwrap();
    let team = stage.team("hang").await;
    let names = ["a", "b", "c"];
    for name in names {
        team.put(name, &json!({"password": "one"})).await;
        team.vault_secret(name, json!({})).await;
    }
    for name in names {
        team.ready(name).await;
    }
    team.polled("a").await;
    assert!(proxy.traffic().accepted > 0);

    proxy.set(Fault::Hang);
    // A read by somebody new, which hangs in the login, and fresh reads of those that are logged in.
    for name in names {
        team.refresh(name, "now").await;
    }
    let other = stage.team("other").await;
    other.put("app", &json!({"password": "one"})).await;
    let before = proxy.traffic().accepted;
    other.vault_secret("app", json!({})).await;
    let asked = async || proxy.traffic().accepted > before;
    eventually(SOON, "a login that hangs", asked).await.unwrap();
    let (status, after) = stage.operator().terminate().unwrap();
    assert!(status.success(), "{status}");
    assert!(after < Duration::from_secs(5), "{after:?}");
}

/// Starts an operator besides those of the stage; with `user` it is that ServiceAccount and takes part in the election.
pub async fn start(stage: &Stage, name: &str, user: Option<PathBuf>) -> Operator {
    let election = user.is_some();
    let flags = [
        format!("--leader-election={election}"),
        format!("--identity={name}"),
    ];
    let options = OperatorOptions {
        kubeconfig: user,
        ..options(flags.into())
    };
    let operator = Bed::operator(stage, &options).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    operator
}

/// A candidate as the ServiceAccount `name`, so that the audit log tells who writes.
async fn candidate(stage: &Stage, name: &str) -> Operator {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE},
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": OPERATOR_NAMESPACE}],
    });
    let text = format!("{account}\n---\n{binding}");
    stage.apply_yaml(&text).await.unwrap();
    let user = stage
        .kubeconfig_for(OPERATOR_NAMESPACE, name)
        .await
        .unwrap();
    start(stage, name, Some(user)).await
}

/// Who wrote since `mark`, leases excluded.
async fn writers(stage: &Stage, mark: AuditMark) -> Vec<String> {
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    let mut users: Vec<_> = writes
        .iter()
        .filter_map(|write| Some(write.user.rsplit_once(':')?.1.to_owned()))
        .collect();
    users.sort();
    users.dedup();
    users
}

#[tokio::test]
async fn only_the_leader_writes_and_another_takes_over_when_it_ends_or_dies() {
    let mut stage = Stage::own().await;
    stage.operator.take().unwrap().terminate().unwrap();
    let team = stage.team("elect").await;
    let mark = stage.audit_mark().await.unwrap();
    let first = candidate(&stage, "first").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.apply(&workload(APP.0, APP.1, &env_from(&["app"])))
        .await;
    let before = team.in_step("app", APP, None).await;
    team.settled("app").await;
    let second = candidate(&stage, "second").await;
    team.polled("app").await;
    team.put("app", &json!({"password": "two"})).await;
    let before = team.restarted_once("app", &before).await;
    assert_eq!(writers(&stage, mark).await, ["first"]);

    // A leader that ends gives the lease back.
    let mark = stage.audit_mark().await.unwrap();
    let (status, _) = first.terminate().unwrap();
    assert!(status.success(), "{status}");
    team.put("app", &json!({"password": "three"})).await;
    let takes_over = async || writers(&stage, mark).await == ["second"];
    eventually(Duration::from_secs(6), "the second writes", takes_over)
        .await
        .unwrap();
    team.secret_with("app", "password", "three").await;
    let before = team.restarted_once("app", &before).await;

    // One that dies holds it until it runs out: 15 s, and up to 2.4 s until the next try.
    let third = candidate(&stage, "third").await;
    let mark = stage.audit_mark().await.unwrap();
    second.kill().unwrap();
    team.put("app", &json!({"password": "four"})).await;
    let takes_over = async || writers(&stage, mark).await == ["third"];
    eventually(Duration::from_secs(22), "the third writes", takes_over)
        .await
        .unwrap();
    team.secret_with("app", "password", "four").await;
    team.restarted_once("app", &before).await;
    drop(third);
}

#[tokio::test]
async fn whoever_takes_over_keeps_every_lease_and_certificate() {
    let mut stage = Stage::own().await;
    stage.operator.take().unwrap().terminate().unwrap();
    let team = stage.team("heir").await;
    let (role, pki) = (Role::new(&team, "app", LONG).await, Pki::new(&team).await);
    let first = candidate(&stage, "first").await;
    let sources = [role.source(), pki.source(json!({}))];
    team.issue("app", &sources, json!({})).await;
    team.ready("app").await;
    team.apply(&workload(APP.0, APP.1, &env_from(&["app"])))
        .await;
    let before = team.in_step("app", APP, None).await;
    team.settled("app").await;
    let login = team.credentials_other_than("app", None).await;
    let lease = role.one_lease().await;

    let writes = stage.audit_mark().await.unwrap();
    let second = candidate(&stage, "second").await;
    let mark = stage.vault_audit_mark().unwrap();
    assert!(first.terminate().unwrap().0.success());
    taken_over(&stage, mark).await;
    let third = candidate(&stage, "third").await;
    let mark = stage.vault_audit_mark().unwrap();
    second.kill().unwrap();
    taken_over(&stage, mark).await;

    assert_eq!(role.leases().await, [lease]);
    assert_eq!(pki.made().await, 1);
    assert_eq!(team.credentials("app").await, Some(login.clone()));
    assert!(team.logs_in(&login).await);
    team.not_restarted(&before).await;
    assert_eq!(writers(&stage, writes).await, Vec::<String>::new());
    drop(third);
}

/// Waits until somebody looked the lease up and renewed the token it was issued with, which is another process's.
async fn taken_over(stage: &Stage, mark: AuditMark) {
    let asked = |path: &str| {
        let seen = stage.vault_audit_since(mark, |request| {
            request.path == path && !request.is_root && request.error.is_empty()
        });
        !seen.unwrap().is_empty()
    };
    let kept = async || asked("sys/leases/lookup") && asked("auth/token/renew-accessor");
    eventually(SOON, "lease and token are kept", kept)
        .await
        .unwrap();
}
