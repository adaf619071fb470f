//! Pure: tests.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{revision::Revision, rollout::fixtures::at, secret_view::Managed};

/// A pod made at `created` that uses the Secret `db`.
fn pod(name: &str, created: i64, more: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "creationTimestamp": at(created).to_string()},
        "spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "db"}}]},
        "status": {"phase": "Running"},
    });
    for (part, fields) in more.as_object().unwrap() {
        for (field, value) in fields.as_object().unwrap() {
            pod[part][field] = value.clone();
        }
    }
    serde_json::from_value(pod).unwrap()
}

fn of(kind: &str, owner: &str) -> Value {
    let owner =
        json!({"apiVersion": "x/v1", "kind": kind, "name": owner, "uid": "u", "controller": true});
    json!({"metadata": {"ownerReferences": [owner]}})
}

#[test]
fn whoever_may_run_older_data_is_named_once() {
    let none = json!({});
    let pods = [
        pod("shell", 100, &none),
        pod("m-1", 100, &of("Job", "m")),
        pod("m-2", 101, &of("Job", "m")),
        pod("young", 201, &none),
        pod("done", 100, &json!({"status": {"phase": "Succeeded"}})),
        pod(
            "going",
            100,
            &json!({"metadata": {"deletionTimestamp": at(150).to_string()}}),
        ),
        pod(
            "other",
            100,
            &json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "dbs"}}]}}),
        ),
    ];
    let told = "not restarted for the new data of Secret db: Job m, Pod shell. If they read it only at their start, they go on with older data until they end";
    assert_eq!(note(&pods, "db", at(200)).as_deref(), Some(told));
    assert_eq!(note(&pods[3..6], "db", at(200)), None);
    let many: Vec<_> = (0..9).map(|n| pod(&n.to_string(), 100, &none)).collect();
    let told = note(&many, "db", at(200)).unwrap();
    assert!(told.contains("Pod 3, Pod 4, 4 more."), "{told}");
}

#[test]
fn only_other_data_in_a_secret_that_was_there_is_a_change() {
    let secret = |revision: &str, since: i64| {
        Some(Arc::new(SecretView {
            uid: "s".into(),
            resource_version: revision.into(),
            created: Some(at(1)),
            managed: Some(Managed {
                vault_secret: "vs".into(),
                revision: Revision::from_annotation(revision),
                data_since: at(since),
                again: false,
                merged: false,
                remove_keys: false,
                holdings: None,
                fields: 0,
            }),
        }))
    };
    let rows = [
        (None, secret("k1:1", 5), false),
        (secret("k1:1", 5), None, false),
        (secret("k1:1", 5), secret("k1:1", 5), false),
        (secret("k1:1", 5), secret("k2:9", 5), false),
        (secret("k1:1", 5), secret("k1:2", 5), true),
        (secret("k1:1", 5), secret("k1:1", 6), true),
    ];
    for (number, (old, new, changed)) in rows.into_iter().enumerate() {
        let key = ObjectKey::new("shop", "db");
        let change = Change { key, old, new };
        assert_eq!(has_new_data(&change), changed, "row {number}");
    }
}

#[test]
fn what_changed_is_taken_out_once() {
    let changed = Changed::default();
    for name in ["b", "a", "b"] {
        changed.note(&ObjectKey::new("shop", name));
    }
    changed.note(&ObjectKey::new("other", "c"));
    assert_eq!(
        changed.take("shop"),
        ["a".to_owned(), "b".to_owned()].into()
    );
    assert_eq!(changed.take("shop"), [].into());
    assert_eq!(changed.take("other").len(), 1);
}
