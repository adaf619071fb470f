//! Pure: the Secret as it shall be. Nothing here can fail: all checks are behind us.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{holding::record::Records, render::Data, resolve::Target};
use crate::{
    api::vault_secret::{CreationPolicy, DeletionPolicy},
    names::{
        AGAIN, DATA_SINCE, HOLDINGS, LOCKSTEP, MANAGED_BY, MERGED, ObjectKey, REMOVE_KEYS,
        REVISION, TARGET_TYPE, VAULT_SECRET,
    },
    revision::Revision,
    secret_view::{
        TYPE_FIELD, annotation_field, data_field, fields_digest, label_field, owner_field,
    },
    sensitive::Sensitive,
};

/// The type of a Secret of which nothing is said.
const OPAQUE: &str = "Opaque";

/// What identifies the Secret we want, without its values: enough to see whether there is anything to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Revision of the data.
    pub revision: Revision,
    /// Digest of the fields we shall own, comparable with `Managed::fields`.
    pub fields: u64,
}

/// The Secret we want, ready to be applied.
#[derive(Clone)]
pub struct DesiredSecret {
    /// What identifies it.
    pub wanted: Wanted,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// How it may be written.
    pub creation: CreationPolicy,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    type_: Option<String>,
    owner: Option<OwnerReference>,
    data: Data,
    over: Option<String>,
}

impl DesiredSecret {
    /// The Secret of `object` (with this UID), holding `data`.
    pub fn new(
        object: &ObjectKey,
        uid: &str,
        target: &Target,
        (data, revision): (Data, Revision),
        records: &Records,
    ) -> Self {
        let creates = target.creation != CreationPolicy::Merge;
        let removes = target.deletion == DeletionPolicy::Delete;
        let mut labels = target.labels.clone();
        if creates {
            labels.insert(MANAGED_BY.to_owned(), LOCKSTEP.to_owned());
        }
        let mut annotations = target.annotations.clone();
        annotations.insert(VAULT_SECRET.to_owned(), object.name.clone());
        annotations.extend(holdings(records));
        if !creates {
            annotations.insert(MERGED.to_owned(), "true".to_owned());
        }
        if !creates && removes {
            annotations.insert(REMOVE_KEYS.to_owned(), "true".to_owned());
        }
        if let Some(type_) = target.type_.as_ref().filter(|type_| *type_ != OPAQUE) {
            annotations.insert(TARGET_TYPE.to_owned(), type_.clone());
        }
        let owner = (creates && removes).then(|| owner_reference(object, uid));
        let type_ = creates.then(|| target.type_.clone().unwrap_or_else(|| OPAQUE.to_owned()));
        let mut desired = Self {
            wanted: Wanted {
                revision,
                fields: 0,
            },
            key: ObjectKey::new(&object.namespace, &target.name),
            creation: target.creation,
            labels,
            annotations,
            type_,
            owner,
            data,
            over: None,
        };
        desired.wanted.fields = desired.fields();
        desired
    }

    /// Digest of the fields it will own.
    fn fields(&self) -> u64 {
        let labels = self.labels.iter();
        let annotations = self.annotations.iter();
        let fields: BTreeSet<_> = labels
            .map(|(name, value)| label_field(name, value))
            .chain(annotations.map(|(name, value)| annotation_field(name, value)))
            .chain(self.data.keys().map(|key| data_field(key)))
            .chain(self.owner.iter().map(|owner| owner_field(&owner.uid)))
            .chain(self.type_.iter().map(|_| TYPE_FIELD.to_owned()))
            .collect();
        fields_digest(&fields)
    }

    /// Lets it be written over no other version than this.
    pub fn set_over(&mut self, resource_version: &str) {
        self.over = Some(resource_version.to_owned());
    }

    /// Has the Secret say this of what was issued for it.
    pub fn set_records(&mut self, records: &Records) {
        self.annotations.remove(HOLDINGS);
        self.annotations.extend(holdings(records));
        self.wanted.fields = self.fields();
    }

    /// The keys of its data.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str)
    }

    /// Whether `live` holds this data: nothing else, unless it is only merged into.
    pub fn is_held_by(&self, live: &Secret) -> bool {
        let held = live.data.as_ref();
        let count = held.map_or(0, BTreeMap::len);
        let same = |(key, value): (&String, &Sensitive)| {
            held.and_then(|held| held.get(key))
                .is_some_and(|held| held.0 == value.expose())
        };
        self.data.iter().all(same)
            && (self.creation == CreationPolicy::Merge || count == self.data.len())
    }

    /// The object to apply. `data_since` dates data that is older than this write.
    pub fn to_secret(&self, data_since: Option<Timestamp>, again: bool) -> Secret {
        let mut annotations = self.annotations.clone();
        annotations.insert(REVISION.to_owned(), self.wanted.revision.to_string());
        if let Some(since) = data_since {
            annotations.insert(DATA_SINCE.to_owned(), since.to_string());
        } else if again {
            annotations.insert(DATA_SINCE.to_owned(), AGAIN.to_owned());
        }
        let data = self
            .data
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.expose().to_vec())))
            .collect();
        Secret {
            metadata: ObjectMeta {
                name: Some(self.key.name.clone()),
                namespace: Some(self.key.namespace.clone()),
                labels: (!self.labels.is_empty()).then(|| self.labels.clone()),
                annotations: Some(annotations),
                resource_version: self.over.clone(),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: self.type_.clone(),
            data: Some(data),
            ..Secret::default()
        }
    }
}

fn holdings(records: &Records) -> Option<(String, String)> {
    records
        .to_annotation()
        .map(|text| (HOLDINGS.to_owned(), text))
}

/// With this the garbage collector deletes the Secret together with the `VaultSecret`; no finalizer is needed.
fn owner_reference(object: &ObjectKey, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "lockstep.dev/v1alpha1".to_owned(),
        kind: "VaultSecret".to_owned(),
        name: object.name.clone(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

#[cfg(test)]
mod tests;
