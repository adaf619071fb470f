//! Effects: loopback HTTP — what each kind of place asks of Vault, and how its failures are told.

use super::*;
use crate::vault::place::{FindPlace, Pattern, StaticEngine, StaticRolePlace};
use crate::vault::schedule::SeenRotation;

const KV2: &str = r#"{"data":{"type":"kv","options":{"version":"2"}}}"#;
const KV1: &str = r#"{"data":{"type":"kv","options":null}}"#;
const MOUNT: &str = "sys/internal/ui/mounts/secret";
const ABSENT: &str = r#"{"errors":[]}"#;
const DENIED: &str = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
const DELETED: &str =
    r#"{"data":{"data":null,"metadata":{"version":2,"deletion_time":"2026-01-02T03:04:05Z"}}}"#;

fn find() -> FindPlace {
    FindPlace {
        namespace: None,
        mount: MountPath::parse("secret").unwrap(),
        folder: Some(SecretPath::parse("shop").unwrap()),
        engine: Some(KvVersion::V2),
        pattern: None,
        depth: 9,
        most: 100,
    }
}

fn role(mount: &str, engine: Option<StaticEngine>) -> Place {
    Place::StaticRole(StaticRolePlace {
        namespace: None,
        mount: MountPath::parse(mount).unwrap(),
        role: SecretPath::parse("app").unwrap(),
        engine,
    })
}

fn list(names: &[&str]) -> String {
    serde_json::json!({"data": {"keys": names}}).to_string()
}

/// A store with two flags at the top and one in a folder.
fn with_flags(bed: &Bed) {
    let vault = &bed.vault;
    vault.put(
        "secret/metadata/shop/?list=true",
        200,
        &list(&["flag-a", "flag-b", "eu/"]),
    );
    vault.put(
        "secret/metadata/shop/eu/?list=true",
        200,
        &list(&["flag-c"]),
    );
    for (path, value) in [("flag-a", "1"), ("flag-b", "2"), ("eu/flag-c", CANARY)] {
        vault.put(&format!("secret/data/shop/{path}"), 200, &kv2(value, 1));
    }
}

async fn found(bed: &Bed, place: FindPlace) -> Result<Vec<String>, VaultError> {
    let reading = bed.get_from(&Place::Find(place), &newer()).await;
    let data = reading.map_err(|failure| failure.error)?.data.unwrap();
    Ok(data.entries.keys().cloned().collect())
}

#[tokio::test]
async fn everything_below_a_folder_is_one_reading() {
    let bed = Bed::new();
    with_flags(&bed);
    let place = Place::Find(find());
    let want = want();
    let results = join_all((0..20).map(|_| bed.get_from(&place, &want))).await;
    let first = results[0].clone().unwrap();
    assert!(
        results
            .iter()
            .all(|r| r.as_ref().unwrap().fingerprint == first.fingerprint)
    );
    assert_eq!(bed.vault.count("GET secret/metadata/shop/?list=true"), 1);
    assert_eq!(bed.vault.count("GET secret/data/shop/eu/flag-c"), 1);
    let keys = found(&bed, FindPlace { depth: 0, ..find() }).await.unwrap();
    assert_eq!(keys, ["flag-a/k", "flag-b/k"]);
    let pattern = Some(Pattern::parse("^eu/").unwrap());
    let keys = found(&bed, FindPlace { pattern, ..find() }).await.unwrap();
    assert_eq!(keys, ["eu/flag-c/k"]);
    bed.pass(1).await;
    bed.vault
        .put("secret/data/shop/eu/flag-c", 200, &kv2("new", 2));
    let changed = bed.get_from(&place, &newer()).await.unwrap();
    assert_ne!(changed.fingerprint, first.fingerprint, "every value counts");
}

#[tokio::test]
async fn what_went_meanwhile_is_left_out_and_what_is_denied_fails_all() {
    let bed = Bed::new();
    with_flags(&bed);
    bed.vault.put("secret/data/shop/flag-a", 404, DELETED);
    bed.vault.put("secret/data/shop/flag-b", 404, ABSENT);
    assert_eq!(found(&bed, find()).await.unwrap(), ["eu/flag-c/k"]);
    bed.pass(1).await;
    bed.vault
        .put("secret/metadata/shop/eu/?list=true", 404, ABSENT);
    assert!(found(&bed, find()).await.unwrap().is_empty());
    bed.pass(1).await;
    bed.vault.put("secret/data/shop/flag-b", 403, DENIED);
    let error = found(&bed, find()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "read secret/data/shop/flag-b: permission denied by Vault (403)"
    );
    bed.pass(60).await;
    bed.vault
        .put("secret/metadata/shop/?list=true", 404, ABSENT);
    let error = found(&bed, find()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "list secret/metadata/shop/: nothing found (404)",
        "an empty place is no empty Secret"
    );
}

