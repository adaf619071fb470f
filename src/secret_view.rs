//! Pure: what is kept in memory of a Secret. Its metadata says enough; values are never watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde_json::Value;

use crate::{
    names::{
        AGAIN, DATA_SINCE, HOLDINGS, MERGED, REMOVE_KEYS, REVISION, SECRET_MANAGER, VAULT_SECRET,
    },
    revision::Revision,
    sync::holding::record::Records,
};

/// One Secret, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretView {
    /// UID of the Secret.
    pub uid: String,
    /// Changes whenever the Secret does: whoever depends on its content compares this.
    pub resource_version: String,
    /// When the apiserver made it.
    pub created: Option<Timestamp>,
    /// What we wrote, if it is one of ours.
    pub managed: Option<Managed>,
}

/// A Secret that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Name of the VaultSecret it belongs to, in the same namespace.
    pub vault_secret: String,
    /// Revision of the data we wrote.
    pub revision: Revision,
    /// Since when the data is what it is, in the apiserver's time.
    pub data_since: Timestamp,
    /// Whether another Secret of this name was there before, with other data.
    pub again: bool,
    /// Whether somebody else created it, so that only our keys in it are ours.
    pub merged: bool,
    /// Whether our keys go when the VaultSecret goes.
    pub remove_keys: bool,
    /// What was issued for it, if anything.
    pub holdings: Option<Arc<Holdings>>,
    /// Digest of the fields our field manager owns. Whoever changes or deletes one of them takes it from us,
    /// so this shows every hand edit without reading a value.
    pub fields: u64,
}

/// What was issued for a Secret, and what of it is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// The record.
    pub records: Records,
    /// The keys of the data that hold what we wrote: whoever changes or deletes one takes it from us.
    pub intact: BTreeSet<String>,
    /// Which field manager holds a key now that we wrote.
    pub taken: BTreeMap<String, String>,
}

impl SecretView {
    /// Its UID and resource version.
    pub fn version(&self) -> (String, String) {
        (self.uid.clone(), self.resource_version.clone())
    }

    /// Reads the metadata of a Secret.
    pub fn project(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            managed: Managed::project(metadata),
        }
    }
}

impl Managed {
    fn project(metadata: &ObjectMeta) -> Option<Self> {
        let annotations = metadata.annotations.as_ref()?;
        let entry = own_entry(metadata);
        let data_since = match entry {
            Some(entry) => annotations
                .get(DATA_SINCE)
                .and_then(|text| text.parse().ok())
                .or_else(|| Some(entry.time.as_ref()?.0)),
            None => last_written(metadata),
        };
        let fields = entry.and_then(|entry| entry.fields_v1.as_ref());
        Some(Self {
            vault_secret: annotations.get(VAULT_SECRET)?.clone(),
            revision: Revision::from_annotation(annotations.get(REVISION)?),
            data_since: data_since?,
            again: annotations
                .get(DATA_SINCE)
                .is_some_and(|text| text == AGAIN),
            merged: annotations.contains_key(MERGED),
            remove_keys: annotations.contains_key(REMOVE_KEYS),
            holdings: annotations.get(HOLDINGS).map(|text| {
                let records = Records::parse(text).unwrap_or_default();
                let intact = owned_data(metadata);
                Arc::new(Holdings {
                    taken: taken(metadata, &records, &intact),
                    records,
                    intact,
                })
            }),
            fields: fields.map_or(0, |fields| {
                fields_digest(&owned_fields(&fields.0, metadata))
            }),
        })
    }
}

/// A Secret that carries our mark but not our entry was written by somebody else, such as a restore from a backup.
/// It is still ours to put right; its data is as young as the last write of anybody.
fn last_written(metadata: &ObjectMeta) -> Option<Timestamp> {
    let entries = metadata.managed_fields.iter().flatten();
    let times = entries.filter_map(|entry| entry.time.as_ref());
    times
        .chain(&metadata.creation_timestamp)
        .map(|time| time.0)
        .max()
}

