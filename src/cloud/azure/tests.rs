//! Pure: requests to Azure, against the documented shapes.

use super::*;
use crate::cloud::exchange::granted;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const CLIENT: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";
const RESOURCE: &str = "https://management.azure.com/";

fn client(cloud: Cloud) -> Client<'static> {
    Client {
        tenant: TENANT,
        id: CLIENT,
        cloud,
    }
}

#[test]
fn a_token_is_exchanged_as_documented_in_the_cloud_of_the_tenant() {
    let token = Sensitive::new("canary.5f1c");
    for (cloud, host) in [
        (Cloud::Public, "login.microsoftonline.com"),
        (Cloud::UsGovernment, "login.microsoftonline.us"),
        (Cloud::China, "login.partner.microsoftonline.cn"),
    ] {
        let exchange = federated(&Endpoints::default(), client(cloud), RESOURCE, &token).unwrap();
        assert_eq!(
            exchange.url.as_str(),
            format!("https://{host}/{TENANT}/oauth2/v2.0/token")
        );
        assert_eq!(
            exchange.body.as_ref().unwrap().1.expose_text().unwrap(),
            format!(
                "grant_type=client_credentials&client_id={CLIENT}&scope=https%3A%2F%2Fmanagement.azure.com%2F%2F.default&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=canary.5f1c"
            )
        );
        assert!(!format!("{exchange:?}").contains("canary"));
    }
}

#[test]
fn a_machine_is_asked_for_its_identity_as_documented() {
    let endpoints = Endpoints::default();
    let url = |client_id| {
        let exchange = managed(&endpoints, RESOURCE, client_id).unwrap();
        let (name, value) = &exchange.headers[0];
        assert_eq!((*name, value.expose_text()), ("metadata", Some("true")));
        exchange.url.to_string()
    };
    let expected = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";
    assert_eq!(url(None), expected);
    assert_eq!(url(Some(CLIENT)), format!("{expected}&client_id={CLIENT}"));
}

#[test]
fn a_token_is_read_from_the_documented_answers() {
    let rows = [
        (
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a.b.c"}"#,
            Some("a.b.c"),
        ),
        (
            r#"{"access_token":"a.b.c","refresh_token":"","expires_in":"3599","expires_on":"1506484173","not_before":"1506480273","resource":"https://management.azure.com/","token_type":"Bearer"}"#,
            Some("a.b.c"),
        ),
        (r#"{"access_token":""}"#, None),
        ("{}", None),
        ("", None),
    ];
    for (answer, expected) in rows {
        let found = granted(&Sensitive::new(answer));
        assert_eq!(found.as_ref().and_then(Sensitive::expose_text), expected);
    }
}

#[test]
fn an_id_is_told_from_anything_else() {
    let rows = [
        (TENANT, true),
        ("72F988BF-86F1-41AF-91AB-2D7CD011DB47", true),
        ("common", false),
        ("72f988bf86f141af91ab2d7cd011db47", false),
        ("72f988bf-86f1-41af-91ab-2d7cd011db4/", false),
        ("../../86f1-41af-91ab-2d7cd011db47", false),
        ("", false),
    ];
    for (id, taken) in rows {
        assert_eq!(check_id(id).is_ok(), taken, "{id}");
    }
}
