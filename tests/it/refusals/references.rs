//! Mistakes in the objects a `VaultSecret` refers to: they heal when those are corrected.

use serde_json::{Value, json};

use super::{Mistake, all_hold, good_secrets, made};
use crate::support::{Stage, Team};

/// Applies an object of ours in the namespace.
async fn apply(team: &Team<'_>, kind: &str, name: &str, spec: Value) {
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    }))
    .await;
}

/// A login of the tenant through a connection.
fn login(kind: &str, connection: &str) -> Value {
    let kubernetes = json!({"role": "tenant", "audiences": ["vault"]});
    json!({"connectionRef": {"kind": kind, "name": connection}, "kubernetes": kubernetes})
}

fn through(name: &str) -> Value {
    json!({"authRef": {"kind": "VaultAuth", "name": name}})
}

/// The status of the object itself has to say the same.
async fn told_there(team: &Team<'_>, resource: &str, name: &str, words: &[&str]) {
    let told = team.told_of(resource, name).await;
    for word in words {
        assert!(
            told.contains(word),
            "{resource} {name}: no {word:?} in {told:?}"
        );
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one entry per mistake")]
async fn a_mistake_in_a_login_heals_when_the_login_is_corrected() {
    let stage = Stage::shared().await;
    let team = stage.team("login").await;
    let right = login("ClusterVaultConnection", "main");
    let closed = format!("{}-closed", team.namespace);
    let mut short = right.clone();
    short["kubernetes"]["tokenTTL"] = json!("1m");
    let mut mount = right.clone();
    mount["mount"] = json!("a/../b");
    let mut cluster = right.clone();
    cluster["allowedNamespaces"] = json!({"names": ["somebody-else"]});
    apply(&team, "VaultAuth", "short", short).await;
    apply(&team, "VaultAuth", "mount", mount).await;
    apply(
        &team,
        "VaultAuth",
        "noconn",
        login("ClusterVaultConnection", "nobody"),
    )
    .await;
    apply(&team, "ClusterVaultAuth", &closed, cluster.clone()).await;
    let by_closed = json!({"authRef": {"kind": "ClusterVaultAuth", "name": closed}});
    let mistakes = [
        Mistake::new(
            "absent",
            through("absent"),
            "AuthNotFound",
            &["spec.authRef", "absent"],
        ),
        Mistake::new(
            "short",
            through("short"),
            "AuthUnusable",
            &["VaultAuth", "spec.kubernetes.tokenTTL", "10m to 24h"],
        ),
        Mistake::new(
            "mount",
            through("mount"),
            "AuthUnusable",
            &["VaultAuth", "spec.mount", "'..'"],
        ),
        Mistake::new(
            "noconn",
            through("noconn"),
            "ConnectionNotFound",
            &["spec.connectionRef", "ClusterVaultConnection named nobody"],
        ),
        Mistake::new(
            "closed",
            by_closed,
            "AuthNotAllowed",
            &[
                "spec.authRef",
                &closed,
                &team.namespace,
                "spec.allowedNamespaces",
            ],
        ),
    ];
    good_secrets(&team, &mistakes).await;
    made(&team, &mistakes).await;
    told_there(
        &team,
        "vaultauths",
        "short",
        &["AuthUnusable", "spec.kubernetes.tokenTTL"],
    )
    .await;
    told_there(
        &team,
        "vaultauths",
        "noconn",
        &["ConnectionNotFound", "nobody"],
    )
    .await;

    for mistake in &mistakes {
        team.put(mistake.name, &json!({"k": "corrected"})).await;
    }
    for name in ["absent", "short", "mount", "noconn"] {
        let mut right = right.clone();
        right["mount"] = json!("kubernetes");
        apply(&team, "VaultAuth", name, right).await;
    }
    cluster["allowedNamespaces"] = json!({"names": ["somebody-else", team.namespace]});
    apply(&team, "ClusterVaultAuth", &closed, cluster).await;
    all_hold(&team, &mistakes, "corrected").await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one entry per mistake")]
async fn a_mistake_in_a_connection_heals_when_the_connection_is_corrected() {
    let stage = Stage::shared().await;
    let team = stage.team("conn").await;
    let (address, plain) = (stage.vault_tls_address(), stage.vault_address());
    let tls = |tls: Value| json!({"address": address, "tls": tls});
    let in_secret = tls(json!({"ca": {"secret": {"name": "ca", "key": "ca.crt"}}}));
    for (name, spec) in [
        ("insecure", tls(json!({"insecureSkipVerify": true}))),
        (
            "badca",
            tls(json!({"ca": {"bundle": "no certificate at all"}})),
        ),
        ("noca", in_secret),
        ("slow", json!({"address": plain, "timeout": "1h"})),
    ] {
        apply(&team, "VaultConnection", name, spec).await;
    }
    for name in ["insecure", "badca", "noca", "slow", "gone"] {
        apply(&team, "VaultAuth", name, login("VaultConnection", name)).await;
    }
    let unusable =
        |name, words: &[&str]| Mistake::new(name, through(name), "ConnectionUnusable", words);
    let mistakes = [
        unusable(
            "insecure",
            &[
                "VaultConnection",
                "spec.tls.insecureSkipVerify",
                "--allow-insecure-tls",
            ],
        ),
        unusable("badca", &["VaultConnection", "spec.tls.ca"]),
        unusable(
            "noca",
            &[
                "VaultConnection",
                "spec.tls.ca",
                "key ca.crt",
                "Secret",
                "create it",
            ],
        ),
        unusable("slow", &["VaultConnection", "spec.timeout", "2m"]),
        Mistake::new(
            "gone",
            through("gone"),
            "ConnectionNotFound",
            &[
                "spec.connectionRef",
                "VaultConnection named gone",
                &team.namespace,
            ],
        ),
    ];
    good_secrets(&team, &mistakes).await;
    made(&team, &mistakes).await;
    told_there(
        &team,
        "vaultconnections",
        "insecure",
        &["InvalidSpec", "spec.tls.insecureSkipVerify"],
    )
    .await;
    told_there(
        &team,
        "vaultconnections",
        "noca",
        &["InvalidSpec", "ca.crt"],
    )
    .await;

    for mistake in &mistakes {
        team.put(mistake.name, &json!({"k": "corrected"})).await;
    }
    let bundle = json!({"bundle": stage.vault_ca_pem()});
    for name in ["insecure", "badca", "gone"] {
        apply(&team, "VaultConnection", name, tls(json!({"ca": bundle}))).await;
    }
    apply(
        &team,
        "VaultConnection",
        "slow",
        json!({"address": plain, "timeout": "20s"}),
    )
    .await;
    // Nothing but the Secret is touched here.
    team.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca"},
        "stringData": {"ca.crt": stage.vault_ca_pem()},
    }))
    .await;
    all_hold(&team, &mistakes, "corrected").await;
}
