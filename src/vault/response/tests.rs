//! Pure: tables of answers as Vault and `OpenBao` send them.

use proptest::prelude::*;

use super::*;

const CANARY: &str = "canary-5f1c";

fn response(body: &str) -> Response {
    Response::new(
        &Request::token_lookup(),
        Zeroizing::new(body.as_bytes().to_vec()),
    )
}

fn shown(data: &Content) -> Vec<(&str, &str)> {
    data.entries
        .iter()
        .map(|(key, value)| (key.as_str(), value.expose_text().unwrap()))
        .collect()
}

fn detail<T: std::fmt::Debug>(result: Result<T, VaultError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Invalid);
    error.detail
}

#[test]
fn kv_version_2_has_its_data_one_level_deeper() {
    let body = r#"{"request_id":"r-1","data":{"data":{"b":"x","a":1.10,"n":null,"o":{"k": [true]}},
        "metadata":{"version":3,"custom_metadata":null,"destroyed":false}},"auth":null}"#;
    let data = response(body).kv(KvVersion::V2).unwrap();
    assert_eq!(
        shown(&data),
        [
            ("a", "1.10"),
            ("b", "x"),
            ("n", ""),
            ("o", r#"{"k":[true]}"#)
        ]
    );
    assert_eq!(data.version, Some(3));
    assert_eq!(data.request_id.as_deref(), Some("r-1"));
}

#[test]
fn kv_version_1_has_its_data_at_the_top() {
    let data = response(r#"{"data":{"data":"x"},"lease_duration":60}"#)
        .kv(KvVersion::V1)
        .unwrap();
    assert_eq!(shown(&data), [("data", "x")]);
    assert_eq!(data.version, None);
}

#[test]
fn a_version_without_data_is_deleted() {
    let body = r#"{"data":{"data":null,"metadata":{"version":3}}}"#;
    let error = response(body).kv(KvVersion::V2).unwrap_err();
    assert_eq!(error.kind, VaultErrorKind::Deleted);
    assert_eq!(error.detail, "version 3 holds no data");
}

#[test]
fn a_wrong_kv_answer_names_the_missing_part() {
    for (version, body, expected) in [
        (
            KvVersion::V2,
            "<html>canary-5f1c",
            "the answer is not a JSON object",
        ),
        (KvVersion::V2, "{}", "the answer has no 'data'"),
        (
            KvVersion::V2,
            r#"{"data":{"password":"canary-5f1c"}}"#,
            "the answer has no 'data.metadata': is this KV version 1?",
        ),
        (
            KvVersion::V2,
            r#"{"data":{"data":{},"metadata":{"version":"canary-5f1c"}}}"#,
            "'data.metadata' is not what KV version 2 sends",
        ),
        (
            KvVersion::V1,
            r#"{"data":null}"#,
            "the answer has no 'data'",
        ),
        (
            KvVersion::V1,
            r#"{"data":["canary-5f1c"]}"#,
            "the data is not a JSON object",
        ),
    ] {
        assert_eq!(detail(response(body).kv(version)), expected, "{body}");
    }
}

#[test]
fn a_login_gives_a_token() {
    let body = r#"{"auth":{"client_token":"canary-5f1c","accessor":"a","policies":["default"],
        "lease_duration":3600,"renewable":true,"orphan":true,"entity_id":"e"}}"#;
    let login = response(body).login().unwrap();
    assert_eq!(login.token.expose_text(), Some(CANARY));
    assert_eq!(login.ttl, Duration::from_hours(1));
    assert!(login.renewable && login.orphan);
    assert_eq!(login.accessor, "a");
    assert!(!format!("{login:?}").contains(CANARY));
}

#[test]
fn a_login_without_a_token_is_invalid() {
    for (body, expected) in [
        (r#"{"auth":null}"#, "the answer has no 'auth'"),
        (r#"{"auth":{"client_token":""}}"#, "the answer has no token"),
        (
            r#"{"auth":{"client_token":"canary-5f1c","lease_duration":"x"}}"#,
            "the answer is not the JSON that was expected (line 1, column 58)",
        ),
    ] {
        assert_eq!(detail(response(body).login()), expected, "{body}");
    }
}

#[test]
fn a_lookup_tells_what_is_left() {
    let body = r#"{"data":{"accessor":"a","id":"canary-5f1c","ttl":59,"renewable":false,
        "creation_ttl":60,"expire_time":null,"orphan":false,"type":"service"}}"#;
    let info = response(body).token_info().unwrap();
    assert_eq!(info.ttl, Duration::from_secs(59));
    assert!(!info.renewable);
    assert_eq!(
        detail(response("{}").token_info()),
        "the answer has no 'data'"
    );
}

