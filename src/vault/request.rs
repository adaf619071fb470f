//! Pure: requests to Vault as values.
//!
//! A [`Request`] says everything about one call except the token. Whether it may be sent a second
//! time is part of the value, so that no caller can decide it wrongly.

pub mod lease;
pub mod pki;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use serde::Serialize;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::path::{MountPath, SecretPath, UserName, VaultNamespace};
use super::place::StaticEngine;
use crate::cloud::{aws::CallerIdentity, azure::Machine};
use crate::sensitive::Sensitive;

/// One call of Vault's API.
#[derive(Debug, Clone)]
pub struct Request {
    operation: &'static str,
    method: Method,
    /// For people: not encoded.
    path: String,
    encoded_path: String,
    query: Option<String>,
    body: Option<Sensitive>,
    namespace: Option<VaultNamespace>,
    repeat: Repeat,
    gated: bool,
    in_root: bool,
    urgent: bool,
}

/// Whether sending a request twice does the same as sending it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing; or the refusal of a dead token proves that it has not changed anything yet.
    Safe,
    /// It creates, changes or ends something.
    Never,
}

/// The version of the KV engine behind a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvVersion {
    /// Plain key-value store.
    V1,
    /// Versioned.
    V2,
}

impl KvVersion {
    /// 1 or 2.
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl Request {
    /// Reads a secret of KV version 1.
    pub fn kv1_read(mount: &MountPath, path: &SecretPath) -> Self {
        Self::get(
            "read",
            format!("{mount}/{path}"),
            format!("{}/{}", mount.encoded(), path.encoded()),
        )
    }

    /// Reads a secret of KV version 2, the latest version when none is given.
    pub fn kv2_read(mount: &MountPath, path: &SecretPath, version: Option<u64>) -> Self {
        let latest = format!("{mount}/data/{path}");
        Self {
            query: version.map(|version| format!("version={version}")),
            ..Self::get(
                "read",
                match version {
                    None => latest,
                    Some(version) => format!("version {version} of {latest}"),
                },
                format!("{}/data/{}", mount.encoded(), path.encoded()),
            )
        }
    }

    /// Lists a folder of a KV engine, the whole mount when none is given.
    /// Asked as `GET` with `list=true`, which does the same as `LIST` and passes every proxy.
    pub fn kv_list(mount: &MountPath, version: KvVersion, folder: Option<&SecretPath>) -> Self {
        let metadata = match version {
            KvVersion::V1 => "",
            KvVersion::V2 => "metadata/",
        };
        let below = |folder: Option<String>| folder.map_or_else(String::new, |path| path + "/");
        Self {
            query: Some("list=true".to_owned()),
            ..Self::get(
                "list",
                format!(
                    "{mount}/{metadata}{}",
                    below(folder.map(ToString::to_string))
                ),
                format!(
                    "{}/{metadata}{}",
                    mount.encoded(),
                    below(folder.map(SecretPath::encoded))
                ),
            )
        }
    }

    /// Reads the login of a static role.
    pub fn static_role(mount: &MountPath, engine: StaticEngine, role: &SecretPath) -> Self {
        let what = match engine {
            StaticEngine::Database => "static-creds",
            StaticEngine::Ldap => "static-cred",
        };
        Self::get(
            "read",
            format!("{mount}/{what}/{role}"),
            format!("{}/{what}/{}", mount.encoded(), role.encoded()),
        )
    }

    /// Asks what is mounted at `mount`. Any token with some right below the mount may ask.
    pub fn mount_lookup(mount: &MountPath) -> Self {
        Self::get(
            "lookup-mount",
            format!("sys/internal/ui/mounts/{mount}"),
            format!("sys/internal/ui/mounts/{}", mount.encoded()),
        )
    }

    /// Logs in with a JWT at a Kubernetes or JWT auth method.
    /// Refused when the JWT is not text.
    pub fn jwt_login(mount: &MountPath, role: &str, jwt: &Sensitive) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            role: &'a str,
            jwt: &'a str,
        }
        let jwt = text(mount, "the token of the login", jwt)?;
        Self::login(mount, &Body { role, jwt })
    }

    /// Logs in at an AppRole auth method. Refused when an id is not text.
    pub fn app_role_login(
        mount: &MountPath,
        role_id: &Sensitive,
        secret_id: &Sensitive,
    ) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            role_id: &'a str,
            secret_id: &'a str,
        }
        let role_id = text(mount, "the role id", role_id)?;
        let secret_id = text(mount, "the secret id", secret_id)?;
        Self::login(mount, &Body { role_id, secret_id })
    }

    /// Logs in with the password of a user at a userpass or LDAP auth method. Refused when the password is not text.
    pub fn password_login(
        mount: &MountPath,
        user: &UserName,
        password: &Sensitive,
    ) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            password: &'a str,
        }
        let password = text(mount, "the password", password)?;
        let request = Self::login(mount, &Body { password })?;
        Ok(Self {
            path: format!("{}/{user}", request.path),
            encoded_path: format!("{}/{}", request.encoded_path, user.encoded()),
            ..request
        })
    }

    /// Logs in with the client certificate of the connection that it is sent through, with all roles that take it
    /// when none is named.
    pub fn certificate_login(mount: &MountPath, role: Option<&str>) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        Self::login(mount, &Body { name: role })
    }

    /// Asks where a wrapping token was made, which does not use it up. Refused when the token is not text.
    pub fn wrapping_lookup(mount: &MountPath, token: &Sensitive) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            token: &'a str,
        }
        let token = text(mount, "the wrapping token", token)?;
        let path = "sys/wrapping/lookup".to_owned();
        Ok(Self {
            method: Method::POST,
            body: Some(body(mount, &Body { token })?),
            ..Self::get("lookup-wrapping", path.clone(), path)
        })
    }

    /// Takes out what the token of the request wraps, which uses the token up.
    pub fn unwrap() -> Self {
        let path = "sys/wrapping/unwrap".to_owned();
        Self {
            method: Method::POST,
            repeat: Repeat::Never,
            ..Self::get("unwrap", path.clone(), path)
        }
    }

    /// Logs in at an AWS auth method with a request that Vault sends to AWS. Refused when it is not text.
    pub fn aws_login(
        mount: &MountPath,
        role: &str,
        identity: &CallerIdentity,
    ) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Signed<'a> {
            role: &'a str,
            iam_http_request_method: &'static str,
            iam_request_url: String,
            iam_request_body: String,
            iam_request_headers: &'a str,
        }
        let headers = text(mount, "the signed request", &identity.headers)?;
        let headers = Zeroizing::new(BASE64_STANDARD.encode(headers));
        let body = Signed {
            role,
            iam_http_request_method: "POST",
            iam_request_url: BASE64_STANDARD.encode(&identity.url),
            iam_request_body: BASE64_STANDARD.encode(identity.body),
            iam_request_headers: &headers,
        };
        Self::login(mount, &body)
    }

    /// Logs in at an Azure auth method. Refused when the access token is not text.
    pub fn azure_login(
        mount: &MountPath,
        role: &str,
        jwt: &Sensitive,
        machine: &Machine,
    ) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            role: &'a str,
            jwt: &'a str,
            #[serde(flatten)]
            machine: &'a Machine,
        }
        let jwt = text(mount, "the access token of Azure", jwt)?;
        Self::login(mount, &Body { role, jwt, machine })
    }

    /// What the token of the request is worth.
    pub fn token_lookup() -> Self {
        Self::own_token(Method::GET, "lookup-token", "lookup-self", Repeat::Safe)
    }

    /// Extends the token of the request by its own period.
    pub fn token_renew() -> Self {
        Self::own_token(Method::POST, "renew-token", "renew-self", Repeat::Never)
    }

    /// Ends the token of the request and everything issued with it.
    pub fn token_revoke() -> Self {
        Self::own_token(Method::POST, "revoke-token", "revoke-self", Repeat::Never)
    }

    /// Seal and standby state. Sealed, standby and uninitialised answer 200 too, with the same body,
    /// so that they can be told apart from an address where there is no Vault.
    pub fn health() -> Self {
        const STATES: &str =
            "standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200&drsecondarycode=200";
        Self {
            query: Some(STATES.to_owned()),
            gated: false,
            in_root: true,
            urgent: true,
            ..Self::get("health", "sys/health".to_owned(), "sys/health".to_owned())
        }
    }

    /// The same request in a namespace.
    #[must_use]
    pub fn in_namespace(self, namespace: Option<VaultNamespace>) -> Self {
        Self { namespace, ..self }
    }

    /// What is done, in one word; the metric label.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The path without `/v1/`, as a person would write it, after the version if one is wanted.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The namespace the path is meant in.
    pub fn namespace(&self) -> Option<&VaultNamespace> {
        self.namespace.as_ref()
    }

    /// The body, JSON.
    pub fn body(&self) -> Option<&Sensitive> {
        self.body.as_ref()
    }

    /// Whether it may be sent twice.
    pub fn repeat(&self) -> Repeat {
        self.repeat
    }

    /// Whether the gate of the connection has a say. Not for health: it is asked rarely, and its
    /// answer from a sealed Vault does not mean that other requests would be answered.
    pub fn is_gated(&self) -> bool {
        self.gated
    }

    /// Whether it goes to the root namespace, whatever the connection says: only there is `sys/health`.
    pub fn is_in_root(&self) -> bool {
        self.in_root
    }

    /// Whether it goes before others when a limit makes requests wait: what it is about may end meanwhile.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Path and query for the URL.
    pub fn target(&self) -> String {
        match &self.query {
            None => self.encoded_path.clone(),
            Some(query) => format!("{}?{query}", self.encoded_path),
        }
    }

    fn get(operation: &'static str, path: String, encoded_path: String) -> Self {
        Self {
            operation,
            method: Method::GET,
            path,
            encoded_path,
            query: None,
            body: None,
            namespace: None,
            repeat: Repeat::Safe,
            gated: true,
            in_root: false,
            urgent: false,
        }
    }

    fn own_token(method: Method, operation: &'static str, what: &str, repeat: Repeat) -> Self {
        let path = format!("auth/token/{what}");
        Self {
            method,
            repeat,
            urgent: repeat == Repeat::Never,
            ..Self::get(operation, path.clone(), path)
        }
    }

    fn login(mount: &MountPath, content: &impl Serialize) -> Result<Self, VaultError> {
        Ok(Self {
            method: Method::POST,
            body: Some(body(mount, content)?),
            repeat: Repeat::Never,
            ..Self::get(
                "login",
                format!("auth/{mount}/login"),
                format!("auth/{}/login", mount.encoded()),
            )
        })
    }
}

