//! Pure: tests.

use std::collections::BTreeMap;

use super::*;
use crate::{
    api::vault_secret::WorkloadKind,
    rollout::fixtures::{at, data, deployment, view},
    secret_view::Managed,
};

fn follows(name: &str, target: &str, rollout: &serde_json::Value) -> Follows {
    let spec = serde_json::json!({"sources": [], "target": {"name": target}, "rollout": rollout});
    Follows::from_spec(
        ObjectKey::new("shop", name),
        &serde_json::from_value(spec).unwrap(),
        false,
    )
}

fn secret(vault_secret: &str, created: i64) -> SecretView {
    SecretView {
        uid: "s".into(),
        resource_version: "1".into(),
        created: Some(at(created)),
        managed: Some(Managed {
            vault_secret: vault_secret.into(),
            revision: Revision::from_annotation("k1:1"),
            data_since: at(50),
            again: false,
            merged: false,
            remove_keys: false,
            holdings: None,
            fields: 0,
        }),
    }
}

fn names(
    follows: &[Follows],
    secrets: &BTreeMap<&str, SecretView>,
    view: Option<&WorkloadView>,
) -> Vec<String> {
    let find = |name: &str| secrets.get(name).cloned().map(Box::new);
    bound(&deployment("web"), view, follows, find)
        .into_iter()
        .map(|bound| bound.data.secret)
        .collect()
}

#[test]
fn defaults_are_discovery_ten_seconds_and_ten_minutes() {
    let expected = Policy {
        discover: true,
        targets: Vec::new(),
        settle: Duration::from_secs(10),
        verify_timeout: Duration::from_mins(10),
        waves: None,
        windows: Vec::new(),
    };
    assert_eq!(Policy::from_spec(None), expected);
    let unnamed = Follows::from_spec(
        ObjectKey::new("shop", "checkout"),
        &serde_json::from_value(serde_json::json!({"sources": []})).unwrap(),
        false,
    );
    assert_eq!(
        (unnamed.target_name.as_str(), unnamed.policy),
        ("checkout", expected)
    );
}

#[test]
fn a_workload_is_bound_by_use_or_as_a_target() {
    use serde_json::json;
    let secrets: BTreeMap<_, _> = [("db", secret("a", 10))].into();
    let target = |kind: &str, name: &str| json!({"discover": false, "targets": [{"kind": kind, "name": name}]});
    let view = view();
    let unused = WorkloadView {
        secrets: ["other".to_owned()].into(),
        ..view.clone()
    };
    let cases = [
        ("used", json!({}), Some(&view), true),
        ("not used", json!({}), Some(&unused), false),
        (
            "used, no discovery",
            json!({"discover": false}),
            Some(&view),
            false,
        ),
        ("target", target("Deployment", "web"), Some(&unused), true),
        ("absent target", target("Deployment", "web"), None, true),
        (
            "other kind",
            target("DaemonSet", "web"),
            Some(&unused),
            false,
        ),
        (
            "other name",
            target("Deployment", "db"),
            Some(&unused),
            false,
        ),
        ("absent", json!({}), None, false),
    ];
    for (case, rollout, view, is_bound) in cases {
        assert_eq!(
            !names(&[follows("a", "db", &rollout)], &secrets, view).is_empty(),
            is_bound,
            "{case}"
        );
    }
}

#[test]
fn a_secret_counts_for_the_vault_secret_that_it_names() {
    let none = serde_json::json!({});
    let view = view();
    let mut secrets: BTreeMap<_, _> = [("db", secret("a", 10))].into();
    let both = [follows("a", "db", &none), follows("b", "db", &none)];
    assert_eq!(names(&both, &secrets, Some(&view)), ["db"]);
    assert_eq!(
        names(&both[1..], &secrets, Some(&view)),
        Vec::<String>::new(),
        "not its own"
    );
    assert_eq!(
        names(&[follows("a", "moved", &none)], &secrets, Some(&view)),
        Vec::<String>::new()
    );
    secrets.get_mut("db").unwrap().managed = None;
    assert_eq!(
        names(&both, &secrets, Some(&view)),
        Vec::<String>::new(),
        "nobody's"
    );
}

#[test]
fn a_secret_is_born_with_data_that_is_not_newer_than_itself() {
    let follows = follows("a", "db", &serde_json::json!({}));
    let born = |created| {
        follows
            .bind(&deployment("web"), &secret("a", created))
            .unwrap()
            .born
    };
    assert_eq!([born(49), born(50), born(51)], [false, true, true]);
    let mut unknown = secret("a", 50);
    unknown.created = None;
    assert!(!follows.bind(&deployment("web"), &unknown).unwrap().born);
}

#[test]
fn targets_of_another_namespace_are_not_listed() {
    let target = WorkloadRef {
        kind: WorkloadKind::Deployment,
        name: "web".into(),
    };
    let mut follows = follows("a", "db", &serde_json::json!({}));
    follows.policy.targets = vec![target];
    assert!(follows.lists(&deployment("web")));
    follows.key.namespace = "other".into();
    assert!(!follows.lists(&deployment("web")));
}

#[test]
fn the_wanted_hash_combines_all_revisions() {
    let of = |revisions: &[&str]| {
        let all: Vec<_> = revisions
            .iter()
            .enumerate()
            .map(|(n, revision)| Bound {
                data: data(&n.to_string(), revision, 5),
                ..crate::rollout::fixtures::bound("x", 5)
            })
            .collect();
        wanted(&all)
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&["1", "2"]), of(&["1", "2"]));
    assert_ne!(of(&["1", "2"]), of(&["1", "3"]));
}

#[test]
fn a_new_hash_key_shows_the_same_data_under_another_revision() {
    let relabelled = Data {
        revision: Revision::from_annotation("k2:9"),
        ..data("a", "1", 5)
    };
    assert!(data("a", "1", 5).is_same_as(&relabelled));
    assert!(!data("a", "1", 5).is_same_as(&data("a", "2", 5)));
    assert!(!data("a", "1", 5).is_same_as(&data("a", "1", 6)));
    assert!(!data("a", "1", 5).is_same_as(&data("b", "1", 5)));
}

#[test]
fn whoever_says_never_is_not_bound_even_as_a_target() {
    use serde_json::json;
    let secrets: BTreeMap<_, _> = [("db", secret("a", 10))].into();
    let target = json!({"targets": [{"kind": "Deployment", "name": "web"}]});
    let never = WorkloadView {
        restart: Restart::Never,
        ..view()
    };
    let follows = [follows("a", "db", &target)];
    assert_eq!(names(&follows, &secrets, Some(&view())), ["db"]);
    assert_eq!(
        names(&follows, &secrets, Some(&never)),
        Vec::<String>::new()
    );
}
