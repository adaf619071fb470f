//! Everything that is proved against the real parts: a Kubernetes control plane, Vault, and the operator as a process.
//!
//! `support` holds the stage; every other module is one group of promises.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod admission;
mod everyday;
mod examples;
mod identity;
mod refusals;
mod support;
mod targets;
