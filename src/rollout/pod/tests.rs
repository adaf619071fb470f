//! Pure: tests.

use serde_json::{Value, json};

use super::*;
use crate::rollout::fixtures::{at, deployment, workload};

/// The ways in which a container or the pod itself names a Secret.
fn references_outside_volumes() -> Vec<Value> {
    let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "k"}}}]);
    let from = json!([{"prefix": "P_", "secretRef": {"name": "x"}}]);
    vec![
        json!({"containers": [{"name": "c", "env": env}]}),
        json!({"containers": [{"name": "c", "envFrom": from}]}),
        json!({"initContainers": [{"name": "c", "env": env}]}),
        json!({"initContainers": [{"name": "c", "envFrom": from}]}),
        json!({"ephemeralContainers": [{"name": "c", "env": env}]}),
        json!({"ephemeralContainers": [{"name": "c", "envFrom": from}]}),
    ]
}

/// The kinds of volume that name a Secret.
fn references_in_volumes() -> Vec<Value> {
    let secret = json!({"name": "x"});
    vec![
        json!({"secret": {"secretName": "x"}}),
        json!({"projected": {"sources": [{"configMap": {"name": "y"}}, {"secret": secret}]}}),
        json!({"csi": {"driver": "d", "nodePublishSecretRef": secret}}),
        json!({"cephfs": {"monitors": [], "secretRef": secret}}),
        json!({"cinder": {"volumeID": "1", "secretRef": secret}}),
        json!({"flexVolume": {"driver": "d", "secretRef": secret}}),
        json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t", "secretRef": secret}}),
        json!({"rbd": {"image": "i", "monitors": [], "secretRef": secret}}),
        json!({"storageos": {"secretRef": secret}}),
        json!({"scaleIO": {"gateway": "g", "system": "s", "secretRef": secret}}),
        json!({"azureFile": {"secretName": "x", "shareName": "s"}}),
    ]
}

#[test]
fn every_kind_of_reference_is_a_use() {
    let volumes = references_in_volumes().into_iter().map(|mut volume| {
        volume["name"] = json!("v");
        json!({"volumes": [volume]})
    });
    for case in references_outside_volumes().into_iter().chain(volumes) {
        let spec: PodSpec = serde_json::from_value(case.clone()).unwrap();
        assert_eq!(secrets_of(&spec), ["x".to_owned()].into(), "{case}");
    }
}

#[test]
fn what_is_no_secret_is_no_use() {
    let spec = json!({
        "containers": [{
            "name": "c",
            "env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "x"}}],
        }],
        "volumes": [{"name": "x", "configMap": {"name": "x"}}, {"name": "e", "emptyDir": {}}],
        // Read at each pull of an image, and by no running pod.
        "imagePullSecrets": [{"name": "x"}],
    });
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(secrets_of(&spec), BTreeSet::new());
}

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": "web-5d-abc", "uid": "p1", "creationTimestamp": at(100).to_string(),
            "labels": {"app": "web", "pod-template-hash": "5d"},
            "annotations": {SECRETS_HASH: "h1"},
            "ownerReferences": [owner("ReplicaSet", "web-5d", "rs1")],
        },
        "spec": {"nodeName": "n1", "volumes": [{"name": "v", "secret": {"secretName": "x"}}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [status(&json!({"running": {}}))],
        },
    });
    change(&mut pod);
    serde_json::from_value(pod).unwrap()
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true})
}

fn status(state: &Value) -> Value {
    json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn facts(pod: &Pod) -> Option<PodFacts> {
    PodFacts::project(pod, &deployment("web"), "w1", |name| name == "web-canary")
}

#[test]
fn a_running_pod_is_projected() {
    let expected = PodFacts {
        uid: "p1".into(),
        created: at(100),
        secrets: ["x".to_owned()].into(),
        scheduled: true,
        started: true,
        ready: true,
        stamp: Some("h1".into()),
        trouble: None,
    };
    assert_eq!(facts(&pod(|_| {})), Some(expected));
}

#[test]
fn pods_that_are_finished_or_on_their_way_out_do_not_count() {
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(
            facts(&pod(|pod| pod["status"]["phase"] = json!(phase))),
            None
        );
    }
    let leaving = pod(|pod| pod["metadata"]["deletionTimestamp"] = json!(at(200).to_string()));
    assert_eq!(facts(&leaving), None);
}

#[test]
fn a_pod_has_started_as_soon_as_any_container_ever_did() {
    let waiting = || status(&json!({"waiting": {"reason": "ContainerCreating"}}));
    let with = |name: &str, value: Value| {
        let mut status = waiting();
        status[name] = value;
        json!({"containerStatuses": [waiting(), status]})
    };
    let cases = [
        ("no status", json!({}), false),
        (
            "all waiting",
            json!({"phase": "Pending", "containerStatuses": [waiting()]}),
            false,
        ),
        (
            "init waiting",
            json!({"initContainerStatuses": [waiting()]}),
            false,
        ),
        (
            "init terminated",
            json!({"initContainerStatuses": [status(&json!({"terminated": {"exitCode": 0}}))]}),
            true,
        ),
        (
            "running",
            json!({"containerStatuses": [waiting(), status(&json!({"running": {}}))]}),
            true,
        ),
        (
            "ephemeral running",
            json!({"ephemeralContainerStatuses": [status(&json!({"running": {}}))]}),
            true,
        ),
        (
            "ran before",
            with("lastState", json!({"terminated": {"exitCode": 1}})),
            true,
        ),
        ("restarted", with("restartCount", json!(1)), true),
        ("started", with("started", json!(true)), true),
        ("empty last state", with("lastState", json!({})), false),
        (
            "running phase without statuses",
            json!({"phase": "Running"}),
            true,
        ),
        ("unknown phase", json!({"phase": "Unknown"}), true),
    ];
    for (case, status, started) in cases {
        let pod = pod(|pod| pod["status"] = status);
        assert_eq!(facts(&pod).unwrap().started, started, "{case}");
    }
}

