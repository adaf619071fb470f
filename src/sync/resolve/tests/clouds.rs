//! Pure: logins with identities of clouds, and the mistakes in them.

use super::*;

const ID: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

fn account() -> Value {
    json!({"name": "web"})
}

/// What becomes of a `VaultAuth` with this method; the reason and the text if it is refused.
fn told(spec: AuthSpec, kind: AuthKind) -> Result<Method, String> {
    let cluster = Cluster::default().with(kind, "default", spec);
    resolved(&cluster, &json!({}))
        .map(|resolved| resolved.login.method)
        .map_err(|refusal| refusal.to_string())
}

fn aws(extra: &Value) -> Value {
    method("aws", json!({"role": "r"}), extra)
}

fn gcp(extra: &Value) -> Value {
    method("gcp", json!({"role": "r"}), extra)
}

fn azure(extra: &Value) -> Value {
    method("azure", json!({"role": "r", "resource": "x"}), extra)
}

fn method(name: &str, mut fields: Value, extra: &Value) -> Value {
    put(&mut fields, extra);
    let mut spec = json!({});
    spec[name] = fields;
    spec
}

fn workload(identity: &Value) -> Value {
    gcp(&json!({"serviceAccountRef": account(), "workloadIdentity": identity}))
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn one_row_per_mistake_in_a_login_with_a_cloud() {
    let secret = json!({"name": "there"});
    let key = json!({"name": "there", "key": "k"});
    let rows = [
        (
            aws(&json!({})),
            "spec.aws needs exactly one of serviceAccountRef and secretRef",
        ),
        (
            aws(&json!({"serviceAccountRef": account(), "secretRef": secret})),
            "spec.aws needs exactly one of serviceAccountRef and secretRef",
        ),
        (
            aws(&json!({"secretRef": secret, "region": "evil.example/"})),
            "spec.aws.region must be a region such as eu-central-1",
        ),
        (
            aws(&json!({"serviceAccountRef": account(), "roleArn": "app"})),
            "spec.aws.roleArn must be the ARN of a role such as arn:aws:iam::123456789012:role/app",
        ),
        (
            aws(&json!({"secretRef": {"name": "there", "namespace": "ops"}})),
            "a reference of the login names a namespace",
        ),
        (
            aws(&json!({"serviceAccountRef": {"name": "web", "namespace": "ops"}})),
            "a reference of the login names a namespace",
        ),
        (
            gcp(&json!({})),
            "spec.gcp needs either serviceAccountRef and workloadIdentity, or secretRef",
        ),
        (
            gcp(&json!({"serviceAccountRef": account()})),
            "spec.gcp needs either serviceAccountRef and workloadIdentity, or secretRef",
        ),
        (
            gcp(&json!({"serviceAccountRef": account(), "secretRef": key})),
            "spec.gcp needs either serviceAccountRef and workloadIdentity, or secretRef",
        ),
        (
            workload(&json!({})),
            "spec.gcp.workloadIdentity needs exactly one of provider and gkeCluster",
        ),
        (
            workload(&json!({"provider": "prod"})),
            "spec.gcp.workloadIdentity.provider must be projects/",
        ),
        (
            workload(&json!({"gkeCluster": "prod"})),
            "spec.gcp.workloadIdentity.gkeCluster must be projects/",
        ),
        (
            workload(
                &json!({"gkeCluster": "projects/a/locations/b/clusters/c", "serviceAccountEmail": "a/../b"}),
            ),
            "spec.gcp.workloadIdentity.serviceAccountEmail must be the address",
        ),
        (
            azure(&json!({})),
            "spec.azure needs either serviceAccountRef, or managedIdentity",
        ),
        (
            azure(&json!({"serviceAccountRef": account(), "managedIdentity": {}})),
            "spec.azure needs either serviceAccountRef, or managedIdentity",
        ),
        (
            azure(
                &json!({"serviceAccountRef": account(), "workloadIdentity": {"tenantId": "common"}}),
            ),
            "spec.azure.workloadIdentity.tenantId must be an id such as",
        ),
        (
            azure(&json!({"serviceAccountRef": account(), "workloadIdentity": {"clientId": "x"}})),
            "spec.azure.workloadIdentity.clientId must be an id such as",
        ),
        (
            azure(&json!({"managedIdentity": {}})),
            "spec.azure.managedIdentity is the identity of the machine that the operator runs on; use a ClusterVaultAuth",
        ),
    ];
    for (spec, expected) in rows {
        let refusal = told(vault_auth(&spec), AuthKind::VaultAuth).unwrap_err();
        assert!(
            refusal.contains(&format!("VaultAuth shop/default: {expected}")),
            "{spec}: {refusal}"
        );
    }
}

/// Whoever may use it gets tokens of the operator's machine, so nobody shares it without having said so.
#[test]
fn the_identity_of_the_machine_is_for_fixed_logins_of_the_cluster_alone() {
    let cluster = |fixed: &Value, client_id: Value| {
        let mut spec = azure(&json!({"managedIdentity": {"clientId": client_id}}));
        put(&mut spec, fixed);
        put(&mut spec, &json!({"allowedNamespaces": {"names": ["*"]}}));
        told(cluster_vault_auth(&spec), AuthKind::ClusterVaultAuth)
    };
    let fixed = json!({"identityFrom": "Fixed"});
    for consumer in [json!({}), json!({"identityFrom": "Consumer"})] {
        let refusal = cluster(&consumer, json!(null)).unwrap_err();
        assert!(refusal.contains("identityFrom: Fixed"), "{refusal}");
    }
    assert!(cluster(&fixed, json!("x")).is_err());
    let method = cluster(&fixed, json!(ID)).unwrap();
    assert_eq!(
        method.subject(),
        "the managed identity of the operator's machine"
    );
    assert_eq!(method.usual_mount(), "azure");
}

#[test]
fn a_login_with_a_cloud_is_told_apart_by_whom_it_shows() {
    let key = json!({"name": "there", "key": "k"});
    let rows = [
        (
            aws(&json!({"secretRef": {"name": "there"}})),
            "aws",
            "Secret shop/there",
        ),
        (
            aws(&json!({"serviceAccountRef": account()})),
            "aws",
            "ServiceAccount shop/web",
        ),
        (gcp(&json!({"secretRef": key})), "gcp", "Secret shop/there"),
        (
            workload(&json!({"gkeCluster": "projects/a/locations/b/clusters/c"})),
            "gcp",
            "ServiceAccount shop/web",
        ),
        (
            azure(&json!({"serviceAccountRef": account()})),
            "azure",
            "ServiceAccount shop/web",
        ),
    ];
    for (spec, mount, subject) in rows {
        let method = told(vault_auth(&spec), AuthKind::VaultAuth).unwrap();
        assert_eq!(
            (method.usual_mount(), method.subject().as_str()),
            (mount, subject)
        );
        // A changed Secret is another login.
        let versioned = format!("{method:?}").contains("shop/there 7");
        assert_eq!(versioned, subject.starts_with("Secret"), "{method:?}");
    }
}
