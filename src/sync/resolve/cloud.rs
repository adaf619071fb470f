//! Pure: logins with identities of clouds, checked.

use super::{
    Lookup,
    method::{Home, Method, SecretKey},
};
use crate::{
    api::{
        cloud_login::{
            AwsMethod, AzureCloud, AzureManagedIdentity, AzureMethod, AzureWorkloadIdentity,
            GcpMethod, GcpWorkloadIdentity,
        },
        refs::ServiceAccountRef,
        vault_auth::IdentityFrom,
    },
    cloud::{aws, azure, gcp},
    names::ObjectKey,
};

/// How to log in with an identity of a cloud. What is `None` stands in an annotation of the ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloudLogin {
    /// With a request that was signed with keys of AWS.
    Aws {
        /// Role of the auth method.
        role: String,
        /// What is signed for.
        region: aws::Region,
        /// What Vault expects in its header.
        server_id: Option<String>,
        /// What is signed with.
        keys: AwsKeys,
    },
    /// With a JWT of a service account of Google.
    Gcp {
        /// Role of the auth method.
        role: String,
        /// Who signs it.
        signer: GcpSigner,
    },
    /// With an access token of Entra ID.
    Azure {
        /// Role of the auth method.
        role: String,
        /// What the token is for.
        resource: String,
        /// What the role may be bound to.
        machine: azure::Machine,
        /// Where the token comes from.
        token: AzureToken,
    },
}

/// Where keys of AWS come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AwsKeys {
    /// They stand in a Secret.
    Secret {
        /// The Secret.
        secret: ObjectKey,
        /// Version of the Secret; `None` when it does not exist.
        version: Option<String>,
    },
    /// AWS gives them for a token.
    Assumed {
        /// Whose token.
        service_account: ObjectKey,
        /// The role of AWS.
        role_arn: Option<String>,
    },
}

/// Who signs a JWT for a service account of Google.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GcpSigner {
    /// We, with its key.
    Key(SecretKey),
    /// Google, for a token.
    Google {
        /// Whose token.
        service_account: ObjectKey,
        /// Who vouches for it.
        provider: gcp::Provider,
        /// The service account of Google.
        email: Option<String>,
    },
}

/// Where an access token of Entra ID comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AzureToken {
    /// Entra ID gives it for another token.
    Federated {
        /// Whose token.
        service_account: ObjectKey,
        /// The application.
        client_id: Option<String>,
        /// Its tenant.
        tenant_id: Option<String>,
        /// Where the tenant is.
        cloud: azure::Cloud,
    },
    /// The machine has it.
    Managed {
        /// Which of its identities.
        client_id: Option<String>,
    },
}

impl CloudLogin {
    /// Where it is mounted when nothing is said.
    pub(super) fn usual_mount(&self) -> &'static str {
        match self {
            Self::Aws { .. } => "aws",
            Self::Gcp { .. } => "gcp",
            Self::Azure { .. } => "azure",
        }
    }

    /// Who logs in, for messages.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Aws {
                keys: AwsKeys::Secret { secret, .. },
                ..
            }
            | Self::Gcp {
                signer: GcpSigner::Key(SecretKey { secret, .. }),
                ..
            } => format!("Secret {secret}"),
            Self::Aws {
                keys: AwsKeys::Assumed {
                    service_account, ..
                },
                ..
            }
            | Self::Gcp {
                signer:
                    GcpSigner::Google {
                        service_account, ..
                    },
                ..
            }
            | Self::Azure {
                token:
                    AzureToken::Federated {
                        service_account, ..
                    },
                ..
            } => format!("ServiceAccount {service_account}"),
            Self::Azure {
                token: AzureToken::Managed { .. },
                ..
            } => "the managed identity of the operator's machine".to_owned(),
        }
    }

    /// What to look at when Vault refuses the login.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Aws { role, .. } => format!(
                "check spec.aws: role {role} must exist and take this user or role of AWS, serverIdHeader must be what Vault expects, region the one whose STS Vault asks, and the keys valid"
            ),
            Self::Gcp { role, .. } => format!(
                "check spec.gcp: role {role} must exist, be of type iam, and take this service account of Google"
            ),
            Self::Azure { role, resource, .. } => format!(
                "check spec.azure: role {role} must exist and take this identity, and resource {resource} be the one that Vault was told"
            ),
        }
    }
}

/// `value` as `check` takes it, or what is wrong with `field`.
fn checked(
    field: &str,
    value: Option<&str>,
    check: impl FnOnce(&str) -> Result<(), &'static str>,
) -> Result<Option<String>, String> {
    match value.map(check) {
        Some(Err(wanted)) => Err(format!("{field} {wanted}")),
        Some(Ok(())) | None => Ok(value.map(str::to_owned)),
    }
}

