//! Pure: which paths in Vault a login may be used for.
//!
//! A path is what stands behind `/v1/` in Vault's API, not encoded, after the Vault namespace if the source
//! names one: `secret/data/shop/app`, `team/secret/data/shop/app`.

use super::source::{Ask, IssueWhat, Source};
use crate::{
    sync::refusal::Refusal,
    vault::{
        path::{MountPath, VaultNamespace},
        place::{FindPlace, KvPlace, Place, StaticEngine, StaticRolePlace},
        request::KvVersion,
    },
};

/// What stands for the namespace of the `VaultSecret`.
const NAMESPACE: &str = "{{namespace}}";

/// A segment that stands for all others: only a `*` matches it.
const ANYTHING: &str = "\u{2026}";

/// Segments that have a meaning of their own in a KV engine of version 2.
const KV2_WORDS: [&str; 7] = [
    "config", "data", "delete", "destroy", "metadata", "subkeys", "undelete",
];

/// The paths that one login may be used for by the objects of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The auth object, for messages.
    auth: String,
    /// `None`: there is no fence.
    patterns: Option<Vec<String>>,
}

impl Fence {
    /// The fence that the auth object `auth` has with `patterns` for objects of `namespace`, which may be empty when
    /// nobody asks. The error names the pattern that cannot be used.
    pub fn new(auth: &str, patterns: Option<&[String]>, namespace: &str) -> Result<Self, String> {
        let filled = |(index, pattern): (usize, &String)| match wrong(pattern) {
            Some(wrong) => Err(format!("spec.allowedPaths[{index}]: {wrong}")),
            None => Ok(pattern.replace(NAMESPACE, namespace)),
        };
        let patterns = patterns.map(|patterns| {
            let needs_one = |pattern: &&String| namespace.is_empty() && pattern.contains(NAMESPACE);
            let all: Result<Vec<_>, _> = patterns.iter().enumerate().map(filled).collect();
            all.map(|all| {
                let pairs = patterns.iter().zip(all);
                let usable = pairs.filter(|(pattern, _)| !needs_one(pattern));
                usable.map(|(_, filled)| filled).collect()
            })
        });
        Ok(Self {
            auth: auth.to_owned(),
            patterns: patterns.transpose()?,
        })
    }

    /// Whether the login may be used for this path.
    ///
    /// A path that another reader of URLs might take for another one is never allowed: one with `.` or `..`, with
    /// an empty segment that is not the last, or with a character that is more than itself in a URL.
    pub fn allows(&self, api_path: &str) -> bool {
        let Some(patterns) = &self.patterns else {
            return true;
        };
        is_plain(api_path) && patterns.iter().any(|pattern| matches(pattern, api_path))
    }

    /// Refuses the source unless one of `api_paths` is allowed: the forms that one and the same place has.
    /// A source that needs several places is checked for each.
    pub fn check(&self, source_name: &str, api_paths: &[&str]) -> Result<(), Refusal> {
        if api_paths.iter().any(|path| self.allows(path)) {
            return Ok(());
        }
        Err(Refusal::PathNotAllowed {
            source_name: source_name.to_owned(),
            path: api_paths.join(" or "),
            auth: self.auth.clone(),
        })
    }

    /// The source, if its paths are allowed.
    pub(super) fn admit(&self, source: Source) -> Result<Source, Refusal> {
        let Source {
            name,
            keys,
            ask,
            every,
        } = source;
        let ask = match ask {
            Ask::Read(place) => Ask::Read(self.admit_place(&name, place)?),
            Ask::Issue(ask) => {
                let path = match &ask.what {
                    IssueWhat::Dynamic { path, .. } => path,
                    IssueWhat::Pki(pki) => &pki.certificate.path,
                };
                self.check(
                    &name,
                    &[&format!("{}{path}", prefix(ask.namespace.as_ref()))],
                )?;
                Ask::Issue(ask)
            }
        };
        Ok(Source {
            name,
            keys,
            ask,
            every,
        })
    }

