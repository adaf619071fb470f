//! Azure.

use serde_json::json;

use super::{
    account, answer, is_token_of, login, reads_by, signer::Signer, stage, synced, with_line,
};
use crate::{
    identity::by,
    support::{Asked, StandIn, Team},
};

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const CLIENT: &str = "6731de76-14a6-49ae-97bc-6eba6914391e";
const RESOURCE: &str = "https://management.azure.com/";
const METADATA: &str = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F";

/// `https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow` (third case) and
/// `https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token`.
async fn azure(jwt: String) -> StandIn {
    let exchange = format!("POST /{TENANT}/oauth2/v2.0/token");
    StandIn::start(move |asked: &Asked| {
        let token = json!({"token_type": "Bearer", "expires_in": 3599, "access_token": jwt});
        if asked.line == METADATA && asked.header("metadata") == "true" {
            return answer(200, &token);
        }
        if asked.line == exchange && asked.field("client_id") == CLIENT {
            return answer(200, &token);
        }
        answer(401, &json!({
            "error": "invalid_client",
            "error_description": "AADSTS700213: No matching federated identity record found for presented assertion subject. Trace ID: 0 Correlation ID: 1 Timestamp: 2026-01-01 00:00:00Z",
        }))
    })
    .await
}

#[tokio::test]
async fn an_application_of_azure_logs_in_by_workload_identity_and_a_machine_by_its_own() {
    let signer = Signer::new();
    let times = (1_700_000_000, 4_000_000_000_i64);
    let jwt = signer.jwt(&json!({"sub": CLIENT, "aud": RESOURCE, "iat": times.0, "exp": times.1}));
    let cloud = azure(jwt).await;
    let stage = stage(&cloud, &["azure-login", "azure-metadata"]).await;
    let team = stage.team("azure").await;
    signer.mount(&team, "azure", CLIENT, RESOURCE).await;

    by_workload_identity(&team, &cloud).await;
    by_the_identity_of_the_machine(&team, &cloud).await;
}

async fn by_workload_identity(team: &Team<'_>, cloud: &StandIn) {
    let annotations = json!({
        "azure.workload.identity/client-id": CLIENT, "azure.workload.identity/tenant-id": TENANT,
    });
    account(team, "annotated", annotations).await;
    account(team, "plain", json!({})).await;
    let federated = |account: &str, identity| {
        json!({"azure": {
            "role": "app", "resource": RESOURCE, "serviceAccountRef": {"name": account},
            "workloadIdentity": identity, "subscriptionId": "s",
        }})
    };
    reads_by(team, "annotated", federated("annotated", json!({}))).await;
    synced(team, "annotated").await;
    let named = json!({"clientId": CLIENT, "tenantId": TENANT});
    reads_by(team, "named", federated("plain", named)).await;
    synced(team, "named").await;
    let asked = cloud.asked();
    let exchanges = with_line(&asked, &format!("POST /{TENANT}/oauth2/v2.0/token"));
    for (exchange, account) in [(exchanges[0], "annotated"), (exchanges[1], "plain")] {
        is_token_of(
            &exchange.field("client_assertion"),
            team,
            account,
            "api://AzureADTokenExchange",
        );
        assert_eq!(
            exchange.field("scope"),
            "https://management.azure.com//.default"
        );
    }

    reads_by(
        team,
        "lacking",
        federated("plain", json!({"clientId": CLIENT})),
    )
    .await;
    let told = [
        "has no annotation azure.workload.identity/tenant-id",
        "set spec.azure.workloadIdentity.tenantId",
    ];
    team.unreachable("lacking", "CredentialUnavailable", &told)
        .await;
    let other = json!({"clientId": TENANT, "tenantId": TENANT});
    reads_by(team, "denied", federated("plain", other)).await;
    let told = [
        "Entra ID at 127.0.0.1 answers 401: invalid_client: AADSTS700213: No matching federated identity record found for presented assertion subject.; check that client",
    ];
    team.unreachable("denied", "CredentialUnavailable", &told)
        .await;
}

async fn by_the_identity_of_the_machine(team: &Team<'_>, cloud: &StandIn) {
    let managed = json!({
        "azure": {"role": "app", "resource": RESOURCE, "managedIdentity": {}},
        "identityFrom": "Fixed", "allowedNamespaces": {"names": [team.namespace]},
    });
    login(team, "ClusterVaultAuth", "machine", managed).await;
    team.put("machine", &json!({"k": "machine"})).await;
    team.vault_secret("machine", by("ClusterVaultAuth", "machine"))
        .await;
    synced(team, "machine").await;
    assert_eq!(with_line(&cloud.asked(), METADATA).len(), 1);
}