impl<L: Lookup> Home<'_, L> {
    pub(super) fn aws(&self, method: &AwsMethod) -> Result<Method, String> {
        let AwsMethod {
            role,
            region,
            service_account_ref,
            role_arn,
            secret_ref,
            server_id_header,
        } = method;
        let region = region.as_deref().map(aws::Region::parse).transpose();
        let region = region.map_err(|wanted| format!("spec.aws.region {wanted}"))?;
        let role_arn = checked("spec.aws.roleArn", role_arn.as_deref(), aws::check_role_arn)?;
        let keys = match (service_account_ref, secret_ref) {
            (Some(account), None) => AwsKeys::Assumed {
                service_account: self.cloud_account(account)?,
                role_arn,
            },
            (None, Some(reference)) => {
                let namespace = self.namespace(reference.namespace.as_deref())?;
                let secret = ObjectKey::new(namespace, &reference.name);
                AwsKeys::Secret {
                    version: self.lookup.secret_version(&secret),
                    secret,
                }
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(
                    "spec.aws needs exactly one of serviceAccountRef and secretRef".to_owned(),
                );
            }
        };
        Ok(Method::Cloud(CloudLogin::Aws {
            role: role.clone(),
            region: region.unwrap_or_default(),
            server_id: server_id_header.clone(),
            keys,
        }))
    }

    pub(super) fn gcp(&self, method: &GcpMethod) -> Result<Method, String> {
        let GcpMethod {
            role,
            service_account_ref,
            workload_identity,
            secret_ref,
        } = method;
        let signer = match (service_account_ref, workload_identity, secret_ref) {
            (None, None, Some(key)) => GcpSigner::Key(self.secret(key)?),
            (Some(account), Some(identity), None) => {
                let (provider, email) = google(identity)?;
                GcpSigner::Google {
                    service_account: self.cloud_account(account)?,
                    provider,
                    email,
                }
            }
            (_, _, _) => {
                return Err(
                    "spec.gcp needs either serviceAccountRef and workloadIdentity, or secretRef"
                        .to_owned(),
                );
            }
        };
        Ok(Method::Cloud(CloudLogin::Gcp {
            role: role.clone(),
            signer,
        }))
    }

    pub(super) fn azure(&self, method: &AzureMethod) -> Result<Method, String> {
        let AzureMethod {
            role,
            resource,
            service_account_ref,
            workload_identity,
            managed_identity,
            subscription_id,
            resource_group_name,
            vm_name,
            vmss_name,
            resource_id,
        } = method;
        let token = match (service_account_ref, workload_identity, managed_identity) {
            (Some(account), identity, None) => {
                let account = self.cloud_account(account)?;
                federated(account, identity.clone().unwrap_or_default())?
            }
            (None, None, Some(identity)) => self.managed(identity)?,
            (_, _, _) => {
                return Err(
                    "spec.azure needs either serviceAccountRef, or managedIdentity without workloadIdentity"
                        .to_owned(),
                );
            }
        };
        Ok(Method::Cloud(CloudLogin::Azure {
            role: role.clone(),
            resource: resource.clone(),
            machine: azure::Machine {
                subscription_id: subscription_id.clone(),
                resource_group_name: resource_group_name.clone(),
                vm_name: vm_name.clone(),
                vmss_name: vmss_name.clone(),
                resource_id: resource_id.clone(),
            },
            token,
        }))
    }

    fn cloud_account(&self, named: &ServiceAccountRef) -> Result<ObjectKey, String> {
        let namespace = self.namespace(named.namespace.as_deref())?;
        Ok(ObjectKey::new(namespace, &named.name))
    }

    /// The machine is the operator's. A tenant with it could hand its token to a server of the tenant's own, so it is
    /// for logins alone that an administrator made for all.
    fn managed(&self, identity: &AzureManagedIdentity) -> Result<AzureToken, String> {
        match self.identity_from {
            IdentityFrom::Fixed => Ok(AzureToken::Managed {
                client_id: checked(
                    "spec.azure.managedIdentity.clientId",
                    identity.client_id.as_deref(),
                    azure::check_id,
                )?,
            }),
            IdentityFrom::Consumer => Err("spec.azure.managedIdentity is the identity of the machine that the operator runs on; use a ClusterVaultAuth with identityFrom: Fixed".to_owned()),
        }
    }
}

fn google(identity: &GcpWorkloadIdentity) -> Result<(gcp::Provider, Option<String>), String> {
    let GcpWorkloadIdentity {
        provider,
        gke_cluster,
        service_account_email,
    } = identity;
    let provider = match (provider, gke_cluster) {
        (Some(name), None) => gcp::Provider::pool(name)
            .map_err(|wanted| format!("spec.gcp.workloadIdentity.provider {wanted}")),
        (None, Some(name)) => gcp::Provider::gke(name)
            .map_err(|wanted| format!("spec.gcp.workloadIdentity.gkeCluster {wanted}")),
        (Some(_), Some(_)) | (None, None) => {
            Err("spec.gcp.workloadIdentity needs exactly one of provider and gkeCluster".to_owned())
        }
    };
    let field = "spec.gcp.workloadIdentity.serviceAccountEmail";
    let email = checked(field, service_account_email.as_deref(), gcp::check_email)?;
    Ok((provider?, email))
}

fn federated(
    service_account: ObjectKey,
    identity: AzureWorkloadIdentity,
) -> Result<AzureToken, String> {
    let AzureWorkloadIdentity {
        client_id,
        tenant_id,
        cloud,
    } = identity;
    let field = |name: &str| format!("spec.azure.workloadIdentity.{name}");
    Ok(AzureToken::Federated {
        service_account,
        client_id: checked(&field("clientId"), client_id.as_deref(), azure::check_id)?,
        tenant_id: checked(&field("tenantId"), tenant_id.as_deref(), azure::check_id)?,
        cloud: match cloud {
            Some(AzureCloud::Public) | None => azure::Cloud::Public,
            Some(AzureCloud::USGovernment) => azure::Cloud::UsGovernment,
            Some(AzureCloud::China) => azure::Cloud::China,
        },
    })
}
