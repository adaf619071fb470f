//! Pure: from one source as the user wrote it to what is asked of Vault.

use serde_json::{Map, Value};

use super::invalid;
use crate::{
    api::source::{DynamicSource, IssueMethod, KeysSpec, KvSource, SourceKind, SourceSpec},
    sync::{holding::record::digest, refusal::Refusal},
    vault::{
        path::{ApiPath, MountPath, PathError, SecretPath, VaultNamespace},
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
    /// Have this issued for this object alone, and keep it.
    Issue(IssueAsk),
}

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
        }
    }

    /// The part of the life at which it is renewed, 0.1 to 0.9.
    pub fn renew_at(&self) -> f64 {
        f64::from(self.renew_at) / 100.0
    }
}

impl Ask {
    /// The kind that the status names.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Read(Place::Kv(_)) => SourceKind::Kv,
            Self::Issue(IssueAsk {
                what: IssueWhat::Dynamic { .. },
                ..
            }) => SourceKind::Dynamic,
        }
    }
}

/// Checks the source at `index` of the spec.
pub(super) fn resolve(index: usize, spec: &SourceSpec) -> Result<Source, Refusal> {
    let SourceSpec {
        name,
        kv,
        dynamic,
        renew_at,
        keys,
    } = spec;
    let at = format!("spec.sources[{index}]");
    let renew_at = resolve_renew_at(renew_at.as_deref(), &at)?;
    let asks = [
        kv.as_ref().map(|spec| resolve_kv(spec, &Field(&at, "kv"))),
        dynamic
            .as_ref()
            .map(|spec| resolve_dynamic(spec, renew_at, &Field(&at, "dynamic"))),
    ];
    let mut asks = asks.into_iter().flatten();
    let (Some(ask), None) = (asks.next(), asks.next()) else {
        return Err(invalid(at, "each source needs exactly one kind; set kv or dynamic"));
    };
    Ok(Source {
        name: name.clone(),
        keys: keys.clone().unwrap_or_default(),
        ask: ask?,
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

/// Vault's own agent renews at two thirds of a lease: time for two more tries before its end.
const RENEW_AT: u8 = 67;

fn resolve_renew_at(text: Option<&str>, at: &str) -> Result<u8, Refusal> {
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

fn resolve_dynamic(spec: &DynamicSource, renew_at: u8, field: &Field<'_>) -> Result<Ask, Refusal> {
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

/// Paths at which nothing is issued that belongs into a Secret.
fn not_issued(path: &str) -> Option<&'static str> {
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "sys" => Some("paths below sys/ administer Vault and issue nothing; name the path of an engine"),
        "auth" => Some("paths below auth/ log in; use a VaultAuth for that, and name the path of an engine here"),
        "cubbyhole" => Some("a cubbyhole belongs to one token alone; name the path of an engine"),
        _ => None,
    }
}

fn engine(version: Option<i32>, field: &Field<'_>) -> Result<Option<KvVersion>, Refusal> {
    match version {
        None => Ok(None),
        Some(1) => Ok(Some(KvVersion::V1)),
        Some(2) => Ok(Some(KvVersion::V2)),
        Some(_) => Err(field.invalid("engineVersion", "it must be 1 or 2")),
    }
}
