//! Lockstep keeps Kubernetes Secrets in step with Vault and OpenBao, and workloads in step with their Secrets.

pub mod admin;
pub mod cli;
pub mod election;
pub mod rollout;
pub mod sensitive;
pub mod telemetry;
pub mod vault;
