//! Pure: tests.

use serde_json::{Value, json};

use super::*;
use crate::rollout::fixtures::{at, counters};

fn object(spec: &Value, status: &Value) -> Value {
    let mut spec = spec.clone();
    spec["selector"] = json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
    });
    spec["template"] = json!({
        "metadata": {"annotations": {SECRETS_HASH: "h1"}},
        "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "x"}}]},
    });
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "w1", "generation": 7, "labels": {"tier": "data"},
            "creationTimestamp": at(100).to_string(),
        },
        "spec": spec,
        "status": status,
    })
}

fn project<K: Workload + serde::de::DeserializeOwned>(object: Value) -> WorkloadView {
    WorkloadView::project(&serde_json::from_value::<K>(object).unwrap())
}

#[test]
fn the_three_kinds_give_the_same_view() {
    let replicas =
        json!({"replicas": 3, "updatedReplicas": 2, "readyReplicas": 1, "observedGeneration": 6});
    let scheduled = json!({
        "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "updatedNumberScheduled": 2,
        "numberReady": 1, "numberMisscheduled": 0, "observedGeneration": 6,
    });
    let spec = json!({"replicas": 3, "serviceName": "s"});
    let expected = WorkloadView {
        labels: [("tier".to_owned(), "data".to_owned())].into(),
        uid: "w1".into(),
        created: at(100),
        deleting: false,
        restart: Restart::Always,
        generation: 7,
        observed_generation: 6,
        secrets: ["x".to_owned()].into(),
        secrets_in_env: [].into(),
        stamp: Some("h1".into()),
        stamp_is_ours: false,
        in_step: None,
        last_foreign: None,
        owner: None,
        selector: "app=web,tier in (a,b)".into(),
        paused: false,
        manual: None,
        counters: counters(3, 2, 1),
        refused: None,
        lent_to: None,
        argo: None,
    };
    assert_eq!(project::<Deployment>(object(&spec, &replicas)), expected);
    assert_eq!(project::<StatefulSet>(object(&spec, &replicas)), expected);
    assert_eq!(project::<DaemonSet>(object(&spec, &scheduled)), expected);
}

#[test]
fn only_a_controller_owns_a_workload() {
    let owner = |controller: bool| json!({"apiVersion": "example.org/v1", "kind": "Widget", "name": "main", "uid": "u", "controller": controller});
    let of = |owners: Value| {
        let mut object = object(&json!({}), &Value::Null);
        object["metadata"]["ownerReferences"] = owners;
        project::<Deployment>(object).owner
    };
    assert_eq!(of(json!([owner(false)])), None);
    let both = of(json!([owner(false), owner(true)]));
    assert_eq!(both.as_deref(), Some("Widget main"));
}

#[test]
fn an_object_without_spec_or_status_is_projected_too() {
    let bare = project::<Deployment>(json!({"metadata": {"name": "web", "uid": "w1"}}));
    assert_eq!(
        (bare.secrets.len(), bare.counters),
        (0, Counters::default())
    );
    assert_eq!(
        project::<Deployment>(object(&json!({}), &Value::Null))
            .counters
            .wanted,
        1
    );
}

