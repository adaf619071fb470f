//! Effects: none of its own; logs, metrics and events live in the modules below.

pub mod chain;
pub mod events;
pub mod log;
pub mod metrics;
