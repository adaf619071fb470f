//! Effects: everything — the testbed itself, tried once end to end.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test, and the times it took are worth a line"
)]

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use lockstep_testbed::{
    Bed, Component, Fault, FaultProxy, KubernetesRole, OPERATOR_NAMESPACE, OperatorOptions,
    eventually, vault::AUDIENCE,
};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_deployment_really_rolls() {
    let bed = Bed::shared().await.unwrap();
    eprintln!("the bed was up in {:.1} s", bed.started_in().as_secs_f32());
    let namespace = bed.namespace("roll").await.unwrap();
    bed.apply_yaml(&deployment(&namespace, "web", 3, ""))
        .await
        .unwrap();
    let deployments: Api<Deployment> = Api::namespaced(bed.client().await.unwrap(), &namespace);
    available(&deployments, "web", 3).await;
    let first = pod_names(bed, &namespace).await;
    let output = bed
        .kubectl(&["-n", &namespace, "rollout", "restart", "deployment/web"])
        .await
        .unwrap();
    assert!(output.status.success());
    let started = Instant::now();
    let output = bed
        .kubectl(&[
            "-n",
            &namespace,
            "rollout",
            "status",
            "--timeout=30s",
            "deployment/web",
        ])
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    eprintln!("the rollout took {:.1} s", started.elapsed().as_secs_f32());
    eventually(PATIENCE, "only new pods", async || {
        let now = pod_names(bed, &namespace).await;
        now.len() == 3 && now.iter().all(|name| !first.contains(name))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn pods_live_the_life_their_annotation_chooses() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("lives").await.unwrap();
    let lives = [
        ("never-ready", "never-ready"),
        ("crash-loop", "crash-loop"),
        ("slow", "slow"),
    ];
    for (name, life) in lives {
        bed.apply_yaml(&deployment(&namespace, name, 1, life))
            .await
            .unwrap();
    }
    let pods: Api<Pod> = Api::namespaced(bed.client().await.unwrap(), &namespace);
    let status = async |name: &str| {
        let found = pods
            .list(&ListParams::default().labels(&format!("app={name}")))
            .await
            .unwrap();
        serde_json::to_value(found.items.first().and_then(|pod| pod.status.clone())).unwrap()
    };
    let ready = |status: &serde_json::Value| {
        status.pointer("/containerStatuses/0/ready") == Some(&json!(true))
    };
    eventually(PATIENCE, "a crash", async || {
        let seen = status("crash-loop").await;
        let count = seen
            .pointer("/containerStatuses/0/restartCount")
            .and_then(serde_json::Value::as_u64);
        if count >= Some(2) { Ok(()) } else { Err(seen) }
    })
    .await
    .unwrap();
    eventually(PATIENCE, "the slow one", async || {
        ready(&status("slow").await)
    })
    .await
    .unwrap();
    let seen = status("never-ready").await;
    assert_eq!(seen.pointer("/phase"), Some(&json!("Running")), "{seen}");
    assert!(!ready(&seen), "{seen}");
}

#[tokio::test]
async fn a_job_completes() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("job").await.unwrap();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}},
    });
    bed.apply_yaml(&job.to_string()).await.unwrap();
    let output = bed
        .kubectl(&[
            "-n",
            &namespace,
            "wait",
            "--for=condition=Complete",
            "--timeout=30s",
            "job/once",
        ])
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

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
async fn the_audit_log_counts_writes_by_user_agent() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("audit").await.unwrap();
    let mark = bed.audit_mark().await.unwrap();
    assert_eq!(
        bed.writes_by(mark, "kubectl")
            .await
            .unwrap()
            .iter()
            .filter(|w| w.namespace == namespace)
            .count(),
        0
    );
    let output = bed
        .kubectl(&["-n", &namespace, "create", "configmap", "one"])
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let writes = bed.writes_by(mark, "kubectl").await.unwrap();
    let writes: Vec<_> = writes
        .iter()
        .filter(|write| write.namespace == namespace)
        .collect();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(
        (
            writes[0].verb.as_str(),
            writes[0].resource.as_str(),
            writes[0].code
        ),
        ("create", "configmaps", 201)
    );
    assert_eq!(writes[0].user, "testbed:admin");
}

#[tokio::test]
async fn rbac_applies_to_a_service_account() {
    let bed = Bed::shared().await.unwrap();
    let namespace = bed.namespace("rbac").await.unwrap();
    let token = bed
        .service_account_token(&namespace, "default", &[])
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(bed.client_as(&token).await.unwrap(), &namespace);
    let error = maps
        .create(&PostParams::default(), &ConfigMap::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("system:serviceaccount:rbac-"),
        "{error}"
    );
    assert!(
        bed.kubeconfig_for(&namespace, "default")
            .await
            .unwrap()
            .is_file()
    );
}

