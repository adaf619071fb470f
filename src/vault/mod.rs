//! Effects: none of its own; the data path of a read.
pub mod backoff;
pub mod error;
pub mod gate;
pub mod identity;
mod json;
pub mod path;
pub mod request;
pub mod response;
pub mod session;
pub mod sessions;
pub mod token;
pub mod transport;
