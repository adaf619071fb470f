//! Pure: AWS. A login to Vault is a signed request to STS, which Vault sends on to learn who signed it.

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use http::Method;
use jiff::Timestamp;

use super::{
    endpoints::{Endpoints, Service},
    exchange::{Exchange, form, text},
};
use crate::{
    names::ObjectKey,
    sensitive::Sensitive,
    vault::identity::{CredentialError, Remedy},
};

/// The audience that AWS expects in the token of a `ServiceAccount`.
pub const AUDIENCE: &str = "sts.amazonaws.com";
/// The annotation of a `ServiceAccount` that names its role, as EKS knows it.
pub const ROLE_ARN: &str = "eks.amazonaws.com/role-arn";
/// Shortest lifetime of keys that STS gives out, in seconds; they are used once, at once.
const KEYS_LIVE: &str = "900";
/// The longest name of a session that STS takes, in characters.
const LONGEST_SESSION: usize = 64;
/// The version of the API of STS.
const VERSION: &str = "2011-06-15";
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
const GET_CALLER_IDENTITY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const SERVER_ID: &str = "x-vault-aws-iam-server-id";

/// Domains of the partitions of AWS whose regions begin like this; all others are public.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
];

/// Where STS is asked, and what a request is signed for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    name: String,
    host: String,
}

impl Default for Region {
    /// The global endpoint, which is that of Vault, too, as long as it is told nothing else.
    fn default() -> Self {
        Self {
            name: "us-east-1".to_owned(),
            host: "sts.amazonaws.com".to_owned(),
        }
    }
}

impl Region {
    /// A region such as `eu-central-1`, with its own endpoint. The error says what is wanted.
    ///
    /// The name becomes part of a host name, so nothing else than a region may pass.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "must be a region such as eu-central-1";
        let mut parts: Vec<&str> = name.split('-').collect();
        let number = parts.pop().unwrap_or_default();
        let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let numbered =
            (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        if name.len() > 32 || parts.len() < 2 || !parts.iter().all(word) || !numbered {
            return Err(WANTED);
        }
        let domain = PARTITIONS
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or("amazonaws.com", |(_, domain)| domain);
        Ok(Self {
            host: format!("sts.{name}.{domain}"),
            name: name.to_owned(),
        })
    }
}

/// What requests are signed with.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Access key id.
    pub id: Sensitive,
    /// Secret access key.
    pub secret: Sensitive,
    /// Session token, for keys that end.
    pub session: Option<Sensitive>,
}

/// A signed request to STS, for Vault to send. See Vault's `POST auth/aws/login`.
#[derive(Debug, Clone)]
pub struct CallerIdentity {
    /// Where it would go; Vault sends it to its own `sts_endpoint`.
    pub url: String,
    /// Its body.
    pub body: &'static str,
    /// Its headers, with the signature, as a JSON object.
    pub headers: Sensitive,
}

/// Checks the ARN of a role. The error says what is wanted.
pub fn check_role_arn(arn: &str) -> Result<(), &'static str> {
    let mut parts = arn.splitn(6, ':');
    let shape = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    );
    match shape {
        (Some("arn"), Some(partition), Some("iam"), Some(""), Some(account), Some(role))
            if partition.starts_with("aws")
                && !account.is_empty()
                && account.bytes().all(|b| b.is_ascii_digit())
                && role
                    .strip_prefix("role/")
                    .is_some_and(|name| !name.is_empty()) =>
        {
            Ok(())
        }
        _ => Err("must be the ARN of a role such as arn:aws:iam::123456789012:role/app"),
    }
}

/// Asks for keys of `role_arn` with the token of a `ServiceAccount` (`AssumeRoleWithWebIdentity`).
///
/// `account` is that ServiceAccount; the session is named after it, for AWS's logs.
pub fn assume_role(
    endpoints: &Endpoints,
    region: &Region,
    role_arn: &str,
    account: &ObjectKey,
    token: &Sensitive,
) -> Result<Exchange, CredentialError> {
    let url = endpoints
        .url(Service::AwsSts, &format!("https://{}", region.host), "/")
        .ok_or_else(|| edit("the region makes no address"))?;
    let token = text("the token of the ServiceAccount", token)?;
    Ok(Exchange {
        who: "AWS STS",
        advice: format!(
            "check that {role_arn} is there and trusts ServiceAccount {account} with the audience {AUDIENCE}"
        ),
        method: Method::POST,
        url,
        headers: Vec::new(),
        body: Some(form(&[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", VERSION),
            ("RoleArn", role_arn),
            ("RoleSessionName", &session_name(account)),
            ("DurationSeconds", KEYS_LIVE),
            ("WebIdentityToken", token),
        ])),
    })
}

