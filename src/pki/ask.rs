//! Pure: what Vault is asked for, and what makes of its answer a certificate.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    certificate::{Bundle, Certified, Flaw},
    key::{KeyError, PrivateKey},
    names::Names,
};
use crate::{
    api::pki::KeyType,
    sensitive::Sensitive,
    vault::{
        error::{VaultError, VaultErrorKind},
        path::{ApiPath, MountPath, PathError, SecretPath},
    },
};

/// A certificate to ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    /// Where the engine is mounted.
    pub mount: MountPath,
    /// `<mount>/sign/<role>` or `<mount>/issue/<role>`, or the same below `<mount>/issuer/<issuer>/`.
    pub path: ApiPath,
    /// The names it shall hold.
    pub names: Names,
    /// How long it shall be valid, if not as long as the role says.
    pub ttl: Option<Duration>,
    /// The kind of key to make; `None` when Vault makes it.
    pub key_type: Option<KeyType>,
}

/// A role of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub role: SecretPath,
    /// The issuer, if not the one the role names.
    pub issuer: Option<SecretPath>,
}

impl Ask {
    /// Asks a role of the engine at `mount`. Refused when the path gets too long.
    pub fn new(
        mount: MountPath,
        Role { role, issuer }: &Role,
        names: Names,
        ttl: Option<Duration>,
        key_type: Option<KeyType>,
    ) -> Result<Self, PathError> {
        let verb = key_type.map_or("issue", |_| "sign");
        let path = match issuer {
            None => format!("{mount}/{verb}/{role}"),
            Some(issuer) => format!("{mount}/issuer/{issuer}/{verb}/{role}"),
        };
        Ok(Self {
            path: ApiPath::parse(&path)?,
            mount,
            names,
            ttl,
            key_type,
        })
    }

    /// The parameters, all but the request of the key.
    ///
    /// The names are told although a request has them, too: a role may be set not to take them from there. The common
    /// name is among the others already where it is to be.
    pub fn parameters(&self) -> Map<String, Value> {
        let Self { names, ttl, .. } = self;
        let texts = |texts: Vec<String>| Value::from(texts);
        let alt_names: Vec<&str> = names.alt_names().collect();
        let mut parameters = Map::from_iter([
            (
                "common_name".to_owned(),
                names.common_name.clone().unwrap_or_default().into(),
            ),
            ("alt_names".to_owned(), alt_names.join(",").into()),
            (
                "ip_sans".to_owned(),
                texts(names.ips.iter().map(ToString::to_string).collect()),
            ),
            (
                "uri_sans".to_owned(),
                texts(names.uris.iter().cloned().collect()),
            ),
            ("exclude_cn_from_sans".to_owned(), true.into()),
            ("format".to_owned(), "pem".into()),
        ]);
        if let Some(ttl) = ttl {
            parameters.insert("ttl".to_owned(), format!("{}s", ttl.as_secs()).into());
        }
        if self.key_type.is_none() {
            parameters.insert("private_key_format".to_owned(), "pkcs8".into());
        }
        parameters
    }

    /// The parameters with the request to certify `key`.
    pub fn parameters_for(&self, key: &PrivateKey) -> Result<Map<String, Value>, KeyError> {
        let mut parameters = self.parameters();
        parameters.insert("csr".to_owned(), key.request(&self.names)?.into());
        Ok(parameters)
    }

    /// The certificate in an answer that was given at `now` by Vault's clock, if that is known.
    pub fn bundle(
        &self,
        entries: &BTreeMap<String, Sensitive>,
        key: Option<PrivateKey>,
        now: Option<Timestamp>,
    ) -> Result<Bundle, Flaw> {
        Bundle::check(&Certified::from_entries(entries)?, key, &self.names, now)
    }

    /// `error` with the field to look at, where Vault says what of the request the role does not allow.
    #[must_use]
    pub fn explained(&self, error: VaultError) -> VaultError {
        if error.kind != VaultErrorKind::Invalid {
            return error;
        }
        let key = || about_key(self.key_type?, &error.detail);
        let Some(advice) = about_name(&error.detail).or_else(key) else {
            return error;
        };
        VaultError {
            detail: format!("{}; {advice}", error.detail),
            ..error
        }
    }
}

