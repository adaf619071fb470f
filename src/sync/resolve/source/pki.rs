//! Pure: a certificate, from what the user wrote to what is asked of Vault.

use std::time::Duration;

use super::super::{Lookup, method::SecretKey};
use super::{Ask, Field, IssueAsk, IssueWhat};
use crate::{
    api::{
        duration::GoDuration,
        pki::{KeySource, KeystoreSpec, PasswordRef, PkiSource},
    },
    names::ObjectKey,
    pki::{
        self,
        names::{Names, Written},
    },
    sync::refusal::Refusal,
    vault::path::{MountPath, SecretPath},
};

/// Shortest life of a certificate; below it there is no time to hand it on.
const SHORTEST: Duration = Duration::from_secs(10);

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
