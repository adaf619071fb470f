//! Pure: from one source as the user wrote it to what is asked of Vault.

use super::invalid;
use crate::{
    api::source::{KeysSpec, KvSource, SourceKind, SourceSpec},
    sync::refusal::Refusal,
    vault::{
        path::{MountPath, PathError, SecretPath, VaultNamespace},
        place::{KvPlace, Place},
        request::KvVersion,
    },
};

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Which keys to take, and under which names.
    pub keys: KeysSpec,
    /// What is asked of Vault.
    pub ask: Ask,
}

/// What is asked of Vault for one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read this place, again and again, together with all who want the same.
    Read(Place),
}

impl Ask {
    /// The kind that the status names.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Read(Place::Kv(_)) => SourceKind::Kv,
        }
    }

    /// The same in a Vault namespace; in that of the login when it is `None`.
    fn in_namespace(self, namespace: Option<VaultNamespace>) -> Self {
        match self {
            Self::Read(Place::Kv(place)) => Self::Read(Place::Kv(KvPlace { namespace, ..place })),
        }
    }
}

/// Checks the source at `index` of the spec.
pub(super) fn resolve(index: usize, spec: &SourceSpec) -> Result<Source, Refusal> {
    let SourceSpec {
        name,
        namespace,
        kv,
        keys,
    } = spec;
    let at = format!("spec.sources[{index}]");
    let namespace = namespace.as_deref().map(VaultNamespace::parse);
    let namespace = namespace
        .transpose()
        .map_err(|error| invalid(format!("{at}.namespace"), error))?;
    let asks = [kv.as_ref().map(|spec| resolve_kv(spec, &Field(&at, "kv")))];
    let mut asks = asks.into_iter().flatten();
    let (Some(ask), None) = (asks.next(), asks.next()) else {
        return Err(invalid(at, "each source needs exactly one kind; set kv"));
    };
    Ok(Source {
        name: name.clone(),
        keys: keys.clone().unwrap_or_default(),
        ask: ask?.in_namespace(namespace),
    })
}

/// The place in the spec of one kind of source: where the source is, and the kind.
struct Field<'a>(&'a str, &'a str);

impl Field<'_> {
    fn invalid(&self, name: &str, why: &str) -> Refusal {
        let Self(source, kind) = self;
        invalid(format!("{source}.{kind}.{name}"), why)
    }

    fn parse<T>(
        &self,
        name: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, PathError>,
    ) -> Result<T, Refusal> {
        parse(text).map_err(|error| self.invalid(name, &error.to_string()))
    }
}

fn resolve_kv(spec: &KvSource, field: &Field<'_>) -> Result<Ask, Refusal> {
    let KvSource {
        mount,
        path,
        engine_version,
        version,
    } = spec;
    let engine = engine(*engine_version, field)?;
    if version.is_some() && engine == Some(KvVersion::V1) {
        return Err(field.invalid("version", "a version 1 engine keeps no versions; remove it"));
    }
    Ok(Ask::Read(Place::Kv(KvPlace {
        namespace: None,
        mount: field.parse("mount", mount, MountPath::parse)?,
        path: field.parse("path", path, SecretPath::parse)?,
        engine,
        version: version.map(i64::unsigned_abs),
    })))
}

fn engine(version: Option<i32>, field: &Field<'_>) -> Result<Option<KvVersion>, Refusal> {
    match version {
        None => Ok(None),
        Some(1) => Ok(Some(KvVersion::V1)),
        Some(2) => Ok(Some(KvVersion::V2)),
        Some(_) => Err(field.invalid("engineVersion", "it must be 1 or 2")),
    }
}
