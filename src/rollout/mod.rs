//! Pure: the rollout controller. It brings the pods of a workload in step with the Secrets they use.
//!
//! One pass over one workload: gather (from caches) → [`decide`](decide::decide) → act (list pods, stamp,
//! record, or nothing) → publish on the [`Board`](board::Board) → when to look again. The comparison is
//! between what is wanted and what is observed; that an event was seen never matters.
//!
//! * [`view`], [`pod`]: what is kept of a workload and of a pod.
//! * [`argo`]: what is different about a Rollout of Argo.
//! * [`bind`]: which managed Secrets a workload is bound to, and so which hash it should carry.
//! * [`tracker`]: what is remembered of a workload between two passes.
//! * [`proof`]: whether its pods run the current data without a restart.
//! * [`decide`], [`decision`]: what to do about it.
//! * [`window`], [`turn`]: when restarts are allowed, and whose turn it is.
//! * [`report`]: how that reads in a status and in events; [`refusal`]: why pods are missing.
//! * [`bystander`]: pods that use a Secret and that no restart reaches.
//! * [`patch`]: what is written.
//! * [`exec`], [`memory`], [`board`], [`context`], [`controller`]: the effects.

use std::fmt;

use crate::{
    api::vault_secret::{WorkloadKind, WorkloadRef},
    names::ObjectKey,
};

pub mod argo;
pub mod bind;
pub mod board;
pub mod bystander;
pub mod context;
pub mod controller;
pub mod decide;
pub mod decision;
pub mod exec;
pub mod memory;
pub mod patch;
pub mod pod;
pub mod proof;
pub mod refusal;
pub mod report;
pub mod tracker;
pub mod turn;
pub mod view;
pub mod window;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod model;

/// One workload; ordered by namespace first.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadKey {
    /// Namespace.
    pub namespace: String,
    /// Kind.
    pub kind: WorkloadKind,
    /// Name.
    pub name: String,
}

impl WorkloadKey {
    /// The workload of `kind` with the name and namespace of `object`.
    pub fn new(kind: WorkloadKind, object: &ObjectKey) -> Self {
        Self {
            namespace: object.namespace.clone(),
            kind,
            name: object.name.clone(),
        }
    }

    /// The workload that `target` names in `namespace`.
    pub fn of_target(namespace: &str, target: &WorkloadRef) -> Self {
        Self {
            namespace: namespace.to_owned(),
            kind: target.kind,
            name: target.name.clone(),
        }
    }

    /// Its namespace and name.
    pub fn object(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }
}

impl fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind.as_str(), self.name)
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