#[tokio::test]
async fn too_many_secrets_are_counted_and_not_read() {
    let bed = Bed::new();
    let names: Vec<_> = (0..100_000)
        .map(|number| format!("flag-{number}"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    bed.vault
        .put("secret/metadata/shop/?list=true", 200, &list(&names));
    let error = found(&bed, find()).await.unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::TooMany);
    assert_eq!(
        error.to_string(),
        "list secret/metadata/shop/: too much to read: 100000 secrets or more, and the limit is 100; \
         narrow path or match, or raise maxSecrets (at most 1000)"
    );
    let seen = bed.vault.model().seen.clone();
    assert!(
        !seen.iter().any(|line| line.contains("secret/data")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn few_secrets_are_read_at_once() {
    let bed = Bed::new();
    let names: Vec<_> = (0..40).map(|number| format!("flag-{number}")).collect();
    for name in &names {
        bed.vault
            .put(&format!("secret/data/shop/{name}"), 200, &kv2("x", 1));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    bed.vault
        .put("secret/metadata/shop/?list=true", 200, &list(&names));
    bed.vault.model().delay = Duration::from_millis(5);
    assert_eq!(found(&bed, find()).await.unwrap().len(), 40);
    let most = bed.vault.most_in_flight();
    assert!((2..=4).contains(&most), "{most}");
}

#[tokio::test]
async fn a_wrong_version_or_a_path_as_the_api_has_it_is_explained() {
    let kv = |mount: &str, engine, path: &str| {
        Place::Kv(KvPlace {
            namespace: None,
            mount: MountPath::parse(mount).unwrap(),
            path: SecretPath::parse(path).unwrap(),
            engine,
            version: None,
        })
    };
    let is_version = |mount, version| {
        format!(
            "mount {mount} is a version {version} engine: set engineVersion: {version}, or leave it out"
        )
    };
    let needless = "leave out data/ at the start of path, it is added for you".to_owned();
    let (v1, v2) = (Some(KvVersion::V1), Some(KvVersion::V2));
    let bed = Bed::new();
    for (mount, engine, said, path, status, expected) in [
        ("a", KV1, v2, "x", 404, is_version("a", 1)),
        ("b", KV1, v2, "x", 403, is_version("b", 1)),
        ("c", KV2, v1, "x", 403, is_version("c", 2)),
        ("d", KV2, v2, "data/x", 403, needless.clone()),
        ("e", KV2, None, "data/x", 404, needless),
    ] {
        let lookup = format!("sys/internal/ui/mounts/{mount}");
        bed.vault.put(&lookup, 200, engine);
        let body = if status == 403 { DENIED } else { ABSENT };
        for path in ["x", "data/x", "data/data/x"] {
            bed.vault.put(&format!("{mount}/{path}"), status, body);
        }
        let result = bed.get_from(&kv(mount, said, path), &want()).await;
        let told = result.unwrap_err().to_string();
        assert!(told.ends_with(&expected), "{mount}: {told}");
    }
    bed.vault.put(MOUNT, 403, DENIED);
    bed.vault.put("secret/data/x", 403, DENIED);
    let result = bed.get_from(&kv("secret", v2, "x"), &want()).await;
    let told = result.unwrap_err().to_string();
    assert_eq!(told, "read secret/data/x: permission denied by Vault (403)");
}

#[tokio::test]
async fn a_version_is_not_ignored_where_the_engine_keeps_none() {
    let bed = Bed::new();
    bed.vault.put(MOUNT, 200, KV1);
    bed.vault.put("secret/x", 200, r#"{"data":{"k":"v"}}"#);
    bed.vault.put("secret/data/x?version=3", 200, &kv2("x", 3));
    let place = |version| {
        Place::Kv(KvPlace {
            namespace: None,
            mount: MountPath::parse("secret").unwrap(),
            path: SecretPath::parse("x").unwrap(),
            engine: None,
            version,
        })
    };
    bed.get_from(&place(None), &want()).await.unwrap();
    let error = bed.get_from(&place(Some(3)), &want()).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("mount secret is a version 1 engine"),
        "{told}"
    );
    assert!(told.contains("remove version"), "{told}");
    assert_eq!(bed.vault.count("GET secret/x"), 1);
    // It was upgraded.
    bed.vault.put(MOUNT, 200, KV2);
    bed.pass(600).await;
    let read = bed.get_from(&place(Some(3)), &want()).await.unwrap();
    assert_eq!(read.version, Some(3));
}

fn login(password: &str, ttl: u64) -> String {
    serde_json::json!({"data": {
        "username": "app", "password": password, "ttl": ttl, "rotation_period": 600,
        "last_vault_rotation": "2026-11-21T10:00:00.5Z",
    }})
    .to_string()
}

#[tokio::test]
async fn a_static_role_is_read_where_its_engine_has_it() {
    let bed = Bed::new();
    for (mounted, path) in [
        ("database", "database/static-creds/app"),
        ("ldap", "ldap/static-cred/app"),
        ("openldap", "openldap/static-cred/app"),
    ] {
        let lookup = format!("sys/internal/ui/mounts/{mounted}");
        let mount = format!(r#"{{"data":{{"type":"{mounted}"}}}}"#);
        bed.vault.put(&lookup, 200, &mount);
        bed.vault.put(path, 200, &login(CANARY, 600));
        for _ in 0..2 {
            bed.pass(1).await;
            let reading = bed.get_from(&role(mounted, None), &newer()).await.unwrap();
            let keys: Vec<_> = reading.data.unwrap().entries.keys().cloned().collect();
            assert_eq!(keys, ["password", "username"], "{mounted}");
        }
        assert_eq!(bed.vault.count(&format!("GET {lookup}")), 1);
    }
}

#[tokio::test]
async fn a_rotation_is_followed_when_vault_said_it_would_be() {
    let bed = Bed::new();
    let place = role("secret", Some(StaticEngine::Database));
    let path = "secret/static-creds/app";
    bed.vault.put(path, 200, &login("first", 20));
    let read = || bed.vault.count("GET secret/static-creds/app");
    let first = bed.get_from(&place, &newer()).await.unwrap();
    bed.vault.put(path, 200, &login("first", 12));
    bed.pass(2).await;
    let same = bed.get_from(&place, &newer()).await.unwrap();
    assert_eq!(
        first.fingerprint, same.fingerprint,
        "the time to live is no data"
    );
    let key = PlaceKey {
        identity: bed.identity.key.clone(),
        place: place.clone(),
    };
    let due = bed.readings.next_due(&key, MINUTE, &same, 1);
    let SeenRotation {
        changes_at, last, ..
    } = same.rotation.unwrap();
    assert_eq!(last.unwrap().to_string(), "2026-11-21T10:00:00Z");
    assert!(due >= changes_at && due <= changes_at + Duration::from_secs(1));
    // The change is due, and Vault has not got round to it.
    bed.vault.put(path, 200, &login("first", 0));
    bed.clock.advance(due - now()).await;
    let late = bed.get_from(&place, &want()).await.unwrap();
    assert_eq!((read(), late.fingerprint), (3, first.fingerprint));
    bed.get_from(&place, &want()).await.unwrap();
    assert_eq!(read(), 3, "not asked in a loop");
    bed.vault.put(path, 200, &login("second", 600));
    let due = bed.readings.next_due(&key, MINUTE, &late, 1);
    assert!(due <= now() + Duration::from_secs(2));
    bed.clock.advance(due - now()).await;
    let changed = bed.get_from(&place, &want()).await.unwrap();
    assert_eq!(read(), 4);
    assert_ne!(changed.fingerprint, first.fingerprint);
}

#[tokio::test]
async fn what_is_no_static_role_is_told() {
    let unknown = r#"{"errors":["unknown role: app"]}"#;
    let database = r#"{"data":{"type":"database"}}"#;
    let ldap = r#"{"data":{"type":"ldap"}}"#;
    let bed = Bed::new();
    let said = Some(StaticEngine::Database);
    for (mount, mounted, said, kind, expected) in [
        (
            "a",
            database,
            None,
            VaultErrorKind::NotFound,
            "unknown role: app",
        ),
        (
            "b",
            KV2,
            None,
            VaultErrorKind::Invalid,
            "lookup-mount sys/internal/ui/mounts/b: request or answer is not valid: \
             the engine mounted here is 'kv', not 'database' or 'ldap'",
        ),
        (
            "c",
            KV2,
            said,
            VaultErrorKind::Invalid,
            "the engine mounted here is 'kv', not 'database' or 'ldap'",
        ),
        (
            "d",
            ldap,
            said,
            VaultErrorKind::Invalid,
            "the engine mounted at d is 'ldap'; correct engine or leave it out",
        ),
    ] {
        let lookup = format!("sys/internal/ui/mounts/{mount}");
        bed.vault.put(&lookup, 200, mounted);
        let body = if mounted == database {
            unknown
        } else {
            r#"{"errors":["unsupported path"]}"#
        };
        let path = format!("{mount}/static-creds/app");
        bed.vault.put(&path, 400, body);
        let failure = bed.get_from(&role(mount, said), &want()).await.unwrap_err();
        assert_eq!(failure.error.kind, kind, "{failure}");
        assert!(failure.to_string().ends_with(expected), "{failure}");
    }
}