#[tokio::test]
async fn the_proxy_passes_refuses_hangs_delays_and_cuts() {
    let bed = Bed::shared().await.unwrap();
    let proxy = FaultProxy::start(bed.vault_socket().unwrap()).unwrap();
    let url = format!("http://{}/v1/sys/health", proxy.address());
    let get = async || {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        client.get(&url).send().await?.bytes().await
    };
    let length = get().await.unwrap().len();
    assert!(length > 100);
    proxy.set(Fault::Refuse);
    let error = get().await.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    proxy.set(Fault::Hang);
    assert!(get().await.unwrap_err().is_timeout());
    proxy.set(Fault::Latency(Duration::from_millis(100)));
    let started = Instant::now();
    get().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    proxy.set(Fault::CutAfterBytes(100));
    let error = get().await.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
    proxy.set(Fault::Pass);
    get().await.unwrap();
    eventually(PATIENCE, "no open connection", async || {
        proxy.connections() == 0
    })
    .await
    .unwrap();
    assert!(proxy.traffic().accepted >= 6, "{:?}", proxy.traffic());
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

/// A shell script plays the operator: what is tried is the handling of the process.
#[tokio::test]
async fn an_operator_is_watched_paused_and_ended() {
    let bed = Bed::shared().await.unwrap();
    // The shell takes "run" for the name of a script, which it looks for in the working directory.
    std::fs::write(
        bed.directory().join("run"),
        "echo \"$@\" with $KUBECONFIG and $EXTRA; trap 'exit 7' TERM; while :; do sleep 0.01; done",
    )
    .unwrap();
    let options = OperatorOptions {
        binary: "/bin/sh".into(),
        env: vec![("EXTRA".into(), "more".into())],
        ..OperatorOptions::default()
    };
    let operator = bed.operator(&options).unwrap();
    eventually(PATIENCE, "its first words", async || {
        operator.log_text().contains("with")
    })
    .await
    .unwrap();
    let address = operator.admin_url().trim_start_matches("http://");
    let kubeconfig = bed.kubeconfig().display();
    assert_eq!(
        operator.log_text().trim_end(),
        format!(
            "--admin-address {address} --namespace {OPERATOR_NAMESPACE} with {kubeconfig} and more"
        )
    );
    assert!(operator.rss_kib().unwrap() > 100);
    operator.pause().unwrap();
    let used = operator.cpu_seconds().unwrap();
    assert!(
        operator
            .wait_ready(Duration::from_millis(200))
            .await
            .is_err()
    );
    assert!(operator.cpu_seconds().unwrap() - used < 0.05);
    operator.resume().unwrap();
    let (status, took) = operator.terminate().unwrap();
    assert_eq!(status.code(), Some(7));
    assert!(took < Duration::from_secs(5));
}

/// Has a bed of its own, because it takes things away that others need.
#[tokio::test]
async fn parts_are_sealed_paused_killed_and_come_back_with_their_data() {
    let bed = Bed::start().await.unwrap();
    eprintln!(
        "a bed of one's own was up in {:.1} s",
        bed.started_in().as_secs_f32()
    );
    let vault = bed.vault();
    vault
        .kv_put("secret", "kept", &json!({"a": "b"}))
        .await
        .unwrap();
    vault.seal().await.unwrap();
    assert!(vault.read("secret/data/kept").await.is_err());
    vault.unseal().await.unwrap();
    vault.read("secret/data/kept").await.unwrap();
    bed.restart_vault().await.unwrap();
    vault.read("secret/data/kept").await.unwrap();

    let apiserver = bed.component(Component::Apiserver);
    apiserver.pause().unwrap();
    let client = bed.client().await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(300), client.apiserver_version())
            .await
            .is_err()
    );
    apiserver.resume().unwrap();
    client.apiserver_version().await.unwrap();
    bed.restart_apiserver().await.unwrap();
    let version = bed
        .client()
        .await
        .unwrap()
        .apiserver_version()
        .await
        .unwrap();
    assert!(version.git_version.starts_with("v1."), "{version:?}");

    let directory = bed.directory().to_owned();
    let id = apiserver.id();
    drop(bed);
    assert!(!directory.exists());
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

async fn available(deployments: &Api<Deployment>, name: &str, wanted: i32) {
    eventually(PATIENCE, "an available Deployment", async || {
        let status = deployments
            .get(name)
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        status.available_replicas == Some(wanted)
    })
    .await
    .unwrap();
}

async fn pod_names(bed: &Bed, namespace: &str) -> Vec<String> {
    let pods: Api<Pod> = Api::namespaced(bed.client().await.unwrap(), namespace);
    let found = pods.list(&ListParams::default()).await.unwrap();
    found
        .items
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect()
}

fn deployment(namespace: &str, name: &str, replicas: i32, life: &str) -> String {
    let annotations = if life.is_empty() {
        json!({})
    } else {
        json!({format!("testbed.lockstep.dev/{life}"): "true"})
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    })
    .to_string()
}
