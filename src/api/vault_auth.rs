//! Pure: how to log in to Vault, and who may.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    cloud_login::{managed_identity_is_fixed, no_managed_identity},
    login::{
        LoginMethods, exactly_one_method, objects_of_consumer, objects_of_fixed_namespace,
        objects_of_own_namespace,
    },
    refs::ConnectionRef,
};

/// A login for the objects of one namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "VaultAuth",
    namespaced,
    shortname = "vauth",
    category = "lockstep",
    derive = "PartialEq",
    status = "VaultAuthStatus",
    printcolumn(
        name = "Connection",
        type_ = "string",
        json_path = ".spec.connectionRef.name"
    ),
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
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    cel,
    validation = exactly_one_method(),
    validation = objects_of_own_namespace(),
    validation = no_managed_identity()
)]
#[serde(rename_all = "camelCase")]
pub struct VaultAuthSpec {
    /// The connection to log in through.
    pub connection_ref: ConnectionRef,
    /// Namespace of the login in Vault Enterprise or OpenBao, below that of the connection. Sources that name none
    /// are read from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub namespace: Option<String>,
    /// Where the auth method is mounted. Default: what Vault's own documentation mounts it at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub mount: Option<String>,
    /// How to log in.
    #[serde(flatten)]
    pub methods: LoginMethods,
    /// The only paths that may be read with this login, as in Vault's API behind `/v1/`: `secret/data/{{namespace}}/*`.
    /// `{{namespace}}` is the namespace of the VaultSecret, `*` any run of characters, slashes included.
    /// A KV source may be allowed without `data/`, too. Default: every path that Vault allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_paths: Option<Vec<String>>,
}

/// A login that namespaces of the whole cluster may share.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "lockstep.dev",
    version = "v1alpha1",
    kind = "ClusterVaultAuth",
    shortname = "cvauth",
    category = "lockstep",
    derive = "PartialEq",
    status = "VaultAuthStatus",
    printcolumn(
        name = "Connection",
        type_ = "string",
        json_path = ".spec.connectionRef.name"
    ),
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
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    cel,
    validation = exactly_one_method(),
    validation = Rule::new("self.connectionRef.kind == 'ClusterVaultConnection'")
        .message("connectionRef.kind must be ClusterVaultConnection: a cluster-scoped login cannot depend on an object of one namespace"),
    validation = objects_of_consumer(),
    validation = objects_of_fixed_namespace(),
    validation = managed_identity_is_fixed()
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterVaultAuthSpec {
    /// The connection to log in through.
    pub connection_ref: ConnectionRef,
    /// Namespace of the login in Vault Enterprise or OpenBao, below that of the connection. Sources that name none
    /// are read from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub namespace: Option<String>,
    /// Where the auth method is mounted. Default: what Vault's own documentation mounts it at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub mount: Option<String>,
    /// How to log in.
    #[serde(flatten)]
    pub methods: LoginMethods,
    /// The only paths that may be read with this login, as in Vault's API behind `/v1/`: `secret/data/{{namespace}}/*`.
    /// `{{namespace}}` is the namespace of the VaultSecret, `*` any run of characters, slashes included.
    /// A KV source may be allowed without `data/`, too. Default: every path that Vault allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_paths: Option<Vec<String>>,
    /// Whose ServiceAccount or Secret logs in: the consuming `VaultSecret`'s namespace (`Consumer`, the default),
    /// or one and the same for all (`Fixed`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_from: Option<IdentityFrom>,
    /// Which namespaces may use this login. Without it: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

/// Whose ServiceAccount or Secret logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityFrom {
    /// The consuming `VaultSecret`'s namespace: each namespace has its own identity in Vault.
    Consumer,
    /// The namespace named in the reference: one identity for all.
    Fixed,
}

/// Which namespaces may use a ClusterVaultAuth: those named, and those whose labels match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    /// Names; `"*"` allows every namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
    /// Labels of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Selects namespaces by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Every one of these labels must be there with this value.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
}

/// What the operator thinks of the login.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultAuthStatus {
    /// Generation of the spec this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the connection it names is there and allowed. `Stalled`: the spec cannot work as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What both kinds of auth object have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSpec {
    /// See [`VaultAuthSpec::connection_ref`].
    pub connection_ref: ConnectionRef,
    /// See [`VaultAuthSpec::namespace`].
    pub namespace: Option<String>,
    /// See [`VaultAuthSpec::mount`].
    pub mount: Option<String>,
    /// See [`VaultAuthSpec::allowed_paths`].
    pub allowed_paths: Option<Vec<String>>,
    /// See [`VaultAuthSpec::methods`].
    pub methods: LoginMethods,
    /// See [`ClusterVaultAuthSpec::identity_from`]; a `VaultAuth` has one namespace, so the two mean the same there.
    pub identity_from: IdentityFrom,
    /// `None`: the namespace of the object itself. See [`ClusterVaultAuthSpec::allowed_namespaces`].
    pub allowed_namespaces: Option<AllowedNamespaces>,
}

impl From<VaultAuthSpec> for AuthSpec {
    fn from(spec: VaultAuthSpec) -> Self {
        let VaultAuthSpec {
            connection_ref,
            namespace,
            mount,
            allowed_paths,
            methods,
        } = spec;
        Self {
            connection_ref,
            namespace,
            mount,
            allowed_paths,
            methods,
            identity_from: IdentityFrom::Consumer,
            allowed_namespaces: None,
        }
    }
}

impl From<ClusterVaultAuthSpec> for AuthSpec {
    fn from(spec: ClusterVaultAuthSpec) -> Self {
        let ClusterVaultAuthSpec {
            connection_ref,
            namespace,
            mount,
            allowed_paths,
            methods,
            identity_from,
            allowed_namespaces,
        } = spec;
        Self {
            connection_ref,
            namespace,
            mount,
            allowed_paths,
            methods,
            identity_from: identity_from.unwrap_or(IdentityFrom::Consumer),
            allowed_namespaces: Some(allowed_namespaces.unwrap_or_default()),
        }
    }
}
