//! Pure: tests.

use super::*;
use crate::{
    api::vault_secret::WorkloadKind,
    rollout::fixtures::{at, deployment, view, workload},
};

#[test]
fn the_stamp_is_one_annotation_of_the_template_and_takes_an_old_proof_away() {
    let proved = WorkloadView {
        in_step: Some("h0".into()),
        ..view()
    };
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "w1"},
        "spec": {"template": {"metadata": {"annotations": {"lockstep.dev/secrets-hash": "h1"}}}},
    });
    assert_eq!(stamp(&deployment("web"), &proved, "h1"), expected);
}

#[test]
fn a_restart_by_time_is_one_field_and_the_hash_on_the_rollout_itself() {
    let web = workload(WorkloadKind::Rollout, "web");
    let mut view = WorkloadView {
        stamp: Some("h0".into()),
        stamp_is_ours: true,
        argo: Some(Box::default()),
        ..view()
    };
    let mut expected = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "w1",
            "annotations": {"lockstep.dev/secrets-hash": "h1"},
        },
        "spec": {"restartAt": "1970-01-01T00:03:24Z"},
    });
    assert_eq!(restart_at(&web, &view, "h1", at(204)), expected);
    let proof = record(&web, &view, "h1");
    assert_eq!(proof.get("spec"), None, "nothing is left to restart");

    let before = json!({"metadata": {"annotations": {"lockstep.dev/secrets-hash": "h0"}}});
    view.argo.as_mut().unwrap().template_stamp = Some("h0".into());
    expected["spec"]["template"] = before.clone();
    assert_eq!(restart_at(&web, &view, "h1", at(204)), expected);
    assert_eq!(
        record(&web, &view, "h1")["spec"],
        json!({"template": before})
    );
}

#[test]
fn the_proof_is_one_annotation_of_the_workload() {
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "w1",
            "annotations": {"lockstep.dev/in-step": "h1"},
        },
    });
    let set = workload(WorkloadKind::StatefulSet, "web");
    assert_eq!(record(&set, &view(), "h1"), expected);
    let foreign = WorkloadView {
        stamp: Some("h0".into()),
        ..view()
    };
    assert_eq!(
        record(&set, &foreign, "h1"),
        expected,
        "a stamp that is not ours is not ours to repeat"
    );
}

#[test]
fn the_proof_repeats_our_stamp_lest_the_template_change() {
    let stamped = WorkloadView {
        stamp: Some("h0".into()),
        stamp_is_ours: true,
        ..view()
    };
    let expected = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "w1",
            "annotations": {"lockstep.dev/in-step": "h1"},
        },
        "spec": {"template": {"metadata": {"annotations": {"lockstep.dev/secrets-hash": "h0"}}}},
    });
    let set = workload(WorkloadKind::DaemonSet, "web");
    assert_eq!(record(&set, &stamped, "h1"), expected);
}
