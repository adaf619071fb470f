//! Others that write workloads: tools that apply manifests again and again, autoscalers, disruption budgets.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::future::join_all;
use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod,
};
use kube::api::{EvictParams, Patch, PatchParams, PostParams};
use lockstep::api::vault_secret::WorkloadState;
use lockstep_testbed::eventually;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{hears, in_step};
use crate::support::{GARBAGE, SOON, Stage, Team, env_from, pod_stamp, settle, workload};

/// How often somebody writes who does so again and again.
const OFTEN: Duration = Duration::from_millis(400);

/// Ends with the test.
struct Again(JoinHandle<()>);

impl Drop for Again {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does `write` again and again from now on. What it says is of no interest: the workload is looked at.
fn again<F: Future + Send>(write: impl Fn() -> F + Send + 'static) -> Again {
    Again(tokio::spawn(async move {
        let mut pace = tokio::time::interval(OFTEN);
        loop {
            pace.tick().await;
            drop(write().await);
        }
    }))
}

/// Applies the manifest server-side with force, as Argo CD and Flux do.
fn applies(team: &Team<'_>, manifest: &Value, manager: &'static str) -> Again {
    let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
    let (api, manifest) = (team.api::<Deployment>(), manifest.clone());
    again(move || {
        let (api, name, manifest) = (api.clone(), name.clone(), manifest.clone());
        async move {
            let params = PatchParams::apply(manager).force();
            api.patch(&name, &params, &Patch::Apply(manifest)).await
        }
    })
}

/// A Deployment of the team as it stands in git, in a file as well.
fn in_git(team: &Team<'_>, name: &str) -> (Value, PathBuf) {
    let mut manifest = workload("Deployment", name, &env_from(&["app"]));
    manifest["metadata"]["namespace"] = json!(team.namespace);
    let file = format!("{}-{name}.json", team.namespace);
    let path = team.stage.directory().join(file);
    std::fs::write(&path, manifest.to_string()).unwrap();
    (manifest, path)
}

/// What kubectl says to `arguments`, and whether it ended well.
async fn kubectl(team: &Team<'_>, arguments: &[&str]) -> (bool, String) {
    let output = team.stage.kubectl(arguments).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

#[tokio::test]
async fn whoever_applies_a_manifest_again_and_again_leaves_the_stamp_alone_and_sees_no_difference()
{
    let stage = Stage::shared().await;
    let team = stage.team("gitops").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    let names = ["argo", "flux"];
    let managers = ["argocd-controller", "kustomize-controller"];
    let git = names.map(|name| in_git(&team, name));
    let mut writers = Vec::new();
    for ((manifest, _), manager) in git.iter().zip(managers) {
        writers.push(applies(&team, manifest, manager));
    }
    for name in names {
        eventually(SOON, "the Deployment", async || {
            team.api::<Deployment>().get_opt(name).await.unwrap()
        })
        .await
        .unwrap();
    }
    let before = join_all(names.map(|name| team.in_step("app", ("Deployment", name), None))).await;
    team.put("app", &json!({"password": "two"})).await;
    let after = join_all(before.iter().map(|one| team.restarted_once("app", one))).await;
    team.polled("app").await;
    for one in &after {
        team.not_restarted(one).await;
    }
    for ((_, path), manager) in git.iter().zip(managers) {
        let manager = format!("--field-manager={manager}");
        let file = path.to_str().unwrap();
        let diff = [
            "diff",
            "--server-side",
            "--force-conflicts",
            &manager,
            "-f",
            file,
        ];
        assert_eq!(kubectl(&team, &diff).await, (true, String::new()));
    }
    drop(writers);
}

#[tokio::test]
async fn a_three_way_apply_of_the_manifest_leaves_the_stamp_alone_and_sees_no_difference() {
    let stage = Stage::shared().await;
    let team = stage.team("apply").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    let (_, path) = in_git(&team, "app");
    let file = path.to_str().unwrap();
    let (applied, said) = kubectl(&team, &["apply", "-f", file]).await;
    assert!(applied, "{said}");
    let before = team.in_step("app", ("Deployment", "app"), None).await;

    team.put("app", &json!({"password": "two"})).await;
    // Whoever heals takes every difference for a reason to apply.
    let heal = async || {
        assert_eq!(
            kubectl(&team, &["diff", "-f", file]).await,
            (true, String::new())
        );
        assert!(kubectl(&team, &["apply", "-f", file]).await.0);
        let status = team.workload_status("app", "app").await.unwrap();
        let (verified, hash) = (WorkloadState::Verified, status.hash.as_ref());
        status.state == verified && hash != Some(&before.hash)
    };
    eventually(SOON, "it is restarted", heal).await.unwrap();
    let after = team.restarted_once("app", &before).await;
    team.polled("app").await;
    assert!(heal().await);
    team.not_restarted(&after).await;
}

/// A Deployment that somebody replaces as a whole as soon as a stamp is on it. Each time something else is different.
#[tokio::test]
async fn whoever_replaces_the_workload_again_and_again_is_named_and_not_fought_for_ever() {
    let stage = Stage::shared().await;
    let team = stage.team("replaced").await;
    let (mut manifest, _) = in_git(&team, "app");
    let template = &mut manifest["spec"]["template"]["metadata"];
    // The old pods run on for five seconds, so the stamp is gone before they are.
    template["annotations"] = json!({"testbed.lockstep.dev/slow": "true"});
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0}});
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    team.apply(&manifest).await;
    team.settled("app").await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;
    let (api, whole) = (team.api::<Deployment>(), manifest.clone());
    let start = Instant::now();
    let replaces = again(move || {
        let (api, mut whole) = (api.clone(), whole.clone());
        whole["metadata"]["annotations"] = json!({"at": format!("{:?}", start.elapsed())});
        async move {
            let whole: Deployment = serde_json::from_value(whole).unwrap();
            let params = PostParams {
                field_manager: Some("deployer".to_owned()),
                ..PostParams::default()
            };
            api.replace("app", &params, &whole).await
        }
    });

    team.put("app", &json!({"password": "two"})).await;
    let failed = team.workload_is("app", "app", WorkloadState::Failed).await;
    let why = "RestartConflict: the field manager deployer twice took away the annotation that restarts the pods";
    assert_eq!(failed.message.as_deref(), Some(why));
    hears(&team, "app", "RestartConflict", why).await;
    let mark = stage.audit_mark().await.unwrap();
    team.polled("app").await;
    let writes = stage.writes_by(mark, "lockstep/").await.unwrap();
    let ours = |resource: &str| {
        let ours = writes
            .iter()
            .filter(|write| write.namespace == team.namespace && write.resource == resource);
        ours.count()
    };
    assert_eq!(
        [ours("deployments"), ours("vaultsecrets"), ours("events")],
        [0, 0, 0]
    );

    drop(replaces);
    team.put("app", &json!({"password": "three"})).await;
    let hash = failed.hash.as_deref();
    let after = team.in_step("app", ("Deployment", "app"), hash).await;
    assert_ne!(after.hash, before.hash);
    assert_eq!(after.stamp, Some(after.hash));
}

