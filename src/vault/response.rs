//! Pure: answers of Vault as values.
//!
//! Every parser takes the [`Response`] of a success and gives a typed value or an
//! [`Invalid`](VaultErrorKind::Invalid) error that says which part is missing, never what was there.

use std::collections::BTreeMap;
use std::time::Duration;

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
pub struct KvData {
    /// Strings are their bytes, `null` is empty, everything else is compact JSON.
    pub entries: BTreeMap<String, Sensitive>,
    /// The version, in KV version 2.
    pub version: Option<u64>,
    /// Vault's id of the request: the line of its audit log.
    pub request_id: Option<String>,
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
    pub fn kv(&self, version: KvVersion) -> Result<KvData, VaultError> {
        match version {
            KvVersion::V1 => self.kv1(),
            KvVersion::V2 => self.kv2(),
        }
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

    fn kv1(&self) -> Result<KvData, VaultError> {
        let body = self.text()?;
        let data = self
            .member(body, "data")?
            .ok_or_else(|| self.invalid("the answer has no 'data'"))?;
        self.kv_data(body, data, None)
    }

    fn kv2(&self) -> Result<KvData, VaultError> {
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

    fn kv_data(&self, body: &str, data: &str, version: Option<u64>) -> Result<KvData, VaultError> {
        let members =
            json::members(data).map_err(|_| self.invalid("the data is not a JSON object"))?;
        let request_id = self
            .member(body, "request_id")?
            .and_then(|raw| serde_json::from_str(raw).ok());
        let entries = members
            .into_iter()
            .map(|(key, raw)| (key, json::secret_bytes(raw)))
            .collect();
        Ok(KvData {
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
