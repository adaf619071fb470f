//! Pure: requests to AWS against published vectors, a second implementation, and the documented answers.

use super::*;

const NOW: &str = "2015-08-30T12:36:00Z";

fn keys(session: Option<&str>) -> Keys {
    Keys {
        id: Sensitive::new("AKIDEXAMPLE"),
        secret: Sensitive::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session: session.map(Sensitive::new),
    }
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// `post-x-www-form-urlencoded` of the test suite that AWS publishes for Signature Version 4.
#[test]
fn a_signature_is_the_published_one() {
    let what = What {
        service: "service",
        region: "us-east-1",
        url: "https://example.amazonaws.com/",
        headers: &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
        ],
        body: "Param1=value1",
    };
    let headers = signature(&keys(None), &what, now()).unwrap();
    let header = |name: &str| {
        let found = headers.iter().find(|(each, _)| each == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(header("x-amz-date"), Some("20150830T123600Z"));
    assert_eq!(
        header("authorization"),
        Some(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
        )
    );
    assert_eq!(headers.len(), 2);
}

/// The signatures were computed with botocore 1.44.5.
#[test]
fn a_login_is_signed_as_botocore_would() {
    let rows = [
        (
            None,
            Region::default(),
            None,
            "https://sts.amazonaws.com/",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=6fb20d31f734d876c5682fdd2678d194cf68b862755f83b7ba1373c0874be25c",
        ),
        (
            Some("token+/="),
            Region::parse("eu-central-1").unwrap(),
            Some("vault.example"),
            "https://sts.eu-central-1.amazonaws.com/",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-central-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-vault-aws-iam-server-id, Signature=ad36fc0c7fc426bc2f723c17e157c32f581cf1aa0d696f5d07af2dc0d9c3b9d1",
        ),
    ];
    for (session, region, server_id, url, authorization) in rows {
        let identity = caller_identity(&keys(session), &region, server_id, now()).unwrap();
        assert_eq!(identity.url, url);
        let headers: serde_json::Value =
            serde_json::from_str(identity.headers.expose_text().unwrap()).unwrap();
        assert_eq!(headers["authorization"][0], authorization);
        let header = |name: &str| headers[name][0].as_str();
        assert_eq!(header("x-vault-aws-iam-server-id"), server_id);
        assert_eq!(header("x-amz-security-token"), session);
        assert!(!format!("{identity:?}").contains("Signature"));
    }
}

#[test]
fn a_key_that_a_header_cannot_carry_is_refused_without_being_shown() {
    for (keys, server_id) in [
        (
            Keys {
                session: Some(Sensitive::new("canary\n5f1c")),
                ..keys(None)
            },
            None,
        ),
        (
            Keys {
                secret: Sensitive::new([0xff]),
                ..keys(None)
            },
            None,
        ),
        (keys(None), Some("vault\nexample")),
    ] {
        let error = caller_identity(&keys, &Region::default(), server_id, now()).unwrap_err();
        assert_eq!(error.remedy, Remedy::Edit);
        assert!(!error.message.contains("canary"), "{}", error.message);
    }
}

#[test]
fn a_region_leads_to_the_endpoint_of_its_partition() {
    let rows = [
        ("eu-central-1", Some("sts.eu-central-1.amazonaws.com")),
        ("ap-southeast-7", Some("sts.ap-southeast-7.amazonaws.com")),
        ("us-gov-west-1", Some("sts.us-gov-west-1.amazonaws.com")),
        ("cn-north-1", Some("sts.cn-north-1.amazonaws.com.cn")),
        ("us-iso-east-1", Some("sts.us-iso-east-1.c2s.ic.gov")),
        ("us-isob-east-1", Some("sts.us-isob-east-1.sc2s.sgov.gov")),
        ("eusc-de-east-1", Some("sts.eusc-de-east-1.amazonaws.eu")),
        ("evil.example/", None),
        ("eu-central-1.evil.example", None),
        ("eu-central-1/", None),
        ("eu-central", None),
        ("eu-1", None),
        ("-central-1", None),
        ("EU-CENTRAL-1", None),
        ("", None),
    ];
    for (name, host) in rows {
        let region = Region::parse(name);
        assert_eq!(
            region.as_ref().ok().map(|r| r.host.as_str()),
            host,
            "{name}"
        );
    }
}

#[test]
fn the_arn_of_a_role_is_told_from_anything_else() {
    let rows = [
        ("arn:aws:iam::123456789012:role/app", true),
        ("arn:aws-cn:iam::123456789012:role/path/app", true),
        ("arn:aws:iam::123456789012:user/app", false),
        ("arn:aws:iam::123456789012:role/", false),
        ("arn:aws:sts::123456789012:assumed-role/app/x", false),
        ("arn:aws:iam::shop:role/app", false),
        ("app", false),
        ("", false),
    ];
    for (arn, taken) in rows {
        assert_eq!(check_role_arn(arn).is_ok(), taken, "{arn}");
    }
}

#[test]
fn a_token_is_sent_to_the_endpoint_of_the_region_alone() {
    let token = Sensitive::new("canary.5f1c");
    let arn = "arn:aws:iam::123456789012:role/app";
    let region = Region::parse("eu-central-1").unwrap();
    let account = ObjectKey::new("shop", "web.1");
    let exchange = assume_role(&Endpoints::default(), &region, arn, &account, &token).unwrap();
    assert_eq!(
        exchange.url.as_str(),
        "https://sts.eu-central-1.amazonaws.com/"
    );
    assert_eq!(
        exchange.body.as_ref().unwrap().1.expose_text().unwrap(),
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fapp&RoleSessionName=lockstep-shop-web.1&DurationSeconds=900&WebIdentityToken=canary.5f1c"
    );
    assert!(!format!("{exchange:?}").contains("canary"));
}

#[test]
fn the_name_of_a_session_has_the_length_that_sts_takes() {
    assert_eq!(
        session_name(&ObjectKey::new("shop", "x".repeat(300))).len(),
        LONGEST_SESSION
    );
}

/// The answer in AWS's documentation of `AssumeRoleWithWebIdentity`.
#[test]
fn keys_are_read_from_the_documented_answer() {
    let answer = Sensitive::new(
        r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>amzn1.account.AF6RHO7KZU5XRVQJGXK6HB56KR2A</SubjectFromWebIdentityToken>
    <Audience>client.5498841531868486423.1548@apps.example.com</Audience>
    <AssumedRoleUser>
      <Arn>arn:aws:sts::123456789012:assumed-role/FederatedWebIdentityRole/app1</Arn>
      <AssumedRoleId>AROACLKWSDQRAOEXAMPLE:app1</AssumedRoleId>
    </AssumedRoleUser>
    <Credentials>
      <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE</SessionToken>
      <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>
      <Expiration>2014-10-24T23:00:23Z</Expiration>
      <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
    </Credentials>
    <Provider>www.amazon.com</Provider>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata>
    <RequestId>ad4156e9-bce1-11e2-82e6-6b6efEXAMPLE</RequestId>
  </ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"#,
    );
    let keys = assumed_keys(&answer).unwrap();
    assert_eq!(keys.id.expose_text(), Some("ASgeIAIOSFODNN7EXAMPLE"));
    assert_eq!(
        keys.secret.expose_text(),
        Some("wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY")
    );
    assert_eq!(
        keys.session.unwrap().expose_text(),
        Some("AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE")
    );
    for answer in [
        "",
        "{}",
        "<Credentials/>",
        "<Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>B</SecretAccessKey></Credentials>",
    ] {
        assert!(assumed_keys(&Sensitive::new(answer)).is_none(), "{answer}");
    }
}
