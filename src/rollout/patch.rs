//! Pure: what is written on a workload, to the letter. Both are server-side applies of one field manager.
//!
//! What a field manager applied before and leaves out now is taken away. So the stamp takes away a proof
//! that stood before, which must not outlive it, and the proof must repeat a stamp, or it would restart the pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{WorkloadKey, view::WorkloadView};
use crate::names::{IN_STEP, SECRETS_HASH};

/// Puts `hash` into the pod template: this is the restart.
pub fn stamp(workload: &WorkloadKey, view: &WorkloadView, hash: &str) -> Value {
    let mut body = identity(workload, view);
    put(&mut body, "spec", template(hash));
    body
}

/// Asks the controller of a Rollout of Argo to replace every pod that was made before `at`, for `hash`.
///
/// A stamp that we put into its template before is repeated, lest the template change.
pub fn restart_at(workload: &WorkloadKey, view: &WorkloadView, hash: &str, at: Timestamp) -> Value {
    let mut body = annotated(workload, view, (SECRETS_HASH, hash));
    let mut spec = view
        .our_template_stamp()
        .map_or_else(|| json!({}), template);
    put(&mut spec, "restartAt", json!(at.to_string()));
    put(&mut body, "spec", spec);
    body
}

/// Notes on the workload that its pods were proved to run the data of `hash`. Its template stays as it is.
pub fn record(workload: &WorkloadKey, view: &WorkloadView, hash: &str) -> Value {
    let mut body = annotated(workload, view, (IN_STEP, hash));
    if let Some(stamp) = view.our_template_stamp() {
        put(&mut body, "spec", template(stamp));
    }
    body
}

/// With the UID, so that a workload that was replaced meanwhile is not touched and one that is gone not created.
fn identity(workload: &WorkloadKey, view: &WorkloadView) -> Value {
    json!({
        "apiVersion": workload.kind.api_version(),
        "kind": workload.kind.as_str(),
        "metadata": {
            "name": workload.name,
            "namespace": workload.namespace,
            "uid": view.uid,
        },
    })
}

/// The same with an annotation of the workload itself.
fn annotated(workload: &WorkloadKey, view: &WorkloadView, (name, value): (&str, &str)) -> Value {
    let mut body = identity(workload, view);
    if let Some(metadata) = body.get_mut("metadata") {
        put(metadata, "annotations", json!({ name: value }));
    }
    body
}

fn template(hash: &str) -> Value {
    json!({ "template": { "metadata": { "annotations": { SECRETS_HASH: hash } } } })
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
