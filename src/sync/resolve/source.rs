//! Pure: from one source as the user wrote it to what is asked of Vault.

pub mod pki;

use std::time::Duration;

use serde_json::{Map, Value};

use self::pki::PkiAsk;
use super::{Lookup, invalid};
use crate::{
    api::pki::KeyType,
    api::source::{
        DynamicSource, FindSource, IssueMethod, KeysSpec, KvSource, SourceKind, SourceSpec,
        StaticRoleEngine, StaticRoleSource,
    },
    names::ObjectKey,
    sync::{holding::record::digest, refusal::Refusal},
    vault::{
        path::{ApiPath, MountPath, PathError, SecretPath, VaultNamespace},
        place::{FindPlace, KvPlace, Pattern, Place, StaticEngine, StaticRolePlace},
        request::KvVersion,
    },
};

/// `find.maxSecrets` of those that say none, and the most it can be.
const MAX_SECRETS: (i32, i32) = (100, 1000);
/// The deepest `find.maxDepth`.
const MAX_DEPTH: i32 = 64;
/// `staticRole.checkInterval` of those that say none, and the least it can be.
const CHECK: (Duration, Duration) = (Duration::from_mins(1), Duration::from_secs(5));

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Which keys to take, and under which names.
    pub keys: KeysSpec,
    /// What is asked of Vault.
    pub ask: Ask,
    /// How old it may get, if that is not for `refreshInterval` to say alone.
    pub every: Option<Duration>,
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
    /// A certificate.
    Pki(Box<PkiAsk>),
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

impl Ask {
    /// The kind that the status names.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Read(Place::Kv(_)) => SourceKind::Kv,
            Self::Read(Place::Find(_)) => SourceKind::Find,
            Self::Read(Place::StaticRole(_)) => SourceKind::StaticRole,
            Self::Issue(IssueAsk {
                what: IssueWhat::Dynamic { .. },
                ..
            }) => SourceKind::Dynamic,
            Self::Issue(IssueAsk {
                what: IssueWhat::Pki(_),
                ..
            }) => SourceKind::Pki,
        }
    }

    /// What the key of a value is called before `keys` renames it. A value that was found is known by the path of its
    /// secret, a slash and its key, which has none.
    pub fn key_of(&self, name: &str) -> String {
        match self {
            Self::Read(Place::Find(_)) => match name.rsplit_once('/') {
                Some((path, key)) => format!("{}_{key}", path.replace('/', "-")),
                None => name.to_owned(),
            },
            Self::Read(Place::Kv(_) | Place::StaticRole(_)) | Self::Issue(_) => name.to_owned(),
        }
    }

    /// The same in a Vault namespace; in that of the login when it is `None`.
    fn in_namespace(self, namespace: Option<VaultNamespace>) -> Self {
        match self {
            Self::Read(Place::Kv(place)) => Self::Read(Place::Kv(KvPlace { namespace, ..place })),
            Self::Read(Place::Find(place)) => {
                Self::Read(Place::Find(FindPlace { namespace, ..place }))
            }
            Self::Read(Place::StaticRole(place)) => {
                Self::Read(Place::StaticRole(StaticRolePlace { namespace, ..place }))
            }
            Self::Issue(ask) => Self::Issue(IssueAsk { namespace, ..ask }),
        }
    }
}

