//! Certificates: they are usable, replaced in time, never without need, and revoked when nobody uses them any more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use lockstep::{
    pki::{
        certificate::Bundle,
        layout::{Keystores, layout},
    },
    sensitive::Sensitive,
};
use lockstep_testbed::{ApiRequest, AuditMark, Bed, eventually};
use serde_json::json;

use crate::support::{
    Pki, SHORT, SOON, Stage, Team, bytes_of, env_from, greets, options, text_of, workload,
};

/// Pods that are on their way out are looked at every 30 seconds.
const AFTER_THEM: Duration = Duration::from_secs(90);

const APP: (&str, &str) = ("Deployment", "app");

#[tokio::test]
async fn a_certificate_is_signed_for_a_key_that_vault_never_has() {
    let stage = Stage::shared().await;
    let team = stage.team("signed").await;
    let pki = Pki::new(&team).await;
    let mark = stage.vault_audit_mark().unwrap();
    let source = pki.source(json!({
        "altNames": ["b.example.com"], "ipSans": ["127.0.0.1"], "uriSans": ["spiffe://example.com/app"], "ttl": "1h",
    }));
    let target = json!({"target": {"type": "kubernetes.io/tls"}});
    team.issue("app", &[source], target).await;
    team.ready("app").await;
    let secret = team.secret("app").await.unwrap();
    let keys: Vec<_> = secret.data.as_ref().unwrap().keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    let chain = text_of(&secret, "tls.crt").unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2, "no root");
    for host in ["a.example.com", "b.example.com", "127.0.0.1"] {
        greets(&secret, host).unwrap();
    }
    greets(&secret, "c.example.com").unwrap_err();
    let source = &team.status("app").await.sources[0];
    assert_eq!(source.serial_number, team.recorded_serial("app").await);
    assert!(source.lease_expires.is_some());
    assert_eq!(pki.made().await, 1);
    let path = format!("{}/sign/web", pki.mount);
    assert_eq!(asked(stage, mark, &path), 1);
}

/// How often the operator asked for this path.
fn asked(stage: &Stage, since: AuditMark, path: &str) -> usize {
    let asked = stage.vault_audit_since(since, |request| request.path == path && !request.is_root);
    asked.unwrap().len()
}

#[tokio::test]
async fn vault_makes_the_key_where_that_is_wanted_and_every_kind_of_key_is_usable() {
    let stage = Stage::shared().await;
    let team = stage.team("kinds").await;
    let pki = Pki::new(&team).await;
    let mut sources = vec![("vault", pki.source(json!({"keySource": "Vault"})))];
    // Vault makes keys of one kind only.
    pki.role(json!({"key_type": "ec", "key_bits": 256})).await;
    team.issue(sources[0].0, &[sources[0].1.clone()], json!({}))
        .await;
    team.ready("vault").await;
    pki.role(json!({})).await;
    for (name, kind) in [
        ("rsa", "Rsa2048"),
        ("p256", "EcdsaP256"),
        ("p384", "EcdsaP384"),
        ("p521", "EcdsaP521"),
        ("ed", "Ed25519"),
    ] {
        let source = pki.source(json!({"keyType": kind}));
        team.issue(name, std::slice::from_ref(&source), json!({}))
            .await;
        sources.push((name, source));
    }
    for (name, _) in &sources {
        team.ready(name).await;
        greets(&team.secret(name).await.unwrap(), "a.example.com").unwrap();
    }
}

#[tokio::test]
async fn the_issuer_can_be_chosen() {
    let stage = Stage::shared().await;
    let team = stage.team("issuer").await;
    let pki = Pki::new(&team).await;
    for (name, issuer, length) in [("root", "root", 1), ("between", "intermediate", 2)] {
        for source in ["Operator", "Vault"] {
            let extra = json!({"issuer": issuer, "keySource": source});
            let name = format!("{name}-{}", source.to_lowercase());
            pki.role(
                json!({"key_type": if source == "Vault" { "ec" } else { "any" }, "key_bits": 256}),
            )
            .await;
            team.issue(&name, &[pki.source(extra)], json!({})).await;
            team.ready(&name).await;
            let secret = team.secret(&name).await.unwrap();
            let chain = text_of(&secret, "tls.crt").unwrap();
            assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), length, "{name}");
            greets(&secret, "a.example.com").unwrap();
        }
    }
}

