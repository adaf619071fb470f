//! Logins with a TLS client certificate.

use k8s_openapi::api::core::v1::Secret;
use lockstep_testbed::{
    VaultRequest,
    bed::{Certificate, authority::Authority},
    eventually,
};
use serde_json::json;

use super::{by, credential, login, policy, tells_no_canary};
use crate::support::{SOON, Stage, Team};

/// A login with the certificate in Secret `client`, over TLS, and a VaultSecret that uses it.
async fn set_up(team: &Team<'_>, certificate: &Certificate, ttl: &str) -> String {
    policy(team).await;
    let (vault, mount) = (team.stage.vault(), format!("cert-{}", team.namespace));
    vault.enable_auth(&mount, "cert").await.unwrap();
    let role = json!({
        "certificate": team.stage.vault_ca_pem(), "allowed_common_names": ["checkout"],
        "token_policies": [team.namespace, "default"], "token_ttl": ttl, "token_max_ttl": "1h",
    });
    vault
        .write(&format!("auth/{mount}/certs/app"), &role)
        .await
        .unwrap();
    stored(team, certificate).await;
    let tls = json!({"ca": {"bundle": team.stage.vault_ca_pem()}});
    team.apply(&json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultConnection", "metadata": {"name": "tls"},
        "spec": {"address": team.stage.vault_tls_address(), "tls": tls},
    }))
    .await;
    let spec = json!({
        "connectionRef": {"kind": "VaultConnection", "name": "tls"}, "mount": mount,
        "cert": {"role": "app", "secretRef": {"name": "client"}},
    });
    login(team, "VaultAuth", "cert", spec).await;
    team.put("app", &json!({"k": "one"})).await;
    team.vault_secret("app", by("VaultAuth", "cert")).await;
    mount
}

async fn stored(team: &Team<'_>, certificate: &Certificate) {
    let Certificate { certificate, key } = certificate;
    let data = json!({"tls.crt": certificate, "tls.key": key});
    credential(team, "client", data).await;
}

#[tokio::test]
async fn a_certificate_logs_in_and_is_shown_again_when_its_token_is_renewed() {
    let stage = Stage::shared().await;
    let team = stage.team("cert").await;
    let authority = stage.vault_authority();
    let mark = stage.vault_audit_mark().unwrap();
    let mount = set_up(&team, &authority.client("checkout").unwrap(), "9s").await;
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;
    let login = format!("auth/{mount}/login");
    let logins = || {
        let logins = team.reads_since(mark).into_iter();
        logins
            .filter(|request| request.path == login)
            .collect::<Vec<_>>()
    };
    let accessor = {
        let read = format!("secret/data/{}", team.path("app"));
        let reads = team.reads_since(mark);
        let read = reads.into_iter().find(|request| request.path == read);
        read.unwrap().accessor
    };
    // A refused one is followed by a login, so two of one token means that the first was good.
    eventually(SOON, "two renewals", async || {
        let renewed = |request: &VaultRequest| {
            request.path == "auth/token/renew-self" && request.accessor == accessor
        };
        stage.vault_audit_since(mark, renewed).unwrap().len() >= 2
    })
    .await
    .unwrap();
    assert_eq!(logins().len(), 1, "{:#?}", logins());

    // Another certificate is another login, at once.
    stored(&team, &authority.client("checkout").unwrap()).await;
    team.put("app", &json!({"k": "two"})).await;
    team.secret_with("app", "k", "two").await;
    eventually(SOON, "a login with the new one", async || {
        logins().len() == 2
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_not_wanted_or_not_usable_is_told() {
    let stage = Stage::shared().await;
    let team = stage.team("wrongcert").await;
    let stranger = Authority::new("somebody else").unwrap();
    let good = stage.vault_authority().client("checkout").unwrap();
    set_up(&team, &stranger.client("checkout").unwrap(), "1h").await;
    let place = format!("key tls.crt of Secret {}/client", team.namespace);
    team.unreachable("app", "Invalid", &["check spec.cert: role app", &place])
        .await;

    let other_key = stranger.client("checkout").unwrap().key;
    let broken = [
        (good.certificate.clone(), other_key),
        ("canary-of-a-certificate".to_owned(), good.key.clone()),
        (good.certificate.clone(), "canary-of-a-key".to_owned()),
    ];
    for (certificate, key) in broken {
        stored(&team, &Certificate { certificate, key }).await;
        let told = ["the certificate cannot be used", "check spec.cert", &place];
        team.unreachable("app", "CredentialUnavailable", &told)
            .await;
        tells_no_canary(&team, "app").await;
    }
    let without = json!({"data": {"tls.crt": null}});
    team.patch::<Secret>("client", without).await;
    team.tells("app", &["has no key tls.crt; add it"]).await;

    stored(&team, &good).await;
    team.secret_with("app", "k", "one").await;
    team.healed("app").await;
}
