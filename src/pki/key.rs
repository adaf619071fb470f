//! Effects: randomness of the operating system. Private keys, and requests to have them certified.

use std::fmt;

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, PublicKeyData as _,
    RsaKeySize, SanType, string::Ia5String,
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroize as _;

use super::{names::Names, pem};
use crate::{api::pki::KeyType, sensitive::Sensitive};

/// What was attempted with a key. The library's own words say nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key could be made.
    #[error("no private key could be made")]
    Generate,
    /// The key that Vault sent cannot be used.
    #[error(
        "the private key is not PEM of RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    Parse,
    /// The request for a certificate could not be made.
    #[error("no certificate request could be made for these names")]
    Request,
}

/// A private key; wiped when dropped.
pub struct PrivateKey(KeyPair);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.0.algorithm())
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PrivateKey {
    /// Makes a new key. Takes up to seconds of computing for RSA: not for a thread that others wait on.
    pub fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
        let pair = match kind {
            KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
            KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
            KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
            KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyType::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyType::EcdsaP521 => KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512),
            KeyType::Ed25519 => return Self::generate_ed25519(),
        };
        pair.map(Self).map_err(|_| KeyError::Generate)
    }

    /// Version 1 of PKCS#8, without the public key: many readers, Java among them, know no other.
    fn generate_ed25519() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
        let der = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        KeyPair::try_from(der.as_ref())
            .map(Self)
            .map_err(|_| KeyError::Generate)
    }

    /// Reads a PEM text.
    pub fn parse(pem: &Sensitive) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| KeyError::Parse)?;
        KeyPair::try_from(&der)
            .map(Self)
            .map_err(|_| KeyError::Parse)
    }

    /// As PEM, PKCS#8.
    pub fn pem(&self) -> Sensitive {
        pem::encode("PRIVATE KEY", self.0.serialized_der())
    }

    /// As DER, PKCS#8.
    pub(super) fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The public key, as the bits of a certificate hold it.
    pub(super) fn public(&self) -> &[u8] {
        self.0.der_bytes()
    }

    /// The request to certify this key for `names`, as PEM.
    pub fn request(&self, names: &Names) -> Result<String, KeyError> {
        let params = parameters(names).ok_or(KeyError::Request)?;
        let request = params
            .serialize_request(&self.0)
            .map_err(|_| KeyError::Request)?;
        request.pem().map_err(|_| KeyError::Request)
    }
}

/// Subject and alternative names; `None` when a name is not ASCII, which [`Names::parse`] refuses.
pub(super) fn parameters(names: &Names) -> Option<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(common_name) = &names.common_name {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name.as_str());
    }
    params.subject_alt_names = alternatives(names)?;
    Some(params)
}

fn alternatives(names: &Names) -> Option<Vec<SanType>> {
    let Names {
        common_name: _,
        dns,
        emails,
        ips,
        uris,
    } = names;
    let texts = |texts: &std::collections::BTreeSet<String>, kind: fn(Ia5String) -> SanType| {
        texts
            .iter()
            .map(|text| Ia5String::try_from(text.as_str()).ok().map(kind))
            .collect::<Option<Vec<_>>>()
    };
    let mut all = texts(dns, SanType::DnsName)?;
    all.extend(texts(emails, SanType::Rfc822Name)?);
    all.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
    all.extend(texts(uris, SanType::URI)?);
    Some(all)
}

#[cfg(test)]
mod tests {
    use x509_parser::{
        certification_request::X509CertificationRequest,
        extensions::{GeneralName, ParsedExtension},
        pem::parse_x509_pem,
        prelude::FromDer as _,
    };

    use super::*;
    use crate::pki::names::Written;

    #[test]
    fn each_kind_of_key_is_made_and_read_again() {
        for kind in KeyType::ALL {
            let key = PrivateKey::generate(kind).unwrap();
            let pem = key.pem();
            assert!(pem.expose().starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
            let again = PrivateKey::parse(&pem).unwrap();
            assert_eq!(again.public(), key.public(), "{kind:?}");
            assert_eq!(again.pem(), pem, "{kind:?}");
            assert!(!format!("{key:?}").contains("PRIVATE"), "{key:?}");
        }
    }

    #[test]
    fn two_keys_are_never_the_same() {
        let make = || PrivateKey::generate(KeyType::Ed25519).unwrap().pem();
        assert_ne!(make(), make());
    }

    #[test]
    fn what_is_no_key_is_refused_without_its_text() {
        for text in [
            "",
            "canary",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let error = PrivateKey::parse(&Sensitive::new(text)).unwrap_err();
            assert_eq!(error, KeyError::Parse);
        }
    }

    #[test]
    fn a_request_carries_what_was_asked() {
        let alt_names = ["b.example.com".to_owned(), "me@example.com".to_owned()];
        let ip_sans = ["10.0.0.1".to_owned(), "2001:db8::1".to_owned()];
        let uri_sans = ["spiffe://example.com/app".to_owned()];
        let names = Names::parse(&Written {
            common_name: Some("a.example.com"),
            alt_names: &alt_names,
            ip_sans: &ip_sans,
            uri_sans: &uri_sans,
            exclude_common_name: false,
        })
        .unwrap();
        for kind in [KeyType::EcdsaP256, KeyType::Rsa2048, KeyType::Ed25519] {
            let key = PrivateKey::generate(kind).unwrap();
            let text = key.request(&names).unwrap();
            let (_, pem) = parse_x509_pem(text.as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            let info = &request.certification_request_info;
            assert_eq!(info.subject.to_string(), "CN=a.example.com");
            assert_eq!(&*info.subject_pki.subject_public_key.data, key.public());
            let found: Vec<_> = request
                .requested_extensions()
                .unwrap()
                .filter_map(|extension| {
                    let ParsedExtension::SubjectAlternativeName(names) = extension else {
                        return None;
                    };
                    Some(names)
                })
                .flat_map(|names| names.general_names.clone())
                .collect();
            assert_eq!(
                found,
                [
                    GeneralName::DNSName("a.example.com"),
                    GeneralName::DNSName("b.example.com"),
                    GeneralName::RFC822Name("me@example.com"),
                    GeneralName::IPAddress(&[10, 0, 0, 1]),
                    GeneralName::IPAddress(&[
                        0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1
                    ]),
                    GeneralName::URI("spiffe://example.com/app"),
                ]
            );
        }
    }

    #[test]
    fn a_request_without_a_common_name_has_an_empty_subject() {
        let uri_sans = ["spiffe://example.com/app".to_owned()];
        let names = Names::parse(&Written {
            uri_sans: &uri_sans,
            ..Written::default()
        })
        .unwrap();
        let text = PrivateKey::generate(KeyType::EcdsaP256)
            .unwrap()
            .request(&names)
            .unwrap();
        let (_, pem) = parse_x509_pem(text.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        assert_eq!(request.certification_request_info.subject.to_string(), "");
    }
}
