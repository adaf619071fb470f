//! Pure: the login methods that show an identity of a cloud, and the rules the apiserver checks of them.
//!
//! None has a field for an address: a login sends credentials there.

use kube::{KubeSchema, core::Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::refs::{SecretKeyRef, SecretRef, ServiceAccountRef};

/// The form of the ids of Entra ID.
const UUID_PATTERN: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

pub(super) fn no_managed_identity() -> Rule {
    Rule::new("!has(self.azure) || !has(self.azure.managedIdentity)")
        .message("azure.managedIdentity is the identity of the machine that the operator runs on: use a ClusterVaultAuth with identityFrom: Fixed")
}

pub(super) fn managed_identity_is_fixed() -> Rule {
    Rule::new("!has(self.azure) || !has(self.azure.managedIdentity) || (has(self.identityFrom) && self.identityFrom == 'Fixed')")
        .message("azure.managedIdentity is one identity for all namespaces: set identityFrom: Fixed")
}

/// Log in as a user or role of AWS. See Vault's `POST auth/aws/login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.serviceAccountRef) != has(self.secretRef)")
        .message("exactly one of serviceAccountRef and secretRef must be set"),
    validation = Rule::new("has(self.serviceAccountRef) || !has(self.roleArn)")
        .message("roleArn cannot be set with secretRef: the keys are used as they are")
)]
#[serde(rename_all = "camelCase")]
pub struct AwsMethod {
    /// Role of the auth method.
    #[schemars(length(min = 1, max = 256))]
    pub role: String,
    /// Region whose STS is asked, and that the login is signed for: the one Vault asks. Default: the global endpoint
    /// of the public partition, as Vault does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = "^[a-z]+(-[a-z]+)+-[0-9]{1,2}$")
    )]
    pub region: Option<String>,
    /// The ServiceAccount whose token AWS takes for keys of a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
    /// ARN of the role of AWS. Default: the annotation `eks.amazonaws.com/role-arn` of the ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 20, max = 2048),
        regex(pattern = "^arn:aws[a-z-]*:iam::[0-9]{12}:role/.+$")
    )]
    pub role_arn: Option<String>,
    /// The Secret that holds keys, as `access_key_id`, `secret_access_key` and, for keys that end, `session_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// What Vault expects in the header `X-Vault-AWS-IAM-Server-ID`: its `iam_server_id_header_value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[!-~]+$"))]
    pub server_id_header: Option<String>,
}

/// Log in as a service account of Google Cloud. See Vault's `POST auth/gcp/login`, type `iam`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.serviceAccountRef) != has(self.secretRef)")
        .message("exactly one of serviceAccountRef and secretRef must be set"),
    validation = Rule::new("has(self.serviceAccountRef) == has(self.workloadIdentity)")
        .message("workloadIdentity is required with serviceAccountRef, and cannot be set with secretRef")
)]
#[serde(rename_all = "camelCase")]
pub struct GcpMethod {
    /// Role of the auth method.
    #[schemars(length(min = 1, max = 256))]
    pub role: String,
    /// The ServiceAccount whose token Google takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
    /// What Google knows of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<GcpWorkloadIdentity>,
    /// The Secret that holds the key of the service account: the JSON file that Google makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// What Google knows of this cluster, and whom its ServiceAccount may act as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.provider) != has(self.gkeCluster)")
        .message("exactly one of provider and gkeCluster must be set")
)]
#[serde(rename_all = "camelCase")]
pub struct GcpWorkloadIdentity {
    /// The provider of a workload identity pool:
    /// `projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub provider: Option<String>,
    /// This cluster, for GKE with workload identity: `projects/<project>/locations/<location>/clusters/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub gke_cluster: Option<String>,
    /// Address of the service account of Google. Default: the annotation `iam.gke.io/gcp-service-account` of the
    /// ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub service_account_email: Option<String>,
}

/// Log in as an application or machine of Azure. See Vault's `POST auth/azure/login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.serviceAccountRef) != has(self.managedIdentity)")
        .message("exactly one of serviceAccountRef and managedIdentity must be set"),
    validation = Rule::new("has(self.serviceAccountRef) || !has(self.workloadIdentity)")
        .message("workloadIdentity cannot be set with managedIdentity")
)]
#[serde(rename_all = "camelCase")]
pub struct AzureMethod {
    /// Role of the auth method.
    #[schemars(length(min = 1, max = 256))]
    pub role: String,
    /// What the token is for: the `resource` of Vault's auth method, to the last slash.
    #[schemars(length(min = 1, max = 256))]
    pub resource: String,
    /// The ServiceAccount whose token Entra ID takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
    /// What Entra ID knows of the ServiceAccount. Default: what its annotations say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<AzureWorkloadIdentity>,
    /// The identity of the machine that the operator runs on. Only on a ClusterVaultAuth with `identityFrom: Fixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_identity: Option<AzureManagedIdentity>,
    /// Subscription of the machine, if the role is bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub subscription_id: Option<String>,
    /// Resource group of the machine, if the role is bound to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub resource_group_name: Option<String>,
    /// Name of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub vm_name: Option<String>,
    /// Name of the scale set of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub vmss_name: Option<String>,
    /// Full id of a resource that is no machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub resource_id: Option<String>,
}

/// What Entra ID knows of a ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureWorkloadIdentity {
    /// Client id of the application or identity that trusts the ServiceAccount. Default: its annotation
    /// `azure.workload.identity/client-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36), regex(pattern = UUID_PATTERN))]
    pub client_id: Option<String>,
    /// Tenant of the application. Default: the annotation `azure.workload.identity/tenant-id` of the ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36), regex(pattern = UUID_PATTERN))]
    pub tenant_id: Option<String>,
    /// Which of Azure's clouds the tenant is in. Default: `Public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<AzureCloud>,
}

/// Which of Azure's clouds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AzureCloud {
    /// The public one.
    Public,
    /// Azure Government.
    USGovernment,
    /// Azure operated by 21Vianet.
    China,
}

/// The identity of the machine that the operator runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureManagedIdentity {
    /// Client id of the identity, for a machine that has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36), regex(pattern = UUID_PATTERN))]
    pub client_id: Option<String>,
}
