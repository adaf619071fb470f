//! Pure: none of it talks to anybody; [`key`] alone draws random numbers.
//!
//! Certificates that Vault's PKI engine makes: what is asked for, what has to be true of the answer, and how a
//! Secret holds it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`ask`] | what is sent, and the way from the answer to a certificate |
//! | [`names`] | the names a certificate is asked for |
//! | [`key`] | private keys and requests to sign them |
//! | [`certificate`] | what came back: checked against what was asked |
//! | [`layout`] | the keys of the Secret: PEM, PKCS#12, JKS |
//! | [`life`] | when a certificate is renewed |

pub mod ask;
pub mod certificate;
mod jks;
pub mod key;
pub mod layout;
pub mod life;
pub mod names;
mod pem;
mod pkcs12;
#[cfg(test)]
mod testing;
