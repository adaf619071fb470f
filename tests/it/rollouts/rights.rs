//! Rights that are missing, and come.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    rbac::v1::{ClusterRole, PolicyRule},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use lockstep::api::vault_secret::WorkloadState;
use lockstep_testbed::{Bed, OPERATOR_NAMESPACE, OperatorOptions, eventually};
use serde_json::{Value, json};

use super::hears;
use crate::{
    rbac::rendered_chart,
    support::{GARBAGE, InStep, SOON, Stage, Team, env_from, options, settle, workload},
};

const NAME: &str = "lockstep";

/// The rules about workloads, as the chart grants them.
const ALL: [(&str, &[&str]); 3] = [
    ("deployments", &["list", "watch", "patch"]),
    ("statefulsets", &["list", "watch", "patch"]),
    ("daemonsets", &["list", "watch", "patch"]),
];

/// A stage whose operator has what the chart grants, but for workloads only `workloads`.
async fn stage_with(workloads: &[(&str, &[&str])]) -> Stage {
    let mut stage = Stage::own_without_operator().await;
    let namespace = include_str!("../../../config/namespace.yaml");
    stage.apply_yaml(namespace).await.unwrap();
    stage.apply_yaml(&rendered_chart().await).await.unwrap();
    grant(&stage, workloads).await;
    let user = stage.kubeconfig_for(OPERATOR_NAMESPACE, NAME).await;
    let under_rbac = OperatorOptions {
        kubeconfig: Some(user.unwrap()),
        ..options(vec!["--leader-election=false".to_owned()])
    };
    let operator = Bed::operator(&stage, &under_rbac).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    stage.operator = Some(operator);
    stage
}

/// Gives the operator these rights on workloads and no others.
async fn grant(stage: &Stage, workloads: &[(&str, &[&str])]) {
    let roles: Api<ClusterRole> = Api::all(stage.client().await.unwrap());
    let role = roles.get(NAME).await.unwrap();
    let apps = |rule: &PolicyRule| rule.api_groups.as_deref() == Some(&["apps".to_owned()]);
    let others = role.rules.unwrap().into_iter().filter(|rule| !apps(rule));
    let others = others.map(|rule| json!(rule));
    let more = workloads.iter().map(
        |(resource, verbs)| json!({"apiGroups": ["apps"], "resources": [resource], "verbs": verbs}),
    );
    let patch = Patch::Merge(json!({"rules": others.chain(more).collect::<Vec<Value>>()}));
    let params = PatchParams::default();
    roles.patch(NAME, &params, &patch).await.unwrap();
}

/// Lets the operator change Deployments of the team.
async fn grant_in(team: &Team<'_>) {
    team.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": NAME},
        "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}],
    }))
    .await;
    team.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": OPERATOR_NAMESPACE}],
    }))
    .await;
}

/// A Deployment `web` and a StatefulSet `db`, in step.
async fn running(team: &Team<'_>) -> [InStep; 2] {
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    team.polled("app").await;
    for (kind, name) in [("Deployment", "web"), ("StatefulSet", "db")] {
        team.apply(&workload(kind, name, &env_from(&["app"]))).await;
    }
    let web = team.in_step("app", ("Deployment", "web"), None).await;
    [web, team.in_step("app", ("StatefulSet", "db"), None).await]
}

