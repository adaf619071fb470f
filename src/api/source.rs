//! Pure: the kinds of source a `VaultSecret` can name, and what its status says of each.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::pki::PkiSource;

use super::duration::GoDuration;

/// One secret in Vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("[has(self.kv), has(self.find), has(self.staticRole), has(self.dynamic), has(self.pki)].filter(x, x).size() == 1")
        .message("each source needs exactly one kind: set one of kv, find, staticRole, dynamic and pki"),
    validation = Rule::new("!has(self.renewAt) || has(self.dynamic) || has(self.pki)").message("renewAt is for what ends: remove it, or use dynamic or pki")
)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// Name of the source, for status and messages.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Namespace in Vault Enterprise or OpenBao, below that of the connection. Default: that of the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub namespace: Option<String>,
    /// A secret of a key-value engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<KvSource>,
    /// Every secret of a key-value engine below a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<FindSource>,
    /// The login of a static role, whose password Vault changes in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_role: Option<StaticRoleSource>,
    /// Something that an engine issues for this object alone, such as a database login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<DynamicSource>,
    /// A certificate of the PKI engine, with its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki: Option<PkiSource>,
    /// At which part of its life a certificate is replaced and a lease is renewed, or replaced if it cannot be renewed: `10%` to `90%`. Default `67%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 4))]
    #[x_kube(validation = Rule::new("self.matches('^([1-8][0-9]|90)%$')").message("renewAt must be from 10% to 90%, such as 67%"))]
    pub renew_at: Option<String>,
    /// Which of its keys to take, and under which names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeysSpec>,
}

/// A secret of a key-value engine, version 1 or 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.version) || !has(self.engineVersion) || self.engineVersion == 2")
        .message("version needs a version 2 engine: remove version, or set engineVersion: 2")
)]
#[serde(rename_all = "camelCase")]
pub struct KvSource {
    /// Where the engine is mounted.
    #[schemars(length(min = 1, max = 256))]
    pub mount: String,
    /// Path of the secret below the mount, without `data/`.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Version of the engine, 1 or 2. Default: asked of Vault once per mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2))]
    pub engine_version: Option<i32>,
    /// Pins one version of the secret (version 2 engines). Default: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<i64>,
}

/// Every secret of a key-value engine below a path whose name matches.
///
/// A key of a found secret is called `<path>_<key>` in the Secret, where `<path>` is relative to `path`, with `-` for
/// each slash: `value` of `eu/flag-a` becomes `eu-flag-a_value`. `keys` selects and renames by these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.maxDepth) || (has(self.recursive) && self.recursive)")
        .message("maxDepth says how deep to go into folders: set recursive: true, or remove maxDepth")
)]
#[serde(rename_all = "camelCase")]
pub struct FindSource {
    /// Where the engine is mounted.
    #[schemars(length(min = 1, max = 256))]
    pub mount: String,
    /// The folder to look in, without `data/` or `metadata/`. Default: the whole mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// A regular expression (RE2) for the path relative to `path`, such as `^flag-`. Default: every path.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub match_: Option<String>,
    /// Version of the engine, 1 or 2. Default: asked of Vault once per mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2))]
    pub engine_version: Option<i32>,
    /// Look into folders, too. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursive: Option<bool>,
    /// How many folders deep to look; what is deeper is left out. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_depth: Option<i32>,
    /// The most secrets to read, and the most folders to list. More than that is refused, nothing is cut off.
    /// At most 1000. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_secrets: Option<i32>,
}

/// The login of a static role of the database or LDAP engine.
///
/// Gives `username` and `password`, and `dn` (LDAP) or `rsa_private_key` (database) where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticRoleSource {
    /// Where the engine is mounted.
    #[schemars(length(min = 1, max = 256))]
    pub mount: String,
    /// Name of the static role.
    #[schemars(length(min = 1, max = 512))]
    pub role: String,
    /// What is mounted there. Default: asked of Vault once per mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<StaticRoleEngine>,
    /// How soon a rotation made by hand shows. A rotation that Vault announced is followed at once. At least `5s`,
    /// never longer than `refreshInterval`. Default `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_interval: Option<GoDuration>,
}

/// The engines with static roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StaticRoleEngine {
    /// The database engine.
    Database,
    /// The LDAP engine.
    Ldap,
}

/// What an engine issues: credentials of a database, a cloud, a Kubernetes cluster, a message broker.
///
/// A path that answers with a lease is asked once, and the lease is renewed as long as it can be. One that answers
/// without a lease is asked again after each `refreshInterval`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.parameters) || (has(self.method) && self.method == 'POST')")
        .message("parameters are sent in the body of a POST: set method: POST, or remove them")
)]
#[serde(rename_all = "camelCase")]
pub struct DynamicSource {
    /// The whole path, as after `/v1/`, such as `database/creds/checkout`.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// How to ask. Default `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<IssueMethod>,
    /// What to send with a `POST`: any JSON. It is part of the spec, so no place for secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub parameters: Option<Map<String, Value>>,
}

/// How to ask an engine to issue something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum IssueMethod {
    /// `GET`, as most engines want it.
    Get,
    /// `POST`, with parameters.
    Post,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 64, "x-kubernetes-preserve-unknown-fields": true})
}

/// Selects and renames keys. The order is: include, exclude, rename, prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeysSpec {
    /// Take only these keys; `*` stands for any run of characters. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub include: Vec<String>,
    /// Leave these keys out; `*` stands for any run of characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude: Vec<String>,
    /// Put in front of each key that is not renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub prefix: Option<String>,
    /// New names, by old name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$"}))]
    pub rename: BTreeMap<String, String>,
}

/// One source as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Name of the source.
    pub name: String,
    /// Kind of the source.
    pub kind: SourceKind,
    /// Version of the secret (version 2 engines).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// How long what it holds was granted for; absent for what has no lease and is polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_duration: Option<String>,
    /// Whether its lease is renewed; otherwise it is replaced before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable: Option<bool>,
    /// Serial number of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// When it ends, for what cannot be renewed; of a certificate, by Vault's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_expires: Option<Time>,
    /// When Vault last changed the password (static roles).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<Time>,
}

/// The kinds of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceKind {
    /// A secret of a key-value engine.
    Kv,
    /// Something an engine issues.
    Dynamic,
    /// A certificate.
    Pki,
    /// Secrets of a key-value engine below a path.
    Find,
    /// The login of a static role.
    StaticRole,
}
