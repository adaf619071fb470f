//! Effects: apiserver, clouds. Fetches what a login with an identity of a cloud needs.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use tokio::time::timeout;

use super::{Credentials, LIMIT, edit, retry, secret_data, value_of};
use crate::{
    cloud::{aws, azure, exchange, gcp},
    names::ObjectKey,
    sensitive::Sensitive,
    sync::resolve::{
        cloud::{AwsKeys, AzureToken, CloudLogin, GcpSigner},
        method::Account,
    },
    vault::{
        identity::{CredentialError, LoginMethod},
        path::MountPath,
    },
};

/// Lifetime of the token that a cloud takes for one of its own; the shortest that the apiserver gives.
const TOKEN_LIVES: Duration = Duration::from_mins(10);

/// The keys of a Secret with keys of AWS.
const ACCESS_KEY_ID: &str = "access_key_id";
const SECRET_ACCESS_KEY: &str = "secret_access_key";
const SESSION_TOKEN: &str = "session_token";

type Annotations = BTreeMap<String, String>;

/// Says what is wanted of a value that is not like that.
type Check = fn(&str) -> Result<(), &'static str>;

impl Credentials {
    pub(super) async fn cloud(
        &self,
        mount: MountPath,
        login: &CloudLogin,
    ) -> Result<LoginMethod, CredentialError> {
        match login {
            CloudLogin::Aws {
                role,
                region,
                server_id,
                keys,
            } => {
                let keys = self.aws_keys(keys, region).await?;
                let server_id = server_id.as_deref();
                Ok(LoginMethod::Aws {
                    mount,
                    role: role.clone(),
                    identity: aws::caller_identity(&keys, region, server_id, clock())?,
                })
            }
            CloudLogin::Gcp { role, signer } => Ok(LoginMethod::Jwt {
                mount,
                role: role.clone(),
                jwt: self.gcp_jwt(signer, role).await?,
            }),
            CloudLogin::Azure {
                role,
                resource,
                machine,
                token,
            } => Ok(LoginMethod::Azure {
                mount,
                role: role.clone(),
                jwt: self.azure_token(token, resource).await?,
                machine: machine.clone(),
            }),
        }
    }

    async fn aws_keys(
        &self,
        keys: &AwsKeys,
        region: &aws::Region,
    ) -> Result<aws::Keys, CredentialError> {
        let (account, role_arn) = match keys {
            AwsKeys::Secret { secret, version: _ } => {
                let mut data = secret_data(&self.client, secret).await?;
                let session = data.contains_key(SESSION_TOKEN);
                let mut value = |key| value_of(&mut data, secret, key);
                return Ok(aws::Keys {
                    id: value(ACCESS_KEY_ID)?,
                    secret: value(SECRET_ACCESS_KEY)?,
                    session: session.then(|| value(SESSION_TOKEN)).transpose()?,
                });
            }
            AwsKeys::Assumed {
                service_account,
                role_arn,
            } => (service_account, role_arn),
        };
        let place = (aws::ROLE_ARN, "spec.aws.roleArn");
        let role_arn = self
            .named(role_arn.as_ref(), account, place, aws::check_role_arn)
            .await?;
        let token = self.cloud_token(account, aws::AUDIENCE).await?;
        let endpoints = &self.clouds.endpoints;
        let exchange = aws::assume_role(endpoints, region, &role_arn, account, &token)?;
        self.clouds.ask(&exchange, "keys", aws::assumed_keys).await
    }

    async fn gcp_jwt(&self, signer: &GcpSigner, role: &str) -> Result<Sensitive, CredentialError> {
        let (account, provider, email) = match signer {
            GcpSigner::Key(place) => {
                let file = self.secret_value(place).await?;
                let key = gcp::Key::parse(&file).map_err(|what| {
                    edit(format!(
                        "key {} of Secret {} is not the key of a Google service account: {what}",
                        place.key, place.secret
                    ))
                })?;
                return key.sign(role, clock());
            }
            GcpSigner::Google {
                service_account,
                provider,
                email,
            } => (service_account, provider, email),
        };
        let field = "spec.gcp.workloadIdentity.serviceAccountEmail";
        let place = (gcp::SERVICE_ACCOUNT, field);
        let email = self
            .named(email.as_ref(), account, place, gcp::check_email)
            .await?;
        let token = self
            .cloud_token(account, &provider.token_audience())
            .await?;
        let endpoints = &self.clouds.endpoints;
        let exchange = gcp::access_token(endpoints, provider, &token)?;
        let access = self
            .clouds
            .ask(&exchange, "a token", exchange::granted)
            .await?;
        let exchange = gcp::sign_jwt(endpoints, &email, role, &access, clock())?;
        self.clouds.ask(&exchange, "a JWT", gcp::signed).await
    }

