//! Effects: everything — the real parts Lockstep is tried against, started on loopback for one test process.
//!
//! [`Bed`] is the way in: `Bed::shared().await` in a test, and everything else from there.

pub mod argo_rollouts;
pub mod audit;
pub mod bed;
pub mod error;
pub mod eventually;
pub mod fault_proxy;
pub mod ldap;
pub mod operator;
pub mod parts;
pub mod postgres;
pub mod process;
pub mod vault;

pub use crate::{
    argo_rollouts::ArgoRollouts,
    audit::{ApiRequest, AuditMark, VaultRequest},
    bed::{Bed, Component, OPERATOR_NAMESPACE, VaultKind},
    error::BedError,
    eventually::eventually,
    fault_proxy::{Fault, FaultProxy},
    ldap::Ldap,
    operator::{Operator, OperatorOptions},
    postgres::Postgres,
    process::Process,
    vault::{KubernetesRole, VaultRoot},
};
