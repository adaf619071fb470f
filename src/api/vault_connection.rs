//! Pure: where Vault is and how to trust it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    duration::GoDuration,
    refs::{ConfigMapKeyRef, SecretKeyRef, SecretRef},
};

/// Names no header of a request that the operator sets itself, or that HTTP/1.1 keeps for each connection.
/// The same names are refused in `connection::resolve`.
const HEADERS_RULE: &str = r"self.all(name, !name.matches('^(?i)(x-vault-(token|namespace|request|wrap-ttl)|authorization|proxy-.*|host|content-.*|accept-encoding|range|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect)$'))";

/// Says nothing of TLS beside an address without it. The same is refused in `connection::resolve`.
const TLS_RULE: &str = "!self.address.startsWith('http://') || !has(self.tls) || !(has(self.tls.ca) || has(self.tls.clientCertificate) || has(self.tls.serverName) || (has(self.tls.insecureSkipVerify) && self.tls.insecureSkipVerify))";
/// What to do about it.
const TLS_MESSAGE: &str = "tls: TLS is not spoken to an address that begins with http://; use https:// in address, or remove tls";

/// Where a Vault or OpenBao server is, for the objects of one namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "VaultConnection",
    namespaced,
    shortname = "vconn",
    category = "lockstep",
    derive = "PartialEq",
    status = "VaultConnectionStatus",
    selectable = ".spec.address",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.tls) || !has(self.tls.ca) || !((has(self.tls.ca.secret) && has(self.tls.ca.secret.__namespace__)) || (has(self.tls.ca.configMap) && has(self.tls.ca.configMap.__namespace__)))")
        .message("tls.ca: namespace cannot be set on a VaultConnection, which reads only its own namespace; remove it or use a ClusterVaultConnection"),
    validation = Rule::new("!has(self.tls) || !has(self.tls.clientCertificate) || !has(self.tls.clientCertificate.__namespace__)")
        .message("tls.clientCertificate: namespace cannot be set on a VaultConnection, which reads only its own namespace; remove it or use a ClusterVaultConnection"),
    validation = Rule::new(TLS_RULE).message(TLS_MESSAGE)
)]
#[serde(rename_all = "camelCase")]
pub struct VaultConnectionSpec {
    /// URL of the server, such as `https://vault.vault.svc:8200`. A path prefix is kept.
    #[schemars(
        length(min = 8, max = 2048),
        regex(pattern = r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")
    )]
    pub address: String,
    /// Namespace in Vault Enterprise or OpenBao, such as `admin`. The namespaces that logins and sources name are
    /// below it, and theirs is this one if they name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub namespace: Option<String>,
    /// How to verify the server, and how it verifies us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// How long one request may take. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Sent with every request, for what stands in front of Vault. Not for secrets: whoever may read this object
    /// reads them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new(HEADERS_RULE).message("headers: the operator sets the headers of the token, the namespace, the body and the connection itself; remove X-Vault-Token, X-Vault-Namespace, X-Vault-Request, X-Vault-Wrap-TTL, Authorization, Host, Content-*, Transfer-Encoding and the like"))]
    pub headers: BTreeMap<String, String>,
    /// How much is asked of the server at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
}

