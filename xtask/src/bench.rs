//! Pure: the benchmarks. Each has a file of its own; what they share is beside them.
//!
//! What the operator does is compared with something that does the least, on the same bed and in the same run.

mod figures;
mod frame;
mod furniture;
mod leases;
mod rollouts;
mod sync;

pub(crate) use self::{
    leases::{LeasesArguments, leases},
    rollouts::{RolloutsArguments, rollouts},
    sync::{SyncArguments, sync},
};
