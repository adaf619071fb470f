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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vault::path::{MountPath, SecretPath, VaultNamespace};

    fn fence(patterns: &[&str], namespace: &str) -> Fence {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        Fence::new("ClusterVaultAuth main", Some(&patterns), namespace).unwrap()
    }

    #[test]
    fn a_path_is_allowed_by_a_pattern() {
        for (pattern, path, allowed) in [
            ("secret/data/{{namespace}}/*", "secret/data/shop/app", true),
            ("secret/data/{{namespace}}/*", "secret/data/shop/a/b", true),
            ("secret/data/{{namespace}}/*", "secret/data/shop/", true),
            ("secret/data/{{namespace}}/*", "secret/data/shop", false),
            (
                "secret/data/{{namespace}}/*",
                "secret/data/shopping/a",
                false,
            ),
            ("secret/data/{{namespace}}/*", "secret/data/other/a", false),
            ("secret/data/{{namespace}}/*", "x/secret/data/shop/a", false),
            (
                "database/creds/{{namespace}}-*",
                "database/creds/shop-ro",
                true,
            ),
            (
                "database/creds/{{namespace}}-*",
                "database/creds/other-shop-ro",
                false,
            ),
            ("secret/data/app", "secret/data/app", true),
            ("secret/data/app", "secret/data/app2", false),
            ("*", "anything/at/all", true),
            ("*/creds/{{namespace}}", "database/creds/shop", true),
            ("a*b*c", "a/b/c", true),
            ("a*b*c", "a/c/b", false),
            ("a*a", "a", false),
            ("a*ab", "aab", true),
        ] {
            let fence = fence(&[pattern], "shop");
            assert_eq!(fence.allows(path), allowed, "{pattern} {path}");
        }
    }

    #[test]
    fn a_path_that_could_be_read_otherwise_is_never_allowed() {
        for path in [
            "",
            "/",
            "/secret/data/shop/a",
            "secret/data/shop/../other/a",
            "secret/data/shop/..",
            "secret/data/shop/./a",
            "secret//data/shop/a",
            "secret/data/shop//",
            "secret/data/shop/%2e%2e/other/a",
            "secret/data/shop/a%2fb",
            "secret/data/shop\\..\\other",
            "secret/data/shop/a?list=true",
            "secret/data/shop/a#b",
            "secret/data/shop/a\nb",
        ] {
            assert!(
                !fence(&["*", "secret/data/{{namespace}}/*"], "shop").allows(path),
                "{path:?}"
            );
        }
    }

    #[test]
    fn without_a_namespace_only_what_needs_none_is_allowed() {
        let fence = fence(&["secret/data/{{namespace}}/*", "common/data/*"], "");
        assert!(!fence.allows("secret/data/a"));
        assert!(!fence.allows("secret/data//a"));
        assert!(fence.allows("common/data/a"));
        let none = Fence::new("a", Some(&[]), "shop").unwrap();
        assert!(
            !none.allows("secret/data/a"),
            "an empty list allows nothing"
        );
        assert!(Fence::new("a", None, "").unwrap().allows("secret/data/a"));
    }

    #[test]
    fn a_wrong_pattern_is_named() {
        for (pattern, expected) in [
            ("", "spec.allowedPaths[1]: it is empty"),
            ("/v1/secret", "starts with a slash"),
            (
                "secret/{{ namespace }}/*",
                "braces that are not {{namespace}}",
            ),
            ("secret/{{name}}/*", "braces that are not {{namespace}}"),
            ("secret/../a", "'..'"),
            ("secret//a", "two slashes"),
            ("secret/%2e", "one of %"),
        ] {
            let patterns = ["ok".to_owned(), pattern.to_owned()];
            let wrong = Fence::new("a", Some(&patterns), "shop").unwrap_err();
            assert!(wrong.contains(expected), "{pattern}: {wrong}");
        }
    }

    fn kv(mount: &str, path: &str, engine: Option<KvVersion>) -> KvPlace {
        KvPlace {
            namespace: None,
            mount: MountPath::parse(mount).unwrap(),
            path: SecretPath::parse(path).unwrap(),
            engine,
            version: None,
        }
    }

    fn admit(fence: &Fence, place: KvPlace) -> Result<KvPlace, Refusal> {
        match fence.admit_place("main", Place::Kv(place))? {
            Place::Kv(place) => Ok(place),
            other @ (Place::Find(_) | Place::StaticRole(_)) => panic!("{other:?}"),
        }
    }

    fn find(folder: Option<&str>) -> Place {
        Place::Find(FindPlace {
            namespace: None,
            mount: MountPath::parse("secret").unwrap(),
            folder: folder.map(|folder| SecretPath::parse(folder).unwrap()),
            engine: Some(KvVersion::V2),
            pattern: None,
            depth: 0,
            most: 100,
        })
    }

    #[test]
    fn a_search_is_allowed_where_everything_is_that_it_may_find() {
        for (pattern, folder, allowed) in [
            ("secret/data/{{namespace}}/*", Some("shop"), true),
            ("secret/data/{{namespace}}/*", Some("shop/eu"), true),
            ("secret/data/*", None, true),
            ("secret/data/{{namespace}}/*", None, false),
            ("secret/data/{{namespace}}/flag-*", Some("shop"), false),
            ("secret/data/{{namespace}}", Some("shop"), false),
            ("secret/data/{{namespace}}/*", Some("data/shop"), false),
        ] {
            let admitted = fence(&[pattern], "shop").admit_place("main", find(folder));
            assert_eq!(admitted.is_ok(), allowed, "{pattern} {folder:?}");
        }
    }

    #[test]
    fn a_static_role_of_an_unknown_engine_is_of_the_one_that_is_allowed() {
        let place = |engine| {
            Place::StaticRole(StaticRolePlace {
                namespace: None,
                mount: MountPath::parse("db").unwrap(),
                role: SecretPath::parse("shop-app").unwrap(),
                engine,
            })
        };
        let (database, ldap) = (Some(StaticEngine::Database), Some(StaticEngine::Ldap));
        for (pattern, asked, expected) in [
            ("db/static-creds/{{namespace}}-*", None, Some(database)),
            ("db/static-cred/{{namespace}}-*", None, Some(ldap)),
            ("db/*", None, Some(None)),
            ("db/static-creds/{{namespace}}-*", ldap, None),
            ("db/creds/*", None, None),
        ] {
            let admitted = fence(&[pattern], "shop").admit_place("main", place(asked));
            assert_eq!(admitted.ok(), expected.map(place), "{pattern} {asked:?}");
        }
    }

    #[test]
    fn a_kv_source_is_allowed_in_the_form_it_is_read_in() {
        const API: &str = "secret/data/shop/*";
        const SHORT: &str = "secret/shop/*";
        let (one, two) = (Some(KvVersion::V1), Some(KvVersion::V2));
        for (pattern, mount, path, engine, expected) in [
            (API, "secret", "shop/a", None, Some(two)),
            (API, "secret", "shop/a", two, Some(two)),
            (API, "secret", "shop/a", one, None),
            (API, "secret", "other/a", None, None),
            (SHORT, "secret", "shop/a", None, Some(None)),
            (SHORT, "secret", "shop/a", two, Some(two)),
            (SHORT, "secret", "shop/a", one, Some(one)),
            // Read as version 2, these would be secret/data/data/shop/a and secret/data/shop/data/a.
            (API, "secret", "data/shop/a", None, None),
            (API, "secret", "data/shop/a", two, None),
            (API, "secret/data", "shop/a", None, None),
            ("secret/data/shop/a", "secret/data/shop", "a", None, None),
            (
                "secret/metadata/shop/*",
                "secret",
                "metadata/shop/a",
                None,
                None,
            ),
            // Version 1 says what it means.
            (API, "secret", "data/shop/a", one, Some(one)),
        ] {
            let admitted = admit(&fence(&[pattern], "shop"), kv(mount, path, engine));
            let engine = admitted.ok().map(|place| place.engine);
            assert_eq!(engine, expected, "{pattern} {mount} {path}");
        }
        let free = Fence::new("a", None, "shop").unwrap();
        let place = kv("secret", "data/a", None);
        assert_eq!(admit(&free, place.clone()), Ok(place));
    }

    #[test]
    fn a_namespace_of_vault_is_part_of_the_path() {
        let place = KvPlace {
            namespace: Some(VaultNamespace::parse("team").unwrap()),
            ..kv("secret", "shop/a", Some(KvVersion::V2))
        };
        let admitted = |pattern| admit(&fence(&[pattern], "shop"), place.clone());
        assert!(admitted("team/secret/data/{{namespace}}/*").is_ok());
        let refusal = admitted("secret/data/{{namespace}}/*").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "spec.sources[main]: ClusterVaultAuth main is not for the path team/secret/data/shop/a: no pattern of its spec.allowedPaths matches; correct the path, or have a pattern added there"
        );
    }

    proptest! {
        /// Whatever a tenant writes, what is asked of Vault stays behind the fence.
        #[test]
        fn nothing_leaves_the_fence(
            mount in "(secret|secret/data|secret/data/shop|kv)",
            path in "([a-z.%*]{1,4}|shop|data|metadata|\\.\\.)(/([a-z.%*]{1,4}|shop|data)){0,3}",
            engine in prop_oneof![Just(None), Just(Some(KvVersion::V1)), Just(Some(KvVersion::V2))],
        ) {
            let (Ok(mount), Ok(path)) = (MountPath::parse(&mount), SecretPath::parse(&path)) else {
                return Ok(());
            };
            let fence = fence(&["secret/data/{{namespace}}/*"], "shop");
            let place = kv(mount.as_str(), path.as_str(), engine);
            if let Ok(place) = admit(&fence, place) {
                let asked = match place.engine {
                    Some(KvVersion::V1) => format!("{mount}/{path}"),
                    Some(KvVersion::V2) => format!("{mount}/data/{path}"),
                    None => unreachable!("the pattern has only one form"),
                };
                let within = asked.starts_with("secret/data/shop/")
                    && asked.split('/').all(|segment| segment != "..");
                prop_assert!(within, "{}", asked);
            }
        }
    }
}
