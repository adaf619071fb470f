//! Google Cloud.

use std::sync::Arc;

use serde_json::json;

use super::{
    account, answer, credential, is_token_of, reads_by, signer::Signer, stage, synced, with_line,
};
use crate::support::{Asked, StandIn, Team};

const EMAIL: &str = "app@shop.iam.gserviceaccount.com";
const PROVIDER: &str =
    "projects/123456789012/locations/global/workloadIdentityPools/k8s/providers/prod";
const CLUSTER: &str = "projects/shop/locations/europe-west1/clusters/prod";

/// `https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token` and
/// `https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signJwt`.
async fn google(signer: Arc<Signer>) -> StandIn {
    let sign = format!("POST /v1/projects/-/serviceAccounts/{EMAIL}:signJwt");
    StandIn::start(move |asked: &Asked| {
        if asked.line == "POST /v1/token" {
            return answer(200, &json!({
                "access_token": "ya29.federated", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "token_type": "Bearer", "expires_in": 3599,
            }));
        }
        if asked.line != sign || asked.header("authorization") != "Bearer ya29.federated" {
            return answer(403, &json!({"error": {
                "code": 403, "status": "PERMISSION_DENIED",
                "message": "Permission 'iam.serviceAccounts.signJwt' denied on resource (or it may not exist).",
            }}));
        }
        let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
        let payload = serde_json::from_str(body["payload"].as_str().unwrap()).unwrap();
        answer(200, &json!({"keyId": "1", "signedJwt": signer.jwt(&payload)}))
    })
    .await
}

#[tokio::test]
async fn a_google_service_account_logs_in_by_its_key_and_by_workload_identity() {
    let signer = Arc::new(Signer::new());
    let cloud = google(Arc::clone(&signer)).await;
    let stage = stage(&cloud, &["gcp-sts", "gcp-iam"]).await;
    let team = stage.team("gcp").await;
    signer.mount(&team, "gcp", EMAIL, "vault/app").await;

    by_key(&team, &cloud, &signer).await;
    by_workload_identity(&team, &cloud).await;
}

/// The method with these fields.
fn gcp(fields: &serde_json::Value) -> serde_json::Value {
    json!({"gcp": fields})
}

async fn by_key(team: &Team<'_>, cloud: &StandIn, signer: &Signer) {
    let by_key = |key: &str| gcp(&json!({"role": "app", "secretRef": {"name": "key", "key": key}}));
    let file = json!({
        "type": "service_account", "client_email": EMAIL, "private_key_id": "1",
        "private_key": signer.private_pem(),
    });
    let keys =
        json!({"key.json": file.to_string(), "broken.json": "{\"type\": \"authorized_user\"}"});
    credential(team, "key", keys).await;
    reads_by(team, "by-key", by_key("key.json")).await;
    synced(team, "by-key").await;
    assert_eq!(cloud.asked().len(), 0, "the key signs here");
    reads_by(team, "broken", by_key("broken.json")).await;
    let told = [
        "key broken.json of Secret",
        "is not the key of a Google service account: its type is authorized_user, not service_account",
    ];
    team.unreachable("broken", "CredentialUnavailable", &told)
        .await;
}

async fn by_workload_identity(team: &Team<'_>, cloud: &StandIn) {
    account(
        team,
        "web",
        json!({"iam.gke.io/gcp-service-account": EMAIL}),
    )
    .await;
    let by_account = |identity| {
        gcp(&json!({
            "role": "app", "serviceAccountRef": {"name": "web"}, "workloadIdentity": identity,
        }))
    };
    reads_by(team, "gke", by_account(json!({"gkeCluster": CLUSTER}))).await;
    synced(team, "gke").await;
    let pool = json!({"provider": PROVIDER, "serviceAccountEmail": EMAIL});
    reads_by(team, "pool", by_account(pool)).await;
    synced(team, "pool").await;
    let asked = cloud.asked();
    let exchanges = with_line(&asked, "POST /v1/token");
    for (exchange, audience, token_audience) in [
        (
            exchanges[0],
            format!(
                "identitynamespace:shop.svc.id.goog:https://container.googleapis.com/v1/{CLUSTER}"
            ),
            "shop.svc.id.goog".to_owned(),
        ),
        (
            exchanges[1],
            format!("//iam.googleapis.com/{PROVIDER}"),
            format!("https://iam.googleapis.com/{PROVIDER}"),
        ),
    ] {
        assert_eq!(exchange.field("audience"), audience);
        is_token_of(
            &exchange.field("subject_token"),
            team,
            "web",
            &token_audience,
        );
    }

    let other =
        json!({"gkeCluster": CLUSTER, "serviceAccountEmail": "other@shop.iam.gserviceaccount.com"});
    reads_by(team, "denied", by_account(other)).await;
    let told = [
        "Google's IAM credentials service at 127.0.0.1 answers 403: PERMISSION_DENIED",
        "check that the service account other@shop.iam.gserviceaccount.com is there",
    ];
    team.unreachable("denied", "CredentialUnavailable", &told)
        .await;
}
