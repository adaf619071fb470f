//! Effects: apiserver, in `write`, and memory, in `written`; the rest is pure. What the status of our objects says.

pub mod condition;
pub mod vault_secret;
pub mod write;
pub mod written;
