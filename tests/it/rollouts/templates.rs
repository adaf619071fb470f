//! Rollouts of Argo whose template stands elsewhere, or is followed by another while its pods stay.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use lockstep::{api::vault_secret::WorkloadState, names::RESTART_BY};
use serde_json::{Value, json};

use super::argo::{canary, healthy, is, pods, rollout, verified};
use crate::support::{Stage, env_from, settle, workload};

/// A template of this kind, whose pods use the Secret `app`, and a Rollout of the same name that takes it for its own.
fn borrowed(kind: &str, name: &str) -> [Value; 2] {
    let mut lender = workload("ReplicaSet", name, &env_from(&["app"]));
    lender["spec"]["replicas"] = json!(0);
    if kind == "PodTemplate" {
        let template = lender["spec"]["template"].take();
        lender = json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "template": template,
        });
    }
    let mut borrower = rollout(name, &canary());
    borrower["spec"].as_object_mut().unwrap().remove("template");
    borrower["spec"]["workloadRef"] =
        json!({"apiVersion": lender["apiVersion"], "kind": kind, "name": name});
    [lender, borrower]
}

#[tokio::test]
async fn a_template_that_stands_in_no_deployment_is_restarted_where_the_rollout_is_named() {
    let stage = Stage::shared().await;
    stage.argo_rollouts().await.unwrap();
    let team = stage.team("argo-lent").await;
    team.put("app", &json!({"password": "one"})).await;
    let kinds = [
        ("PodTemplate", "pod-template"),
        ("ReplicaSet", "replica-set"),
    ];
    let targets = kinds.map(|(_, name)| json!({"kind": "Rollout", "name": name}));
    let named = json!({"rollout": {"settle": "1s", "targets": targets}});
    team.vault_secret("app", named).await;
    let mut before = Vec::new();
    for (kind, name) in kinds {
        for manifest in borrowed(kind, name) {
            team.apply(&manifest).await;
        }
        healthy(&team, name).await;
        let hash = verified(&team, name, None).await;
        before.push((name, hash, pods(&team, name).await));
    }

    team.put("app", &json!({"password": "two"})).await;
    for (name, hash, old) in before {
        verified(&team, name, Some(&hash)).await;
        let new = pods(&team, name).await;
        assert_eq!(
            (new.len(), old.intersection(&new).count()),
            (2, 0),
            "{name}"
        );
    }
}

#[tokio::test]
async fn older_pods_that_a_blue_green_rollout_keeps_are_waited_for_and_have_not_failed() {
    let stage = Stage::shared().await;
    stage.argo_rollouts().await.unwrap();
    let team = stage.team("argo-stay").await;
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"selector": {"app": "app"}, "ports": [{"port": 80}]},
    }))
    .await;
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", settle("1s")).await;
    let strategy = json!({"blueGreen": {"activeService": "app", "scaleDownDelaySeconds": 40}});
    let mut manifest = rollout("app", &strategy);
    manifest["metadata"]["annotations"] = json!({RESTART_BY: "template"});
    team.apply(&manifest).await;
    healthy(&team, "app").await;
    let before = verified(&team, "app", None).await;

    // Long before the older pods go, but long enough for the new ones.
    let shorter = json!({"rollout": {"settle": "1s", "verifyTimeout": "20s"}});
    team.vault_secret("app", shorter).await;
    team.put("app", &json!({"password": "two"})).await;
    let waits = is(&team, "app", WorkloadState::Waiting).await;
    let told = "the new pods are in use; older ones stay for 40 seconds (scaleDownDelaySeconds)";
    assert_eq!(waits, told);
    assert_eq!(pods(&team, "app").await.len(), 4);
    verified(&team, "app", Some(&before)).await;
    assert_eq!(pods(&team, "app").await.len(), 2);
    let events = team.api::<Event>().list(&ListParams::default()).await;
    let failed = |event: &Event| event.reason.as_deref() == Some("RolloutFailed");
    assert!(!events.unwrap().items.iter().any(failed));
}
