//! A cloud that signs tokens, and a Vault that knows its key.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::support::Team;

/// A key of a cloud, or of a service account.
pub struct Signer(KeyPair);

impl Signer {
    /// A new key.
    pub fn new() -> Self {
        Self(KeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// The private key in PEM, as Google writes it.
    pub fn private_pem(&self) -> String {
        let der: Pkcs8V1Der<'_> = self.0.as_der().unwrap();
        pem("PRIVATE KEY", der.as_ref())
    }

    fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        pem("PUBLIC KEY", der.as_ref())
    }

    /// A JWT with these claims.
    pub fn jwt(&self, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!(
            "{}.{}",
            encode(&json!({"alg": "RS256", "kid": "1"})),
            encode(claims)
        );
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = SystemRandom::new();
        self.0
            .sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
            .unwrap();
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Mounts a JWT method at `mount` that takes tokens of this signer for `subject` and `audience` at the role `app`.
    pub async fn mount(&self, team: &Team<'_>, mount: &str, subject: &str, audience: &str) {
        team.allow_reads().await;
        let vault = team.stage.vault();
        vault.enable_auth(mount, "jwt").await.unwrap();
        let keys = json!({"jwt_validation_pubkeys": [self.public_pem()]});
        vault
            .write(&format!("auth/{mount}/config"), &keys)
            .await
            .unwrap();
        // A token that does not say when it begins begins 150 seconds before its end, for this method of Vault.
        let role = json!({
            "not_before_leeway": 700, "role_type": "jwt", "user_claim": "sub", "bound_subject": subject,
            "bound_audiences": [audience], "token_policies": [team.namespace], "token_ttl": "1h",
        });
        vault
            .write(&format!("auth/{mount}/role/app"), &role)
            .await
            .unwrap();
    }
}

fn pem(what: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {what}-----\n{text}\n-----END {what}-----\n")
}
