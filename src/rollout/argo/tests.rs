//! Pure: tests.

use serde_json::json;

use super::*;
use crate::{
    names::{ObjectKey, ROLLOUT_MANAGER, SECRETS_HASH},
    rollout::fixtures::{at, bound, pod, view},
};

/// A Rollout as its controller leaves it, with `spec`, `status` and annotations besides.
fn rollout(spec: &Value, status: &Value, annotations: &Value) -> WorkloadView {
    let fields = json!({
        "f:metadata": {"f:annotations": {format!("f:{SECRETS_HASH}"): {}}},
        "f:spec": {"f:template": {"f:metadata": {"f:annotations": {format!("f:{SECRETS_HASH}"): {}}}}},
    });
    let mut object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "w1", "generation": 7,
            "creationTimestamp": at(100).to_string(), "annotations": annotations,
            "managedFields": [{"manager": ROLLOUT_MANAGER, "operation": "Apply", "fieldsV1": fields}],
        },
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"annotations": {SECRETS_HASH: "in-template"}},
                "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "x"}}]},
            },
            "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}, {"pause": {"duration": "1h"}}]}},
        },
        "status": {
            "observedGeneration": "7", "replicas": 3, "updatedReplicas": 2, "readyReplicas": 1,
            "stableRS": "a", "currentPodHash": "a", "phase": "Healthy",
        },
    });
    for (part, extra) in [("spec", spec), ("status", status)] {
        let fields = object[part].as_object_mut().unwrap();
        for (name, value) in extra.as_object().into_iter().flatten() {
            fields.insert(name.clone(), value.clone());
        }
    }
    WorkloadView::project(&serde_json::from_value::<DynamicObject>(object).unwrap())
}

fn template() -> Value {
    json!({RESTART_BY: "template"})
}

#[test]
fn by_default_the_hash_stands_on_the_rollout_itself_and_counters_do_not_tell_templates() {
    let none = json!({});
    let found = rollout(&none, &none, &json!({SECRETS_HASH: "own"}));
    assert_eq!(found.secrets, ["x".to_owned()].into());
    assert_eq!(found.selector, "app=web");
    assert_eq!(
        (found.stamp.as_deref(), found.stamp_is_ours),
        (Some("own"), true)
    );
    assert_eq!(found.our_template_stamp(), Some("in-template"));
    assert_eq!((found.generation, found.observed_generation), (7, 7));
    let Counters {
        wanted,
        all,
        updated,
        ready,
    } = found.counters;
    assert_eq!((wanted, all, updated, ready), (3, 3, 2, 1));
    assert!(found.is_restarted_by_time() && !found.is_complete());
    let all_ready = rollout(&none, &json!({"readyReplicas": 3}), &none);
    assert!(all_ready.is_complete());
    let more = rollout(&none, &json!({"readyReplicas": 4, "replicas": 4}), &none);
    assert!(more.is_complete(), "a canary has more pods than are wanted");
    let preview = rollout(&none, &json!({"readyReplicas": 3, "replicas": 6}), &none);
    assert!(
        preview.is_complete(),
        "of blue and green one counts as ready"
    );
    let fewer = rollout(&none, &json!({"readyReplicas": 2, "replicas": 2}), &none);
    assert!(!fewer.is_complete());
}

#[test]
fn by_its_template_it_is_complete_when_that_is_promoted() {
    let (none, done) = (json!({}), json!({"updatedReplicas": 3, "readyReplicas": 3}));
    let found = rollout(&none, &done, &template());
    assert_eq!(
        (found.stamp.as_deref(), found.stamp_is_ours),
        (Some("in-template"), true)
    );
    assert!(found.is_complete() && !found.is_rolling());
    let mut open = done;
    open["stableRS"] = json!("b");
    let open = rollout(&none, &open, &template());
    assert!(!open.is_complete() && open.is_rolling());
}

