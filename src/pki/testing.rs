//! Pure: a certificate authority for tests, of a root and an intermediate. Its keys, dates and serial numbers are fixed.

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    SerialNumber, date_time_ymd,
};

use super::{
    certificate::Certified,
    key::{PrivateKey, parameters},
    names::{Names, Written},
};
use crate::{api::pki::KeyType, sensitive::Sensitive};

/// Signs like Vault does with an intermediate whose root it knows.
pub(super) struct Authority {
    root: rcgen::Certificate,
    intermediate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let root_key = fixed_pair(1);
        let root = authority("Root").self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(authority("Root"), root_key);
        let key = fixed_pair(2);
        let intermediate = authority("Intermediate")
            .signed_by(&key, &root_issuer)
            .unwrap();
        Self {
            root,
            intermediate,
            issuer: Issuer::new(authority("Intermediate"), key),
        }
    }

    pub(super) fn root_der(&self) -> Vec<u8> {
        self.root.der().to_vec()
    }

    pub(super) fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// A new key, and its certificate as Vault would send it.
    pub(super) fn certify(&self, names: &Names) -> (PrivateKey, Certified) {
        let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
        let answer = self.certify_key(&key, names);
        (key, answer)
    }

    /// The certificate of `key`, valid in January 2030.
    pub(super) fn certify_key(&self, key: &PrivateKey, names: &Names) -> Certified {
        let mut params = parameters(names).unwrap();
        params.serial_number = Some(SerialNumber::from(vec![10, 11, 12]));
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2030, 2, 1);
        let pair = KeyPair::from_pem(key.pem().expose_text().unwrap()).unwrap();
        let leaf = params.signed_by(&pair, &self.issuer).unwrap();
        Certified {
            certificate: leaf.pem(),
            issuing_ca: self.intermediate.pem(),
            ca_chain: vec![self.intermediate.pem(), self.root.pem()],
            private_key: None,
        }
    }
}

/// The same key in every test.
pub(super) fn fixed_key() -> PrivateKey {
    let pem = fixed_pair(3).serialize_pem();
    PrivateKey::parse(&Sensitive::new(pem)).unwrap()
}

/// The names `a.example.com`.
pub(super) fn one_name() -> Names {
    Names::parse(&Written {
        common_name: Some("a.example.com"),
        ..Written::default()
    })
    .unwrap()
}

fn fixed_pair(seed: u8) -> KeyPair {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    KeyPair::try_from(der.as_ref()).unwrap()
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serial_number = Some(SerialNumber::from(1_u64));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}
