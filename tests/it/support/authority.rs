//! A certificate authority in Vault, and what is to be known of the certificates it signed.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use lockstep::names::HOLDINGS;
use lockstep_testbed::eventually;
use reqwest::Method;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};

use super::{SOON, Team, team::merge};

/// A PKI engine of a team: a root, an intermediate that signs, and a role `web` for names below `example.com`.
pub struct Pki<'a> {
    team: &'a Team<'a>,
    /// Where it is mounted.
    pub mount: String,
}

impl<'a> Pki<'a> {
    /// Below a mount of which the team may use everything.
    pub async fn new(team: &'a Team<'a>) -> Self {
        Self::at(team, &format!("pki-{}", team.namespace)).await
    }

    /// Below a mount at which the team may only have certificates signed.
    pub async fn without_revocation(team: &'a Team<'a>) -> Self {
        Self::at(team, &format!("signing-{}", team.namespace)).await
    }

    async fn at(team: &'a Team<'a>, mount: &str) -> Self {
        let vault = team.stage.vault();
        vault.enable_engine(mount, "pki").await.unwrap();
        let pki = Self {
            team,
            mount: mount.to_owned(),
        };
        let tune = json!({"max_lease_ttl": "87600h"});
        vault
            .write(&format!("sys/mounts/{mount}/tune"), &tune)
            .await
            .unwrap();
        let root = json!({"common_name": "Root", "issuer_name": "root", "key_type": "ec", "key_bits": 256, "ttl": "87600h"});
        pki.write("root/generate/internal", root).await;
        let intermediate =
            json!({"common_name": "Intermediate", "key_type": "ec", "key_bits": 256});
        let request = pki
            .write("intermediate/generate/internal", intermediate)
            .await;
        let request =
            json!({"csr": request["data"]["csr"], "common_name": "Intermediate", "ttl": "43800h"});
        let signed = pki.write("root/sign-intermediate", request).await;
        let signed = json!({"certificate": signed["data"]["certificate"]});
        let set = pki.write("intermediate/set-signed", signed).await;
        let id = &set["data"]["imported_issuers"][0];
        pki.write(
            &format!("issuer/{}", id.as_str().unwrap()),
            json!({"issuer_name": "intermediate"}),
        )
        .await;
        pki.write("config/issuers", json!({"default": id})).await;
        pki.role(json!({})).await;
        pki
    }

    /// Writes the role `web` anew, changed by `extra`.
    pub async fn role(&self, extra: Value) {
        let mut role = json!({
            "allowed_domains": "example.com", "allow_subdomains": true, "allow_ip_sans": true,
            "allowed_uri_sans": "spiffe://example.com/*", "key_type": "any", "ttl": "72h", "max_ttl": "720h",
        });
        merge(&mut role, extra);
        self.write("roles/web", role).await;
    }

    async fn write(&self, path: &str, body: Value) -> Value {
        let path = format!("{}/{path}", self.mount);
        self.team.stage.vault().write(&path, &body).await.unwrap()
    }

    /// A source called `tls` of the role, changed by `extra`.
    pub fn source(&self, extra: Value) -> Value {
        let mut pki = json!({"mount": self.mount, "role": "web", "commonName": "a.example.com"});
        merge(&mut pki, extra);
        json!({"name": "tls", "pki": pki})
    }

    /// The serial numbers of all certificates it ever made, its own two among them.
    pub async fn serials(&self) -> Vec<String> {
        let list = Method::from_bytes(b"LIST").unwrap();
        let path = format!("{}/certs", self.mount);
        let vault = self.team.stage.vault();
        let listed = vault.request(list, &path, None).await.unwrap();
        let keys = listed["data"]["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| key.as_str().unwrap().to_owned())
            .collect()
    }

    /// How many it made for others.
    pub async fn made(&self) -> usize {
        self.serials().await.len() - 2
    }

    /// Whether the certificate is revoked.
    pub async fn is_revoked(&self, serial: &str) -> bool {
        let path = format!("{}/cert/{serial}", self.mount);
        let found = self.team.stage.vault().read(&path).await.unwrap();
        found["data"]["revocation_time"].as_i64() != Some(0)
    }

    /// Waits until the certificate is revoked.
    pub async fn revoked(&self, serial: &str) {
        eventually(SOON, "the certificate is revoked", async || {
            if self.is_revoked(serial).await {
                Ok(())
            } else {
                Err("it is not")
            }
        })
        .await
        .unwrap();
    }
}

impl Team<'_> {
    /// The serial number of the certificate that the record in Secret `name` says is held for the source `tls`.
    pub async fn recorded_serial(&self, name: &str) -> Option<String> {
        let secret = self.secret(name).await?;
        let record = secret.metadata.annotations?.get(HOLDINGS)?.clone();
        let record: Value = serde_json::from_str(&record).unwrap();
        let serial = record["held"]["tls"]["certificate"]["serial"].as_str()?;
        Some(serial.to_owned())
    }

    /// Waits until Secret `name` holds another certificate than `before`; returns its serial number.
    pub async fn serial_other_than(&self, name: &str, before: Option<&str>) -> String {
        let what = format!("Secret {name} holds another certificate");
        eventually(SOON, &what, async || {
            let found = self.recorded_serial(name).await.ok_or("there is none")?;
            if before == Some(found.as_str()) {
                Err("it is the same")
            } else {
                Ok(found)
            }
        })
        .await
        .unwrap()
    }

    /// Writes a Secret that holds a password.
    pub async fn password(&self, name: &str, password: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"password": password},
        }))
        .await;
    }
}

/// The bytes of one key of a Secret.
pub fn bytes_of<'a>(secret: &'a Secret, key: &str) -> &'a [u8] {
    &secret.data.as_ref().unwrap()[key].0
}

/// A server with the Secret's `tls.crt` and `tls.key` and a client that trusts its `ca.crt` alone greet each other.
pub fn greets(secret: &Secret, host: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificates = |key| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(bytes_of(secret, key))
            .collect::<Result<_, _>>()
            .unwrap()
    };
    let key = PrivateKeyDer::from_pem_slice(bytes_of(secret, "tls.key")).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates("tls.crt"), key)?;
    let mut roots = RootCertStore::empty();
    for root in certificates("ca.crt") {
        roots.add(root)?;
    }
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

/// How long a certificate of a test lives that is to be replaced soon.
pub const SHORT: Duration = Duration::from_secs(12);