/// What to do about a name. Vault's words are "common name a.b not allowed by this role" and the like.
fn about_name(detail: &str) -> Option<String> {
    const FIELDS: [(&str, &str, &str); 6] = [
        (
            "common name ",
            "commonName",
            "allowed_domains, allow_subdomains",
        ),
        (
            "the common_name field is required",
            "commonName",
            "require_cn=false",
        ),
        (
            "subject alternate name ",
            "altNames",
            "allowed_domains, allow_subdomains",
        ),
        ("email address ", "altNames", "allowed_domains"),
        ("IP Subject Alternative Names ", "ipSans", "allow_ip_sans"),
        (
            "URI Subject Alternative Names ",
            "uriSans",
            "allowed_uri_sans",
        ),
    ];
    let (_, field, setting) = FIELDS
        .into_iter()
        .find(|(begins, ..)| detail.starts_with(begins))?;
    Some(format!(
        "change pki.{field} of the source, or have the role allow it ({setting})"
    ))
}

/// What to do about the key. Vault's words are "role requires keys of type rsa" and "role requires a minimum of a 4096-bit
/// key, but CSR's key is 2048 bits".
fn about_key(kind: KeyType, detail: &str) -> Option<String> {
    if !detail.contains("role requires") {
        return None;
    }
    let wanted = match detail.split_once("keys of type ") {
        Some((_, rest)) if rest.starts_with("rsa") => "Rsa2048, Rsa3072 or Rsa4096",
        Some((_, rest)) if rest.starts_with("ec") => "EcdsaP256, EcdsaP384 or EcdsaP521",
        Some((_, rest)) if rest.starts_with("ed25519") => "Ed25519",
        _ => "one that the role allows",
    };
    Some(format!(
        "keyType is {}; set it to {wanted}, or set keySource: Vault",
        kind.as_str()
    ))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::*;
    use crate::{
        pki::{names::Written, testing::Authority},
        vault::{error::classify, request::Request},
    };

    fn ask(issuer: Option<&str>, key_type: Option<KeyType>) -> Ask {
        let alt_names = ["b.example.com".to_owned(), "me@example.com".to_owned()];
        let ip_sans = ["10.0.0.1".to_owned()];
        let uri_sans = ["spiffe://a/b,c".to_owned()];
        let names = Names::parse(&Written {
            common_name: Some("a.example.com"),
            alt_names: &alt_names,
            ip_sans: &ip_sans,
            uri_sans: &uri_sans,
            exclude_common_name: false,
        });
        let path = |text: &str| SecretPath::parse(text).unwrap();
        let role = Role {
            role: path("web"),
            issuer: issuer.map(path),
        };
        let mount = MountPath::parse("team/pki").unwrap();
        let ttl = Some(Duration::from_hours(72));
        Ask::new(mount, &role, names.unwrap(), ttl, key_type).unwrap()
    }

    #[test]
    fn each_way_has_its_path() {
        for (issuer, key_type, path) in [
            (None, Some(KeyType::EcdsaP256), "team/pki/sign/web"),
            (None, None, "team/pki/issue/web"),
            (
                Some("x"),
                Some(KeyType::Ed25519),
                "team/pki/issuer/x/sign/web",
            ),
            (Some("x"), None, "team/pki/issuer/x/issue/web"),
        ] {
            assert_eq!(ask(issuer, key_type).path.as_str(), path);
        }
    }

    #[test]
    fn everything_is_told_that_was_asked() {
        let common = json!({
            "common_name": "a.example.com",
            "alt_names": "a.example.com,b.example.com,me@example.com",
            "ip_sans": ["10.0.0.1"],
            "uri_sans": ["spiffe://a/b,c"],
            "exclude_cn_from_sans": true,
            "format": "pem",
            "ttl": "259200s",
        });
        let mut with_key = common.clone();
        with_key["private_key_format"] = json!("pkcs8");
        assert_eq!(Value::from(ask(None, None).parameters()), with_key);
        let ask = ask(None, Some(KeyType::EcdsaP256));
        assert_eq!(Value::from(ask.parameters()), common);
        let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let sent = ask.parameters_for(&key).unwrap();
        let csr = sent["csr"].as_str().unwrap();
        assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    }

    #[test]
    fn the_answer_is_read_from_its_data() {
        let ask = ask(None, Some(KeyType::Ed25519));
        let (key, answer) = Authority::new().certify(&ask.names);
        let text = |text: &str| Sensitive::new(text);
        let chain = serde_json::to_string(&answer.ca_chain).unwrap();
        let mut entries = BTreeMap::from([
            ("certificate".to_owned(), text(&answer.certificate)),
            ("issuing_ca".to_owned(), text(&answer.issuing_ca)),
            ("ca_chain".to_owned(), text(&chain)),
            ("expiration".to_owned(), text("1")),
        ]);
        assert_eq!(Certified::from_entries(&entries).unwrap(), answer);
        let bundle = ask.bundle(&entries, Some(key), None).unwrap();
        assert_eq!(bundle.facts.serial, "0a:0b:0c");
        entries.remove("ca_chain");
        assert!(
            Certified::from_entries(&entries)
                .unwrap()
                .ca_chain
                .is_empty()
        );
        for (key, value) in [
            ("ca_chain", "canary"),
            ("certificate", ""),
            ("issuing_ca", ""),
        ] {
            let mut entries = entries.clone();
            entries.insert(key.to_owned(), text(value));
            let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
            let error = ask.bundle(&entries, Some(key), None).unwrap_err();
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "it is one table")]
    fn a_refused_key_or_name_comes_with_advice() {
        let refused = |detail: &str, status: u16, key_type: Option<KeyType>| {
            let ask = ask(None, key_type);
            let request = Request::issue(&ask.path, Some(&ask.parameters())).unwrap();
            let body = json!({"errors": [detail]}).to_string();
            let status = StatusCode::from_u16(status).unwrap();
            let error = classify(&request, status, &HeaderMap::new(), body.as_bytes());
            ask.explained(error).detail
        };
        let ecdsa = Some(KeyType::EcdsaP256);
        let rows = [
            (
                "role requires keys of type rsa",
                400,
                ecdsa,
                "role requires keys of type rsa; keyType is EcdsaP256; set it to Rsa2048, Rsa3072 or Rsa4096, or set keySource: Vault",
            ),
            (
                "role requires keys of type ec",
                400,
                Some(KeyType::Rsa2048),
                "role requires keys of type ec; keyType is Rsa2048; set it to EcdsaP256, EcdsaP384 or EcdsaP521, or set keySource: Vault",
            ),
            (
                "role requires keys of type ed25519",
                400,
                ecdsa,
                "role requires keys of type ed25519; keyType is EcdsaP256; set it to Ed25519, or set keySource: Vault",
            ),
            (
                "role requires a minimum of a 4096-bit key, but CSR's key is 2048 bits",
                400,
                Some(KeyType::Rsa2048),
                "role requires a minimum of a 4096-bit key, but CSR's key is 2048 bits; keyType is Rsa2048; set it to one that the role allows, or set keySource: Vault",
            ),
            (
                "role requires keys of type rsa",
                400,
                None,
                "role requires keys of type rsa",
            ),
            (
                "role requires keys of type rsa",
                500,
                ecdsa,
                "role requires keys of type rsa",
            ),
            (
                "common name x not allowed by this role",
                400,
                ecdsa,
                "common name x not allowed by this role; change pki.commonName of the source, or have the role allow it (allowed_domains, allow_subdomains)",
            ),
            (
                "subject alternate name x not allowed by this role",
                400,
                None,
                "subject alternate name x not allowed by this role; change pki.altNames of the source, or have the role allow it (allowed_domains, allow_subdomains)",
            ),
            (
                "IP Subject Alternative Names are not allowed in this role, but was provided 10.0.0.1",
                400,
                ecdsa,
                "IP Subject Alternative Names are not allowed in this role, but was provided 10.0.0.1; change pki.ipSans of the source, or have the role allow it (allow_ip_sans)",
            ),
            (
                "email address x not allowed by this role",
                500,
                ecdsa,
                "email address x not allowed by this role",
            ),
        ];
        for (detail, status, key_type, expected) in rows {
            assert_eq!(refused(detail, status, key_type), expected);
        }
    }
}
