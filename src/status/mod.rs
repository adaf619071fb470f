//! Pure but for `write`: what the status of our objects says.

pub mod condition;
pub mod vault_secret;
pub mod write;
