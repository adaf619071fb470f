//! Pure: the Secret we want, and the fields we expect to own of it.

use serde_json::{Value, json};

use super::*;
use crate::{secret_view::SecretView, sensitive::Sensitive};

fn target(creation: CreationPolicy, deletion: DeletionPolicy) -> Target {
    let text = |text: &str| text.to_owned();
    Target {
        name: text("checkout"),
        type_: None,
        labels: [(text("tier"), text("web"))].into(),
        annotations: [(text("example.org/note"), text("hello"))].into(),
        creation,
        deletion,
    }
}

fn desired(target: &Target) -> DesiredSecret {
    let data = ["user", "pass"].map(|key| (key.to_owned(), Sensitive::new("v")));
    DesiredSecret::new(
        &ObjectKey::new("shop", "app"),
        "uid-7",
        target,
        (data.into(), Revision::from_annotation("k1:00")),
        &Records::default(),
    )
}

/// What the apiserver makes of an applied object: the metadata, and our entry with `fields`.
fn seen(applied: &Secret, fields: &Value) -> SecretView {
    let mut metadata = applied.metadata.clone();
    let entry = json!([{
        "manager": "lockstep", "operation": "Apply", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
    }]);
    metadata.managed_fields = serde_json::from_value(entry).unwrap();
    SecretView::project(&metadata)
}

/// As the apiserver writes them for a Secret of ours.
fn fields_of_an_owned_secret() -> Value {
    json!({
        "f:data": {"f:pass": {}, "f:user": {}},
        "f:metadata": {
            "f:annotations": {
                "f:example.org/note": {}, "f:lockstep.dev/revision": {}, "f:lockstep.dev/vault-secret": {},
            },
            "f:labels": {"f:app.kubernetes.io/managed-by": {}, "f:tier": {}},
            "f:ownerReferences": {"k:{\"uid\":\"uid-7\"}": {}},
        },
        "f:type": {},
    })
}

#[test]
fn the_fields_we_expect_are_those_the_apiserver_says_we_own() {
    let desired = desired(&target(CreationPolicy::Owner, DeletionPolicy::Delete));
    for since in [None, Some(Timestamp::UNIX_EPOCH)] {
        let applied = desired.to_secret(since, false);
        let mut fields = fields_of_an_owned_secret();
        if since.is_some() {
            fields["f:metadata"]["f:annotations"]["f:lockstep.dev/data-since"] = json!({});
        }
        let managed = seen(&applied, &fields).managed.unwrap();
        assert_eq!(managed.fields, desired.wanted.fields);
        assert_eq!(managed.revision, desired.wanted.revision);
        assert_eq!(managed.vault_secret, "app");
    }
}

#[test]
fn the_fields_of_a_secret_that_is_merged_into_are_data_and_marks() {
    let mut target = target(CreationPolicy::Merge, DeletionPolicy::Delete);
    (target.labels, target.annotations) = ([].into(), [].into());
    let desired = desired(&target);
    let applied = desired.to_secret(None, false);
    assert_eq!(applied.type_, None);
    assert_eq!(applied.metadata.labels, None);
    assert_eq!(applied.metadata.owner_references, None);
    let marks = json!({
        "f:lockstep.dev/merged": {}, "f:lockstep.dev/remove-keys-on-delete": {},
        "f:lockstep.dev/revision": {}, "f:lockstep.dev/vault-secret": {},
    });
    let fields =
        json!({"f:data": {"f:pass": {}, "f:user": {}}, "f:metadata": {"f:annotations": marks}});
    let managed = seen(&applied, &fields).managed.unwrap();
    assert_eq!(managed.fields, desired.wanted.fields);
    assert!(managed.merged && managed.remove_keys);
}

#[test]
fn each_field_taken_or_changed_shows() {
    let desired = desired(&target(CreationPolicy::Owner, DeletionPolicy::Delete));
    let applied = desired.to_secret(None, false);
    for pointer in [
        "/f:data/f:user",
        "/f:metadata/f:labels/f:tier",
        "/f:metadata/f:annotations/f:example.org~1note",
        "/f:metadata/f:ownerReferences",
        "/f:type",
    ] {
        let mut fields = fields_of_an_owned_secret();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/");
        let parent = fields.pointer_mut(parent).and_then(Value::as_object_mut);
        assert!(parent.unwrap().remove(&name).is_some(), "{pointer}");
        let managed = seen(&applied, &fields).managed.unwrap();
        assert_ne!(managed.fields, desired.wanted.fields, "{pointer}");
    }
    let mut edited = applied;
    let labels = edited.metadata.labels.as_mut().unwrap();
    labels.insert("tier".into(), "gold".into());
    let managed = seen(&edited, &fields_of_an_owned_secret()).managed.unwrap();
    assert_ne!(managed.fields, desired.wanted.fields);
}

#[test]
fn another_label_type_or_owner_is_another_wish_and_another_value_is_not() {
    let base = target(CreationPolicy::Owner, DeletionPolicy::Delete);
    let fields = |target: &Target| desired(target).wanted.fields;
    let mut label = base.clone();
    label.labels.insert("tier".into(), "gold".into());
    let mut typed = base.clone();
    typed.type_ = Some("kubernetes.io/tls".into());
    let mut opaque = base.clone();
    opaque.type_ = Some("Opaque".into());
    let retained = target(CreationPolicy::Owner, DeletionPolicy::Retain);
    assert_eq!(fields(&opaque), fields(&base));
    for other in [&label, &typed, &retained] {
        assert_ne!(fields(other), fields(&base), "{other:?}");
    }
    assert_eq!(
        fields(&target(CreationPolicy::Orphan, DeletionPolicy::Retain)),
        fields(&retained)
    );
}

#[test]
fn a_secret_holds_the_data_if_nothing_is_missing_other_or_too_much() {
    let live = |pairs: &[(&str, &str)]| Secret {
        data: Some(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
                .collect(),
        ),
        ..Secret::default()
    };
    let owned = desired(&target(CreationPolicy::Owner, DeletionPolicy::Delete));
    let merged = desired(&target(CreationPolicy::Merge, DeletionPolicy::Retain));
    let rows = [
        (live(&[("user", "v"), ("pass", "v")]), true, true),
        (live(&[("user", "v"), ("pass", "w")]), false, false),
        (live(&[("user", "v")]), false, false),
        (
            live(&[("user", "v"), ("pass", "v"), ("more", "v")]),
            false,
            true,
        ),
        (Secret::default(), false, false),
    ];
    for (live, by_owner, by_merge) in rows {
        let held = (owned.is_held_by(&live), merged.is_held_by(&live));
        assert_eq!(held, (by_owner, by_merge), "{:?}", live.data);
    }
}
