//! Pure: sources of which something is issued for one object alone, from what the user wrote to what is asked of Vault.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Ask, Field};
use crate::{
    api::duration::GoDuration,
    api::pki::{KeySource, KeyType, KeystoreSpec, PasswordRef, PkiSource},
    api::source::{DynamicSource, IssueMethod},
    names::ObjectKey,
    pki::{
        self,
        names::{Names, Written},
    },
    sync::{
        holding::record::digest,
        refusal::Refusal,
        resolve::{Lookup, invalid, method::SecretKey},
    },
    vault::path::{ApiPath, MountPath, SecretPath, VaultNamespace},
};

/// What is issued for one object alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueAsk {
    /// The namespace of Vault; that of the login when `None`.
    pub namespace: Option<VaultNamespace>,
    /// At which part of its life it is renewed or replaced: 10 to 90 of 100.
    pub renew_at: u8,
    /// What is issued.
    pub what: IssueWhat,
}

/// What is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueWhat {
    /// Whatever this path answers.
    Dynamic {
        /// The path.
        path: ApiPath,
        /// What is posted there; `None` for a GET.
        parameters: Option<Map<String, Value>>,
    },
    /// A certificate.
    Pki(Box<PkiAsk>),
}

/// A certificate, and how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiAsk {
    /// What is asked of Vault.
    pub certificate: pki::ask::Ask,
    /// Where the passwords of the key stores stand.
    pub passwords: Passwords,
    /// Whether it is revoked once it is replaced.
    pub revoke: bool,
}

/// Where the passwords of key stores stand; a store without one is not made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passwords {
    /// Of the stores in PKCS#12.
    pub pkcs12: Option<SecretKey>,
    /// Of the stores in JKS.
    pub jks: Option<SecretKey>,
}

impl PkiAsk {
    /// What the layout of the Secret depends on besides the certificate: which stores, and their passwords as of which
    /// version. `None` when there are no stores.
    pub fn layout(&self) -> Option<String> {
        let Passwords { pkcs12, jks } = &self.passwords;
        let stores = [("pkcs12", pkcs12), ("jks", jks)];
        let stores = stores.iter().filter_map(|(format, password)| {
            let SecretKey {
                secret,
                key,
                version,
            } = password.as_ref()?;
            let version = version.as_deref().unwrap_or_default();
            Some(format!("{format} {}/{key}@{version}", secret.name))
        });
        let stores: Vec<_> = stores.collect();
        (!stores.is_empty()).then(|| stores.join(" "))
    }
}

impl IssueAsk {
    /// A digest of what is asked of Vault, where. What is only asked of us is not in it.
    pub fn digest(&self, connection: &str) -> String {
        let namespace = self.namespace.as_ref().map_or("", VaultNamespace::as_str);
        match &self.what {
            IssueWhat::Dynamic { path, parameters } => {
                // Objects are printed with sorted keys.
                let parameters = parameters.clone().map(Value::Object);
                let parameters = parameters.map_or_else(String::new, |value| value.to_string());
                digest(&["dynamic", connection, namespace, path.as_str(), &parameters])
            }
            IssueWhat::Pki(pki) => digest(&[
                "pki",
                connection,
                namespace,
                pki.certificate.path.as_str(),
                pki.certificate.key_type.map_or("", KeyType::as_str),
                &Value::Object(pki.certificate.parameters()).to_string(),
            ]),
        }
    }

    /// The part of the life at which it is renewed, 0.1 to 0.9.
    pub fn renew_at(&self) -> f64 {
        f64::from(self.renew_at) / 100.0
    }
}

/// Shortest life of a certificate; below it there is no time to hand it on.
const SHORTEST: Duration = Duration::from_secs(10);

/// Vault's own agent renews at two thirds of a lease: time for two more tries before its end.
const RENEW_AT: u8 = 67;

pub(super) fn resolve_renew_at(text: Option<&str>, at: &str) -> Result<u8, Refusal> {
    let Some(text) = text else {
        return Ok(RENEW_AT);
    };
    let percent = text.strip_suffix('%').and_then(|text| text.parse().ok());
    percent
        .filter(|percent| (10..=90).contains(percent))
        .ok_or_else(|| {
            invalid(
                format!("{at}.renewAt"),
                "it must be from 10% to 90%, such as 67%",
            )
        })
}

