//! Pure: answers of Vault as values.
//!
//! Every parser takes the [`Response`] of a success and gives a typed value or an
//! [`Invalid`](VaultErrorKind::Invalid) error that says which part is missing, never what was there.

pub mod lease;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use super::error::{VaultError, VaultErrorKind};
use super::json;
use super::request::{KvVersion, Request};
use crate::sensitive::Sensitive;

/// The body of a successful answer, wiped when dropped.
pub struct Response {
    request: Request,
    body: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("request", &self.request)
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// What is stored at a KV path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Strings are their bytes, `null` is empty, everything else is compact JSON.
    pub entries: BTreeMap<String, Sensitive>,
    /// The version, in KV version 2.
    pub version: Option<u64>,
    /// Vault's id of the request: the line of its audit log.
    pub request_id: Option<String>,
}

/// When Vault changes what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// How long it stays as it is; zero while a change is due.
    pub ttl: Duration,
    /// When it was last changed, to the second.
    pub last: Option<Timestamp>,
}

/// The result of a login or a renewal.
#[derive(Debug, Clone)]
pub struct Login {
    /// The token.
    pub token: Sensitive,
    /// Names the token without being one; empty for batch tokens.
    pub accessor: String,
    /// How long it lives; zero for a token that does not expire.
    pub ttl: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Whether it survives the token it was made with.
    pub orphan: bool,
}

/// What a token lookup says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Names the token without being one; empty for batch tokens.
    pub accessor: String,
    /// What is left of its life; zero for a token that does not expire.
    pub ttl: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Whether it survives the token it was made with.
    pub orphan: bool,
}

/// What is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The type of the engine: `kv`, `database`, …
    pub engine: String,
    /// The version, when it is a KV engine.
    pub kv: Option<KvVersion>,
}

/// Which product answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// HashiCorp Vault.
    Vault,
    /// OpenBao.
    OpenBao,
}

/// What the health endpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it was ever initialised.
    pub initialized: bool,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Whether this node is a standby of any sort.
    pub standby: bool,
    /// The version; empty while sealed at some versions.
    pub version: String,
    /// Told by the `enterprise` field, which Vault has had since 1.16 and OpenBao never, and by the
    /// major version before that: OpenBao starts at 2.
    pub product: Product,
}

impl Response {
    /// The body of the answer to `request`.
    pub fn new(request: &Request, body: Zeroizing<Vec<u8>>) -> Self {
        Self {
            request: request.clone(),
            body,
        }
    }

    /// The data of a KV read.
    pub fn kv(&self, version: KvVersion) -> Result<Content, VaultError> {
        match version {
            KvVersion::V1 => self.kv1(),
            KvVersion::V2 => self.kv2(),
        }
    }

    /// The names in a folder; those of folders end in a slash.
    pub fn names(&self) -> Result<Vec<String>, VaultError> {
        let parsed: WithData<ListData> = self.parse()?;
        Ok(self.data(parsed)?.keys)
    }

    /// The login of a static role: what of the answer stays the same until the next rotation, and when that is.
    pub fn static_role(&self) -> Result<(Content, Rotation), VaultError> {
        let parsed: WithData<StaticRoleData> = self.parse()?;
        let data = self.data(parsed)?;
        let body = self.text()?;
        let members = self.member(body, "data")?.unwrap_or("{}");
        let mut content = self.kv_data(body, members, None)?;
        content
            .entries
            .retain(|key, value| STATIC_ROLE_KEYS.contains(&key.as_str()) && !value.is_empty());
        let has = |key| content.entries.contains_key(key);
        if !has("username") || !(has("password") || has("rsa_private_key")) {
            return Err(self.invalid("the answer has no user name, or no password yet"));
        }
        let last = data.last_vault_rotation.and_then(|text| text.parse().ok());
        let rotation = Rotation {
            ttl: Duration::try_from_secs_f64(data.ttl).unwrap_or_default(),
            last: last.and_then(|last: Timestamp| Timestamp::from_second(last.as_second()).ok()),
        };
        Ok((content, rotation))
    }

    /// The token of a login or a renewal.
    pub fn login(&self) -> Result<Login, VaultError> {
        let parsed: WithAuth = self.parse()?;
        let auth = parsed
            .auth
            .ok_or_else(|| self.invalid("the answer has no 'auth'"))?;
        if auth.client_token.is_empty() {
            return Err(self.invalid("the answer has no token"));
        }
        Ok(Login {
            token: auth.client_token.into_sensitive(),
            accessor: auth.accessor,
            ttl: Duration::from_secs(auth.lease_duration),
            renewable: auth.renewable,
            orphan: auth.orphan,
        })
    }

    /// What a token lookup says.
    pub fn token_info(&self) -> Result<TokenInfo, VaultError> {
        let parsed: WithData<TokenData> = self.parse()?;
        let TokenData {
            accessor,
            ttl,
            renewable,
            orphan,
        } = self.data(parsed)?;
        Ok(TokenInfo {
            accessor,
            ttl: Duration::from_secs(ttl),
            renewable,
            orphan,
        })
    }

    /// Where a wrapping token was made.
    pub fn wrapping_path(&self) -> Result<String, VaultError> {
        let parsed: WithData<WrappingData> = self.parse()?;
        Ok(self.data(parsed)?.creation_path)
    }

    /// The secret id that was wrapped.
    pub fn secret_id(&self) -> Result<Sensitive, VaultError> {
        let parsed: WithData<SecretIdData> = self.parse()?;
        Ok(self.data(parsed)?.secret_id.into_sensitive())
    }

