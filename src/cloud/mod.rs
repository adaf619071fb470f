//! Effects: none of its own; how an identity of a cloud becomes a login to Vault.
//!
//! | what | decided by | done by |
//! |---|---|---|
//! | AWS: keys, or keys for a `ServiceAccount`'s token; then a signed request that Vault sends on | [`aws`] | [`http`] |
//! | Google Cloud: a JWT signed with a key, or by Google for a `ServiceAccount`'s token | [`gcp`] | [`http`] |
//! | Azure: an access token for a `ServiceAccount`'s token, or for the machine | [`azure`] | [`http`] |
//!
//! Addresses come from [`endpoints`] alone: the public ones of each cloud, or what the operator was
//! started with. No object of a tenant can name one.

pub mod aws;
pub mod azure;
pub mod endpoints;
pub mod exchange;
pub mod gcp;
pub mod http;
