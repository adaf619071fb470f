//! Pure: what may be written to, and taken out of, a Secret that somebody else created.
//!
//! Server-side apply protects only fields that have an owner, and a key that was applied as `stringData`
//! has none: it would be overwritten without a conflict, and would go together with the last of our own.
//! So keys are compared by themselves.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use crate::{
    names::{DATA_SINCE, HOLDINGS, MERGED, REMOVE_KEYS, REVISION, VAULT_SECRET},
    secret_view::is_own_entry,
};

/// Refuses when one of `keys` is in the Secret already and was not written by us.
pub fn check<'a>(
    live: &Secret,
    name: &str,
    keys: impl IntoIterator<Item = &'a str>,
) -> Result<(), Refusal> {
    let (own, others) = entries(live);
    let ours = keys_of(&own);
    let there = live.data.clone().unwrap_or_default();
    let taken = keys
        .into_iter()
        .find(|key| there.contains_key(*key) && !ours.contains(*key));
    let Some(key) = taken else {
        return Ok(());
    };
    let owner = others
        .into_iter()
        .find(|entry| keys_of(&[*entry]).contains(key))
        .and_then(|entry| entry.manager.as_deref());
    let by = owner.map_or_else(
        || "was not written by Lockstep".to_owned(),
        |owner| format!("was written by {owner:?}"),
    );
    Err(Refusal::TargetConflict {
        name: name.to_owned(),
        why: format!("its key {key} {by} and is not overwritten"),
    })
}

/// The merge patch that takes out what we wrote and nothing else.
pub fn release(live: &Secret) -> Value {
    let (own, others) = entries(live);
    let shared = keys_of(&others);
    let nothing = |name: &str| (name.to_owned(), Value::Null);
    let data: Map<_, _> = keys_of(&own)
        .difference(&shared)
        .map(|key| nothing(key))
        .collect();
    let annotations: Map<_, _> = [
        VAULT_SECRET,
        REVISION,
        DATA_SINCE,
        MERGED,
        REMOVE_KEYS,
        HOLDINGS,
    ]
    .map(nothing)
    .into_iter()
    .collect();
    json!({
        "metadata": {
            "uid": live.metadata.uid,
            "resourceVersion": live.metadata.resource_version,
            "annotations": annotations,
        },
        "data": data,
    })
}

/// The merge patch that takes the record of what was issued out of the Secret of this UID and resource version.
pub fn forget((uid, resource_version): &(String, String)) -> Value {
    json!({
        "metadata": {
            "uid": uid,
            "resourceVersion": resource_version,
            "annotations": {HOLDINGS: null},
        },
    })
}

/// Our entry of the managed fields, and those of everybody else.
fn entries(live: &Secret) -> (Vec<&ManagedFieldsEntry>, Vec<&ManagedFieldsEntry>) {
    let all = live.metadata.managed_fields.iter().flatten();
    all.partition(|entry| is_own_entry(entry))
}

/// The data keys these entries own.
fn keys_of(entries: &[&ManagedFieldsEntry]) -> BTreeSet<String> {
    entries
        .iter()
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:data")?.as_object())
        .flat_map(|data| data.keys())
        .filter_map(|key| key.strip_prefix("f:").map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SECRET_MANAGER;

    /// A Secret whose key `ours` is ours, `kubectl` is kubectl's, `both` is both's, and `unowned` nobody's.
    fn live() -> Secret {
        let entry = |manager: &str, operation: &str, keys: &[&str]| {
            let fields: Map<_, _> = keys
                .iter()
                .map(|key| (format!("f:{key}"), json!({})))
                .collect();
            json!({"manager": manager, "operation": operation, "fieldsV1": {"f:data": fields}})
        };
        serde_json::from_value(json!({
            "metadata": {
                "name": "s", "uid": "u", "resourceVersion": "7",
                "managedFields": [
                    entry(SECRET_MANAGER, "Apply", &["ours", "both"]),
                    entry("kubectl", "Update", &["kubectl", "both"]),
                ],
            },
            "data": {"ours": "", "kubectl": "", "both": "", "unowned": ""},
        }))
        .unwrap()
    }

    #[test]
    fn only_keys_that_are_new_or_ours_may_be_written() {
        let table = [
            ("ours", None),
            ("new", None),
            ("both", None),
            (
                "kubectl",
                Some("its key kubectl was written by \"kubectl\" and is not overwritten"),
            ),
            (
                "unowned",
                Some("its key unowned was not written by Lockstep and is not overwritten"),
            ),
        ];
        for (key, refused) in table {
            let found = check(&live(), "s", [key]).err();
            let expected = refused.map(|why| Refusal::TargetConflict {
                name: "s".into(),
                why: why.into(),
            });
            assert_eq!(found, expected, "{key}");
        }
    }

    /// Whoever wrote the Secret since is not overwritten: the record may be in use again, or another object's.
    #[test]
    fn a_record_is_taken_out_of_just_the_secret_that_was_looked_at() {
        let patch = forget(&("u".to_owned(), "7".to_owned()));
        let expected = json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {HOLDINGS: null}},
        });
        assert_eq!(patch, expected);
    }

    #[test]
    fn only_keys_that_are_ours_alone_are_taken_out() {
        let patch = release(&live());
        assert_eq!(patch["data"], json!({"ours": null}));
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        for mark in [VAULT_SECRET, HOLDINGS] {
            let annotations = patch["metadata"]["annotations"].as_object().unwrap();
            assert_eq!(annotations.get(mark), Some(&json!(null)));
        }
    }
}
