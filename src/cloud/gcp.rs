//! Pure: Google Cloud. A login to Vault is a JWT of a Google service account, signed with its key or by Google.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use jiff::Timestamp;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{
    endpoints::{Endpoints, Service},
    exchange::{Exchange, form, text},
};
use crate::{
    sensitive::Sensitive,
    vault::identity::{CredentialError, Remedy},
};

/// The annotation of a `ServiceAccount` that names its Google service account, as GKE knows it.
pub const SERVICE_ACCOUNT: &str = "iam.gke.io/gcp-service-account";
/// How long a JWT is good for, in seconds. Vault's roles take 15 minutes at most, and clocks differ.
const JWT_LIVES: i64 = 600;
/// What the token of the exchange may be used for: no more than to sign.
const SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// Who vouches to Google for the tokens of this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// A provider of a workload identity pool.
    Pool(String),
    /// Google itself, for a cluster of GKE with workload identity.
    Gke {
        /// Id of the project of the cluster.
        project: String,
        /// `projects/…/locations/…/clusters/…`.
        cluster: String,
    },
}

impl Provider {
    /// `projects/123456789012/locations/global/workloadIdentityPools/pool/providers/name`.
    /// The error says what is wanted.
    pub fn pool(name: &str) -> Result<Self, &'static str> {
        segments(
            name,
            ["projects", "locations", "workloadIdentityPools", "providers"],
        )
        .map(|_| Self::Pool(name.to_owned()))
        .ok_or("must be projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>")
    }

    /// `projects/shop/locations/europe-west1/clusters/prod`. The error says what is wanted.
    pub fn gke(cluster: &str) -> Result<Self, &'static str> {
        let found = segments(cluster, ["projects", "locations", "clusters"]);
        let [project, _, _] =
            found.ok_or("must be projects/<project>/locations/<location>/clusters/<name>")?;
        Ok(Self::Gke {
            project: project.to_owned(),
            cluster: cluster.to_owned(),
        })
    }

    /// The audience of the `ServiceAccount`'s token.
    pub fn token_audience(&self) -> String {
        match self {
            Self::Pool(name) => format!("https://iam.googleapis.com/{name}"),
            Self::Gke { project, .. } => format!("{project}.svc.id.goog"),
        }
    }

    fn exchange_audience(&self) -> String {
        match self {
            Self::Pool(name) => format!("//iam.googleapis.com/{name}"),
            Self::Gke { project, cluster } => format!(
                "identitynamespace:{project}.svc.id.goog:https://container.googleapis.com/v1/{cluster}"
            ),
        }
    }
}

/// The values of a name like `projects/shop/locations/global`.
fn segments<'a, const N: usize>(name: &'a str, keys: [&str; N]) -> Option<[&'a str; N]> {
    let mut parts = name.split('/');
    let mut found = [""; N];
    for (slot, key) in found.iter_mut().zip(keys) {
        if parts.next()? != key {
            return None;
        }
        *slot = parts.next().filter(|value| is_id(value))?;
    }
    parts.next().is_none().then_some(found)
}

/// Ids of Google: letters, digits, and in project ids of an organisation dots and colons.
fn is_id(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(allowed)
}

/// Checks the address of a Google service account. The error says what is wanted.
///
/// It becomes part of a path, so nothing else than an address may pass.
pub fn check_email(email: &str) -> Result<(), &'static str> {
    let shape = email.split_once('@');
    match shape {
        Some((name, domain)) if is_id(name) && is_id(domain) && domain.contains('.') => Ok(()),
        _ => Err(
            "must be the address of a Google service account such as app@shop.iam.gserviceaccount.com",
        ),
    }
}

/// The key of a Google service account.
pub struct Key {
    email: String,
    id: String,
    pair: RsaKeyPair,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<String>,
}

impl Key {
    /// Reads the JSON file that Google makes for a key. The error says what is wrong with its shape.
    pub fn parse(file: &Sensitive) -> Result<Self, String> {
        let file: KeyFile = file
            .expose_text()
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or("it is not JSON with texts in it")?;
        // Before anything fails, so that it is wiped.
        let pem = file.private_key.map(Sensitive::new);
        match file.kind.as_deref() {
            Some("service_account") => {}
            Some(
                other @ ("external_account" | "authorized_user" | "impersonated_service_account"),
            ) => {
                return Err(format!("its type is {other}, not service_account"));
            }
            Some(_) | None => return Err("its type is not service_account".to_owned()),
        }
        let lacks = |field: &str| format!("it has no {field}");
        let email = file.client_email.ok_or_else(|| lacks("client_email"))?;
        check_email(&email).map_err(|wanted| format!("its client_email {wanted}"))?;
        let id = file.private_key_id.ok_or_else(|| lacks("private_key_id"))?;
        let pem = pem.ok_or_else(|| lacks("private_key"))?;
        let pair = pem
            .expose_text()
            .and_then(|text| PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok())
            .and_then(|der| RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok())
            .ok_or("its private_key is not an RSA key in PEM (BEGIN PRIVATE KEY)")?;
        Ok(Self { email, id, pair })
    }

