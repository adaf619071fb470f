//! Pure: the keys of a Secret that holds a certificate.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{
    certificate::{Bundle, Der},
    jks, pem, pkcs12,
};
use crate::sensitive::Sensitive;

/// The name of the certificate in a key store.
const ALIAS: &str = "certificate";
/// Java's keytool asks for this many characters.
const SHORTEST_PASSWORD: usize = 6;

/// The passwords of the key stores that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keystores {
    /// Of `keystore.p12` and `truststore.p12`.
    pub pkcs12: Option<Sensitive>,
    /// Of `keystore.jks` and `truststore.jks`.
    pub jks: Option<Sensitive>,
}

impl Keystores {
    /// Whether the passwords can be used.
    pub fn check(&self) -> Result<(), LayoutError> {
        for (format, password) in [("pkcs12", &self.pkcs12), ("jks", &self.jks)] {
            if let Some(password) = password {
                usable(format, password)?;
            }
        }
        Ok(())
    }
}

/// Why a key store cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Its password is not one that Java takes. The name is that of the field.
    #[error(
        "keystores.{0}.passwordRef: the password is not of at least 6 printable ASCII characters, which is what Java reads; choose another"
    )]
    Password(&'static str),
    /// The key could not be encrypted.
    #[error("the private key could not be encrypted for a key store")]
    Encrypt,
}

/// The data of the Secret: `tls.crt`, `tls.key` and `ca.crt`, and the key stores that are asked for.
///
/// The same certificate and passwords always give the same bytes.
pub fn layout(
    bundle: &Bundle,
    keystores: &Keystores,
) -> Result<BTreeMap<String, Sensitive>, LayoutError> {
    let mut data = BTreeMap::from([
        ("tls.crt".to_owned(), joined(&bundle.chain)),
        ("tls.key".to_owned(), bundle.key.pem()),
        ("ca.crt".to_owned(), joined(&bundle.ca)),
    ]);
    let trusted: Vec<_> = (0..)
        .map(trusted_alias)
        .zip(bundle.ca.iter().cloned())
        .collect();
    let (key, chain) = (bundle.key.pkcs8(), &bundle.chain);
    if let Some(password) = &keystores.pkcs12 {
        let password = usable("pkcs12", password)?;
        let store =
            pkcs12::key_store(ALIAS, key, chain, password).map_err(|_| LayoutError::Encrypt)?;
        let trust = pkcs12::trust_store(&trusted, password);
        data.insert("keystore.p12".to_owned(), Sensitive::new(store));
        data.insert("truststore.p12".to_owned(), Sensitive::new(trust));
    }
    if let Some(password) = &keystores.jks {
        let password = usable("jks", password)?;
        let made = bundle.facts.not_before;
        let store = jks::key_store(ALIAS, key, chain, made, password);
        let trust = jks::trust_store(&trusted, made, password);
        data.insert("keystore.jks".to_owned(), Sensitive::new(store));
        data.insert("truststore.jks".to_owned(), Sensitive::new(trust));
    }
    Ok(data)
}

/// PEM of all, one after the other.
fn joined(certificates: &[Der]) -> Sensitive {
    let mut text = Zeroizing::new(Vec::new());
    for certificate in certificates {
        text.extend_from_slice(pem::encode("CERTIFICATE", certificate).expose());
    }
    Sensitive::new(std::mem::take(&mut *text))
}

fn trusted_alias(index: usize) -> String {
    match index {
        0 => "ca".to_owned(),
        _ => format!("ca-{index}"),
    }
}

/// Without the line break that editors and `kubectl create --from-file` leave at the end.
fn usable<'a>(format: &'static str, password: &'a Sensitive) -> Result<&'a str, LayoutError> {
    password
        .expose_text()
        .map(|text| text.trim_end_matches(['\r', '\n']))
        .filter(|text| text.len() >= SHORTEST_PASSWORD)
        .filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        .ok_or(LayoutError::Password(format))
}

#[cfg(test)]
mod tests;
