//! AWS. Vault's own AWS method sends what the operator signed to the stand-in for STS, which checks the signature.

use std::process::Stdio;

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::api::core::v1::ServiceAccount;
use lockstep_testbed::{VaultKind, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{account, credential, is_token_of, reads_by, stage, synced};
use crate::support::{Answer, Asked, SOON, Stage, StandIn, Team, hex};

/// Access key id, secret access key, session token, and whose they are.
type Key = (&'static str, &'static str, &'static str, &'static str);

const STATIC: Key = ("AKIASTATIC", "static/secret+key", "", "user/app");
const ASSUMED: Key = (
    "ASIAASSUMED",
    "assumed/secret+key",
    "session/token+==",
    "assumed-role/app/lockstep",
);
const ROLE: &str = "arn:aws:iam::123456789012:role/app";
const SERVER_ID: &str = "vault.example";

/// `https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html` and
/// `https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html`.
fn sts(asked: &Asked) -> Answer {
    let answer = |status: u16, body: String| (status, "text/xml", body);
    if asked.field("Action") == "AssumeRoleWithWebIdentity" {
        if asked.field("RoleArn") != ROLE {
            return answer(
                403,
                refusal(
                    "AccessDenied",
                    "Not authorized to perform sts:AssumeRoleWithWebIdentity",
                ),
            );
        }
        let (id, secret, session, _) = ASSUMED;
        return answer(
            200,
            format!(
                "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult><Credentials><SessionToken>{session}</SessionToken><SecretAccessKey>{secret}</SecretAccessKey><Expiration>2036-01-01T00:00:00Z</Expiration><AccessKeyId>{id}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        );
    }
    let signed = [STATIC, ASSUMED]
        .into_iter()
        .find(|key| is_signed(asked, key));
    match signed {
        Some((_, _, _, whose)) => answer(
            200,
            format!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:{whose}</Arn><UserId>AIDAEXAMPLE:lockstep</UserId><Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
            ),
        ),
        None => answer(
            403,
            refusal(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match",
            ),
        ),
    }
}

fn refusal(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

/// Whether AWS would take the signature of `asked` for one with `key`: Signature Version 4, computed once more.
fn is_signed(asked: &Asked, (id, secret, session, _): &Key) -> bool {
    let authorization = asked.header("authorization");
    let part = |name: &str| {
        let (_, rest) = authorization.split_once(name).unwrap_or_default();
        rest.split(',').next().unwrap_or_default()
    };
    let scope = part("Credential=").strip_prefix(&format!("{id}/"));
    let Some(scope) = scope.filter(|_| asked.header("x-amz-security-token") == *session) else {
        return false;
    };
    let names = part("SignedHeaders=");
    let headers: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", asked.header(name)))
        .collect();
    let canonical = format!("POST\n/\n\n{headers}\n{names}\n{}", digest(&asked.body));
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        asked.header("x-amz-date"),
        digest(&canonical)
    );
    let key = scope
        .split('/')
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| {
            mac(&key, part)
        });
    part("Signature=") == hex(&mac(&key, &text))
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Mounts Vault's AWS method with a role for the user and one for the role.
async fn mount(team: &Team<'_>, sts: &str) {
    team.allow_reads().await;
    let vault = team.stage.vault();
    vault.enable_auth("aws", "aws").await.unwrap();
    let config = json!({"sts_endpoint": sts, "iam_server_id_header_value": SERVER_ID});
    vault
        .write("auth/aws/config/client", &config)
        .await
        .unwrap();
    for kind in ["user", "role"] {
        let role = json!({
            "auth_type": "iam", "resolve_aws_unique_ids": false, "token_ttl": "1h",
            "bound_iam_principal_arn": format!("arn:aws:iam::123456789012:{kind}/app"),
            "token_policies": [team.namespace],
        });
        vault
            .write(&format!("auth/aws/role/{kind}"), &role)
            .await
            .unwrap();
    }
}

fn aws(role: &str, fields: &[(&str, Value)]) -> Value {
    let mut method = json!({"role": role, "serverIdHeader": SERVER_ID});
    for (name, value) in fields {
        method[name] = value.clone();
    }
    json!({"aws": method})
}

#[tokio::test]
async fn a_user_of_aws_logs_in_by_its_keys_and_a_role_by_web_identity() {
    if VaultKind::OpenBao.lacks("the auth method aws") {
        return;
    }
    let cloud = StandIn::start(sts).await;
    let stage = stage(&cloud, &["aws-sts"]).await;
    let team = stage.team("aws").await;
    mount(&team, cloud.url()).await;
    by_keys(&team).await;
    by_web_identity(&team, &cloud).await;
}

/// A second opinion about signatures: moto.
#[tokio::test]
#[ignore = "needs MOTO_SERVER, see CONTRIBUTING.md"]
async fn a_user_of_aws_logs_in_where_moto_checks_the_signature() {
    if VaultKind::OpenBao.lacks("the auth method aws") {
        return;
    }
    let moto = Moto::start().await;
    let stage = Stage::own().await;
    let team = stage.team("moto").await;
    mount(&team, &moto.url).await;
    let (id, secret) = moto.key_of_user("app").await;
    moto.check_signatures().await;
    let keys = |secret: &str| json!({"access_key_id": id, "secret_access_key": secret});
    credential(&team, "good-keys", keys(&secret)).await;
    credential(&team, "wrong-keys", keys("another")).await;
    for name in ["good", "wrong"] {
        let secret_ref = ("secretRef", json!({"name": format!("{name}-keys")}));
        reads_by(&team, name, aws("user", &[secret_ref])).await;
    }
    synced(&team, "good").await;
    team.unreachable("wrong", "Invalid", &["login auth/aws/login"])
        .await;
}

/// A running moto. It ends with the test.
struct Moto {
    url: String,
    http: reqwest::Client,
    _process: tokio::process::Child,
}

impl Moto {
    async fn start() -> Self {
        let program = std::env::var_os("MOTO_SERVER").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let process = tokio::process::Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let moto = Self {
            url: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _process: process,
        };
        let page = format!("{}/moto-api/", moto.url);
        eventually(SOON, "moto", async || moto.http.get(&page).send().await)
            .await
            .unwrap();
        moto
    }

    /// Makes a user with a key, and returns the key.
    async fn key_of_user(&self, name: &str) -> (String, String) {
        let create = format!("Action=CreateUser&UserName={name}&Version=2010-05-08");
        self.iam(create).await;
        let create = format!("Action=CreateAccessKey&UserName={name}&Version=2010-05-08");
        let answer = self.iam(create).await;
        let value = |tag: &str| {
            let (_, rest) = answer.split_once(&format!("<{tag}>")).unwrap();
            rest.split('<').next().unwrap().to_owned()
        };
        (value("AccessKeyId"), value("SecretAccessKey"))
    }

    /// Until then moto takes any signature.
    async fn check_signatures(&self) {
        let url = format!("{}/moto-api/reset-auth", self.url);
        let request = self.http.post(url).header("content-type", "text/plain");
        let answer = request.body("0").send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn iam(&self, body: String) -> String {
        let scope = "AWS4-HMAC-SHA256 Credential=AKIAANYBODYANYBODY00/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
        let request = self.http.post(&self.url).header("authorization", scope);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request
            .body(body)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }
}

async fn by_keys(team: &Team<'_>) {
    let (id, secret, _, _) = STATIC;
    let keys =
        |secret: &str| json!({"access_key_id": id, "secret_access_key": format!("{secret}\n")});
    credential(team, "keys", keys(secret)).await;
    credential(team, "wrong", keys("another")).await;
    credential(team, "half", json!({"access_key_id": id})).await;
    let secret_ref = |name: &str| ("secretRef", json!({"name": name}));
    let region = ("region", json!("eu-central-1"));
    reads_by(team, "global", aws("user", &[secret_ref("keys")])).await;
    reads_by(team, "regional", aws("user", &[secret_ref("keys"), region])).await;
    for name in ["global", "regional"] {
        synced(team, name).await;
    }

    reads_by(team, "wrong", aws("user", &[secret_ref("wrong")])).await;
    team.unreachable(
        "wrong",
        "Invalid",
        &["login auth/aws/login", "SignatureDoesNotMatch"],
    )
    .await;
    let other = ("serverIdHeader", json!("other.example"));
    reads_by(team, "elsewhere", aws("user", &[secret_ref("keys"), other])).await;
    team.unreachable(
        "elsewhere",
        "Invalid",
        &["expected \"vault.example\" but got \"other.example\""],
    )
    .await;
    reads_by(team, "half", aws("user", &[secret_ref("half")])).await;
    team.unreachable(
        "half",
        "CredentialUnavailable",
        &["/half has no key secret_access_key"],
    )
    .await;
}

async fn by_web_identity(team: &Team<'_>, cloud: &StandIn) {
    account(team, "web", json!({})).await;
    let account = ("serviceAccountRef", json!({"name": "web"}));
    reads_by(team, "web", aws("role", std::slice::from_ref(&account))).await;
    let told =
        ["/web has no annotation eks.amazonaws.com/role-arn; add it or set spec.aws.roleArn"];
    team.unreachable("web", "CredentialUnavailable", &told)
        .await;
    let annotations = json!({"metadata": {"annotations": {"eks.amazonaws.com/role-arn": ROLE}}});
    team.patch::<ServiceAccount>("web", annotations).await;
    synced(team, "web").await;
    let asked = cloud.asked();
    let exchange = asked
        .iter()
        .find(|asked| !asked.field("WebIdentityToken").is_empty());
    is_token_of(
        &exchange.unwrap().field("WebIdentityToken"),
        team,
        "web",
        "sts.amazonaws.com",
    );

    let role_arn = ("roleArn", json!("arn:aws:iam::123456789012:role/other"));
    reads_by(team, "denied", aws("role", &[account, role_arn])).await;
    let told = [
        "AWS STS at 127.0.0.1 answers 403: AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
        "check that arn:aws:iam::123456789012:role/other is there and trusts ServiceAccount",
    ];
    team.unreachable("denied", "CredentialUnavailable", &told)
        .await;
}