    async fn azure_token(
        &self,
        token: &AzureToken,
        resource: &str,
    ) -> Result<Sensitive, CredentialError> {
        let endpoints = &self.clouds.endpoints;
        let exchange = match token {
            AzureToken::Managed { client_id } => {
                azure::managed(endpoints, resource, client_id.as_deref())?
            }
            AzureToken::Federated {
                service_account: account,
                client_id,
                tenant_id,
                cloud,
            } => {
                let annotations = match (client_id, tenant_id) {
                    (Some(_), Some(_)) => Annotations::new(),
                    (_, _) => self.annotations(account).await?,
                };
                let named = |value: &Option<String>, name, field| match value {
                    Some(value) => Ok(value.clone()),
                    None => annotation(&annotations, account, (name, field), azure::check_id),
                };
                let client = azure::Client {
                    id: &named(
                        client_id,
                        azure::CLIENT_ID,
                        "spec.azure.workloadIdentity.clientId",
                    )?,
                    tenant: &named(
                        tenant_id,
                        azure::TENANT_ID,
                        "spec.azure.workloadIdentity.tenantId",
                    )?,
                    cloud: *cloud,
                };
                let token = self.cloud_token(account, azure::AUDIENCE).await?;
                azure::federated(endpoints, client, resource, &token)?
            }
        };
        self.clouds
            .ask(&exchange, "a token", exchange::granted)
            .await
    }

    /// What the login says, or else the annotation at `place`.
    async fn named(
        &self,
        value: Option<&String>,
        account: &ObjectKey,
        place: (&str, &str),
        check: Check,
    ) -> Result<String, CredentialError> {
        if let Some(value) = value {
            return Ok(value.clone());
        }
        annotation(&self.annotations(account).await?, account, place, check)
    }

    /// A token for a cloud alone.
    async fn cloud_token(
        &self,
        account: &ObjectKey,
        audience: &str,
    ) -> Result<Sensitive, CredentialError> {
        let account = Account {
            key: account.clone(),
            audiences: vec![audience.to_owned()],
            ttl: TOKEN_LIVES,
        };
        self.service_account_token(&account).await
    }

    async fn annotations(&self, account: &ObjectKey) -> Result<Annotations, CredentialError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace);
        match timeout(LIMIT, api.get_opt(&account.name)).await {
            Ok(Ok(Some(found))) => Ok(found.metadata.annotations.unwrap_or_default()),
            Ok(Ok(None)) => Err(edit(format!(
                "there is no ServiceAccount {account}; create it or correct the reference"
            ))),
            Ok(Err(kube::Error::Api(status))) => Err(retry(format!(
                "cannot read ServiceAccount {account}: the apiserver says {} ({})",
                status.reason, status.code
            ))),
            Ok(Err(_)) | Err(_) => Err(retry(format!(
                "cannot read ServiceAccount {account}: the apiserver cannot be reached"
            ))),
        }
    }
}

/// The annotation called `name`, which `field` of the login could stand in for.
///
/// Tried again when it is missing: nothing tells us that it was added.
fn annotation(
    annotations: &Annotations,
    account: &ObjectKey,
    (name, field): (&str, &str),
    check: Check,
) -> Result<String, CredentialError> {
    let value = annotations.get(name).ok_or_else(|| {
        retry(format!(
            "ServiceAccount {account} has no annotation {name}; add it or set {field}"
        ))
    })?;
    check(value).map_err(|wanted| {
        retry(format!(
            "annotation {name} of ServiceAccount {account} {wanted}"
        ))
    })?;
    Ok(value.clone())
}

/// The time that signatures and tokens are made out for.
#[expect(
    clippy::disallowed_methods,
    reason = "a login happens when it is asked for, in no pass"
)]
fn clock() -> Timestamp {
    Timestamp::now()
}