#[tokio::test]
async fn an_autoscaler_that_scales_during_a_restart_neither_undoes_nor_repeats_it() {
    let stage = Stage::shared().await;
    let team = stage.team("scaled").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    let mut manifest = workload("Deployment", "app", &env_from(&["app"]));
    let template = &mut manifest["spec"]["template"]["metadata"];
    template["annotations"] = json!({"testbed.lockstep.dev/slow": "true"});
    // One after the other, so that it takes long enough for the autoscaler, which looks every 15 seconds.
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    manifest["spec"]["replicas"] = json!(5);
    team.apply(&manifest).await;
    team.settled("app").await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;
    team.polled("app").await;

    team.put("app", &json!({"password": "two"})).await;
    let pods_with = async |is_new: bool| {
        let pods = team.pods("app").await.into_iter();
        let fits = pods.filter(|pod| (pod_stamp(pod) != before.stamp.as_deref()) == is_new);
        fits.count()
    };
    eventually(SOON, "a new pod", async || pods_with(true).await > 0)
        .await
        .unwrap();
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"});
    team.apply(&json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "app"},
        "spec": {"scaleTargetRef": target, "minReplicas": 7, "maxReplicas": 9},
    }))
    .await;
    eventually(SOON, "it is scaled", async || {
        let found = team.api::<Deployment>().get("app").await.unwrap();
        found.spec.unwrap().replicas == Some(7)
    })
    .await
    .unwrap();
    assert!(pods_with(false).await > 0, "scaled too late");
    eventually(GARBAGE, "it is verified", async || {
        let status = team.workload_status("app", "app").await.unwrap();
        status.state == WorkloadState::Verified
    })
    .await
    .unwrap();
    let after = team.restarted_once("app", &before).await;
    assert_eq!(team.pods("app").await.len(), 7);

    let more = json!({"spec": {"minReplicas": 8}});
    team.patch::<HorizontalPodAutoscaler>("app", more).await;
    eventually(GARBAGE, "it is scaled again", async || {
        team.pods("app").await.len() == 8
    })
    .await
    .unwrap();
    team.settled("app").await;
    team.polled("app").await;
    team.not_restarted(&after).await;
}