#[test]
fn a_mount_tells_its_kv_version() {
    for (data, kv) in [
        (
            r#"{"type":"kv","options":{"version":"2"}}"#,
            Some(KvVersion::V2),
        ),
        (
            r#"{"type":"kv","options":{"version":"1"}}"#,
            Some(KvVersion::V1),
        ),
        (r#"{"type":"kv","options":null}"#, Some(KvVersion::V1)),
        (r#"{"type":"generic"}"#, Some(KvVersion::V1)),
        (r#"{"type":"database","options":{}}"#, None),
    ] {
        let mount = response(&format!(r#"{{"data":{data}}}"#)).mount().unwrap();
        assert_eq!(mount.kv, kv, "{data}");
    }
}

#[test]
fn health_tells_vault_from_openbao() {
    for (body, product, standby) in [
        (
            r#"{"initialized":true,"sealed":false,"standby":false,"version":"1.21.0","enterprise":false}"#,
            Product::Vault,
            false,
        ),
        (
            r#"{"initialized":true,"sealed":false,"standby":false,"performance_standby":true,"version":"2.0.1+ent","enterprise":true}"#,
            Product::Vault,
            true,
        ),
        (
            r#"{"initialized":true,"sealed":false,"standby":true,"version":"1.14.8"}"#,
            Product::Vault,
            true,
        ),
        (
            r#"{"initialized":true,"sealed":false,"standby":false,"version":"2.4.1"}"#,
            Product::OpenBao,
            false,
        ),
    ] {
        let health = response(body).health().unwrap();
        assert_eq!(
            (health.product, health.standby),
            (product, standby),
            "{body}"
        );
    }
}

#[test]
fn debug_does_not_show_values() {
    let answer = response(&format!(
        r#"{{"data":{{"data":{{"k":"{CANARY}"}},"metadata":{{"version":1}}}}}}"#
    ));
    let data = answer.kv(KvVersion::V2).unwrap();
    assert!(!format!("{answer:?} {data:?}").contains(CANARY));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let answer = Response::new(&Request::token_lookup(), Zeroizing::new(bytes));
        check_all(&answer);
    }

    #[test]
    fn nearly_right_bytes_never_panic(cut in 0_usize..200, byte: u8) {
        let body = r#"{"request_id":"r","auth":{"client_token":"x","lease_duration":1},"data":{"type":"kv",
            "ttl":3,"data":{"k":"v\u0041"},"metadata":{"version":3}},"initialized":true,"sealed":false}"#;
        let mut bytes = body.as_bytes().to_vec();
        if let Some(slot) = bytes.get_mut(cut) {
            *slot = byte;
        }
        check_all(&Response::new(&Request::token_lookup(), Zeroizing::new(bytes.clone())));
        bytes.truncate(cut);
        check_all(&Response::new(&Request::token_lookup(), Zeroizing::new(bytes)));
    }
}

fn check_all(answer: &Response) {
    _ = answer.kv(KvVersion::V1);
    _ = answer.kv(KvVersion::V2);
    _ = answer.login();
    _ = answer.token_info();
    _ = answer.mount();
    _ = answer.health();
}

#[test]
fn a_listing_is_its_names() {
    let listed = response(r#"{"data":{"keys":["a","b/"]}}"#).names().unwrap();
    assert_eq!(listed, ["a", "b/"]);
    let told = detail(response(r#"{"data":null}"#).names());
    assert_eq!(told, "the answer has no 'data'");
}

#[test]
fn of_a_static_role_only_the_login_is_data() {
    let database = r#"{"data":{"username":"app","password":"p","ttl":42,"rotation_period":60,
        "last_vault_rotation":"2026-11-21T10:00:00.123456789Z"}}"#;
    let (data, rotation) = response(database).static_role().unwrap();
    assert_eq!(shown(&data), [("password", "p"), ("username", "app")]);
    assert_eq!(rotation.ttl, Duration::from_secs(42));
    let last = rotation.last.unwrap().to_string();
    assert_eq!(last, "2026-11-21T10:00:00Z", "to the second");
    let ldap = r#"{"data":{"dn":"cn=app","username":"app","password":"p","last_password":"old",
        "last_vault_rotation":"2026-11-21T11:00:00+01:00","ttl":0.0,"rotation_schedule":"0 0 * * *"}}"#;
    let (data, rotation) = response(ldap).static_role().unwrap();
    let expected = [("dn", "cn=app"), ("password", "p"), ("username", "app")];
    assert_eq!(shown(&data), expected);
    assert_eq!(
        (rotation.ttl, rotation.last.unwrap().to_string()),
        (Duration::ZERO, last)
    );
}

#[test]
fn a_static_role_without_a_password_is_not_taken() {
    for body in [
        r#"{"data":{"username":"app","ttl":1}}"#,
        r#"{"data":{"username":"app","password":"","ttl":1}}"#,
        r#"{"data":{"password":"canary-5f1c","ttl":1}}"#,
    ] {
        let told = detail(response(body).static_role());
        assert_eq!(told, "the answer has no user name, or no password yet");
    }
    let told = detail(
        response(r#"{"data":{"username":"canary-5f1c","password":"p","ttl":"x"}}"#).static_role(),
    );
    assert!(!told.contains(CANARY), "{told}");
}
