//! Effects: none of its own; the way a read takes.
//!
//! Talks to `HashiCorp` Vault and `OpenBao`. Knows addresses, identities and paths; does not know that
//! Kubernetes exists.
//!
//! ```text
//! Readings::get      is what we remember fresh enough?    schedule   one read per key and stride
//!   └ Reader::read     which requests does it take?       find       several where many secrets are one place
//!       └ Sessions::send   is there a token, does it live?    token      one login per identity
//!           └ Transport::send  is Vault there?                gate       one probe per outage
//!               └ HTTP         request → error | response                classified and parsed once
//! ```
//!
//! | who | owns | is told by |
//! |---|---|---|
//! | [`readings`] | fingerprints, values for 30 s, remembered refusals | [`schedule`] |
//! | `reader`, `mounts` | what is mounted where | [`place`] |
//! | [`sessions`], [`session`] | tokens: log in, renew, verify, revoke | [`token`] |
//! | [`stored`] | the tokens that outlive the process, if any | |
//! | `unwrapping` | secret ids that came wrapped | |
//! | [`transport`], `dial` | the connection pool, the limits of requests | [`gate`], `rate`, [`reach`], `redirect` |
//!
//! The right column is pure: it decides with the time as an argument, and the left one does it.
//! Nothing here retries on its own, except one repeat of a read whose token had died: every error says
//! when to come back, and the caller does.
//!
//! Two background tasks keep it going, [`sessions::Sessions::maintain`] and
//! [`readings::Readings::maintain`]; without them reads still work.

pub mod backoff;
pub mod clock;
mod dial;
pub mod error;
mod find;
pub mod fingerprint;
pub mod gate;
pub mod identity;
mod json;
pub mod keeper;
pub mod lease;
mod mounts;
pub mod path;
pub mod place;
mod rate;
pub mod reach;
mod reader;
pub mod readings;
mod redirect;
pub mod request;
pub mod response;
pub mod schedule;
pub mod session;
pub mod sessions;
pub mod stored;
#[cfg(test)]
mod testing;
pub mod token;
pub mod transport;
mod unwrapping;
