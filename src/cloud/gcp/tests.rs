//! Pure: requests to Google and the JWT of a key, against the documented shapes.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::cloud::exchange::granted;

const POOL: &str =
    "projects/123456789012/locations/global/workloadIdentityPools/k8s/providers/prod";
const CLUSTER: &str = "projects/shop/locations/europe-west1/clusters/prod";
const EMAIL: &str = "app@shop.iam.gserviceaccount.com";

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn pem(pair: &KeyPair) -> String {
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let text = BASE64_STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn file(pem: &str) -> Value {
    json!({
        "type": "service_account", "project_id": "shop", "private_key_id": "kid-1", "private_key": pem,
        "client_email": EMAIL, "token_uri": "https://evil.example/token",
    })
}

fn parse(file: &Value) -> Result<Key, String> {
    Key::parse(&Sensitive::new(file.to_string()))
}

#[test]
fn a_key_signs_the_jwt_that_vault_expects() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let jwt = parse(&file(&pem(&pair)))
        .unwrap()
        .sign("app", now())
        .unwrap();
    let jwt = jwt.expose_text().unwrap();
    let parts: Vec<&str> = jwt.split('.').collect();
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)).unwrap();
    let [header, claims, signature] = parts[..] else {
        unreachable!("three parts: {jwt}")
    };
    assert_eq!(
        json(header),
        json!({"alg": "RS256", "typ": "JWT", "kid": "kid-1"})
    );
    assert_eq!(
        json(claims),
        json!({"sub": EMAIL, "aud": "vault/app", "exp": now().as_second() + 600})
    );
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
        .verify(format!("{header}.{claims}").as_bytes(), &decode(signature))
        .unwrap();
}

#[test]
fn a_file_that_is_no_key_is_described_by_its_shape() {
    let without = |field: &str| {
        let mut file = file("canary");
        file.as_object_mut().unwrap().remove(field);
        file
    };
    let with = |field: &str, value: Value| {
        let mut file = file("canary");
        file.as_object_mut()
            .unwrap()
            .insert(field.to_owned(), value);
        file
    };
    let rows = [
        (json!("canary"), "it is not JSON with texts in it"),
        (
            with("private_key", json!(1)),
            "it is not JSON with texts in it",
        ),
        (
            with("type", json!("external_account")),
            "its type is external_account, not service_account",
        ),
        (
            with("type", json!("canary")),
            "its type is not service_account",
        ),
        (without("type"), "its type is not service_account"),
        (without("client_email"), "it has no client_email"),
        (without("private_key_id"), "it has no private_key_id"),
        (without("private_key"), "it has no private_key"),
        (
            with("client_email", json!("canary")),
            "its client_email must be the address of a Google service account such as app@shop.iam.gserviceaccount.com",
        ),
        (
            file("canary"),
            "its private_key is not an RSA key in PEM (BEGIN PRIVATE KEY)",
        ),
        (
            file("-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n"),
            "its private_key is not an RSA key in PEM (BEGIN PRIVATE KEY)",
        ),
    ];
    for (file, expected) in rows {
        assert_eq!(parse(&file).unwrap_err(), expected);
    }
    assert!(Key::parse(&Sensitive::new([0xff])).is_err());
}

#[test]
fn a_provider_is_named_in_full() {
    let pool = Provider::pool(POOL).unwrap();
    assert_eq!(
        pool.token_audience(),
        format!("https://iam.googleapis.com/{POOL}")
    );
    assert_eq!(
        pool.exchange_audience(),
        format!("//iam.googleapis.com/{POOL}")
    );
    let gke = Provider::gke(CLUSTER).unwrap();
    assert_eq!(gke.token_audience(), "shop.svc.id.goog");
    assert_eq!(
        gke.exchange_audience(),
        format!("identitynamespace:shop.svc.id.goog:https://container.googleapis.com/v1/{CLUSTER}")
    );
    for name in [
        "",
        "prod",
        CLUSTER,
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/k8s/providers/prod",
        "projects/1/locations/global/workloadIdentityPools/k8s/providers/",
        "projects/1/locations/global/workloadIdentityPools/k8s/providers/prod/more",
        "projects/1/locations/global/workloadIdentityPools/k8s/providers/a b",
    ] {
        assert!(Provider::pool(name).is_err(), "{name}");
    }
    assert!(Provider::gke(POOL).is_err());
}

#[test]
fn the_address_of_a_service_account_is_told_from_anything_else() {
    let rows = [
        (EMAIL, true),
        ("1234-compute@developer.gserviceaccount.com", true),
        ("app@shop.example.com.iam.gserviceaccount.com", true),
        ("app", false),
        ("app@shop", false),
        ("../../x@y.z", false),
        ("a@b.c:signBlob?x=", false),
        ("a@b@c.d", false),
    ];
    for (email, taken) in rows {
        assert_eq!(check_email(email).is_ok(), taken, "{email}");
    }
}

#[test]
fn a_token_is_exchanged_and_a_jwt_signed_as_documented() {
    let endpoints = Endpoints::default();
    let token = Sensitive::new("canary.5f1c");
    let pool = Provider::pool(POOL).unwrap();
    let exchange = access_token(&endpoints, &pool, &token).unwrap();
    assert_eq!(exchange.url.as_str(), "https://sts.googleapis.com/v1/token");
    assert_eq!(
        exchange.body.as_ref().unwrap().1.expose_text().unwrap(),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&audience=%2F%2Fiam.googleapis.com%2Fprojects%2F123456789012%2Flocations%2Fglobal%2FworkloadIdentityPools%2Fk8s%2Fproviders%2Fprod&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fiam&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token=canary.5f1c"
    );
    let answer = r#"{"access_token":"ya29.canary","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3599}"#;
    let granted = granted(&Sensitive::new(answer)).unwrap();
    assert_eq!(granted.expose_text(), Some("ya29.canary"));

    let exchange = sign_jwt(&endpoints, EMAIL, "app", &granted, now()).unwrap();
    assert_eq!(
        exchange.url.as_str(),
        format!(
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{EMAIL}:signJwt"
        )
    );
    let (name, value) = &exchange.headers[0];
    assert_eq!(
        (*name, value.expose_text()),
        ("authorization", Some("Bearer ya29.canary"))
    );
    let body: Value =
        serde_json::from_str(exchange.body.as_ref().unwrap().1.expose_text().unwrap()).unwrap();
    assert_eq!(
        body["payload"],
        format!(
            r#"{{"sub":"{EMAIL}","aud":"vault/app","exp":{}}}"#,
            now().as_second() + 600
        )
    );
    assert!(!format!("{exchange:?}").contains("canary"));
    let answer = Sensitive::new(r#"{"keyId":"1","signedJwt":"a.b.c"}"#);
    assert_eq!(signed(&answer).unwrap().expose_text(), Some("a.b.c"));
}

#[test]
fn an_answer_without_a_token_is_noticed() {
    for answer in ["", "{}", "[]", r#"{"access_token":"","signedJwt":""}"#] {
        let answer = Sensitive::new(answer);
        assert!(granted(&answer).is_none());
        assert!(signed(&answer).is_none());
    }
}
