//! Effects: everything — workloads really run, rights really apply, and the audit log tells.

use std::time::Instant;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use lockstep_testbed::{Bed, eventually};
use serde_json::json;

use crate::PATIENCE;

#[tokio::test]
async fn a_deployment_really_rolls() {
    let bed = Bed::shared().await.unwrap();
    eprintln!("the bed was up in {:.1} s", bed.started_in().as_secs_f32());
    let namespace = bed.namespace("roll").await.unwrap();
    bed.apply_yaml(&deployment(&namespace, "web", 3, ""))
        .await
        .unwrap();
    let deployments: Api<Deployment> = Api::namespaced(bed.client().await.unwrap(), &namespace);
    available(&deployments, "web", 3).await;
    let first = pod_names(bed, &namespace).await;
    let output = bed
        .kubectl(&["-n", &namespace, "rollout", "restart", "deployment/web"])
        .await
        .unwrap();
    assert!(output.status.success());
    let started = Instant::now();
    let output = bed
        .kubectl(&[
            "-n",
            &namespace,
            "rollout",
            "status",
            "--timeout=30s",
            "deployment/web",
        ])
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    eprintln!("the rollout took {:.1} s", started.elapsed().as_secs_f32());
    eventually(PATIENCE, "only new pods", async || {
        let now = pod_names(bed, &namespace).await;
        now.len() == 3 && now.iter().all(|name| !first.contains(name))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn pods_live_the_life_their_annotation_chooses() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("lives").await.unwrap();
    let lives = [
        ("never-ready", "never-ready"),
        ("crash-loop", "crash-loop"),
        ("slow", "slow"),
    ];
    for (name, life) in lives {
        bed.apply_yaml(&deployment(&namespace, name, 1, life))
            .await
            .unwrap();
    }
    let pods: Api<Pod> = Api::namespaced(bed.client().await.unwrap(), &namespace);
    let status = async |name: &str| {
        let found = pods
            .list(&ListParams::default().labels(&format!("app={name}")))
            .await
            .unwrap();
        serde_json::to_value(found.items.first().and_then(|pod| pod.status.clone())).unwrap()
    };
    let ready = |status: &serde_json::Value| {
        status.pointer("/containerStatuses/0/ready") == Some(&json!(true))
    };
    eventually(PATIENCE, "a crash", async || {
        let seen = status("crash-loop").await;
        let count = seen
            .pointer("/containerStatuses/0/restartCount")
            .and_then(serde_json::Value::as_u64);
        if count >= Some(2) { Ok(()) } else { Err(seen) }
    })
    .await
    .unwrap();
    eventually(PATIENCE, "the slow one", async || {
        ready(&status("slow").await)
    })
    .await
    .unwrap();
    let seen = status("never-ready").await;
    assert_eq!(seen.pointer("/phase"), Some(&json!("Running")), "{seen}");
    assert!(!ready(&seen), "{seen}");
}

#[tokio::test]
async fn a_job_completes() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("job").await.unwrap();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}},
    });
    bed.apply_yaml(&job.to_string()).await.unwrap();
    let output = bed
        .kubectl(&[
            "-n",
            &namespace,
            "wait",
            "--for=condition=Complete",
            "--timeout=30s",
            "job/once",
        ])
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn the_audit_log_counts_writes_by_user_agent() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("audit").await.unwrap();
    let mark = bed.audit_mark().await.unwrap();
    assert_eq!(
        bed.writes_by(mark, "kubectl")
            .await
            .unwrap()
            .iter()
            .filter(|w| w.namespace == namespace)
            .count(),
        0
    );
    let output = bed
        .kubectl(&["-n", &namespace, "create", "configmap", "one"])
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let writes = bed.writes_by(mark, "kubectl").await.unwrap();
    let writes: Vec<_> = writes
        .iter()
        .filter(|write| write.namespace == namespace)
        .collect();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(
        (
            writes[0].verb.as_str(),
            writes[0].resource.as_str(),
            writes[0].code
        ),
        ("create", "configmaps", 201)
    );
    assert_eq!(writes[0].user, "testbed:admin");
}

#[tokio::test]
async fn rbac_applies_to_a_service_account() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("rbac").await.unwrap();
    let token = bed
        .service_account_token(&namespace, "default", &[])
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(bed.client_as(&token).await.unwrap(), &namespace);
    let error = maps
        .create(&PostParams::default(), &ConfigMap::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("system:serviceaccount:rbac-"),
        "{error}"
    );
    assert!(
        bed.kubeconfig_for(&namespace, "default")
            .await
            .unwrap()
            .is_file()
    );
}

async fn available(deployments: &Api<Deployment>, name: &str, wanted: i32) {
    eventually(PATIENCE, "an available Deployment", async || {
        let status = deployments
            .get(name)
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        status.available_replicas == Some(wanted)
    })
    .await
    .unwrap();
}

async fn pod_names(bed: &Bed, namespace: &str) -> Vec<String> {
    let pods: Api<Pod> = Api::namespaced(bed.client().await.unwrap(), namespace);
    let found = pods.list(&ListParams::default()).await.unwrap();
    found
        .items
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect()
}

fn deployment(namespace: &str, name: &str, replicas: i32, life: &str) -> String {
    let annotations = if life.is_empty() {
        json!({})
    } else {
        json!({format!("testbed.lockstep.dev/{life}"): "true"})
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    })
    .to_string()
}