#[tokio::test]
async fn without_the_right_to_restart_it_a_workload_fails_alone_and_restarts_when_it_is_granted() {
    let [_, others @ ..] = ALL;
    let read_only: (&str, &[&str]) = ("deployments", &["list", "watch"]);
    let without = [read_only, others[0], others[1]];
    let stage = stage_with(&without).await;
    let (team, allowed) = (stage.team("refused").await, stage.team("allowed").await);
    grant_in(&allowed).await;
    let [web, db] = running(&team).await;
    let [fine, _] = running(&allowed).await;

    for team in [&team, &allowed] {
        team.put("app", &json!({"password": "two"})).await;
    }
    let failed = team.workload_is("app", "web", WorkloadState::Failed).await;
    let why = failed.message.unwrap();
    for word in [
        "writing the annotation failed: ",
        "deployments.apps \"web\" is forbidden",
        "system:serviceaccount:lockstep-system:lockstep",
        "cannot patch resource \"deployments\"",
    ] {
        assert!(why.contains(word), "no {word:?} in {why:?}");
    }
    let told = format!("False RolloutFailed: Deployment web: {why}");
    team.condition_is("app", "RolledOut", &told).await;
    hears(&team, "web", "RolloutFailed", &why).await;
    team.restarted_once("app", &db).await;
    allowed.restarted_once("app", &fine).await;
    team.not_restarted(&web).await;

    grant(&stage, &ALL).await;
    eventually(GARBAGE, "it is restarted", async || {
        let status = team.workload_status("app", "web").await.unwrap();
        status.state == WorkloadState::Verified
    })
    .await
    .unwrap();
    team.restarted_once("app", &web).await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_is_told_and_the_others_restart() {
    let [deployments, stateful_sets, _] = ALL;
    let stage = stage_with(&[deployments, stateful_sets]).await;
    let team = stage.team("unseen").await;
    let [web, db] = running(&team).await;
    let forbidden = "daemonsets.apps is forbidden: User \"system:serviceaccount:lockstep-system:lockstep\" cannot list resource \"daemonsets\"";
    let told = format!(
        "True Verified: all pods of 2 workload(s) run with the current data; \
         DaemonSets cannot be seen and are not restarted: {forbidden}"
    );
    team.condition_is("app", "RolledOut", &told).await;
    team.apply(&workload("DaemonSet", "agent", &env_from(&["app"])))
        .await;
    let targets = json!([{"kind": "DaemonSet", "name": "agent"}]);
    let rollout = json!({"settle": "1s", "targets": targets});
    team.vault_secret("app", json!({"rollout": rollout})).await;
    let waiting = team
        .workload_is("app", "agent", WorkloadState::Waiting)
        .await;
    assert!(waiting.message.unwrap().contains(forbidden));

    team.put("app", &json!({"password": "two"})).await;
    team.restarted_once("app", &web).await;
    team.restarted_once("app", &db).await;
    team.condition_is(
        "app",
        "RolledOut",
        "False Waiting: 1 of 3 workload(s) wait: DaemonSet agent: DaemonSets cannot be seen: ",
    )
    .await;
    let agent = team.api::<DaemonSet>().get("agent").await.unwrap();
    assert_eq!(agent.metadata.generation, Some(1));

    grant(&stage, &ALL).await;
    let told = "True Verified: all pods of 3 workload(s) run with the current data";
    eventually(GARBAGE, told, async || {
        let found = team.condition("app", "RolledOut").await;
        (found.as_deref() == Some(told))
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await
    .unwrap();
    let agent = team.template("DaemonSet", "agent").await;
    assert_eq!(agent.1, 2, "{agent:?}");
}

#[tokio::test]
async fn a_kind_that_may_not_be_watched_any_more_is_told_and_seen_again_when_it_may() {
    let [_, others @ ..] = ALL;
    let unwatched: (&str, &[&str]) = ("deployments", &["list", "patch"]);
    let stage = stage_with(&[unwatched, others[0], others[1]]).await;
    let team = stage.team("unwatched").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    team.apply(&workload("StatefulSet", "db", &env_from(&["app"])))
        .await;
    let db = team.in_step("app", ("StatefulSet", "db"), None).await;
    team.apply(&workload("Deployment", "web", &env_from(&["app"])))
        .await;
    let all =
        |count| format!("True Verified: all pods of {count} workload(s) run with the current data");
    let told = all(1)
        + "; Deployments cannot be watched any more, and new ones are not restarted: \
           deployments.apps is forbidden: User \"system:serviceaccount:lockstep-system:lockstep\" \
           cannot watch resource \"deployments\"";
    let told_within = async |time, told: &str| {
        eventually(time, told, async || {
            let found = team.condition("app", "RolledOut").await;
            let is_told = found
                .as_deref()
                .is_some_and(|found| found.starts_with(told));
            is_told.then_some(()).ok_or_else(|| format!("{found:?}"))
        })
        .await
        .unwrap();
    };
    told_within(GARBAGE, &told).await;
    team.put("app", &json!({"password": "two"})).await;
    team.restarted_once("app", &db).await;

    grant(&stage, &ALL).await;
    told_within(GARBAGE, &all(2)).await;
    let found = team.condition("app", "RolledOut").await;
    let web = team.in_step("app", ("Deployment", "web"), None).await;
    team.put("app", &json!({"password": "three"})).await;
    team.restarted_once("app", &web).await;
    assert_eq!(found, Some(all(2)));
}