    fn admit_place(&self, name: &str, place: Place) -> Result<Place, Refusal> {
        Ok(match place {
            Place::Kv(place) => {
                let mount = (place.namespace.as_ref(), &place.mount);
                let engine = self.admit_kv(name, mount, place.path.as_str(), place.engine)?;
                Place::Kv(KvPlace { engine, ..place })
            }
            Place::Find(place) => {
                // Whatever is found there has to be allowed, so the pattern has to cover what nobody would write.
                let folder = place.folder.as_ref().map(|folder| format!("{folder}/"));
                let below = format!("{}{ANYTHING}/{ANYTHING}", folder.unwrap_or_default());
                let mount = (place.namespace.as_ref(), &place.mount);
                let engine = self.admit_kv(name, mount, &below, place.engine)?;
                Place::Find(FindPlace { engine, ..place })
            }
            Place::StaticRole(place) => {
                let StaticRolePlace {
                    namespace,
                    mount,
                    role,
                    engine,
                } = &place;
                let path = |engine| {
                    let folder = match engine {
                        StaticEngine::Database => "static-creds",
                        StaticEngine::Ldap => "static-cred",
                    };
                    format!("{}{mount}/{folder}/{role}", prefix(namespace.as_ref()))
                };
                let mut paths = [StaticEngine::Database, StaticEngine::Ldap]
                    .map(|engine| (engine, path(engine)))
                    .to_vec();
                paths.retain(|(one, _)| engine.is_none_or(|engine| engine == *one));
                let names: Vec<_> = paths.iter().map(|(_, path)| path.as_str()).collect();
                self.check(name, &names)?;
                paths.retain(|(_, path)| self.allows(path));
                // Where the engine is not known, and only one may be meant, it is that one and nothing else.
                let engine = match paths.as_slice() {
                    [(one, _)] => Some(*one),
                    _ => place.engine,
                };
                Place::StaticRole(StaticRolePlace { engine, ..place })
            }
        })
    }

    /// A pattern may be written for the API of version 2, with `data/`, or as people write the path, without.
    ///
    /// The second is not taken where it could mean something else in the API. Where the engine's version is not known,
    /// and only the first form is allowed, it is read as version 2 and as nothing else.
    fn admit_kv(
        &self,
        source_name: &str,
        (namespace, mount): (Option<&VaultNamespace>, &MountPath),
        path: &str,
        engine: Option<KvVersion>,
    ) -> Result<Option<KvVersion>, Refusal> {
        let prefix = prefix(namespace);
        let short = format!("{prefix}{mount}/{path}");
        let with_data = format!("{prefix}{mount}/data/{path}");
        let first = path.split('/').next();
        let mut segments = mount.as_str().split('/').chain(first);
        let is_clear = !segments.any(|segment| KV2_WORDS.contains(&segment));
        if engine == Some(KvVersion::V1) {
            self.check(source_name, &[&short])?;
            return Ok(engine);
        }
        if is_clear && self.allows(&short) {
            return Ok(engine);
        }
        self.check(source_name, &[&with_data])?;
        Ok(match self.patterns {
            None => engine,
            Some(_) => Some(KvVersion::V2),
        })
    }
}

/// What stands in front of a path in a Vault namespace.
fn prefix(namespace: Option<&VaultNamespace>) -> String {
    namespace.map_or_else(String::new, |namespace| format!("{namespace}/"))
}

/// What is wrong with a pattern.
fn wrong(pattern: &str) -> Option<&'static str> {
    let text = pattern.replace(NAMESPACE, "x");
    if text.is_empty() {
        Some("it is empty")
    } else if text.starts_with('/') {
        Some(
            "it starts with a slash; write what follows /v1/ in Vault's API, such as secret/data/{{namespace}}/*",
        )
    } else if text.contains("{{") || text.contains("}}") {
        Some("it holds braces that are not {{namespace}}, the only thing that is filled in")
    } else if is_plain(&text) {
        None
    } else {
        Some(
            "it holds '.' or '..', two slashes in a row, or one of % ? # \\, which no path that is allowed holds",
        )
    }
}

/// Whether nobody can take the path for another one.
fn is_plain(path: &str) -> bool {
    let folder = path.strip_suffix('/').unwrap_or(path);
    let segment = |segment: &str| !matches!(segment, "" | "." | "..");
    folder.split('/').all(segment)
        && !path.contains(|c: char| c.is_control() || matches!(c, '%' | '?' | '#' | '\\'))
}

/// Whether `text` has the form of `pattern`, in which `*` stands for any run of characters, slashes included.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        // The first place is as good as any other for what comes behind it.
        let Some(at) = text.find(part) else {
            return false;
        };
        text = text.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests;
