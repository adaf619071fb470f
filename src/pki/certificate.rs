//! Pure: a certificate as Vault sent it, checked against what was asked.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _, time::ASN1Time,
};

use super::{key::PrivateKey, names::Names};
use crate::sensitive::Sensitive;

/// One certificate, DER.
pub type Der = Vec<u8>;

/// What Vault sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certified {
    /// The certificate, PEM.
    pub certificate: String,
    /// The certificate of its issuer, PEM.
    pub issuing_ca: String,
    /// What leads from there to a root, PEM each, as far as Vault knows.
    pub ca_chain: Vec<String>,
    /// The private key, PEM, when Vault made it.
    pub private_key: Option<Sensitive>,
}

impl Certified {
    /// Takes it from the data of an answer.
    pub fn from_entries(entries: &BTreeMap<String, Sensitive>) -> Result<Self, Flaw> {
        let text = |name: &'static str| {
            entries
                .get(name)
                .and_then(Sensitive::expose_text)
                .map(str::to_owned)
                .ok_or(Flaw::NoCertificate(name))
        };
        let ca_chain = match entries.get("ca_chain").filter(|chain| !chain.is_empty()) {
            None => Vec::new(),
            Some(chain) => chain
                .expose_text()
                .and_then(|chain| serde_json::from_str(chain).ok())
                .ok_or(Flaw::NoCertificate("ca_chain"))?,
        };
        Ok(Self {
            certificate: text("certificate")?,
            issuing_ca: text("issuing_ca")?,
            ca_chain,
            private_key: entries.get("private_key").cloned(),
        })
    }
}

/// A certificate with its key, as it was asked for.
#[derive(Debug)]
pub struct Bundle {
    /// What names and dates it.
    pub facts: Facts,
    pub(super) key: PrivateKey,
    /// The certificate, and what leads from it to a root, without that.
    pub(super) chain: Vec<Der>,
    /// The roots; where Vault knows none, the last certificate of the chain.
    pub(super) ca: Vec<Der>,
}

/// What is recorded of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its serial number as Vault writes it: bytes in hexadecimal, joined by colons.
    pub serial: String,
    /// From when it is valid, by Vault's clock.
    pub not_before: Timestamp,
    /// Until when it is valid, by Vault's clock.
    pub not_after: Timestamp,
}

impl Facts {
    /// What an answer tells of its certificate, also where that cannot be used. `now` is the time at Vault.
    pub fn told(entries: &BTreeMap<String, Sensitive>, now: Timestamp) -> Option<Self> {
        let text = |name: &str| entries.get(name).and_then(Sensitive::expose_text);
        let read = || {
            let leaf = der("certificate", text("certificate")?).ok()?;
            facts(&parsed("certificate", &leaf).ok()?)
        };
        let said = || {
            let seconds = text("expiration").and_then(|seconds| seconds.parse().ok());
            let ends = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
            Some(Self {
                serial: text("serial_number")?.to_owned(),
                not_before: now,
                not_after: ends.unwrap_or(now),
            })
        };
        read().or_else(said)
    }
}

/// What is wrong with an answer. None holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A text is not what it should be.
    #[error("'{0}' is not a certificate in PEM")]
    NoCertificate(&'static str),
    /// Vault was asked for a key and sent none that can be used.
    #[error("'private_key': {0}")]
    Key(super::key::KeyError),
    /// The certificate is for another key.
    #[error("the certificate does not belong to the private key")]
    OtherKey,
    /// A name that was asked for is not in the certificate.
    #[error(
        "the certificate lacks {0}, which was asked for: does the role replace names (use_csr_common_name, use_csr_sans, allow_ip_sans)?"
    )]
    NameMissing(String),
    /// It cannot be used any more.
    #[error("the certificate has no time left: it ended at {0}")]
    Expired(Timestamp),
}