#[test]
fn a_pod_is_scheduled_when_it_has_a_node() {
    let pod = pod(|pod| pod["spec"] = json!({}));
    assert!(!facts(&pod).unwrap().scheduled);
}

#[test]
fn a_deployment_owns_the_pods_of_its_replica_sets_and_in_doubt_those_of_others() {
    let of = |name: &str| {
        pod(|pod| pod["metadata"]["ownerReferences"] = json!([owner("ReplicaSet", name, "rs")]))
    };
    let cases = [
        ("its own", of("web-5d"), true),
        ("of another Deployment", of("web-canary-5d"), false),
        ("of a Deployment that is gone", of("old-5d"), true),
        ("named otherwise", of("handmade"), true),
        (
            "of a Job",
            pod(|pod| pod["metadata"]["ownerReferences"] = json!([owner("Job", "web", "j")])),
            false,
        ),
        (
            "orphaned",
            pod(|pod| pod["metadata"]["ownerReferences"] = json!([])),
            true,
        ),
        (
            "bare",
            pod(|pod| {
                pod["metadata"]["ownerReferences"] = json!([]);
                pod["metadata"]["labels"] = json!({"app": "web"});
            }),
            false,
        ),
    ];
    for (case, pod, own) in cases {
        assert_eq!(facts(&pod).is_some(), own, "{case}");
    }
}

#[test]
fn a_rollout_owns_the_pods_of_its_replica_sets_and_a_deployment_none_of_them() {
    let made = |owner_name: Option<&str>, label: &str| {
        pod(|pod| {
            pod["metadata"]["labels"] = json!({"app": "web", label: "5d"});
            pod["metadata"]["ownerReferences"] = owner_name.map_or_else(
                || json!([]),
                |name| json!([owner("ReplicaSet", name, "rs")]),
            );
        })
    };
    // Whether it is of the Rollout `web`, and of the Deployment `web`.
    let cases = [
        (Some("web-5d"), ROLLOUT_HASH, (true, false)),
        (Some("web-canary-5d"), ROLLOUT_HASH, (false, false)),
        (Some("old-5d"), ROLLOUT_HASH, (true, false)),
        (Some("web-5d"), TEMPLATE_HASH, (false, true)),
        // Of an Experiment.
        (Some("web-5d-2-1-baseline"), ROLLOUT_HASH, (false, false)),
        (Some("handmade"), "other", (true, true)),
        (None, ROLLOUT_HASH, (true, false)),
        (None, TEMPLATE_HASH, (false, true)),
    ];
    for (owner_name, label, expected) in cases {
        let pod = made(owner_name, label);
        let of = |kind| {
            let there = |name: &str| name == "web" || name == "web-canary";
            PodFacts::project(&pod, &workload(kind, "web"), "w1", there).is_some()
        };
        let found = (of(WorkloadKind::Rollout), of(WorkloadKind::Deployment));
        assert_eq!(found, expected, "{:?}", pod.metadata);
    }
}

#[test]
fn the_others_own_pods_by_uid_and_those_they_will_adopt() {
    let own = |kind, name: &str, owners: Value| {
        let pod = pod(|pod| {
            pod["metadata"]["name"] = json!(name);
            pod["metadata"]["ownerReferences"] = owners;
        });
        PodFacts::project(&pod, &workload(kind, "web"), "w1", |_| false).is_some()
    };
    for kind in [WorkloadKind::StatefulSet, WorkloadKind::DaemonSet] {
        assert!(own(
            kind,
            "web-0",
            json!([owner(kind.as_str(), "web", "w1")])
        ));
        assert!(!own(
            kind,
            "web-0",
            json!([owner(kind.as_str(), "web", "w0")])
        ));
        assert!(own(kind, "web-0", json!([])));
    }
    assert!(!own(WorkloadKind::StatefulSet, "web-debug", json!([])));
    assert!(!own(WorkloadKind::StatefulSet, "website-0", json!([])));
    assert!(own(WorkloadKind::DaemonSet, "web-debug", json!([])));
}

#[test]
fn what_keeps_a_pod_from_becoming_ready_is_told_in_its_own_words() {
    let container = |state: Value, last: Value, ready: bool| {
        json!({"containerStatuses": [{
            "name": "app", "image": "", "imageID": "", "restartCount": 1, "ready": ready,
            "state": state, "lastState": last,
        }]})
    };
    let waiting = |reason: &str, message: Option<&str>| json!({"waiting": {"reason": reason, "message": message}});
    let ended = json!({"terminated": {"exitCode": 3}});
    let crashes = Some("container app: ends again and again, with exit code 3");
    let rows = [
        (json!({}), None),
        (
            container(waiting("ContainerCreating", None), json!({}), false),
            None,
        ),
        (container(json!({"running": {}}), json!({}), false), None),
        (container(json!({"running": {}}), ended.clone(), true), None),
        (
            container(json!({"running": {}}), ended.clone(), false),
            crashes,
        ),
        (
            container(
                waiting("CrashLoopBackOff", Some("back-off 10s")),
                ended,
                false,
            ),
            crashes,
        ),
        (
            container(
                waiting("ImagePullBackOff", Some("no such image")),
                json!({}),
                false,
            ),
            Some("container app: ImagePullBackOff: no such image"),
        ),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}),
            Some("Unschedulable: 0/3 nodes"),
        ),
    ];
    for (status, expected) in rows {
        let found = trouble(&serde_json::from_value(status.clone()).unwrap());
        assert_eq!(found.as_deref(), expected, "{status}");
    }
}
