//! Effects: everything — parts fail on command and come back.

use std::time::{Duration, Instant};

use lockstep_testbed::{
    Bed, Component, Fault, FaultProxy, OPERATOR_NAMESPACE, OperatorOptions, eventually,
};
use serde_json::json;

use crate::PATIENCE;

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