#[test]
fn a_template_that_stands_elsewhere_is_not_stamped() {
    let lent =
        json!({"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "lender"}});
    let found = rollout(&lent, &json!({}), &template());
    assert!(found.is_restarted_by_time());
    assert_eq!(template_of(&found), Some("lender"));
    let other = json!({"workloadRef": {"kind": "PodTemplate", "name": "lender"}});
    let other = rollout(&other, &json!({}), &template());
    assert!(other.is_restarted_by_time());
    assert_eq!(template_of(&other), None);

    let lender = WorkloadView {
        selector: "app=lender".into(),
        ..view()
    };
    assert_eq!(with_template_of(&found, &lender).secrets, lender.secrets);
    assert_eq!(with_template_of(&found, &lender).selector, "app=web");
    let bare = WorkloadView {
        selector: String::new(),
        ..found
    };
    assert_eq!(with_template_of(&bare, &lender).selector, "app=lender");
}

#[test]
fn for_what_a_borrowed_template_is_restarted_the_rollout_says_and_else_its_lender() {
    let with = |restart| WorkloadView {
        restart,
        secrets: ["env".to_owned(), "mounted".to_owned()].into(),
        secrets_in_env: ["env".to_owned()].into(),
        ..view()
    };
    let bare = |restart| WorkloadView {
        restart,
        secrets: [].into(),
        secrets_in_env: [].into(),
        ..view()
    };
    // What the Rollout says, what its lender says, and what comes of it.
    let rows = [
        (Restart::Always, Restart::Always, Restart::Always),
        (Restart::Always, Restart::Env, Restart::Env),
        (Restart::Always, Restart::Never, Restart::Always),
        (Restart::Env, Restart::Always, Restart::Env),
        (Restart::Env, Restart::Env, Restart::Env),
        (Restart::Never, Restart::Env, Restart::Never),
    ];
    for (own, lent, expected) in rows {
        let found = with_template_of(&bare(own), &with(lent));
        assert_eq!(found.restart, expected, "{own:?} {lent:?}");
        let uses = [found.uses("env"), found.uses("mounted")];
        assert_eq!(uses, [true, expected != Restart::Env], "{own:?} {lent:?}");
    }
}

#[test]
fn what_holds_up_a_new_template_is_told_and_holds_up_no_restart_by_time() {
    let paused = |reason: &str, index: u64| json!({"pauseConditions": [{"reason": reason}], "currentStepIndex": index});
    let none = json!({});
    let blue = |more: Value| json!({"strategy": {"blueGreen": more}});
    let rows = [
        (none.clone(), none.clone(), None),
        (
            none.clone(),
            paused("CanaryPauseStep", 1),
            Some(Manual::Step {
                number: 2,
                of: 3,
                timed: false,
            }),
        ),
        (
            none.clone(),
            paused("CanaryPauseStep", 2),
            Some(Manual::Step {
                number: 3,
                of: 3,
                timed: true,
            }),
        ),
        (
            blue(json!({"autoPromotionEnabled": false, "autoPromotionSeconds": 9})),
            paused("BlueGreenPause", 0),
            Some(Manual::Promotion { timed: false }),
        ),
        (
            blue(json!({"autoPromotionSeconds": 9})),
            paused("BlueGreenPause", 0),
            Some(Manual::Promotion { timed: true }),
        ),
        (
            none,
            paused("InconclusiveAnalysisRun", 0),
            Some(Manual::Analysis),
        ),
    ];
    for (spec, status, expected) in rows {
        assert_eq!(
            rollout(&spec, &status, &template()).manual,
            expected,
            "{status}"
        );
        let by_time = rollout(&spec, &status, &json!({}));
        assert_eq!(by_time.manual, None);
        assert_eq!(by_time.is_rolling(), expected.is_none(), "{status}");
    }
    let stopped = json!({"paused": true});
    assert!(rollout(&stopped, &json!({}), &template()).paused);
    assert!(!rollout(&stopped, &json!({}), &json!({})).paused);
}

#[test]
fn giving_up_a_template_concerns_only_whoever_is_restarted_by_it() {
    let degraded = |message: &str| json!({"phase": "Degraded", "message": message});
    let gave_up = |message: &str, annotations: &Value| {
        let found = rollout(&json!({}), &degraded(message), annotations);
        found.argo.unwrap().gave_up
    };
    for message in ["RolloutAborted: x", "ProgressDeadlineExceeded: y"] {
        assert_eq!(gave_up(message, &template()).as_deref(), Some(message));
        assert_eq!(gave_up(message, &json!({})), None);
    }
    assert!(gave_up("InvalidSpec: z", &json!({})).is_some());
    let mut earlier = degraded("InvalidSpec: z");
    earlier["observedGeneration"] = json!("6");
    let earlier = rollout(&json!({}), &earlier, &json!({}));
    assert_eq!(earlier.argo.unwrap().gave_up, None);
}

#[test]
fn pods_that_the_apiserver_refuses_are_told() {
    let with = |status: &str| {
        let failure =
            json!({"type": "ReplicaFailure", "status": status, "message": "exceeded quota"});
        let conditions = json!({"conditions": [{"type": "Available", "status": "True"}, failure]});
        rollout(&json!({}), &conditions, &json!({})).refused
    };
    assert_eq!(with("True").as_deref(), Some("exceeded quota"));
    assert_eq!(with("False"), None);
}

#[test]
fn whatever_does_not_fit_is_taken_as_not_there() {
    let odd = json!({"template": 3, "selector": [], "replicas": "many", "restartAt": "soon"});
    let found = rollout(
        &odd,
        &json!({"observedGeneration": "x", "abort": "no"}),
        &json!({}),
    );
    assert!(found.secrets.is_empty() && found.selector.is_empty());
    assert_eq!((found.counters.wanted, found.observed_generation), (1, 0));
}

#[test]
fn a_template_that_cannot_be_read_is_told_once_for_each_generation_by_its_field_alone() {
    let with = |template: &Value| {
        let odd = json!({"template": template});
        rollout(&odd, &json!({}), &json!({}))
    };
    let port = json!({"name": "app", "ports": [{"containerPort": "hunter2"}]});
    let odd = with(&json!({"spec": {"containers": [port]}}));
    let told = "spec.template.spec.containers[0].ports[0].containerPort";
    let none = with(&json!({"spec": {"containers": []}}));
    let later = WorkloadView {
        generation: 8,
        ..odd.clone()
    };
    let other = WorkloadView {
        paused: true,
        ..odd.clone()
    };
    let rows = [
        (None, Some(&odd), Some(told)),
        (Some(&none), Some(&odd), Some(told)),
        (Some(&odd), Some(&other), None),
        (Some(&odd), Some(&later), Some(told)),
        (Some(&odd), Some(&none), None),
        (Some(&odd), None, None),
    ];
    for (number, (old, new, expected)) in rows.into_iter().enumerate() {
        let change = Change {
            key: ObjectKey::new("shop", "web"),
            old: old.cloned().map(Arc::new),
            new: new.cloned().map(Arc::new),
        };
        assert_eq!(unreadable(&change), expected, "row {number}");
    }
    let whole = with(&json!(3)).argo.unwrap().unreadable;
    assert_eq!(whole.as_deref(), Some("spec.template"));
}

#[test]
fn older_pods_that_stay_on_purpose_are_known_by_the_counters() {
    let green = json!({"strategy": {"blueGreen": {"scaleDownDelaySeconds": 600}}});
    let promoted = json!({"replicas": 6, "updatedReplicas": 3, "readyReplicas": 3});
    let but = |name: &str, value: Value| {
        let mut status = promoted.clone();
        status[name] = value;
        status
    };
    let seconds = |spec: &Value, status: &Value, annotations: &Value| match older_stay(&rollout(
        spec,
        status,
        annotations,
    )) {
        Some(Manual::OlderStay { seconds }) => Some(seconds),
        Some(_) | None => None,
    };
    assert_eq!(seconds(&green, &promoted, &template()), Some(600));
    let canary = |more: Value| json!({"strategy": {"canary": more}});
    let routed = canary(json!({"trafficRouting": {}}));
    assert_eq!(seconds(&routed, &promoted, &template()), Some(30));
    let plain = canary(json!({"scaleDownDelaySeconds": 600}));
    assert_eq!(seconds(&plain, &promoted, &template()), None);
    assert_eq!(seconds(&green, &promoted, &json!({})), None, "by time");
    for other in [
        but("stableRS", json!("b")),
        but("replicas", json!(3)),
        but("updatedReplicas", json!(2)),
        but("readyReplicas", json!(2)),
        but("observedGeneration", json!("6")),
    ] {
        assert_eq!(seconds(&green, &other, &template()), None, "{other}");
    }
}

fn by_time(restart_at: Option<i64>, restarted_at: Option<i64>) -> WorkloadView {
    let argo = Argo {
        restart_at: restart_at.map(at),
        restarted_at: restarted_at.map(at),
        unfinished: restart_at > restarted_at,
        ..Argo::default()
    };
    WorkloadView {
        stamp: Some("h1".into()),
        argo: Some(Box::new(argo)),
        ..view()
    }
}

#[test]
fn the_time_is_that_of_the_data_and_never_goes_back_behind_one_that_is_due() {
    let data = [bound("a", 190), bound("db", 200)];
    let rows = [
        (None, None, 204),
        (Some(150), Some(150), 204),
        (Some(204), None, 204),
        // Somebody asked for a later one, which is due: it does as well.
        (Some(300), None, 300),
        // Somebody asked for one that is not due yet.
        (Some(1001), None, 204),
        // The controller is done with it, and does nothing more for it.
        (Some(204), Some(204), 205),
        (None, Some(204), 205),
        (Some(300), Some(300), 301),
    ];
    for (asked, done, expected) in rows {
        let view = by_time(asked, done);
        let found = restart_at(&view, &data, at(1000));
        assert_eq!(found, Some(at(expected)), "{asked:?} {done:?}");
    }
    assert_eq!(restart_at(&view(), &data, at(1000)), None);
    let early = restart_at(&by_time(None, None), &data, at(201));
    assert_eq!(early, Some(at(204)), "the controller waits until then");
}

#[test]
fn a_hash_counts_only_with_a_time_that_replaces_all_older_pods() {
    let data = [bound("db", 200)];
    // The hash counts; what the controller does is waited for.
    let rows = [
        (None, None, false, false),
        (Some(203), None, false, true),
        (Some(204), None, true, true),
        (Some(204), Some(204), true, false),
        (Some(900), None, true, false),
    ];
    for (restart_at, restarted_at, counts, waits) in rows {
        let found = for_data(Arc::new(by_time(restart_at, restarted_at)), &data);
        assert_eq!(found.stamp.is_some(), counts, "{restart_at:?}");
        let argo = found.argo.as_ref().unwrap();
        assert_eq!(argo.unfinished, waits, "{restart_at:?} {restarted_at:?}");
    }
    let other = Arc::new(WorkloadView {
        stamp: Some("h1".into()),
        ..view()
    });
    assert_eq!(for_data(Arc::clone(&other), &data), other);
}

#[test]
fn pods_carry_the_hash_by_their_age() {
    let mut pods = [pod("a", 203), pod("b", 204)];
    mark(&mut pods, &by_time(None, None), &[bound("db", 200)], "h1");
    assert_eq!(pods.map(|pod| pod.stamp), [None, Some("h1".to_owned())]);
    let mut other = [pod("a", 204)];
    mark(&mut other, &view(), &[bound("db", 200)], "h1");
    assert_eq!(other, [pod("a", 204)]);
}
