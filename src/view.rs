//! Pure: what is kept in memory of our own objects and of namespaces.
//!
//! Every object is decoded on its own: one that does not fit the schema becomes an [`Undecodable`] in its
//! own place, and the others never notice.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;

use crate::{
    api::{
        vault_auth::{AuthSpec, VaultAuthStatus},
        vault_connection::{ConnectionSpec, VaultConnectionStatus},
        vault_secret::{VaultSecretSpec, VaultSecretStatus},
    },
    names::{EMERGENCY, FINALIZER, FLUX_REQUESTED_AT, REFRESH, ROTATE},
};

/// One of our custom resources: its spec as `S`, its status as `T`.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectView<S, T> {
    /// UID of the object.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// The spec, or why it does not decode.
    pub spec: Result<Arc<S>, Undecodable>,
    /// The status as last seen. An undecodable one counts as none: it is written anew.
    pub status: Arc<T>,
    /// The value of the refresh request annotation.
    pub refresh: Option<String>,
    /// The value of the annotation that asks to have everything issued anew.
    pub rotate: Option<String>,
    /// Whether it carries the annotation that makes its restarts urgent.
    pub emergency: bool,
    /// Whether it carries our finalizer.
    pub finalizer: bool,
    /// Since when it is being deleted.
    pub deleted: Option<Timestamp>,
}

/// A `VaultSecret`.
pub type VaultSecretView = ObjectView<VaultSecretSpec, VaultSecretStatus>;
/// A `VaultAuth` or `ClusterVaultAuth`.
pub type AuthView = ObjectView<AuthSpec, VaultAuthStatus>;
/// A `VaultConnection` or `ClusterVaultConnection`.
pub type ConnectionView = ObjectView<ConnectionSpec, VaultConnectionStatus>;

/// An object whose spec does not fit the schema of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecodable {
    /// Path of the field, such as `spec.sources[0].kv.mount`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl<S, T: DeserializeOwned + Default> ObjectView<S, T> {
    /// Decodes one object whose spec is written as `W`.
    pub fn project<W>(object: DynamicObject) -> Self
    where
        W: DeserializeOwned + Into<S>,
    {
        let DynamicObject {
            metadata, mut data, ..
        } = object;
        let status = data
            .get_mut("status")
            .map(serde_json::Value::take)
            .unwrap_or_default();
        let spec = data
            .get_mut("spec")
            .map(serde_json::Value::take)
            .unwrap_or_default();
        Self {
            refresh: refresh_request(&metadata),
            rotate: metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(ROTATE).cloned()),
            emergency: metadata
                .annotations
                .as_ref()
                .is_some_and(|annotations| annotations.contains_key(EMERGENCY)),
            finalizer: metadata
                .finalizers
                .iter()
                .flatten()
                .any(|finalizer| finalizer == FINALIZER),
            deleted: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            spec: decode::<W>(spec).map(|spec| Arc::new(spec.into())),
            status: Arc::new(serde_json::from_value(status).unwrap_or_default()),
        }
    }

    /// Whether anything but the status differs.
    pub fn asks_otherwise_than(&self, other: &Self) -> bool
    where
        S: PartialEq,
    {
        self.uid != other.uid
            || self.generation != other.generation
            || self.refresh != other.refresh
            || self.rotate != other.rotate
            || self.emergency != other.emergency
            || self.deleted != other.deleted
            || self.spec != other.spec
    }
}

fn decode<W: DeserializeOwned>(spec: serde_json::Value) -> Result<W, Undecodable> {
    serde_path_to_error::deserialize(spec).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            "spec".to_owned()
        } else {
            format!("spec.{path}")
        };
        Undecodable {
            field,
            why: error.into_inner().to_string(),
        }
    })
}

/// Our own annotation and Flux's count the same; both together are one request.
fn refresh_request(metadata: &ObjectMeta) -> Option<String> {
    let annotations = metadata.annotations.as_ref()?;
    let requests: Vec<_> = [REFRESH, FLUX_REQUESTED_AT]
        .iter()
        .filter_map(|name| annotations.get(*name))
        .map(String::as_str)
        .collect();
    (!requests.is_empty()).then(|| requests.join("+"))
}

/// The labels of a namespace, which allow-lists select by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceView {
    /// All labels.
    pub labels: BTreeMap<String, String>,
}

impl NamespaceView {
    /// Reads the metadata of a namespace.
    pub fn project(metadata: &ObjectMeta) -> Self {
        Self {
            labels: metadata.labels.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::vault_auth::VaultAuthSpec;

    fn view(spec: &serde_json::Value, annotations: &serde_json::Value) -> VaultSecretView {
        let object = serde_json::from_value(json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "generation": 2, "annotations": annotations},
            "spec": spec, "status": {"observedGeneration": 1},
        }));
        VaultSecretView::project::<VaultSecretSpec>(object.unwrap())
    }

    #[test]
    fn an_undecodable_field_is_named() {
        let view = view(
            &json!({"sources": [{"name": "a", "kv": {"mount": 7, "path": "x"}}]}),
            &json!({}),
        );
        let undecodable = view.spec.unwrap_err();
        assert_eq!(undecodable.field, "spec.sources[0].kv.mount");
        assert!(
            undecodable.why.contains("expected a string"),
            "{}",
            undecodable.why
        );
        assert_eq!(view.status.observed_generation, Some(1));
    }

    #[test]
    fn a_duration_that_is_too_long_is_told_with_the_longest_and_its_form() {
        let pki = json!({"mount": "pki", "role": "r", "commonName": "a", "ttl": "9000h"});
        let view = view(&json!({"sources": [{"name": "a", "pki": pki}]}), &json!({}));
        let undecodable = view.spec.unwrap_err();
        assert_eq!(undecodable.field, "spec.sources[0].pki.ttl");
        assert_eq!(
            undecodable.why,
            "9000h is too long: a duration may be at most 366d (8784h), written as 90s, 5m, 1h30m or 30d"
        );
    }

    #[test]
    fn an_undecodable_field_of_a_login_is_named() {
        let object = serde_json::from_value(json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth", "metadata": {"name": "a"},
            "spec": {
                "connectionRef": {"kind": "VaultConnection", "name": "main"},
                "kubernetes": {"role": 7, "audiences": ["vault"]},
            },
        }));
        let view = AuthView::project::<VaultAuthSpec>(object.unwrap());
        let undecodable = view.spec.unwrap_err();
        assert!(
            undecodable.why.starts_with("kubernetes.role: invalid type"),
            "{undecodable:?}"
        );
    }

    #[test]
    fn a_missing_spec_is_undecodable_too() {
        let undecodable = view(&json!(null), &json!({})).spec.unwrap_err();
        assert_eq!(undecodable.field, "spec");
    }

    #[test]
    fn both_refresh_annotations_count() {
        let spec = json!({"sources": [{"name": "a"}]});
        assert_eq!(view(&spec, &json!({})).refresh, None);
        assert_eq!(
            view(&spec, &json!({REFRESH: "1"})).refresh.as_deref(),
            Some("1")
        );
        let both = view(&spec, &json!({REFRESH: "1", FLUX_REQUESTED_AT: "2"}));
        assert_eq!(both.refresh.as_deref(), Some("1+2"));
    }

    #[test]
    fn a_status_alone_asks_for_nothing() {
        let spec = json!({"sources": [{"name": "a"}]});
        let old = view(&spec, &json!({}));
        let mut new = old.clone();
        new.status = Arc::default();
        assert!(!new.asks_otherwise_than(&old));
        new.generation = 3;
        assert!(new.asks_otherwise_than(&old));
    }
}
