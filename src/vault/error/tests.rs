//! Pure: tests.

use super::VaultErrorKind as Kind;
use super::*;
use crate::vault::path::{MountPath, SecretPath};

const DELETED: &str = r#"{"request_id":"r","data":{"data":null,"metadata":{"version":3,"deletion_time":"2026-01-02T03:04:05Z","destroyed":false}}}"#;
const DESTROYED: &str =
    r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"","destroyed":true}}}"#;
const SEALED: &str = r#"{"errors":["Vault is sealed"]}"#;
const SEALED_HEALTH: &str = r#"{"initialized":true,"sealed":true,"standby":true}"#;
const HTML: &str = "<html><body>502 Bad Gateway canary-5f1c</body></html>";

const DENIED: &str = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;

/// Status, body, kind, whether the whole connection is concerned, detail.
const ANSWERS: &[(u16, &str, VaultErrorKind, bool, &str)] = &[
    (403, DENIED, Kind::Denied, false, ""),
    (
        403,
        r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n","invalid token"]}"#,
        Kind::Denied,
        false,
        "invalid token",
    ),
    (
        403,
        r#"{"errors":["an error occurred: * no list"]}"#,
        Kind::Denied,
        false,
        "an error occurred: * no list",
    ),
    (
        400,
        r#"{"errors":["1 error occurred: of another form"]}"#,
        Kind::Invalid,
        false,
        "1 error occurred: of another form",
    ),
    (
        400,
        "Client sent an HTTP request to an HTTPS server.\n",
        Kind::Unreachable,
        true,
        "the server speaks TLS at this port; use https:// in the connection's address",
    ),
    (
        403,
        HTML,
        Kind::Denied,
        false,
        "the answer does not come from Vault's API (text/html)",
    ),
    (404, r#"{"errors":[]}"#, Kind::NotFound, false, ""),
    (
        404,
        r#"{"data":null,"errors":null}"#,
        Kind::NotFound,
        false,
        "",
    ),
    (
        404,
        DELETED,
        Kind::Deleted,
        false,
        "version 3 was deleted at 2026-01-02T03:04:05Z",
    ),
    (
        404,
        DESTROYED,
        Kind::Deleted,
        false,
        "version 3 is destroyed",
    ),
    (
        429,
        r#"{"errors":["request path is limited"]}"#,
        Kind::Throttled,
        false,
        "request path is limited",
    ),
    (429, "{}", Kind::Throttled, true, ""),
    (
        429,
        HTML,
        Kind::Throttled,
        true,
        "the answer does not come from Vault's API (text/html)",
    ),
    (503, SEALED, Kind::Sealed, true, ""),
    (503, SEALED_HEALTH, Kind::Sealed, true, ""),
    (
        503,
        HTML,
        Kind::Unavailable,
        true,
        "the answer does not come from Vault's API (text/html)",
    ),
    (
        502,
        HTML,
        Kind::Unavailable,
        true,
        "the answer does not come from Vault's API (text/html)",
    ),
    (473, "{}", Kind::Unavailable, true, ""),
    (
        307,
        "",
        Kind::Unavailable,
        true,
        "the answer is a redirect, which is not followed",
    ),
    (
        500,
        r#"{"errors":["internal error"]}"#,
        Kind::Unavailable,
        false,
        "internal error",
    ),
    (
        503,
        r#"{"errors":["namespace is sealed"]}"#,
        Kind::Unavailable,
        false,
        "namespace is sealed",
    ),
    (
        503,
        r#"{"errors":["API access to this namespace has been locked by an administrator - \"b/\" must be unlocked to gain access."]}"#,
        Kind::Unavailable,
        false,
        "API access to this namespace has been locked by an administrator - \"b/\" must be unlocked to gain access.",
    ),
    (
        400,
        r#"{"errors":["error connecting to host \"ldap://127.0.0.1:1\": LDAP Result Code 200"]}"#,
        Kind::Unavailable,
        false,
        "error connecting to host \"ldap://127.0.0.1:1\": LDAP Result Code 200",
    ),
    (
        400,
        r#"{"errors":["missing role","x"]}"#,
        Kind::Invalid,
        false,
        "missing role; x",
    ),
    (
        405,
        r#"{"errors":{"not":"a list"}}"#,
        Kind::Invalid,
        false,
        "the answer does not come from Vault's API (text/html)",
    ),
];

fn read() -> Request {
    let mount = MountPath::parse("secret").unwrap();
    let path = SecretPath::parse("shop/api").unwrap();
    Request::kv2_read(&mount, &path, None)
}

fn classified(status: u16, headers: &[(&'static str, &str)], body: &str) -> VaultError {
    let headers = headers
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let status = StatusCode::from_u16(status).unwrap();
    classify(&read(), status, &headers, body.as_bytes())
}

/// Breaks the build when a kind is added, so that the table below gets its row.
fn in_table(kind: VaultErrorKind) -> bool {
    match kind {
        VaultErrorKind::Denied
        | VaultErrorKind::NotFound
        | VaultErrorKind::Deleted
        | VaultErrorKind::Sealed
        | VaultErrorKind::Throttled
        | VaultErrorKind::Unavailable
        // From a server that says that it wanted TLS.
        | VaultErrorKind::Unreachable
        | VaultErrorKind::Invalid => true,
        // These do not come from an answer.
        VaultErrorKind::TooMany
        | VaultErrorKind::Refused
        | VaultErrorKind::CredentialUnavailable => false,
    }
}

#[test]
fn each_answer_has_its_kind() {
    for &(status, body, kind, connection, detail) in ANSWERS {
        let error = classified(status, &[("content-type", "text/html")], body);
        assert_eq!(error.kind, kind, "{status} {body}");
        assert_eq!(error.concerns_connection(), connection, "{status} {body}");
        assert_eq!(error.detail, detail, "{status} {body}");
        assert_eq!(error.status, Some(status));
        assert!(in_table(kind));
        assert!(!format!("{error:?} {error}").contains("canary"));
    }
}

#[test]
fn the_text_is_for_people() {
    let error = classified(403, &[], DENIED);
    assert_eq!(
        error.to_string(),
        "read secret/data/shop/api: permission denied by Vault (403)"
    );
    let error = classified(403, &[], r#"{"errors":["no such role"]}"#);
    assert_eq!(
        error.to_string(),
        "read secret/data/shop/api: permission denied by Vault (403): no such role"
    );
    let sealed = classified(503, &[], SEALED);
    let held_back = sealed.held_back(&Request::token_lookup(), Duration::from_secs(2));
    assert_eq!(
        held_back.to_string(),
        "lookup-token auth/token/lookup-self: not sent because the connection just failed: \
         Vault is sealed (503)"
    );
    assert_eq!(held_back.retry_after, Some(Duration::from_secs(2)));
}

#[test]
fn a_version_that_is_not_there_is_named() {
    let mount = MountPath::parse("secret").unwrap();
    let path = SecretPath::parse("shop/api").unwrap();
    let request = Request::kv2_read(&mount, &path, Some(99));
    let body = br#"{"errors":[]}"#;
    let error = classify(&request, StatusCode::NOT_FOUND, &HeaderMap::new(), body);
    assert_eq!(
        error.to_string(),
        "read version 99 of secret/data/shop/api: nothing found (404)"
    );
    assert_eq!(request.target(), "secret/data/shop/api?version=99");
}

#[test]
fn retry_after_is_read_in_seconds() {
    for (value, expected) in [
        ("7", Some(Duration::from_secs(7))),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("-1", None),
        ("18446744073709551615", Some(LONGEST_RETRY_AFTER)),
    ] {
        let error = classified(429, &[("retry-after", value)], "{}");
        assert_eq!(error.retry_after, expected, "{value}");
    }
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let cut = one_line(&format!("a\n\u{7}{}", "é".repeat(400)));
    assert_eq!(cut.chars().count(), DETAIL_CHARS);
    assert!(cut.starts_with("a éé") && cut.ends_with("é…"));
}