/// Where a Vault or OpenBao server is, for the whole cluster.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "ClusterVaultConnection",
    shortname = "cvconn",
    category = "lockstep",
    derive = "PartialEq",
    status = "VaultConnectionStatus",
    selectable = ".spec.address",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.tls) || !has(self.tls.ca) || ((!has(self.tls.ca.secret) || has(self.tls.ca.secret.__namespace__)) && (!has(self.tls.ca.configMap) || has(self.tls.ca.configMap.__namespace__)))")
        .message("tls.ca: namespace is required on a ClusterVaultConnection"),
    validation = Rule::new("!has(self.tls) || !has(self.tls.clientCertificate) || has(self.tls.clientCertificate.__namespace__)")
        .message("tls.clientCertificate: namespace is required on a ClusterVaultConnection"),
    validation = Rule::new(TLS_RULE).message(TLS_MESSAGE)
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterVaultConnectionSpec {
    /// URL of the server, such as `https://vault.vault.svc:8200`. A path prefix is kept.
    #[schemars(
        length(min = 8, max = 2048),
        regex(pattern = r"^https?://[^/?#@\s]+(/[^?#\s]*)?$")
    )]
    pub address: String,
    /// Namespace in Vault Enterprise or OpenBao, such as `admin`. The namespaces that logins and sources name are
    /// below it, and theirs is this one if they name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub namespace: Option<String>,
    /// How to verify the server, and how it verifies us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// How long one request may take. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Sent with every request, for what stands in front of Vault. Not for secrets: whoever may read this object
    /// reads them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new(HEADERS_RULE).message("headers: the operator sets the headers of the token, the namespace, the body and the connection itself; remove X-Vault-Token, X-Vault-Namespace, X-Vault-Request, X-Vault-Wrap-TTL, Authorization, Host, Content-*, Transfer-Encoding and the like"))]
    pub headers: BTreeMap<String, String>,
    /// How much is asked of the server at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
}

/// How much is asked of a server at once. Requests beyond it wait, in the order they came; renewals go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Requests in a second. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second: Option<u32>,
    /// Requests that wait for their answer at the same time. Default `32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_in_flight: Option<u32>,
}

/// How to verify the server, and how it verifies us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// The only certificate authorities to trust. Without it, the system's are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSpec>,
    /// The Secret of type `kubernetes.io/tls` with the certificate and key that we show to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<SecretRef>,
    /// The name that the server's certificate has to be for, and that it is asked for under (SNI, `Host`).
    /// Default: the host of `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$")
    )]
    pub server_name: Option<String>,
    /// Do not verify the server at all. Refused unless the operator runs with `--allow-insecure-tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// Where the certificate authorities stand, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("[has(self.secret), has(self.configMap), has(self.bundle)].filter(x, x).size() == 1")
        .message("exactly one of secret, configMap and bundle must be set")
)]
#[serde(rename_all = "camelCase")]
pub struct CaSpec {
    /// In a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKeyRef>,
    /// In a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKeyRef>,
    /// Right here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub bundle: Option<String>,
}

/// What the operator last saw of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultConnectionStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: reachable, initialised and unsealed. `Stalled`: the spec cannot work as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the server is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<bool>,
    /// Whether the server that answered is a standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<bool>,
}

/// What both kinds of connection have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSpec {
    /// See [`VaultConnectionSpec::address`].
    pub address: String,
    /// See [`VaultConnectionSpec::namespace`].
    pub namespace: Option<String>,
    /// See [`VaultConnectionSpec::tls`].
    pub tls: Option<TlsSpec>,
    /// See [`VaultConnectionSpec::timeout`].
    pub timeout: Option<GoDuration>,
    /// See [`VaultConnectionSpec::headers`].
    pub headers: BTreeMap<String, String>,
    /// See [`VaultConnectionSpec::limits`].
    pub limits: Option<LimitsSpec>,
}

impl From<VaultConnectionSpec> for ConnectionSpec {
    fn from(spec: VaultConnectionSpec) -> Self {
        let VaultConnectionSpec {
            address,
            namespace,
            tls,
            timeout,
            headers,
            limits,
        } = spec;
        Self {
            address,
            namespace,
            tls,
            timeout,
            headers,
            limits,
        }
    }
}

impl From<ClusterVaultConnectionSpec> for ConnectionSpec {
    fn from(spec: ClusterVaultConnectionSpec) -> Self {
        let ClusterVaultConnectionSpec {
            address,
            namespace,
            tls,
            timeout,
            headers,
            limits,
        } = spec;
        Self {
            address,
            namespace,
            tls,
            timeout,
            headers,
            limits,
        }
    }
}
