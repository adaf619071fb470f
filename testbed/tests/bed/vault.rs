//! Effects: everything — Vault trusts the apiserver, reaches PostgreSQL and speaks TLS.

use std::time::Instant;

use lockstep_testbed::{Bed, KubernetesRole, vault::AUDIENCE};
use serde_json::json;

#[tokio::test]
async fn a_service_account_logs_in_to_vault_and_gets_what_its_policy_allows() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("login").await.unwrap();
    let vault = bed.vault();
    vault
        .kv_put(
            "secret",
            &format!("{namespace}/app"),
            &json!({"password": "hunter2"}),
        )
        .await
        .unwrap();
    let rules = format!(r#"path "secret/data/{namespace}/*" {{ capabilities = ["read"] }}"#);
    vault.policy(&namespace, &rules).await.unwrap();
    let role = KubernetesRole {
        mount: "kubernetes",
        name: &namespace,
        namespaces: &[&namespace],
        service_accounts: &["default"],
        policies: &[&namespace],
        ttl: "10m",
    };
    vault.kubernetes_role(role).await.unwrap();
    let token = bed
        .service_account_token(&namespace, "default", &[AUDIENCE])
        .await
        .unwrap();
    let mark = bed.vault_audit_mark().unwrap();
    let tenant = vault
        .kubernetes_login("kubernetes", &namespace, &token)
        .await
        .unwrap();
    let answer = tenant
        .read(&format!("secret/data/{namespace}/app"))
        .await
        .unwrap();
    assert_eq!(
        answer.pointer("/data/data/password"),
        Some(&json!("hunter2"))
    );
    assert!(tenant.read("secret/data/other").await.is_err());

    let seen = bed
        .vault_audit_since(mark, |request| request.display_name.contains(&namespace))
        .unwrap();
    let paths: Vec<_> = seen.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "auth/kubernetes/login",
            &format!("secret/data/{namespace}/app"),
            "secret/data/other"
        ]
    );
    assert!(
        seen.iter()
            .all(|request| request.accessor == seen[0].accessor && !request.is_root)
    );
    assert!(seen[2].error.contains("permission denied"), "{:?}", seen[2]);

    let wrong = bed
        .service_account_token(&namespace, "default", &[])
        .await
        .unwrap();
    assert!(
        vault
            .kubernetes_login("kubernetes", &namespace, &wrong)
            .await
            .is_err()
    );
    vault.revoke_accessor(&seen[0].accessor).await.unwrap();
    assert!(
        tenant
            .read(&format!("secret/data/{namespace}/app"))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn vault_issues_database_credentials_that_postgres_accepts() {
    let bed = Bed::shared().await.unwrap();
    let started = Instant::now();
    let postgres = bed.postgres().await.unwrap();
    eprintln!(
        "PostgreSQL was up in {:.1} s",
        started.elapsed().as_secs_f32()
    );
    assert_eq!(postgres.query("select 1").await.unwrap(), [["1"]]);
    let (username, password) = postgres.credentials();
    assert!(
        postgres
            .query_as(username, "wrong", "select 1")
            .await
            .is_err()
    );
    let vault = bed.vault();
    vault.enable_engine("database", "database").await.unwrap();
    let connection = json!({
        "plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
        "connection_url": postgres.vault_url(), "username": username, "password": password,
    });
    vault
        .write("database/config/main", &connection)
        .await
        .unwrap();
    let role = json!({
        "db_name": "main", "default_ttl": "1h",
        "creation_statements": "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
    });
    vault.write("database/roles/app", &role).await.unwrap();
    let lease = vault.read("database/creds/app").await.unwrap();
    let field = |name: &str| lease["data"][name].as_str().unwrap().to_owned();
    let user = postgres
        .query_as(
            &field("username"),
            &field("password"),
            "select current_user",
        )
        .await
        .unwrap();
    assert_eq!(user, [[field("username")]]);
}

#[tokio::test]
async fn the_tls_listener_is_trusted_with_its_authority_only() {
    let bed = Bed::shared().await.unwrap();
    let url = format!("{}/v1/sys/seal-status", bed.vault_tls_address());
    let authority = reqwest::Certificate::from_pem(bed.vault_ca_pem().as_bytes()).unwrap();
    let trusting = reqwest::Client::builder()
        .tls_certs_only([authority])
        .build()
        .unwrap();
    trusting
        .get(&url)
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let doubting = reqwest::Client::builder().build().unwrap();
    assert!(doubting.get(&url).send().await.is_err());
}
