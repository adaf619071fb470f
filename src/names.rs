//! Pure: names of objects, and the names this operator writes on them.

use std::fmt;

/// Field manager of the Secrets we write.
pub const SECRET_MANAGER: &str = "lockstep";
/// Field manager of the stamps on workloads.
pub const ROLLOUT_MANAGER: &str = "lockstep-rollout";
/// Field manager of the status of our own objects.
pub const STATUS_MANAGER: &str = "lockstep-status";

/// Annotation of a managed Secret: name of the VaultSecret it belongs to, in the same namespace.
pub const VAULT_SECRET: &str = "lockstep.dev/vault-secret";
/// Annotation of a managed Secret: the revision of the data we wrote.
pub const REVISION: &str = "lockstep.dev/revision";
/// Annotation of a managed Secret: since when the data is what it is, in the apiserver's time.
///
/// Only there when something else than the data was written later: otherwise the time of our field
/// manager's entry says it.
pub const DATA_SINCE: &str = "lockstep.dev/data-since";
/// Value of [`DATA_SINCE`] where the Secret was deleted and came back with other data: then it is as young as the Secret, but
/// pods may have read what was there before.
pub const AGAIN: &str = "again";
/// Annotation of a managed Secret: what was issued for it, as JSON: leases and certificates by name, never a value.
pub const HOLDINGS: &str = "lockstep.dev/holdings";
/// Annotation of a managed Secret: its type, where that is not `Opaque`. Only metadata is watched, and a type
/// that is changed in the spec has to be noticed.
pub const TARGET_TYPE: &str = "lockstep.dev/type";
/// Annotation of a Secret that somebody else created and we only merge into: it never becomes ours.
pub const MERGED: &str = "lockstep.dev/merged";
/// Annotation of a Secret we merge into: our keys go when the VaultSecret goes.
pub const REMOVE_KEYS: &str = "lockstep.dev/remove-keys-on-delete";
/// Label of every Secret that was created by the operator.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const LOCKSTEP: &str = "lockstep";

/// Annotation of a pod template: hash of all managed Secrets the workload uses. Changing it is the restart.
/// On a Rollout of Argo itself it is the hash for which `spec.restartAt` was set.
pub const SECRETS_HASH: &str = "lockstep.dev/secrets-hash";
/// Annotation of a workload (not of its pod template): the hash its pods were proved to run without a restart.
pub const IN_STEP: &str = "lockstep.dev/in-step";

/// Annotation of a Rollout of Argo (not of its pod template): how it is restarted. Without it by `spec.restartAt`.
pub const RESTART_BY: &str = "lockstep.dev/restart-by";
/// Value of [`RESTART_BY`]: by a change of its pod template, which takes the steps of its strategy.
pub const RESTART_BY_TEMPLATE: &str = "template";

/// Annotation of a workload: when it is not restarted, [`RESTART_NEVER`] or [`RESTART_ENV`].
pub const RESTART: &str = "lockstep.dev/restart";
/// Value of [`RESTART`]: it is never restarted.
pub const RESTART_NEVER: &str = "never";
/// Value of [`RESTART`]: only for Secrets in its environment. Whatever it mounts it reloads by itself.
pub const RESTART_ENV: &str = "env";

/// Annotation of a VaultSecret: any new value asks for a read now.
pub const REFRESH: &str = "lockstep.dev/refresh";
/// The same, as Flux's `flux reconcile` writes it.
pub const FLUX_REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// Annotation of a VaultSecret: any new value asks to have everything issued anew that is issued for it.
pub const ROTATE: &str = "lockstep.dev/rotate";
/// Annotation of a VaultSecret: while it is there, with whatever value, restarts for it wait for no other.
pub const EMERGENCY: &str = "lockstep.dev/emergency";
/// Finalizer of a VaultSecret for which leases were issued: they are revoked before it goes.
pub const FINALIZER: &str = "lockstep.dev/leases";
/// Field manager of that finalizer.
pub const FINALIZER_MANAGER: &str = "lockstep-finalizer";

/// Field manager of the Secret with tokens of Vault, if they are stored.
pub const SESSION_MANAGER: &str = "lockstep-sessions";

/// Namespace and name of an object; the namespace is empty for cluster-scoped ones.
///
/// Ordered by namespace first, so that the objects of one namespace are neighbours.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
