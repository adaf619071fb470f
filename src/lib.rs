//! Lockstep keeps Kubernetes Secrets in step with Vault and OpenBao, and workloads in step with their Secrets.

pub mod admin;
pub mod api;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod cloud;
pub mod connection;
pub mod election;
pub mod hash_key;
pub mod names;
pub mod pki;
pub mod queue;
pub mod report;
pub mod revision;
pub mod rollout;
pub mod runtime;
pub mod secret_view;
pub mod sensitive;
pub mod session_store;
pub mod status;
pub mod sync;
pub mod telemetry;
pub mod vault;
pub mod view;
pub mod world;