/// The name of a session may hold letters, digits and `=,.@-`.
fn session_name(account: &ObjectKey) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "=,.@-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name = format!("lockstep-{account}");
    name.chars().map(allowed).take(LONGEST_SESSION).collect()
}

/// The keys in the answer to [`assume_role`], `None` if it holds none.
pub fn assumed_keys(answer: &Sensitive) -> Option<Keys> {
    let document = roxmltree::Document::parse(answer.expose_text()?).ok()?;
    let element = |name: &str| {
        let mut nodes = document.descendants();
        let text = nodes.find(|node| node.tag_name().name() == name)?.text()?;
        Some(Sensitive::new(text)).filter(|text| !text.is_empty())
    };
    Some(Keys {
        id: element("AccessKeyId")?,
        secret: element("SecretAccessKey")?,
        session: Some(element("SessionToken")?),
    })
}

/// Signs a request that tells who signed it, at `now`. AWS takes it for 15 minutes.
///
/// `server_id` is what Vault's `iam_server_id_header_value` says: without it, any Vault that sees the
/// request can send it to another one. Refused when a key is not text.
pub fn caller_identity(
    keys: &Keys,
    region: &Region,
    server_id: Option<&str>,
    now: Timestamp,
) -> Result<CallerIdentity, CredentialError> {
    let url = format!("https://{}/", region.host);
    let mut headers = vec![("content-type", CONTENT_TYPE), ("host", &region.host)];
    headers.extend(server_id.map(|id| (SERVER_ID, id)));
    let what = What {
        service: "sts",
        region: &region.name,
        url: &url,
        headers: &headers,
        body: GET_CALLER_IDENTITY,
    };
    let added = signature(keys, &what, now)?;
    let all: serde_json::Map<String, serde_json::Value> = headers
        .iter()
        .map(|(name, value)| (*name, *value))
        .chain(
            added
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        )
        .map(|(name, value)| (name.to_owned(), vec![value].into()))
        .collect();
    let headers = serde_json::to_vec(&all).map_err(|_| edit("the request cannot be written"))?;
    Ok(CallerIdentity {
        url,
        body: GET_CALLER_IDENTITY,
        headers: Sensitive::new(headers),
    })
}

/// What is signed.
struct What<'a> {
    service: &'a str,
    region: &'a str,
    url: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

/// The headers that sign a POST request (AWS Signature Version 4).
fn signature(
    keys: &Keys,
    what: &What<'_>,
    now: Timestamp,
) -> Result<Vec<(String, String)>, CredentialError> {
    let session = keys.session.as_ref();
    let session = session.map(|token| text("the session token", token));
    let identity = Credentials::new(
        text("the access key id", &keys.id)?,
        text("the secret access key", &keys.secret)?,
        session.transpose()?.map(str::to_owned),
        None,
        "lockstep",
    )
    .into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(what.region)
        .name(what.service)
        .time(now.into())
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| edit("the request cannot be signed"))?
        .into();
    let request = SignableRequest::new(
        "POST",
        what.url,
        what.headers.iter().copied(),
        SignableBody::Bytes(what.body.as_bytes()),
    );
    // Its errors may quote what they were given.
    let signed = request
        .and_then(|request| sign(request, &params))
        .map_err(|_| edit("the request cannot be signed: a key, or spec.aws.serverIdHeader, holds characters that a header cannot carry"))?;
    let (instructions, _) = signed.into_parts();
    let headers = instructions.headers();
    Ok(headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn edit(message: &str) -> CredentialError {
    CredentialError {
        message: message.to_owned(),
        remedy: Remedy::Edit,
    }
}

#[cfg(test)]
mod tests;
