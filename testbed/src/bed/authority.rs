//! Effects: randomness — an authority made for one bed, and what it signs.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key, PKCS #8.
    pub key: String,
}

/// Signs certificates that only those trust who were given [`Authority::pem`].
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a key of its own.
    pub fn new(name: &str) -> Result<Self, rcgen::Error> {
        let mut parameters = named(name, &[])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?,
        })
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server that is reached under `names` (DNS names or addresses).
    pub fn server(&self, names: &[&str]) -> Result<Certificate, rcgen::Error> {
        self.sign(
            named(names.first().copied().unwrap_or("server"), names)?,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A certificate for a client called `name`.
    pub fn client(&self, name: &str) -> Result<Certificate, rcgen::Error> {
        self.sign(named(name, &[])?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(
        &self,
        mut parameters: CertificateParams,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Certificate, rcgen::Error> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Certificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn named(common_name: &str, names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )?;
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(parameters)
}