impl Bundle {
    /// Checks `answer`, which was given at `now` by Vault's clock, if that is known. `key` is the one that was to be
    /// certified, unless Vault made it.
    pub fn check(
        answer: &Certified,
        key: Option<PrivateKey>,
        names: &Names,
        now: Option<Timestamp>,
    ) -> Result<Self, Flaw> {
        let key = match (key, &answer.private_key) {
            (Some(key), _) => key,
            (None, Some(pem)) => PrivateKey::parse(pem).map_err(Flaw::Key)?,
            (None, None) => return Err(Flaw::Key(super::key::KeyError::Parse)),
        };
        let leaf = der("certificate", &answer.certificate)?;
        let certificate = parsed("certificate", &leaf)?;
        if *certificate.public_key().subject_public_key.data != *key.public() {
            return Err(Flaw::OtherKey);
        }
        if let Some(missing) = missing_name(&certificate, names) {
            return Err(Flaw::NameMissing(missing));
        }
        let facts = facts(&certificate).ok_or(Flaw::NoCertificate("certificate"))?;
        if now.is_some_and(|now| facts.not_after <= now) {
            return Err(Flaw::Expired(facts.not_after));
        }
        let (chain, ca) = chain(leaf, answer)?;
        Ok(Self {
            facts,
            key,
            chain,
            ca,
        })
    }
}

impl Bundle {
    /// Reads what a Secret holds: `tls.crt`, `tls.key` and `ca.crt` as [`super::layout`] wrote them.
    pub fn from_data(data: &BTreeMap<String, Sensitive>) -> Result<Self, Flaw> {
        let value = |name: &'static str| data.get(name).ok_or(Flaw::NoCertificate(name));
        let all = |name: &'static str| {
            CertificateDer::pem_slice_iter(value(name)?.expose())
                .map(|der| der.map(|der| der.to_vec()))
                .collect::<Result<Vec<Der>, _>>()
                .map_err(|_| Flaw::NoCertificate(name))
        };
        let key = PrivateKey::parse(value("tls.key")?).map_err(Flaw::Key)?;
        let chain = all("tls.crt")?;
        let leaf = chain.first().ok_or(Flaw::NoCertificate("tls.crt"))?;
        let facts = facts(&parsed("tls.crt", leaf)?).ok_or(Flaw::NoCertificate("tls.crt"))?;
        Ok(Self {
            facts,
            key,
            ca: all("ca.crt")?,
            chain,
        })
    }
}

/// The certificate with its chain, and the roots.
fn chain(leaf: Der, answer: &Certified) -> Result<(Vec<Der>, Vec<Der>), Flaw> {
    let mut issuers = Vec::new();
    for text in &answer.ca_chain {
        push_new(&mut issuers, der("ca_chain", text)?);
    }
    let issuing_ca = der("issuing_ca", &answer.issuing_ca)?;
    if !issuers.contains(&issuing_ca) {
        issuers.insert(0, issuing_ca);
    }
    let mut chain = vec![leaf];
    let mut roots = Vec::new();
    for issuer in issuers {
        let is_root = {
            let certificate = parsed("ca_chain", &issuer)?;
            certificate.subject().as_raw() == certificate.issuer().as_raw()
        };
        if is_root {
            roots.push(issuer);
        } else {
            chain.push(issuer);
        }
    }
    if roots.is_empty() {
        roots.extend(chain.last().cloned());
    }
    Ok((chain, roots))
}

fn push_new(all: &mut Vec<Der>, one: Der) {
    if !all.contains(&one) {
        all.push(one);
    }
}

fn der(what: &'static str, pem: &str) -> Result<Der, Flaw> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map(|der| der.to_vec())
        .map_err(|_| Flaw::NoCertificate(what))
}

fn parsed<'a>(what: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, Flaw> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|_| Flaw::NoCertificate(what))
}

fn facts(certificate: &X509Certificate<'_>) -> Option<Facts> {
    let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some(Facts {
        serial: certificate.raw_serial_as_string(),
        not_before: time(certificate.validity().not_before)?,
        not_after: time(certificate.validity().not_after)?,
    })
}

