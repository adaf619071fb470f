//! Effects: apiserver, in `write`; the rest is pure. What the status of our objects says.

pub mod condition;
pub mod vault_secret;
pub mod write;