/// Evicts every pod of the Deployment, as a `VerticalPodAutoscaler` does whose requests do not fit. Those that are gone are.
async fn evict_all(team: &Team<'_>, name: &str) {
    for pod in team.pods(name).await {
        let pod = pod.metadata.name.unwrap();
        match team.api::<Pod>().evict(&pod, &EvictParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            evicted => drop(evicted.unwrap()),
        }
    }
}

#[tokio::test]
async fn pods_that_somebody_evicts_during_a_restart_and_after_it_cost_no_other_restart() {
    let stage = Stage::shared().await;
    let team = stage.team("evicted").await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    team.ready("app").await;
    let mut manifest = workload("Deployment", "app", &env_from(&["app"]));
    let template = &mut manifest["spec"]["template"]["metadata"];
    template["annotations"] = json!({"testbed.lockstep.dev/slow": "true"});
    manifest["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    team.apply(&manifest).await;
    team.settled("app").await;
    let before = team.in_step("app", ("Deployment", "app"), None).await;
    team.polled("app").await;

    team.put("app", &json!({"password": "two"})).await;
    eventually(SOON, "a new pod", async || {
        team.pods("app").await.len() == 3
    })
    .await
    .unwrap();
    evict_all(&team, "app").await;
    let verified = async || {
        let status = team.workload_status("app", "app").await.unwrap();
        status.state == WorkloadState::Verified && status.hash.as_ref() != Some(&before.hash)
    };
    assert!(!verified().await, "evicted too late");
    eventually(GARBAGE, "it is verified", verified)
        .await
        .unwrap();
    let after = team.restarted_once("app", &before).await;

    let uids = async || -> BTreeSet<_> {
        let pods = team.pods("app").await.into_iter();
        pods.filter_map(|pod| pod.metadata.uid).collect()
    };
    let old = uids().await;
    evict_all(&team, "app").await;
    eventually(SOON, "others in their place", async || {
        let new = uids().await;
        new.len() == 2 && new.is_disjoint(&old)
    })
    .await
    .unwrap();
    team.settled("app").await;
    team.polled("app").await;
    team.not_restarted(&after).await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}

#[tokio::test]
async fn a_budget_that_allows_no_disruption_does_not_stop_a_restart() {
    let stage = Stage::shared().await;
    let team = stage.team("budget").await;
    let before = in_step(&team, "app", "Deployment").await;
    let mut all = vec![before];
    for (kind, name) in [("StatefulSet", "db"), ("DaemonSet", "agent")] {
        team.apply(&workload(kind, name, &env_from(&["app"]))).await;
        all.push(team.in_step("app", (kind, name), None).await);
    }
    team.apply(&json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "none"},
        "spec": {"maxUnavailable": 0, "selector": {}},
    }))
    .await;
    team.polled("app").await;

    team.put("app", &json!({"password": "two"})).await;
    join_all(all.iter().map(|one| team.restarted_once("app", one))).await;
    team.condition_is("app", "RolledOut", "True Verified").await;
}