/// Our field manager's server-side apply entry.
fn own_entry(metadata: &ObjectMeta) -> Option<&ManagedFieldsEntry> {
    let entries = metadata.managed_fields.as_ref()?;
    entries.iter().find(|entry| is_own_entry(entry))
}

/// Whether this entry of the managed fields is our field manager's.
pub fn is_own_entry(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(SECRET_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

/// The fields of `fieldsV1` as `/f:data/f:password`; labels and annotations with their value, which is no secret.
///
/// Our own notes on the revision are left out: they are compared by themselves.
fn owned_fields(fields: &Value, metadata: &ObjectMeta) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    collect(fields, "", &mut paths);
    paths
        .into_iter()
        .filter_map(|path| with_value(path, metadata))
        .collect()
}

/// The keys of the data that are as we wrote them last.
pub fn owned_data(metadata: &ObjectMeta) -> BTreeSet<String> {
    let keys = own_entry(metadata).into_iter().flat_map(data_keys);
    keys.map(str::to_owned).collect()
}

/// The keys of the data that this field manager holds.
fn data_keys(entry: &ManagedFieldsEntry) -> impl Iterator<Item = &str> {
    let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
    let data = fields.and_then(|fields| fields.get("f:data")?.as_object());
    let names = data.into_iter().flat_map(|data| data.keys());
    names.filter_map(|name| name.strip_prefix("f:"))
}

/// Who holds the keys that are recorded and not intact.
fn taken(
    metadata: &ObjectMeta,
    records: &Records,
    intact: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let recorded = records
        .held
        .values()
        .flat_map(|record| record.keys.values());
    let lost: BTreeSet<&str> = recorded
        .filter(|key| !intact.contains(*key))
        .map(String::as_str)
        .collect();
    let entries = metadata.managed_fields.iter().flatten();
    let held = entries.filter(|_| !lost.is_empty()).flat_map(|entry| {
        let manager = entry.manager.clone().unwrap_or_default();
        data_keys(entry).map(move |key| (key.to_owned(), manager.clone()))
    });
    held.filter(|(key, _)| lost.contains(key.as_str()))
        .collect()
}

fn with_value(path: String, metadata: &ObjectMeta) -> Option<String> {
    let (values, name) = match (path.strip_prefix(LABELS), path.strip_prefix(ANNOTATIONS)) {
        (Some(name), _) => (metadata.labels.as_ref(), name),
        (_, Some(REVISION | DATA_SINCE)) => return None,
        (_, Some(name)) => (metadata.annotations.as_ref(), name),
        (None, None) => return Some(path),
    };
    let value = values.and_then(|values| values.get(name));
    Some(format!("{path}={}", value.map_or("", String::as_str)))
}

const LABELS: &str = "/f:metadata/f:labels/f:";
const ANNOTATIONS: &str = "/f:metadata/f:annotations/f:";

/// The field path of a label with its value, as [`Managed::fields`] counts it.
pub fn label_field(name: &str, value: &str) -> String {
    format!("{LABELS}{name}={value}")
}

/// The field path of an annotation with its value.
pub fn annotation_field(name: &str, value: &str) -> String {
    format!("{ANNOTATIONS}{name}={value}")
}

/// The field path of a data key.
pub fn data_field(key: &str) -> String {
    format!("/f:data/f:{key}")
}

/// The field path of an owner reference.
pub fn owner_field(uid: &str) -> String {
    format!("/f:metadata/f:ownerReferences/k:{{\"uid\":\"{uid}\"}}")
}

/// The field path of the type.
pub const TYPE_FIELD: &str = "/f:type";

fn collect(node: &Value, path: &str, paths: &mut BTreeSet<String>) {
    let Value::Object(children) = node else {
        return;
    };
    for (name, child) in children {
        if name == "." {
            continue;
        }
        let path = format!("{path}/{name}");
        let deeper = child
            .as_object()
            .is_some_and(|deeper| deeper.keys().any(|key| key != "."));
        if deeper {
            collect(child, &path, paths);
        } else {
            paths.insert(path);
        }
    }
}

/// Digest of a set of field paths; only compared within one process.
pub fn fields_digest(paths: &BTreeSet<String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    paths.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(manager: &str, data: &Value, extra: Option<(&str, &str)>) -> ObjectMeta {
        let mut annotations = json!({VAULT_SECRET: "checkout", REVISION: "k1:00"});
        if let Some((key, value)) = extra {
            annotations[key] = json!(value);
        }
        serde_json::from_value(json!({
            "name": "checkout", "uid": "u1", "resourceVersion": "7",
            "annotations": annotations,
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:09Z", "fieldsV1": {"f:data": {"f:other": {}}}},
                {"manager": manager, "operation": "Apply", "time": "2026-01-01T00:00:05Z", "fieldsV1": {"f:data": data, "f:metadata": {"f:annotations": {"f:x": {}}}}},
            ]
        }))
        .unwrap()
    }

    #[test]
    fn a_secret_with_our_mark_but_without_our_entry_is_ours_to_put_right() {
        let restored = SecretView::project(&metadata("velero", &json!({"f:a": {}}), None));
        let managed = restored.managed.unwrap();
        assert_eq!(managed.fields, 0);
        assert_eq!(managed.data_since.to_string(), "2026-01-01T00:00:09Z");
    }

    #[test]
    fn a_secret_without_our_mark_is_not_ours() {
        let mut unmarked = metadata(SECRET_MANAGER, &json!({"f:a": {}}), None);
        unmarked.annotations.as_mut().unwrap().remove(VAULT_SECRET);
        assert_eq!(SecretView::project(&unmarked).managed, None);
    }

    #[test]
    fn the_time_of_our_entry_dates_the_data_unless_an_annotation_says_earlier() {
        let plain = SecretView::project(&metadata(SECRET_MANAGER, &json!({"f:a": {}}), None))
            .managed
            .unwrap();
        assert_eq!(plain.data_since.to_string(), "2026-01-01T00:00:05Z");
        let since = Some((DATA_SINCE, "2025-12-31T00:00:00Z"));
        let kept = SecretView::project(&metadata(SECRET_MANAGER, &json!({"f:a": {}}), since))
            .managed
            .unwrap();
        assert_eq!(kept.data_since.to_string(), "2025-12-31T00:00:00Z");
    }

    #[test]
    fn who_took_a_recorded_key_is_known() {
        let records = r#"{"held": {"db": {"ask": "a", "unleased": {}, "at": "2026-01-01T00:00:00Z",
            "keys": {"x": "other", "y": "a", "z": "gone"}}}}"#;
        let data = json!({"f:a": {}});
        let seen = SecretView::project(&metadata(SECRET_MANAGER, &data, Some((HOLDINGS, records))));
        let holdings = seen.managed.unwrap().holdings.unwrap();
        assert_eq!(holdings.intact, ["a".to_owned()].into());
        let taken = [("other".to_owned(), "kubectl".to_owned())].into();
        assert_eq!(holdings.taken, taken);
    }

    #[test]
    fn a_field_taken_from_us_shows_in_the_digest() {
        let digest = |data: &Value| {
            SecretView::project(&metadata(SECRET_MANAGER, data, None))
                .managed
                .unwrap()
                .fields
        };
        let both = digest(&json!({".": {}, "f:a": {}, "f:b": {}}));
        assert_eq!(both, digest(&json!({"f:b": {}, "f:a": {}})));
        assert_ne!(both, digest(&json!({"f:a": {}})));
    }

    #[test]
    fn the_value_of_an_owned_annotation_counts_but_not_our_note_on_the_revision() {
        let fields =
            json!({"f:metadata": {"f:annotations": {"f:x": {}, "f:lockstep.dev/revision": {}}}});
        let mut metadata = ObjectMeta {
            annotations: Some([("x".to_owned(), "1".to_owned())].into()),
            ..Default::default()
        };
        assert_eq!(
            owned_fields(&fields, &metadata),
            [annotation_field("x", "1")].into()
        );
        metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert("x".into(), "2".into());
        assert_eq!(
            owned_fields(&fields, &metadata),
            [annotation_field("x", "2")].into()
        );
    }
}
