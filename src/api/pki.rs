//! Pure: a certificate of Vault's PKI engine, as a source.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    duration::GoDuration,
    refs::{DATA_KEY_PATTERN, NAME_MAX, NAME_PATTERN},
};

/// The form of names in Vault.
const VAULT_NAME_PATTERN: &str = r"^[a-zA-Z0-9_]([-.a-zA-Z0-9_]*[a-zA-Z0-9_])?$";

/// A certificate and its private key. The Secret gets `tls.crt` (the certificate and what leads to its root),
/// `tls.key` (PKCS#8) and `ca.crt` (the root), and the key stores that are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.commonName) || has(self.altNames) || has(self.ipSans) || has(self.uriSans)")
        .message("a certificate needs a name: set commonName, altNames, ipSans or uriSans"),
    validation = Rule::new("!has(self.keyType) || !has(self.keySource) || self.keySource == 'Operator'")
        .message("keyType is for keys that the operator makes: with keySource: Vault the role in Vault says it")
)]
#[serde(rename_all = "camelCase")]
pub struct PkiSource {
    /// Where the engine is mounted.
    #[schemars(length(min = 1, max = 256))]
    pub mount: String,
    /// Role of the engine.
    #[schemars(length(min = 1, max = 256), regex(pattern = VAULT_NAME_PATTERN))]
    pub role: String,
    /// Issuer to sign with, by name or id. Default: the one the role names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = VAULT_NAME_PATTERN))]
    pub issuer: Option<String>,
    /// Common name of the subject. The name of a host or an address for mail is put among the alternative names, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub common_name: Option<String>,
    /// Leaves `commonName` out of the alternative names. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_common_name_from_sans: Option<bool>,
    /// Names of hosts, `*.` in front allowed, and addresses for mail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub alt_names: Vec<String>,
    /// IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 2, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ip_sans: Vec<String>,
    /// URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 2048)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub uri_sans: Vec<String>,
    /// How long the certificate shall be valid. Default: what the role says; Vault may grant less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<GoDuration>,
    /// Who makes the private key. Default `Operator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_source: Option<KeySource>,
    /// Kind of the key that the operator makes. Default `EcdsaP256`. The role in Vault must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<KeyType>,
    /// Has Vault revoke a certificate once its successor is in use everywhere. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoke: Option<bool>,
    /// Key stores to put into the Secret besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keystores: Option<KeystoresSpec>,
}

/// Who makes a private key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeySource {
    /// The operator, so that Vault never has the key: it signs a request.
    #[default]
    Operator,
    /// Vault, which sends it with the certificate.
    Vault,
}

/// The kinds of private key.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum KeyType {
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
}

impl KeyType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Ed25519,
    ];

    /// As it is written in a spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa2048 => "Rsa2048",
            Self::Rsa3072 => "Rsa3072",
            Self::Rsa4096 => "Rsa4096",
            Self::EcdsaP256 => "EcdsaP256",
            Self::EcdsaP384 => "EcdsaP384",
            Self::EcdsaP521 => "EcdsaP521",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// Key stores for programs that do not read PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.pkcs12) || has(self.jks)").message("it is empty: set pkcs12 or jks, or remove keystores")
)]
#[serde(rename_all = "camelCase")]
pub struct KeystoresSpec {
    /// PKCS#12: `keystore.p12` and `truststore.p12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkcs12: Option<KeystoreSpec>,
    /// Java's own old format: `keystore.jks` and `truststore.jks`. Java reads PKCS#12, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jks: Option<KeystoreSpec>,
}

/// One key store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeystoreSpec {
    /// The password, in a Secret of this namespace.
    pub password_ref: PasswordRef,
}

/// One key of a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PasswordRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = NAME_MAX), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY_PATTERN))]
    pub key: String,
}
