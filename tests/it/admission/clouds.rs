//! A login with an identity of a cloud with a mistake.

use serde_json::{Value, json};

use super::{all_refused, object, with};

#[tokio::test]
async fn a_login_with_a_cloud_with_a_mistake_is_refused_in_words_that_help() {
    let put = |kind: &str, method: &str, fields: Value| {
        let bare = with(object(kind), "/spec/token", json!(null));
        with(bare, &format!("/spec/{method}"), fields)
    };
    let own = |method: &str, fields: Value| put("VaultAuth", method, fields);
    let account = json!({"name": "web"});
    let cluster = json!({"gkeCluster": "projects/a/locations/b/clusters/c"});
    let one = "exactly one of serviceAccountRef and secretRef";
    let machine = json!({"role": "r", "resource": "x", "managedIdentity": {}});
    let both =
        json!({"role": "r", "resource": "x", "managedIdentity": {}, "serviceAccountRef": account});
    let away = json!({"role": "r", "secretRef": {"name": "a", "namespace": "other"}});
    all_refused(vec![
        (own("aws", json!({"role": "r"})), &[one]),
        (
            own("aws", json!({"role": "r", "secretRef": account, "roleArn": "arn:aws:iam::123456789012:role/a"})),
            &["roleArn cannot be set with secretRef"],
        ),
        (
            own("aws", json!({"role": "r", "secretRef": account, "region": "evil.example/"})),
            &["spec.aws.region"],
        ),
        (own("aws", away), &["objects of its own namespace"]),
        (own("gcp", json!({"role": "r"})), &[one]),
        (
            own("gcp", json!({"role": "r", "serviceAccountRef": account})),
            &["workloadIdentity is required with serviceAccountRef"],
        ),
        (
            own("gcp", json!({"role": "r", "serviceAccountRef": account, "workloadIdentity": {}})),
            &["exactly one of provider and gkeCluster"],
        ),
        (
            own("gcp", json!({"role": "r", "secretRef": {"name": "a", "key": "k"}, "workloadIdentity": cluster})),
            &["workloadIdentity is required with serviceAccountRef, and cannot be set with secretRef"],
        ),
        (own("azure", both), &["exactly one of serviceAccountRef and managedIdentity"]),
        (
            own("azure", json!({"role": "r", "resource": "x", "serviceAccountRef": account, "workloadIdentity": {"tenantId": "common"}})),
            &["spec.azure.workloadIdentity.tenantId"],
        ),
        (
            own("azure", machine.clone()),
            &["identity of the machine that the operator runs on: use a ClusterVaultAuth"],
        ),
        (
            put("ClusterVaultAuth", "azure", machine),
            &["one identity for all namespaces: set identityFrom: Fixed"],
        ),
    ])
    .await;
}
