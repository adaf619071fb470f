//! Pure: which managed Secrets a workload is bound to, and which hash it should carry for them.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    WorkloadKey,
    turn::Waves,
    view::{Restart, WorkloadView},
};
use crate::{
    api::vault_secret::{RolloutSpec, VaultSecretSpec, WindowSpec, WorkloadRef},
    names::ObjectKey,
    revision::{Revision, combine},
    secret_view::SecretView,
};

/// Long enough to catch secrets that are rotated by one script, short enough that nobody waits for it.
const DEFAULT_SETTLE: Duration = Duration::from_secs(10);

/// What a Deployment itself allows by default before it reports no progress (`progressDeadlineSeconds`).
const DEFAULT_VERIFY_TIMEOUT: Duration = Duration::from_mins(10);

/// The shortest [`Policy::verify_timeout`]: with less, every restart would count as failed.
pub const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// What the rollout controller needs of a VaultSecret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follows {
    /// Which VaultSecret.
    pub key: ObjectKey,
    /// Name of the Secret it writes.
    pub target_name: String,
    /// What to restart, and when.
    pub policy: Policy,
    /// Whether restarts wait for nobody.
    pub urgent: bool,
}

/// What to restart, and when. Every default is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Restart every workload whose pods use the Secret.
    pub discover: bool,
    /// Workloads to restart besides.
    pub targets: Vec<WorkloadRef>,
    /// How long to wait for more changes.
    pub settle: Duration,
    /// How long a restart may take.
    pub verify_timeout: Duration,
    /// In which order workloads restart.
    pub waves: Option<Waves>,
    /// When they may; always if there are none.
    pub windows: Vec<WindowSpec>,
}

/// One managed Secret that a workload is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Which data of which Secret.
    pub data: Data,
    /// The VaultSecret that writes it.
    pub vault_secret: ObjectKey,
    /// Whether the Secret did not exist before it held this data.
    pub born: bool,
    /// Whether the workload is named as a target: then its pods count whether or not they use the Secret.
    pub listed: bool,
    /// See [`Policy::settle`].
    pub settle: Duration,
    /// See [`Policy::verify_timeout`].
    pub verify_timeout: Duration,
    /// See [`Policy::waves`].
    pub waves: Option<Waves>,
    /// See [`Policy::windows`].
    pub windows: Vec<WindowSpec>,
    /// See [`Follows::urgent`].
    pub urgent: bool,
}

/// What one Secret holds, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Name of the Secret.
    pub secret: String,
    /// Keyed digest of the data.
    pub revision: Revision,
    /// Since when the data is what it is, in the apiserver's time.
    pub since: Timestamp,
}

impl Data {
    /// Whether both are the same data: a new hash key shows it under another revision, with the same time.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.secret == other.secret
            && self.since == other.since
            && (self.revision == other.revision
                || self.revision.key_id() != other.revision.key_id())
    }
}

impl Policy {
    /// The policy of a VaultSecret's `spec.rollout`.
    pub fn from_spec(spec: Option<&RolloutSpec>) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        Self {
            discover: spec.discover.unwrap_or(true),
            targets: spec.targets,
            settle: spec
                .settle
                .map_or(DEFAULT_SETTLE, |settle| settle.as_duration()),
            verify_timeout: spec
                .verify_timeout
                .map_or(DEFAULT_VERIFY_TIMEOUT, |timeout| timeout.as_duration())
                .max(SHORTEST_TIMEOUT),
            waves: spec.waves.as_ref().map(Waves::from_spec),
            windows: spec.windows,
        }
    }
}

impl Follows {
    /// What is needed of the VaultSecret `key` with `spec`.
    pub fn from_spec(key: ObjectKey, spec: &VaultSecretSpec, urgent: bool) -> Self {
        let target_name = spec.target.as_ref().and_then(|target| target.name.clone());
        Self {
            target_name: target_name.unwrap_or_else(|| key.name.clone()),
            policy: Policy::from_spec(spec.rollout.as_ref()),
            urgent,
            key,
        }
    }

    /// Whether `workload` is one of the targets.
    pub fn lists(&self, workload: &WorkloadKey) -> bool {
        self.place(workload).is_some()
    }

    /// Where `workload` stands in `rollout.targets`.
    pub fn place(&self, workload: &WorkloadKey) -> Option<usize> {
        let mut targets = self.policy.targets.iter();
        let place =
            targets.position(|target| target.kind == workload.kind && target.name == workload.name);
        place.filter(|_| workload.namespace == self.key.namespace)
    }

    /// Whether `workload`, which looks like `view` if it exists, should be restarted for this VaultSecret.
    pub fn concerns(&self, workload: &WorkloadKey, view: Option<&WorkloadView>) -> bool {
        if view.is_some_and(|view| view.restart == Restart::Never) {
            return false;
        }
        let uses = view.is_some_and(|view| view.uses(&self.target_name));
        self.lists(workload) || (self.policy.discover && uses)
    }

    /// How `workload` is bound to `secret`, the target: not at all unless the Secret says that it is this VaultSecret's.
    fn bind(&self, workload: &WorkloadKey, secret: &SecretView) -> Option<Bound> {
        let managed = secret.managed.as_ref()?;
        (managed.vault_secret == self.key.name).then(|| Bound {
            data: Data {
                secret: self.target_name.clone(),
                revision: managed.revision.clone(),
                since: managed.data_since,
            },
            vault_secret: self.key.clone(),
            born: !managed.again
                && secret
                    .created
                    .is_some_and(|created| created >= managed.data_since),
            listed: self.lists(workload),
            settle: self.policy.settle,
            verify_timeout: self.policy.verify_timeout,
            waves: self.policy.waves.clone(),
            windows: self.policy.windows.clone(),
            urgent: self.urgent,
        })
    }
}

/// All managed Secrets that `workload` is bound to, by name. `follows` are the VaultSecrets of its namespace,
/// `secret` looks up a Secret of it.
pub fn bound<S: AsRef<SecretView>>(
    workload: &WorkloadKey,
    view: Option<&WorkloadView>,
    follows: &[Follows],
    secret: impl Fn(&str) -> Option<S>,
) -> Vec<Bound> {
    let mut all: Vec<Bound> = follows
        .iter()
        .filter(|follows| follows.concerns(workload, view))
        .filter_map(|follows| follows.bind(workload, secret(&follows.target_name)?.as_ref()))
        .collect();
    all.sort_by(|a, b| a.data.secret.cmp(&b.data.secret));
    all
}

/// The hash that the workload should carry; `None` if it is bound to nothing.
pub fn wanted(bound: &[Bound]) -> Option<String> {
    let held = bound.iter().map(|bound| {
        let Data {
            secret,
            revision,
            since,
        } = &bound.data;
        (secret.as_str(), (revision, *since))
    });
    combine(&held.collect())
}

#[cfg(test)]
mod tests;
