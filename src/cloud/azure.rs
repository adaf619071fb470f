//! Pure: Azure. A login to Vault is an access token of Entra ID for the resource that Vault was told.

use http::Method;
use serde::Serialize;
use url::form_urlencoded;

use super::{
    endpoints::{Endpoints, Service},
    exchange::{Exchange, form, text},
};
use crate::{
    sensitive::Sensitive,
    vault::identity::{CredentialError, Remedy},
};

/// The audience that Entra ID expects in the token of a `ServiceAccount`.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";
/// The annotation of a `ServiceAccount` that names its client, as Azure's webhook knows it.
pub const CLIENT_ID: &str = "azure.workload.identity/client-id";
/// The annotation of a `ServiceAccount` that names its tenant, as Azure's webhook knows it.
pub const TENANT_ID: &str = "azure.workload.identity/tenant-id";
/// Where each machine of Azure finds its metadata. Nothing but the login of a machine goes there.
const METADATA: &str = "http://169.254.169.254";

/// Which of Azure's clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Cloud {
    /// The public one.
    #[default]
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
}

impl Cloud {
    const fn login(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::UsGovernment => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }
}

/// The machine that a role of Vault may be bound to. See Vault's `POST auth/azure/login`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Machine {
    /// Its subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// Its resource group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group_name: Option<String>,
    /// Its name, for a machine of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_name: Option<String>,
    /// The name of its scale set, for a machine of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmss_name: Option<String>,
    /// The whole id of a resource that is no machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
}

/// Checks the id of a tenant or a client. The error says what is wanted.
///
/// The tenant becomes part of a path, so nothing else than an id may pass.
pub fn check_id(id: &str) -> Result<(), &'static str> {
    let groups: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups
        .iter()
        .all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
    if lengths == [8, 4, 4, 4, 12] && hex {
        Ok(())
    } else {
        Err("must be an id such as 72f988bf-86f1-41af-91ab-2d7cd011db47")
    }
}

/// Who asks Entra ID for a token.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The client's id: an app registration or a managed identity that trusts the cluster.
    pub id: &'a str,
    /// Where the tenant is.
    pub cloud: Cloud,
}

/// Asks Entra ID for an access token for the token of a `ServiceAccount`.
pub fn federated(
    endpoints: &Endpoints,
    client: Client<'_>,
    resource: &str,
    token: &Sensitive,
) -> Result<Exchange, CredentialError> {
    let path = format!("/{}/oauth2/v2.0/token", client.tenant);
    let url = endpoints
        .url(Service::AzureLogin, client.cloud.login(), &path)
        .ok_or_else(no_address)?;
    Ok(Exchange {
        who: "Entra ID",
        advice: format!(
            "check that client {} in tenant {} has a federated credential for this cluster's issuer, the ServiceAccount and the audience {AUDIENCE}, and that {resource} is there",
            client.id, client.tenant
        ),
        method: Method::POST,
        url,
        headers: Vec::new(),
        body: Some(form(&[
            ("grant_type", "client_credentials"),
            ("client_id", client.id),
            // With the slash at the end of a resource, if it has one: the audience of the token keeps it.
            ("scope", &format!("{resource}/.default")),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            (
                "client_assertion",
                text("the token of the ServiceAccount", token)?,
            ),
        ])),
    })
}

/// Asks the machine that the operator runs on for an access token of its managed identity, the one with
/// `client_id` if it has several.
pub fn managed(
    endpoints: &Endpoints,
    resource: &str,
    client_id: Option<&str>,
) -> Result<Exchange, CredentialError> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("api-version", "2018-02-01");
    query.append_pair("resource", resource);
    if let Some(id) = client_id {
        query.append_pair("client_id", id);
    }
    let path = format!("/metadata/identity/oauth2/token?{}", query.finish());
    let url = endpoints
        .url(Service::AzureMetadata, METADATA, &path)
        .ok_or_else(no_address)?;
    Ok(Exchange {
        who: "Azure's metadata service",
        advice: "check that the operator runs on a machine of Azure that has this managed identity"
            .to_owned(),
        method: Method::GET,
        url,
        // Keeps requests away that a proxy or a browser was talked into.
        headers: vec![("metadata", Sensitive::new("true"))],
        body: None,
    })
}

fn no_address() -> CredentialError {
    CredentialError {
        message: "the tenant makes no address".to_owned(),
        remedy: Remedy::Edit,
    }
}

#[cfg(test)]
mod tests;