#[tokio::test]
async fn what_the_role_refuses_is_told_and_the_last_certificate_stays() {
    let stage = Stage::shared().await;
    let team = stage.team("refuses").await;
    let pki = Pki::new(&team).await;
    team.issue("app", &[pki.source(json!({}))], json!({})).await;
    team.ready("app").await;
    let before = team.secret("app").await.unwrap();

    let other = pki.source(json!({"commonName": "a.example.org"}));
    team.issue("app", &[other], json!({})).await;
    let told = team
        .condition_is("app", "SourcesReachable", "False Invalid")
        .await;
    for words in [
        "a.example.org",
        "not allowed by this role",
        "sign/web",
        "change pki.commonName",
    ] {
        assert!(told.contains(words), "{told}");
    }
    pki.role(json!({"key_type": "rsa", "key_bits": 2048})).await;
    let other = pki.source(json!({"commonName": "b.example.com"}));
    team.issue("app", &[other], json!({})).await;
    eventually(SOON, "the key is told", async || {
        let told = team.condition("app", "SourcesReachable").await;
        let told = told.unwrap_or_default();
        let words = ["keyType is EcdsaP256; set it to Rsa2048"];
        if words.iter().all(|words| told.contains(words)) {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await
    .unwrap();
    let after = team.secret("app").await.unwrap();
    assert_eq!(after.data, before.data);
    assert_eq!(pki.made().await, 1);

    let allowed = pki.source(json!({"commonName": "b.example.com", "keyType": "Rsa2048"}));
    team.issue("app", &[allowed], json!({})).await;
    team.condition_is("app", "SourcesReachable", "True").await;
    eventually(SOON, "the new name is there", async || {
        greets(&team.secret("app").await.unwrap(), "b.example.com")
    })
    .await
    .unwrap();
}

/// Vault makes a key of a kind that it alone knows.
#[tokio::test]
async fn what_cannot_be_used_is_revoked_or_named_and_not_asked_for_again() {
    let stage = Stage::shared().await;
    let team = stage.team("useless").await;
    let pki = Pki::new(&team).await;
    pki.role(json!({"key_type": "ec", "key_bits": 224})).await;
    let theirs = json!({"keySource": "Vault", "revoke": true});
    team.issue("app", &[pki.source(theirs)], json!({})).await;
    let words = ["'private_key'", "issue/web", "is not used and was revoked"];
    team.unreachable("app", "Invalid", &words).await;
    let own = pki.serials().await;
    let mut revoked = Vec::new();
    for serial in &own {
        revoked.extend(pki.is_revoked(serial).await.then_some(serial));
    }
    assert_eq!(revoked.len(), 1, "{own:?}");

    let theirs = json!({"keySource": "Vault"});
    team.issue("kept", &[pki.source(theirs)], json!({})).await;
    let words = ["'private_key'", "stays valid until", "set revoke: true"];
    team.unreachable("kept", "Invalid", &words).await;
    let mut serials = pki.serials().await;
    serials.retain(|serial| !own.contains(serial));
    team.unreachable("kept", "Invalid", &[&serials[0]]).await;
    assert!(!pki.is_revoked(&serials[0]).await);
    team.polled_twice().await;
    assert_eq!(pki.made().await, 2, "each was asked for once");

    // Whoever asks for something else does not wait.
    pki.role(json!({})).await;
    for name in ["app", "kept"] {
        team.issue(name, &[pki.source(json!({}))], json!({})).await;
        team.ready(name).await;
        greets(&team.secret(name).await.unwrap(), "a.example.com").unwrap();
    }
    assert_eq!(pki.made().await, 4);
}

/// The engine makes a lease of a certificate's remaining life, which it rounds: to zero, or, in the first half of a second, to
/// one second at first.
#[tokio::test]
async fn a_lease_of_no_length_is_revoked_and_told_and_not_asked_for_again() {
    let stage = Stage::shared().await;
    let team = stage.team("nolength").await;
    let pki = Pki::new(&team).await;
    pki.role(json!({"generate_lease": true, "key_type": "ec", "key_bits": 256}))
        .await;
    let path = format!("{}/issue/web", pki.mount);
    let parameters = json!({"common_name": "a.example.com", "ttl": "1s"});
    let source = json!({"name": "short", "dynamic": {"path": path, "method": "POST", "parameters": parameters}});
    let mark = stage.vault_audit_mark().unwrap();
    team.issue("app", &[source], json!({})).await;
    let words = ["leases of zero length", "is not used and was revoked"];
    team.unreachable("app", "Invalid", &words).await;
    let revoked = stage.vault_audit_since(mark, |request| {
        request.path == "sys/leases/revoke" && team.made(request) && request.error.is_empty()
    });
    assert!(!revoked.unwrap().is_empty());
    let told = stage.vault_audit_mark().unwrap();
    team.polled_twice().await;
    assert_eq!(asked(stage, told, &path), 0);
}

#[tokio::test]
async fn a_certificate_is_replaced_before_it_ends_and_the_secret_never_holds_one_that_ended() {
    let stage = Stage::shared().await;
    let team = stage.team("ageing").await;
    let pki = Pki::new(&team).await;
    let source = pki.source(json!({"ttl": format!("{}s", SHORT.as_secs())}));
    team.issue("app", &[source], json!({})).await;
    let mut serial = team.serial_other_than("app", None).await;
    for _ in 0..3 {
        let seen = Instant::now();
        let next = eventually(SOON, "it is replaced", async || {
            let secret = team.secret("app").await.unwrap();
            // A client looks at the dates, too.
            greets(&secret, "a.example.com").unwrap();
            let found = team.recorded_serial("app").await.unwrap();
            if found == serial {
                Err(found)
            } else {
                Ok(found)
            }
        });
        serial = next.await.unwrap();
        assert!(seen.elapsed() < SHORT, "it had ended by then");
    }
    assert!(pki.made().await <= 5, "not more often than needed");
}

#[tokio::test]
async fn a_new_operator_issues_nothing_writes_nothing_and_restarts_nothing() {
    let mut stage = Stage::own().await;
    let mut operator = stage.operator.take().unwrap();
    let team = stage.team("again").await;
    let pki = Pki::new(&team).await;
    team.password("store", "changeit").await;
    let stores = json!({"pkcs12": {"passwordRef": {"name": "store", "key": "password"}}});
    let source = pki.source(json!({"keystores": stores}));
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let secret = team.secret("app").await.unwrap();
    operator.kill().unwrap();

    let writes = stage.audit_mark().await.unwrap();
    let mark = stage.vault_audit_mark().unwrap();
    operator = Bed::operator(&stage, &options(vec!["--leader-election=false".into()])).unwrap();
    operator.wait_ready(SOON).await.unwrap();
    // The new operator has read, so it has looked at everything.
    team.polled_twice().await;
    let asked = stage
        .vault_audit_since(mark, |request| {
            request.path.starts_with(&pki.mount) && !request.is_root
        })
        .unwrap();
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(pki.made().await, 1);
    let after = team.secret("app").await.unwrap();
    assert_eq!(
        after.metadata.resource_version,
        secret.metadata.resource_version
    );
    team.not_restarted(&before).await;
    let written = stage.writes_by(writes, "lockstep/").await.unwrap();
    let to_app: Vec<_> = written
        .iter()
        .filter(|request| request.name == "app")
        .collect();
    assert!(to_app.is_empty(), "{to_app:?}");
}

/// A Deployment that uses the Secret `app`.
async fn consumer(team: &Team<'_>) {
    team.apply(&workload(APP.0, APP.1, &env_from(&["app"])))
        .await;
}

#[tokio::test]
async fn an_edit_that_asks_nothing_else_of_vault_issues_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("samecert").await;
    let pki = Pki::new(&team).await;
    let names = json!({"altNames": ["b.example.com", "c.example.com"]});
    team.issue("app", &[pki.source(names)], json!({})).await;
    team.ready("app").await;
    let certificate = text_of(&team.secret("app").await.unwrap(), "tls.crt").unwrap();

    // Another order, what is the default anyway, and what only we are asked for.
    let mut source = pki.source(json!({
        "altNames": ["c.example.com", "b.example.com", "a.example.com"], "keySource": "Operator", "revoke": true,
    }));
    source["renewAt"] = json!("50%");
    source["keys"] = json!({"rename": {"ca.crt": "root.crt"}});
    team.issue("app", &[source], json!({"refreshInterval": "20s"}))
        .await;
    let secret = team.secret_with("app", "tls.crt", &certificate).await;
    eventually(SOON, "the root has its new name", async || {
        let secret = team.secret("app").await.unwrap();
        text_of(&secret, "root.crt")
    })
    .await
    .unwrap();
    assert_eq!(text_of(&secret, "tls.crt"), Some(certificate));
    assert_eq!(pki.made().await, 1);
}

#[tokio::test]
async fn what_was_replaced_is_revoked_once_every_pod_runs_with_the_new_one() {
    let stage = Stage::shared().await;
    let team = stage.team("revoked").await;
    let pki = Pki::new(&team).await;
    let source = pki.source(json!({"revoke": true}));
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.serial_other_than("app", None).await;

    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.serial_other_than("app", Some(&old)).await;
    pki.revoked(&old).await;
    // It was revoked after the restart, which is over then.
    assert_eq!(
        team.condition("app", "RolledOut")
            .await
            .unwrap()
            .split(' ')
            .next(),
        Some("True")
    );
    team.restarted_once("app", &before).await;
    assert!(!pki.is_revoked(&new).await);
    assert_eq!(pki.made().await, 2);
    greets(&team.secret("app").await.unwrap(), "a.example.com").unwrap();
}

/// They may serve requests to their end, which takes ten minutes here.
#[tokio::test]
async fn what_was_replaced_is_kept_while_older_pods_are_on_their_way_out() {
    let stage = Stage::shared().await;
    let team = stage.team("leaving").await;
    let pki = Pki::new(&team).await;
    let source = pki.source(json!({"revoke": true}));
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    let mut slow = workload(APP.0, APP.1, &env_from(&["app"]));
    let template = &mut slow["spec"]["template"];
    template["metadata"]["finalizers"] = json!(["lockstep.test/slow"]);
    template["spec"]["terminationGracePeriodSeconds"] = json!(600);
    team.apply(&slow).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.serial_other_than("app", None).await;

    team.annotate("app", "lockstep.dev/rotate", "now").await;
    team.serial_other_than("app", Some(&old)).await;
    team.restarted_once("app", &before).await;
    let mark = stage.audit_mark().await.unwrap();
    eventually(AFTER_THEM, "its pods are looked at again", async || {
        let looks = |request: &ApiRequest| {
            let ours = request.user_agent.starts_with("lockstep/");
            ours && request.namespace == team.namespace && request.resource == "pods"
        };
        !stage.audit_since(mark, looks).await.unwrap().is_empty()
    })
    .await
    .unwrap();
    assert!(!pki.is_revoked(&old).await);

    let pods = team.api::<Pod>().list(&ListParams::default()).await;
    let leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let pods: Vec<_> = pods.unwrap().items.into_iter().filter(leaving).collect();
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let free = json!({"metadata": {"finalizers": null}});
        team.patch::<Pod>(&pod.metadata.name.unwrap(), free).await;
    }
    eventually(AFTER_THEM, "it is revoked", async || {
        pki.is_revoked(&old).await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_revocation_that_is_denied_is_told_and_issues_nothing() {
    let stage = Stage::shared().await;
    let team = stage.team("denied").await;
    let pki = Pki::without_revocation(&team).await;
    let mark = stage.vault_audit_mark().unwrap();
    let source = pki.source(json!({"revoke": true}));
    team.issue("app", &[source], json!({})).await;
    team.ready("app").await;
    consumer(&team).await;
    team.in_step("app", APP, None).await;
    let old = team.serial_other_than("app", None).await;
    team.annotate("app", "lockstep.dev/rotate", "now").await;
    let new = team.serial_other_than("app", Some(&old)).await;
    let path = format!("{}/revoke", pki.mount);
    eventually(SOON, "it is tried again", async || {
        let tries = asked(stage, mark, &path);
        if tries >= 2 { Ok(()) } else { Err(tries) }
    })
    .await
    .unwrap();
    team.ready("app").await;
    assert!(!pki.is_revoked(&old).await);
    assert_eq!(team.recorded_serial("app").await, Some(new));
    assert_eq!(pki.made().await, 2);
    let conditions = team.status("app").await.conditions;
    assert!(
        conditions
            .iter()
            .any(|condition| condition.message.contains(&path)),
        "{conditions:?}"
    );
}

#[tokio::test]
async fn key_stores_follow_their_password_without_another_certificate() {
    let stage = Stage::shared().await;
    let team = stage.team("stores").await;
    let pki = Pki::new(&team).await;
    team.issue("app", &[pki.source(json!({}))], json!({})).await;
    team.ready("app").await;
    let serial = team.serial_other_than("app", None).await;

    let password = json!({"passwordRef": {"name": "store", "key": "password"}});
    let source = pki.source(json!({"keystores": {"pkcs12": password, "jks": password}}));
    team.issue("app", &[source], json!({})).await;
    team.stalled(
        "app",
        "InvalidSpec",
        &["keystores.pkcs12.passwordRef", "no Secret store"],
    )
    .await;
    for password in ["short", "changeit", "changed-it"] {
        team.password("store", password).await;
        if password.len() < 6 {
            team.condition_is("app", "SourcesReachable", "False Refused")
                .await;
            continue;
        }
        eventually(SOON, "the stores are those of this password", async || {
            let secret = team.secret("app").await.unwrap();
            let (found, wanted) = (stores(&secret), wanted_stores(&secret, password));
            if found == wanted {
                Ok(())
            } else {
                Err(found.len())
            }
        })
        .await
        .unwrap();
    }
    team.condition_is("app", "SourcesReachable", "True").await;
    team.issue("app", &[pki.source(json!({}))], json!({})).await;
    eventually(SOON, "the stores are gone", async || {
        let found = stores(&team.secret("app").await.unwrap());
        if found.is_empty() {
            Ok(())
        } else {
            Err(found.len())
        }
    })
    .await
    .unwrap();
    assert_eq!(team.recorded_serial("app").await, Some(serial));
    assert_eq!(pki.made().await, 1);
}

/// The key stores of a Secret.
fn stores(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    let data = secret.data.clone().unwrap();
    data.into_iter()
        .filter(|(key, _)| key.contains("store."))
        .map(|(key, value)| (key, value.0))
        .collect()
}

/// The key stores that belong to the certificate of a Secret. That others read them is shown where they are made.
fn wanted_stores(secret: &Secret, password: &str) -> BTreeMap<String, Vec<u8>> {
    let parts = ["tls.crt", "tls.key", "ca.crt"];
    let data = parts.map(|key| (key.to_owned(), Sensitive::new(bytes_of(secret, key))));
    let bundle = Bundle::from_data(&BTreeMap::from(data)).unwrap();
    let password = Some(Sensitive::new(password));
    let stores = Keystores {
        pkcs12: password.clone(),
        jks: password,
    };
    let all = layout(&bundle, &stores).unwrap();
    all.into_iter()
        .filter(|(key, _)| key.contains("store."))
        .map(|(key, value)| (key, value.expose().to_vec()))
        .collect()
}