#[test]
fn updates_by_hand_and_pauses_are_seen() {
    let none = Value::Null;
    let set = |strategy: Value| {
        project::<StatefulSet>(object(
            &json!({"updateStrategy": strategy, "serviceName": "s"}),
            &none,
        ))
        .manual
    };
    assert_eq!(set(json!({"type": "OnDelete"})), Some(Manual::OnDelete));
    assert_eq!(
        set(json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
        None
    );
    assert_eq!(
        set(json!({"rollingUpdate": {"partition": 2}})),
        Some(Manual::Partition(2))
    );
    let daemon = |kind: &str| {
        project::<DaemonSet>(object(&json!({"updateStrategy": {"type": kind}}), &none)).manual
    };
    assert_eq!(daemon("OnDelete"), Some(Manual::OnDelete));
    assert_eq!(daemon("RollingUpdate"), None);
    assert!(project::<Deployment>(object(&json!({"paused": true}), &none)).paused);
}

fn managed(annotations: &Value, entries: &Value) -> WorkloadView {
    let mut object = object(&json!({}), &Value::Null);
    object["metadata"]["annotations"] = annotations.clone();
    object["metadata"]["managedFields"] = entries.clone();
    project::<Deployment>(object)
}

#[test]
fn only_a_proof_that_our_field_manager_wrote_counts() {
    let fields = json!({
        "f:metadata": {"f:annotations": {format!("f:{IN_STEP}"): {}}},
        "f:spec": {"f:template": {"f:metadata": {"f:annotations": {format!("f:{SECRETS_HASH}"): {}}}}},
    });
    let with = |manager: &str, operation: &str| {
        let view = managed(
            &json!({IN_STEP: "h1"}),
            &json!([{"manager": manager, "operation": operation, "fieldsV1": fields}]),
        );
        (view.in_step.is_some(), view.stamp_is_ours)
    };
    assert_eq!(with(ROLLOUT_MANAGER, "Apply"), (true, true));
    assert_eq!(with(ROLLOUT_MANAGER, "Update"), (false, false));
    assert_eq!(with("kubectl", "Apply"), (false, false));
}

#[test]
fn the_last_foreign_manager_is_the_newest_that_wrote_the_object_itself() {
    let entry = |manager: &str, second: i64, subresource: &str| json!({"manager": manager, "operation": "Update", "time": at(second).to_string(), "subresource": subresource});
    let view = managed(
        &json!({}),
        &json!([
            entry("helm", 1, ""),
            entry("argocd", 3, ""),
            entry("kubectl", 2, ""),
            entry("kube-controller-manager", 8, "status"),
            entry(ROLLOUT_MANAGER, 9, ""),
        ]),
    );
    let argocd = ForeignWrite {
        manager: "argocd".into(),
        at: Some(at(3)),
    };
    assert_eq!(view.last_foreign, Some(argocd));
    assert_eq!(managed(&json!({}), &json!([])).last_foreign, None);
}

#[test]
fn complete_means_every_pod_is_new_and_ready_and_the_generation_was_seen() {
    let view = |generation, counters| WorkloadView {
        observed_generation: generation,
        counters,
        ..crate::rollout::fixtures::view()
    };
    assert!(view(1, counters(3, 3, 3)).is_complete());
    assert!(view(1, counters(0, 0, 0)).is_complete());
    assert!(!view(0, counters(3, 3, 3)).is_complete());
    assert!(!view(1, counters(3, 2, 3)).is_complete());
    assert!(!view(1, counters(3, 3, 2)).is_complete());
    let surge = Counters {
        wanted: 3,
        all: 4,
        updated: 3,
        ready: 3,
    };
    assert!(!view(1, surge).is_complete());
}

#[test]
fn pods_of_an_old_template_are_taken_for_ready() {
    let of = |all, updated, ready| {
        Counters {
            wanted: 3,
            all,
            updated,
            ready,
        }
        .ready_and_updated()
    };
    assert_eq!(of(3, 3, 2), 2);
    assert_eq!(of(4, 1, 3), 0);
    assert_eq!(of(4, 1, 4), 1);
    assert_eq!(of(3, 0, 3), 0);
}

#[test]
fn whoever_reloads_what_is_mounted_is_restarted_for_its_environment_only() {
    let uses = |restart: Value| {
        let mut workload = object(&json!({"replicas": 1}), &Value::Null);
        workload["metadata"]["annotations"] = json!({"lockstep.dev/restart": restart});
        workload["spec"]["template"]["spec"] = json!({
            "containers": [{"name": "a", "envFrom": [{"secretRef": {"name": "env"}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "mounted"}}],
        });
        let view = project::<Deployment>(workload);
        (view.restart, [view.uses("env"), view.uses("mounted")])
    };
    assert_eq!(uses(json!("env")), (Restart::Env, [true, false]));
    assert_eq!(uses(json!("never")), (Restart::Never, [true, true]));
    assert_eq!(uses(json!("what")), (Restart::Always, [true, true]));
}