    /// The JWT for a login to `role`, signed at `now`.
    pub fn sign(&self, role: &str, now: Timestamp) -> Result<Sensitive, CredentialError> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: &'a str,
            typ: &'a str,
            kid: &'a str,
        }
        let header = Header {
            alg: "RS256",
            typ: "JWT",
            kid: &self.id,
        };
        let header = serde_json::to_vec(&header).map_err(|_| unsigned())?;
        let mut jwt = BASE64_URL_SAFE_NO_PAD.encode(header);
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims(&self.email, role, now)?, &mut jwt);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                jwt.as_bytes(),
                &mut signature,
            )
            .map_err(|_| unsigned())?;
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(Sensitive::new(jwt))
    }
}

/// What a JWT for a login says. See Vault's `POST auth/gcp/login`.
fn claims(email: &str, role: &str, now: Timestamp) -> Result<String, CredentialError> {
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a str,
        aud: String,
        exp: i64,
    }
    let claims = Claims {
        sub: email,
        aud: format!("vault/{role}"),
        exp: now.as_second().saturating_add(JWT_LIVES),
    };
    serde_json::to_string(&claims).map_err(|_| unsigned())
}

/// Asks Google for an access token for the token of a `ServiceAccount`.
pub fn access_token(
    endpoints: &Endpoints,
    provider: &Provider,
    token: &Sensitive,
) -> Result<Exchange, CredentialError> {
    let audience = provider.exchange_audience();
    let url = endpoints
        .url(Service::GcpSts, "https://sts.googleapis.com", "/v1/token")
        .ok_or_else(no_address)?;
    Ok(Exchange {
        who: "Google's token exchange",
        advice: format!("check that {audience} is there and takes the tokens of this cluster"),
        method: Method::POST,
        url,
        headers: Vec::new(),
        body: Some(form(&[
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("audience", &audience),
            ("scope", SCOPE),
            (
                "requested_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            (
                "subject_token",
                text("the token of the ServiceAccount", token)?,
            ),
        ])),
    })
}

/// Asks Google to sign the JWT for a login to `role` as the service account `email`.
pub fn sign_jwt(
    endpoints: &Endpoints,
    email: &str,
    role: &str,
    access_token: &Sensitive,
    now: Timestamp,
) -> Result<Exchange, CredentialError> {
    #[derive(Serialize)]
    struct Body {
        payload: String,
    }
    let path = format!("/v1/projects/-/serviceAccounts/{email}:signJwt");
    let url = endpoints
        .url(
            Service::GcpIam,
            "https://iamcredentials.googleapis.com",
            &path,
        )
        .ok_or_else(no_address)?;
    let payload = claims(email, role, now)?;
    let body = serde_json::to_vec(&Body { payload }).map_err(|_| unsigned())?;
    let token = text("the access token of Google", access_token)?;
    Ok(Exchange {
        who: "Google's IAM credentials service",
        advice: format!(
            "check that the service account {email} is there, that the ServiceAccount has the roles Workload Identity User and Service Account Token Creator on it, and that the IAM Service Account Credentials API is enabled"
        ),
        method: Method::POST,
        url,
        headers: vec![("authorization", Sensitive::new(format!("Bearer {token}")))],
        body: Some(("application/json", Sensitive::new(body))),
    })
}

/// The JWT in the answer to [`sign_jwt`], `None` if it holds none.
pub fn signed(answer: &Sensitive) -> Option<Sensitive> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Signed {
        signed_jwt: String,
    }
    let signed: Signed = serde_json::from_str(answer.expose_text()?).ok()?;
    Some(Sensitive::new(signed.signed_jwt)).filter(|jwt| !jwt.is_empty())
}

fn unsigned() -> CredentialError {
    CredentialError {
        message: "the JWT for Vault cannot be signed".to_owned(),
        remedy: Remedy::Edit,
    }
}

fn no_address() -> CredentialError {
    CredentialError {
        message: "the name of the Google service account makes no address".to_owned(),
        remedy: Remedy::Edit,
    }
}

#[cfg(test)]
mod tests;
