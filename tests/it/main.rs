//! Everything that is proved against the real parts: a Kubernetes control plane, Vault, and the operator as a process.
//!
//! `support` holds the stage; every other module is one group of promises.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod admission;
mod adoption;
mod architecture;
mod connections;
mod counts;
mod crashes;
mod everyday;
mod examples;
mod faults;
mod identity;
mod leaks;
mod leases;
mod outages;
mod pki;
mod polled;
mod rbac;
mod refusals;
mod rollouts;
mod support;
mod targets;
mod tokens;