fn body(mount: &MountPath, content: &impl Serialize) -> Result<Sensitive, VaultError> {
    json(content).ok_or_else(|| {
        VaultError::refused(
            "login",
            mount.as_str(),
            "the login cannot be written as JSON",
        )
    })
}

fn text<'a>(mount: &MountPath, what: &str, value: &'a Sensitive) -> Result<&'a str, VaultError> {
    value
        .expose_text()
        .ok_or_else(|| VaultError::refused("login", mount.as_str(), format!("{what} is not text")))
}

fn json(body: &impl Serialize) -> Option<Sensitive> {
    // Large enough for a JWT or a certificate: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(16 * 1024);
    serde_json::to_writer(&mut bytes, body).ok()?;
    Some(Sensitive::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-5f1c";

    fn mount(text: &str) -> MountPath {
        MountPath::parse(text).unwrap()
    }

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn secret(text: &str) -> SecretPath {
        SecretPath::parse(text).unwrap()
    }

    fn check<const N: usize>(rows: [(Request, &str); N], repeat: Repeat) {
        for (request, expected) in rows {
            let url = format!("{} {}", request.method(), request.target());
            assert_eq!(url, expected);
            assert_eq!(request.repeat(), repeat, "{expected}");
        }
    }

    #[test]
    fn each_read_has_its_url_and_may_be_repeated() {
        let rows = [
            (
                Request::kv1_read(&mount("kv"), &secret("a b")),
                "GET kv/a%20b",
            ),
            (
                Request::kv2_read(&mount("team/kv"), &secret("shop/api"), None),
                "GET team/kv/data/shop/api",
            ),
            (
                Request::kv2_read(&mount("kv"), &secret("api"), Some(7)),
                "GET kv/data/api?version=7",
            ),
            (
                Request::kv_list(&mount("team/kv"), KvVersion::V2, Some(&secret("a b/c"))),
                "GET team/kv/metadata/a%20b/c/?list=true",
            ),
            (
                Request::kv_list(&mount("kv"), KvVersion::V1, None),
                "GET kv/?list=true",
            ),
            (
                Request::static_role(&mount("db"), StaticEngine::Database, &secret("app")),
                "GET db/static-creds/app",
            ),
            (
                Request::static_role(&mount("ldap"), StaticEngine::Ldap, &secret("org/app")),
                "GET ldap/static-cred/org/app",
            ),
            (
                Request::mount_lookup(&mount("team/kv")),
                "GET sys/internal/ui/mounts/team/kv",
            ),
            (Request::token_lookup(), "GET auth/token/lookup-self"),
        ];
        check(rows, Repeat::Safe);
    }

    #[test]
    fn each_request_that_changes_something_is_sent_once() {
        let jwt = Sensitive::new(CANARY);
        let rows = [
            (
                Request::jwt_login(&mount("kubernetes"), "app", &jwt).unwrap(),
                "POST auth/kubernetes/login",
            ),
            (
                Request::app_role_login(&mount("approle"), &jwt, &jwt).unwrap(),
                "POST auth/approle/login",
            ),
            (
                Request::password_login(&mount("userpass"), &user("a b?"), &jwt).unwrap(),
                "POST auth/userpass/login/a%20b%3F",
            ),
            (
                Request::certificate_login(&mount("cert"), None).unwrap(),
                "POST auth/cert/login",
            ),
            (Request::unwrap(), "POST sys/wrapping/unwrap"),
            (Request::token_renew(), "POST auth/token/renew-self"),
            (Request::token_revoke(), "POST auth/token/revoke-self"),
        ];
        check(rows, Repeat::Never);
    }

    #[test]
    fn a_login_carries_its_credential_as_json() {
        let jwt = Sensitive::new("a\"b");
        let request = Request::jwt_login(&mount("kubernetes"), "app", &jwt).unwrap();
        let body = request.body().unwrap().expose_text().unwrap();
        assert_eq!(body, r#"{"role":"app","jwt":"a\"b"}"#);
    }

    #[test]
    fn a_login_with_a_certificate_names_a_role_only_if_there_is_one() {
        for (role, expected) in [(None, "{}"), (Some("web"), r#"{"name":"web"}"#)] {
            let request = Request::certificate_login(&mount("cert"), role).unwrap();
            assert_eq!(request.body().unwrap().expose_text(), Some(expected));
        }
    }

    #[test]
    fn a_login_with_aws_carries_the_signed_request() {
        let identity = CallerIdentity {
            url: "https://sts.amazonaws.com/".to_owned(),
            body: "Action=GetCallerIdentity",
            headers: Sensitive::new(r#"{"host":["sts.amazonaws.com"]}"#),
        };
        let request = Request::aws_login(&mount("aws"), "app", &identity).unwrap();
        assert_eq!(request.target(), "auth/aws/login");
        assert_eq!(
            request.body().unwrap().expose_text().unwrap(),
            r#"{"role":"app","iam_http_request_method":"POST","iam_request_url":"aHR0cHM6Ly9zdHMuYW1hem9uYXdzLmNvbS8=","iam_request_body":"QWN0aW9uPUdldENhbGxlcklkZW50aXR5","iam_request_headers":"eyJob3N0IjpbInN0cy5hbWF6b25hd3MuY29tIl19"}"#
        );
    }

    #[test]
    fn a_login_with_azure_names_a_machine_only_if_there_is_one() {
        let jwt = Sensitive::new("a.b.c");
        let named = Machine {
            subscription_id: Some("s".to_owned()),
            vmss_name: Some("m".to_owned()),
            ..Machine::default()
        };
        for (machine, expected) in [
            (Machine::default(), r#"{"role":"app","jwt":"a.b.c"}"#),
            (
                named,
                r#"{"role":"app","jwt":"a.b.c","subscription_id":"s","vmss_name":"m"}"#,
            ),
        ] {
            let request = Request::azure_login(&mount("azure"), "app", &jwt, &machine).unwrap();
            assert_eq!(request.body().unwrap().expose_text(), Some(expected));
        }
    }

    #[test]
    fn a_credential_that_is_not_text_is_refused() {
        let error =
            Request::jwt_login(&mount("kubernetes"), "app", &Sensitive::new([0xff])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "login kubernetes: not sent: the token of the login is not text"
        );
    }

    #[test]
    fn debug_does_not_show_the_credential() {
        let value = Sensitive::new(CANARY);
        for request in [
            Request::jwt_login(&mount("kubernetes"), "app", &value).unwrap(),
            Request::app_role_login(&mount("approle"), &value, &value).unwrap(),
            Request::password_login(&mount("ldap"), &user("deploy"), &value).unwrap(),
            Request::wrapping_lookup(&mount("approle"), &value).unwrap(),
        ] {
            assert!(!format!("{request:?}").contains(CANARY));
        }
    }
}