    /// What is mounted.
    pub fn mount(&self) -> Result<Mount, VaultError> {
        let parsed: WithData<MountData> = self.parse()?;
        let data = self.data(parsed)?;
        let version = data
            .options
            .and_then(|options| options.get("version").cloned());
        let kv = match (data.engine.as_str(), version.as_deref()) {
            // "generic" is what version 1 was called before Vault 0.10.
            ("kv", Some("2")) => Some(KvVersion::V2),
            ("kv" | "generic", _) => Some(KvVersion::V1),
            _ => None,
        };
        Ok(Mount {
            engine: data.engine,
            kv,
        })
    }

    /// What the health endpoint says.
    pub fn health(&self) -> Result<Health, VaultError> {
        let data: HealthData = self.parse()?;
        let major = data.version.split('.').next().unwrap_or_default();
        let openbao = data.enterprise.is_none() && major.parse::<u32>().is_ok_and(|n| n >= 2);
        Ok(Health {
            initialized: data.initialized,
            sealed: data.sealed,
            standby: data.standby.standby || data.standby.performance_standby,
            version: data.version,
            product: if openbao {
                Product::OpenBao
            } else {
                Product::Vault
            },
        })
    }

    fn kv1(&self) -> Result<Content, VaultError> {
        let body = self.text()?;
        let data = self
            .member(body, "data")?
            .ok_or_else(|| self.invalid("the answer has no 'data'"))?;
        self.kv_data(body, data, None)
    }

    fn kv2(&self) -> Result<Content, VaultError> {
        let body = self.text()?;
        let outer = self
            .member(body, "data")?
            .ok_or_else(|| self.invalid("the answer has no 'data'"))?;
        let metadata = self.member(outer, "metadata")?.ok_or_else(|| {
            self.invalid("the answer has no 'data.metadata': is this KV version 1?")
        })?;
        let metadata: KvMetadata = serde_json::from_str(metadata)
            .map_err(|_| self.invalid("'data.metadata' is not what KV version 2 sends"))?;
        let Some(data) = self.member(outer, "data")? else {
            return Err(VaultError::new(
                VaultErrorKind::Deleted,
                &self.request,
                format!("version {} holds no data", metadata.version),
            ));
        };
        self.kv_data(body, data, Some(metadata.version))
    }

    fn kv_data(&self, body: &str, data: &str, version: Option<u64>) -> Result<Content, VaultError> {
        let members =
            json::members(data).map_err(|_| self.invalid("the data is not a JSON object"))?;
        let request_id = self
            .member(body, "request_id")?
            .and_then(|raw| serde_json::from_str(raw).ok());
        let entries = members
            .into_iter()
            .map(|(key, raw)| (key, json::secret_bytes(raw)))
            .collect();
        Ok(Content {
            entries,
            version,
            request_id,
        })
    }

    fn text(&self) -> Result<&str, VaultError> {
        json::text(&self.body).map_err(|_| self.invalid("the answer is not text"))
    }

    fn member<'a>(&self, text: &'a str, name: &str) -> Result<Option<&'a str>, VaultError> {
        json::member(text, name).map_err(|_| self.invalid("the answer is not a JSON object"))
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, VaultError> {
        // The text of a serde error can repeat a value, so only the place is told.
        serde_json::from_slice(&self.body).map_err(|error| {
            self.invalid(&format!(
                "the answer is not the JSON that was expected (line {}, column {})",
                error.line(),
                error.column()
            ))
        })
    }

    fn data<T>(&self, parsed: WithData<T>) -> Result<T, VaultError> {
        parsed
            .data
            .ok_or_else(|| self.invalid("the answer has no 'data'"))
    }

    fn invalid(&self, detail: &str) -> VaultError {
        VaultError::new(VaultErrorKind::Invalid, &self.request, detail)
    }
}

/// What of a static role goes into a Secret. Everything else tells of the rotation, or is a password that was.
const STATIC_ROLE_KEYS: [&str; 4] = ["dn", "password", "rsa_private_key", "username"];

#[derive(Deserialize)]
struct ListData {
    #[serde(default)]
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct StaticRoleData {
    #[serde(default)]
    ttl: f64,
    #[serde(default)]
    last_vault_rotation: Option<String>,
}

#[derive(Deserialize)]
struct WithAuth {
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: SecretText,
    #[serde(default)]
    accessor: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    orphan: bool,
}

/// Text that is wiped if parsing ends early.
#[derive(Deserialize, Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
struct SecretText(String);

impl SecretText {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn into_sensitive(mut self) -> Sensitive {
        Sensitive::new(std::mem::take(&mut self.0))
    }
}

#[derive(Deserialize)]
struct WithData<T> {
    data: Option<T>,
}

#[derive(Deserialize)]
struct TokenData {
    #[serde(default)]
    accessor: String,
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    orphan: bool,
}

#[derive(Deserialize)]
struct WrappingData {
    creation_path: String,
}

#[derive(Deserialize)]
struct SecretIdData {
    secret_id: SecretText,
}

#[derive(Deserialize)]
struct MountData {
    #[serde(rename = "type")]
    engine: String,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct KvMetadata {
    version: u64,
}

#[derive(Deserialize)]
struct HealthData {
    initialized: bool,
    sealed: bool,
    #[serde(flatten)]
    standby: StandbyData,
    #[serde(default)]
    version: String,
    #[serde(default)]
    enterprise: Option<bool>,
}

#[derive(Deserialize)]
struct StandbyData {
    #[serde(default)]
    standby: bool,
    #[serde(default)]
    performance_standby: bool,
}

#[cfg(test)]
mod tests;
