//! Pure: tests.

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