/// The first name that was asked for and is not there.
fn missing_name(certificate: &X509Certificate<'_>, names: &Names) -> Option<String> {
    let Names {
        common_name,
        dns,
        emails,
        ips,
        uris,
    } = names;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let held = alternatives.map_or(&[][..], |names| &names.value.general_names);
    let has = |test: &dyn Fn(&GeneralName<'_>) -> bool| held.iter().any(test);
    let subject = common_name.iter().filter(|name| {
        let mut held = certificate.subject().iter_common_name();
        !held.any(|held| held.as_str() == Ok(name))
    });
    let dns = dns.iter().filter(|name| {
        !has(&|held| matches!(held, GeneralName::DNSName(held) if held.eq_ignore_ascii_case(name)))
    });
    let emails = emails.iter().filter(|name| {
        !has(
            &|held| matches!(held, GeneralName::RFC822Name(held) if held.eq_ignore_ascii_case(name)),
        )
    });
    let uris = uris
        .iter()
        .filter(|name| !has(&|held| matches!(held, GeneralName::URI(held) if held == name)));
    let ips = ips.iter().filter(|ip| {
        let bytes = match ip {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        !has(&|held| matches!(held, GeneralName::IPAddress(held) if *held == bytes))
    });
    let missing = |what: &'static str| move |name: &dyn fmt::Display| format!("{what} {name}");
    subject
        .map(|name| missing("the common name")(name))
        .chain(dns.map(|name| missing("the DNS name")(name)))
        .chain(emails.map(|name| missing("the mail address")(name)))
        .chain(ips.map(|ip| missing("the IP address")(ip)))
        .chain(uris.map(|uri| missing("the URI")(uri)))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::pki::KeyType,
        pki::{names::Written, testing::Authority},
    };

    fn names(common_name: &str, alt_names: &[&str], ip_sans: &[&str], uri_sans: &[&str]) -> Names {
        let owned =
            |texts: &[&str]| -> Vec<String> { texts.iter().map(|t| (*t).to_owned()).collect() };
        Names::parse(&Written {
            common_name: Some(common_name),
            alt_names: &owned(alt_names),
            ip_sans: &owned(ip_sans),
            uri_sans: &owned(uri_sans),
            exclude_common_name: false,
        })
        .unwrap()
    }

    #[test]
    fn a_certificate_is_split_into_chain_and_root() {
        let authority = Authority::new();
        let (key, answer) = authority.certify(&names("a.example.com", &[], &[], &[]));
        let bundle = Bundle::check(
            &answer,
            Some(key),
            &names("A.example.com".to_ascii_lowercase().as_str(), &[], &[], &[]),
            Some("2030-01-15T00:00:00Z".parse().unwrap()),
        )
        .unwrap();
        assert_eq!(bundle.chain.len(), 2, "leaf and intermediate");
        assert_eq!(bundle.ca, [authority.root_der()]);
        assert_eq!(
            bundle.facts,
            Facts {
                serial: "0a:0b:0c".into(),
                not_before: "2030-01-01T00:00:00Z".parse().unwrap(),
                not_after: "2030-02-01T00:00:00Z".parse().unwrap(),
            }
        );
    }

    #[test]
    fn the_issuer_is_taken_once_and_the_end_of_a_chain_without_root_is_trusted() {
        let names = names("a.example.com", &[], &[], &[]);
        let authority = Authority::new();
        for (with_issuer, with_root) in [(true, true), (false, true), (true, false), (false, false)]
        {
            let (key, mut answer) = authority.certify(&names);
            answer.ca_chain.clear();
            if with_issuer {
                answer.ca_chain.push(answer.issuing_ca.clone());
            }
            if with_root {
                answer.ca_chain.push(authority.root_pem());
            }
            let bundle = Bundle::check(&answer, Some(key), &names, None).unwrap();
            assert_eq!(bundle.chain.len(), 2);
            let ca = if with_root {
                authority.root_der()
            } else {
                bundle.chain[1].clone()
            };
            assert_eq!(bundle.ca, [ca]);
        }
    }

    #[test]
    fn each_flaw_is_told() {
        let authority = Authority::new();
        let plain = names("a.example.com", &[], &[], &[]);
        let check = |change: &dyn Fn(&mut Certified), asked: &Names, now: &str| {
            let (key, mut answer) = authority.certify(&plain);
            change(&mut answer);
            let now = now.parse().unwrap();
            Bundle::check(&answer, Some(key), asked, Some(now))
                .unwrap_err()
                .to_string()
        };
        let now = "2030-01-15T00:00:00Z";
        let same = |_: &mut Certified| {};
        assert!(
            check(&|a| a.certificate = "canary".into(), &plain, now)
                .starts_with("'certificate' is not a certificate")
        );
        assert!(check(&|a| a.issuing_ca.clear(), &plain, now).starts_with("'issuing_ca' is not"));
        assert!(
            check(&|a| a.ca_chain.push("canary".into()), &plain, now)
                .starts_with("'ca_chain' is not")
        );
        let other =
            |answer: &mut Certified| answer.certificate = authority.certify(&plain).1.certificate;
        assert_eq!(
            check(&other, &plain, now),
            "the certificate does not belong to the private key"
        );
        assert_eq!(
            check(&same, &plain, "2030-02-01T00:00:00Z"),
            "the certificate has no time left: it ended at 2030-02-01T00:00:00Z"
        );
        for (asked, missing) in [
            (
                names("b.example.com", &[], &[], &[]),
                "the common name b.example.com",
            ),
            (
                names("a.example.com", &["b.example.com"], &[], &[]),
                "the DNS name b.example.com",
            ),
            (
                names("a.example.com", &["b@example.com"], &[], &[]),
                "the mail address b@example.com",
            ),
            (
                names("a.example.com", &[], &["::1"], &[]),
                "the IP address ::1",
            ),
            (names("a.example.com", &[], &[], &["a:b"]), "the URI a:b"),
        ] {
            assert!(check(&same, &asked, now).contains(missing));
        }
    }

    #[test]
    fn what_cannot_be_used_is_known_by_its_certificate_or_by_what_vault_says_of_it() {
        let now: Timestamp = "2030-01-15T00:00:00Z".parse().unwrap();
        let (_, answer) = Authority::new().certify(&names("a.example.com", &[], &[], &[]));
        let told = |entries: &[(&str, &str)]| {
            let entries = entries
                .iter()
                .map(|(key, text)| ((*key).to_owned(), Sensitive::new(*text)));
            let facts = Facts::told(&entries.collect(), now)?;
            Some((facts.serial, facts.not_after.to_string()))
        };
        let known = |serial: &str, ends: &str| Some((serial.to_owned(), ends.to_owned()));
        let read = ("certificate", answer.certificate.as_str());
        let said = [("serial_number", "0d"), ("expiration", "1900000000")];
        let rows = [
            (vec![read], known("0a:0b:0c", "2030-02-01T00:00:00Z")),
            (
                vec![said[0], read],
                known("0a:0b:0c", "2030-02-01T00:00:00Z"),
            ),
            (said.to_vec(), known("0d", "2030-03-17T17:46:40Z")),
            (
                vec![said[0], ("certificate", "canary")],
                known("0d", "2030-01-15T00:00:00Z"),
            ),
            (vec![said[1]], None),
        ];
        for (entries, expected) in rows {
            assert_eq!(told(&entries), expected);
        }
    }

    #[test]
    fn a_key_of_vault_is_taken_when_it_can_be_used() {
        let authority = Authority::new();
        let names = names(
            "a.example.com",
            &["b@example.com"],
            &["10.0.0.1", "::1"],
            &["a:b"],
        );
        let (key, mut answer) = authority.certify(&names);
        answer.private_key = Some(key.pem());
        let bundle = Bundle::check(&answer, None, &names, None).unwrap();
        assert_eq!(bundle.key.public(), key.public());
        for wrong in [None, Some(Sensitive::new("canary"))] {
            answer.private_key = wrong;
            let error = Bundle::check(&answer, None, &names, None).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("'private_key': the private key is not PEM")
            );
        }
        answer.private_key = Some(PrivateKey::generate(KeyType::EcdsaP384).unwrap().pem());
        let error = Bundle::check(&answer, None, &names, None).unwrap_err();
        assert_eq!(error, Flaw::OtherKey);
    }
}
