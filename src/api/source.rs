//! Pure: the kinds of source a `VaultSecret` can name, and what its status says of each.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One secret in Vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("[has(self.kv)].filter(x, x).size() == 1").message("each source needs exactly one kind: set kv")
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
}

/// The kinds of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceKind {
    /// A key-value engine.
    Kv,
}