/// Checks the source at `index` of the spec.
pub(super) fn resolve(
    index: usize,
    spec: &SourceSpec,
    object: &ObjectKey,
    lookup: &impl Lookup,
) -> Result<Source, Refusal> {
    let SourceSpec {
        name,
        namespace,
        kv,
        find,
        static_role,
        dynamic,
        pki,
        renew_at,
        keys,
    } = spec;
    let at = format!("spec.sources[{index}]");
    let namespace = namespace.as_deref().map(VaultNamespace::parse);
    let namespace = namespace
        .transpose()
        .map_err(|error| invalid(format!("{at}.namespace"), error))?;
    let renew_at = resolve_renew_at(renew_at.as_deref(), &at)?;
    let asks = [
        kv.as_ref().map(|spec| resolve_kv(spec, &Field(&at, "kv"))),
        find.as_ref()
            .map(|spec| resolve_find(spec, &Field(&at, "find"))),
        static_role
            .as_ref()
            .map(|spec| resolve_static_role(spec, &Field(&at, "staticRole"))),
        dynamic
            .as_ref()
            .map(|spec| resolve_dynamic(spec, renew_at, &Field(&at, "dynamic"))),
        pki.as_ref()
            .map(|spec| pki::resolve_pki(spec, renew_at, &Field(&at, "pki"), (object, lookup))),
    ];
    let mut asks = asks.into_iter().flatten();
    let (Some(ask), None) = (asks.next(), asks.next()) else {
        return Err(invalid(
            at,
            "each source needs exactly one kind; set one of kv, find, staticRole, dynamic and pki",
        ));
    };
    Ok(Source {
        name: name.clone(),
        keys: keys.clone().unwrap_or_default(),
        ask: ask?.in_namespace(namespace),
        every: match static_role {
            Some(spec) => Some(check_interval(spec, &Field(&at, "staticRole"))?),
            None => None,
        },
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

fn resolve_find(spec: &FindSource, field: &Field<'_>) -> Result<Ask, Refusal> {
    let FindSource {
        mount,
        path,
        match_,
        engine_version,
        recursive,
        max_depth,
        max_secrets,
    } = spec;
    let within = |name, value: Option<i32>, default, most| {
        let value = value.unwrap_or(default);
        let value = u32::try_from(value)
            .ok()
            .filter(|value| (1..=most).contains(value));
        value.ok_or_else(|| field.invalid(name, &format!("it must be from 1 to {most}")))
    };
    let recursive = recursive.unwrap_or_default();
    if max_depth.is_some() && !recursive {
        let why = "it says how deep to go into folders; set recursive: true, or remove it";
        return Err(field.invalid("maxDepth", why));
    }
    let depth = match (recursive, max_depth) {
        (false, _) => 0,
        (true, None) => u32::MAX,
        (true, depth) => within("maxDepth", *depth, 1, MAX_DEPTH.unsigned_abs())?,
    };
    let (default, most) = MAX_SECRETS;
    let most = within("maxSecrets", *max_secrets, default, most.unsigned_abs())?;
    let folder = path.as_ref().map(|path| {
        let path = path.strip_suffix('/').unwrap_or(path);
        field.parse("path", path, SecretPath::parse)
    });
    let pattern = match_.as_ref().map(|text| {
        let pattern = Pattern::parse(text);
        pattern.map_err(|why| field.invalid("match", &format!("{why}; write it as RE2 has it")))
    });
    Ok(Ask::Read(Place::Find(FindPlace {
        namespace: None,
        mount: field.parse("mount", mount, MountPath::parse)?,
        folder: folder.transpose()?,
        engine: engine(*engine_version, field)?,
        pattern: pattern.transpose()?,
        depth,
        most: most as usize,
    })))
}

fn resolve_static_role(spec: &StaticRoleSource, field: &Field<'_>) -> Result<Ask, Refusal> {
    let StaticRoleSource {
        mount,
        role,
        engine,
        check_interval: _,
    } = spec;
    Ok(Ask::Read(Place::StaticRole(StaticRolePlace {
        namespace: None,
        mount: field.parse("mount", mount, MountPath::parse)?,
        role: field.parse("role", role, SecretPath::parse)?,
        engine: engine.map(|engine| match engine {
            StaticRoleEngine::Database => StaticEngine::Database,
            StaticRoleEngine::Ldap => StaticEngine::Ldap,
        }),
    })))
}

fn check_interval(spec: &StaticRoleSource, field: &Field<'_>) -> Result<Duration, Refusal> {
    let (default, least) = CHECK;
    let Some(interval) = &spec.check_interval else {
        return Ok(default);
    };
    if interval.as_duration() < least {
        return Err(field.invalid("checkInterval", "it is shorter than 5s; use 5s or more"));
    }
    Ok(interval.as_duration())
}

fn engine(version: Option<i32>, field: &Field<'_>) -> Result<Option<KvVersion>, Refusal> {
    match version {
        None => Ok(None),
        Some(1) => Ok(Some(KvVersion::V1)),
        Some(2) => Ok(Some(KvVersion::V2)),
        Some(_) => Err(field.invalid("engineVersion", "it must be 1 or 2")),
    }
}
