//! Effects: memory only. Pods that use a Secret and that no restart reaches: bare ones, those of Jobs, and of kinds that are not restarted.
//!
//! After a change of data they are looked for once, and told. They are not watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    bind::Data,
    pod::{is_finished, secrets_of},
};
use crate::{cache::Change, names::ObjectKey, secret_view::SecretView};

/// Selects them among the pods of a namespace: those of workloads carry the hash of their template.
pub const SELECTOR: &str =
    "!pod-template-hash,!controller-revision-hash,!rollouts-pod-template-hash";

/// How many are named.
const MOST_NAMED: usize = 5;

/// The Secrets whose data changed since their users were last looked for, by namespace.
#[derive(Debug, Default)]
pub struct Changed(Mutex<BTreeMap<String, BTreeSet<String>>>);

impl Changed {
    /// Notes that the data of `secret` changed.
    pub fn note(&self, secret: &ObjectKey) {
        let mut all = self.lock();
        let names = all.entry(secret.namespace.clone()).or_default();
        names.insert(secret.name.clone());
    }

    /// Puts back what was taken out and could not be looked for.
    pub fn put_back(&self, namespace: &str, names: BTreeSet<String>) {
        let mut all = self.lock();
        all.entry(namespace.to_owned()).or_default().extend(names);
    }

    /// Takes out the names of those of `namespace`.
    pub fn take(&self, namespace: &str) -> BTreeSet<String> {
        self.lock().remove(namespace).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a Secret that held data before holds other data now.
pub fn has_new_data(change: &Change<SecretView>) -> bool {
    let data = |view: &SecretView| {
        let managed = view.managed.as_ref()?;
        Some(Data {
            secret: change.key.name.clone(),
            revision: managed.revision.clone(),
            since: managed.data_since,
        })
    };
    let old = change.old.as_deref().and_then(data);
    let new = change.new.as_deref().and_then(data);
    old.zip(new).is_some_and(|(old, new)| !old.is_same_as(&new))
}

/// What to say of those of `pods` that use `secret` and were made before its data, which is there since `since`.
pub fn note(pods: &[Pod], secret: &str, since: Timestamp) -> Option<String> {
    let left: BTreeSet<_> = pods
        .iter()
        .filter(|pod| runs_older(pod, secret, since))
        .map(who)
        .collect();
    if left.is_empty() {
        return None;
    }
    let more = left.len().saturating_sub(MOST_NAMED);
    let mut named: Vec<_> = left.into_iter().take(MOST_NAMED).collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    Some(format!(
        "not restarted for the new data of Secret {secret}: {}. If they read it only at their start, they go on with older data until they end",
        named.join(", ")
    ))
}

fn runs_older(pod: &Pod, secret: &str, since: Timestamp) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref();
    let ends =
        pod.metadata.deletion_timestamp.is_some() || pod.status.as_ref().is_some_and(is_finished);
    let uses = |pod: &Pod| Some(secrets_of(pod.spec.as_ref()?).contains(secret));
    !ends && made.is_some_and(|made| made.0 <= since) && uses(pod) == Some(true)
}

/// Whoever made the pod, or else the pod.
fn who(pod: &Pod) -> String {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    controller.map_or_else(
        || format!("Pod {}", pod.metadata.name.as_deref().unwrap_or_default()),
        |owner| format!("{} {}", owner.kind, owner.name),
    )
}

#[cfg(test)]
mod tests;