pub(super) fn resolve_dynamic(spec: &DynamicSource, renew_at: u8, field: &Field<'_>) -> Result<Ask, Refusal> {
    let DynamicSource {
        path,
        method,
        parameters,
    } = spec;
    let path = field.parse("path", path, ApiPath::parse)?;
    let posts = *method == Some(IssueMethod::Post);
    if parameters.is_some() && !posts {
        let why = "they are sent in the body of a POST; set method: POST, or remove them";
        return Err(field.invalid("parameters", why));
    }
    if let Some(why) = not_issued(path.as_str()) {
        return Err(field.invalid("path", why));
    }
    let parameters = posts.then(|| parameters.clone().unwrap_or_default());
    Ok(Ask::Issue(IssueAsk {
        namespace: None,
        renew_at,
        what: IssueWhat::Dynamic { path, parameters },
    }))
}

pub(super) fn resolve_pki(
    spec: &PkiSource,
    renew_at: u8,
    field: &Field<'_>,
    (object, lookup): (&ObjectKey, &impl Lookup),
) -> Result<Ask, Refusal> {
    let names = Names::parse(&Written {
        common_name: spec.common_name.as_deref(),
        alt_names: &spec.alt_names,
        ip_sans: &spec.ip_sans,
        uri_sans: &spec.uri_sans,
        exclude_common_name: spec.exclude_common_name_from_sans.unwrap_or_default(),
    });
    let names = names.map_err(|wrong| field.invalid(&wrong.field, wrong.why))?;
    let ttl = spec.ttl.as_ref().map(GoDuration::as_duration);
    if ttl.is_some_and(|ttl| ttl < SHORTEST) {
        return Err(field.invalid("ttl", "it is shorter than 10s; use 10s or more"));
    }
    let key_type = match spec.key_source.unwrap_or_default() {
        KeySource::Operator => Some(spec.key_type.unwrap_or_default()),
        KeySource::Vault if spec.key_type.is_some() => {
            let why = "with keySource: Vault the role in Vault says it; remove one of the two";
            return Err(field.invalid("keyType", why));
        }
        KeySource::Vault => None,
    };
    let mount = field.parse("mount", &spec.mount, MountPath::parse)?;
    let role = field.parse("role", &spec.role, SecretPath::parse)?;
    let issuer = spec.issuer.as_ref();
    let issuer = issuer
        .map(|issuer| field.parse("issuer", issuer, SecretPath::parse))
        .transpose()?;
    let password = |format: &str, spec: Option<&KeystoreSpec>| {
        spec.map(|spec| resolve_password(spec, format, field, (object, lookup)))
            .transpose()
    };
    let stores = spec.keystores.clone().unwrap_or_default();
    Ok(Ask::Issue(IssueAsk {
        namespace: None,
        renew_at,
        what: IssueWhat::Pki(Box::new(PkiAsk {
            certificate: pki::ask::Ask::new(
                mount,
                &pki::ask::Role { role, issuer },
                names,
                ttl,
                key_type,
            )
            .map_err(|error| field.invalid("mount", &error.to_string()))?,
            passwords: Passwords {
                pkcs12: password("pkcs12", stores.pkcs12.as_ref())?,
                jks: password("jks", stores.jks.as_ref())?,
            },
            revoke: spec.revoke.unwrap_or_default(),
        })),
    }))
}

fn resolve_password(
    spec: &KeystoreSpec,
    format: &str,
    field: &Field<'_>,
    (object, lookup): (&ObjectKey, &impl Lookup),
) -> Result<SecretKey, Refusal> {
    let PasswordRef { name, key } = &spec.password_ref;
    let secret = ObjectKey::new(&object.namespace, name);
    let version = lookup.secret_version(&secret);
    if version.is_none() {
        let why = format!("there is no Secret {name}; create it or correct the reference");
        return Err(field.invalid(&format!("keystores.{format}.passwordRef"), &why));
    }
    Ok(SecretKey {
        secret,
        key: key.clone(),
        version,
    })
}

/// Paths at which nothing is issued that belongs into a Secret.
fn not_issued(path: &str) -> Option<&'static str> {
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "sys" => {
            Some("paths below sys/ administer Vault and issue nothing; name the path of an engine")
        }
        "auth" => Some(
            "paths below auth/ log in; use a VaultAuth for that, and name the path of an engine here",
        ),
        "cubbyhole" => Some("a cubbyhole belongs to one token alone; name the path of an engine"),
        _ => None,
    }
}
