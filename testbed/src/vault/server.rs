//! Effects: processes, files, network — one Vault with file storage and three listeners: plain, TLS, and mutual TLS.
//!
//! It is a real server and no dev server, so that it keeps its data when it is killed and started again.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::{Value, json};
use vaultrs::sys;

use super::{VaultRoot, client};
use crate::{
    bed::{
        VaultKind,
        authority::{Authority, Certificate},
        directory::Directory,
        ports, ready,
    },
    error::BedError,
    process::{Launch, Process},
};

/// A name that stands out in any log it must not be in.
pub(crate) const ROOT_TOKEN: &str = "testbed-vault-root-token";

/// The one name that the certificate of the listener for mutual TLS is good for.
pub(crate) const MUTUAL_NAME: &str = "vault.internal";

/// A running, initialised, unsealed Vault.
pub(crate) struct VaultServer {
    pub(crate) process: Process,
    pub(crate) authority: Authority,
    pub(crate) tls: SocketAddr,
    pub(crate) mutual: SocketAddr,
    pub(crate) audit_log: PathBuf,
    pub(crate) root: VaultRoot,
}

impl VaultServer {
    /// Starts `program`, initialises and unseals it, and turns its audit log and the KV store `secret/` on.
    pub(crate) async fn start(
        directory: &Directory,
        kind: VaultKind,
        program: PathBuf,
    ) -> Result<Self, BedError> {
        let [plain, tls, mutual] = ports::free()
            .map_err(BedError::Prepare)?
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let authority = Authority::new("testbed Vault authority")?;
        let home = directory.join("vault");
        std::fs::create_dir(&home).map_err(BedError::file(&home))?;
        write_configuration(&home, kind, &authority, [plain, tls, mutual])?;
        let process = launch(directory, home.clone(), program).start()?;
        let address = format!("http://{plain}");
        ready::answers(&process, &health(&address)).await?;
        let unseal_key = initialise(&address).await?;
        let root = VaultRoot::new(address, ROOT_TOKEN.to_owned(), unseal_key);
        let server = Self {
            process,
            authority,
            tls,
            mutual,
            audit_log: home.join("audit.log"),
            root,
        };
        server.furnish().await?;
        Ok(server)
    }

    /// Waits until it answers, sealed or not.
    pub(crate) async fn answers(&self) -> Result<(), BedError> {
        ready::answers(&self.process, &health(self.root.address())).await
    }

    async fn furnish(&self) -> Result<(), BedError> {
        let options = json!({
            "type": "file",
            // Accessors are not secret here, and tests want to tell one token from another.
            "options": {"file_path": self.audit_log, "log_raw": "false", "hmac_accessor": "false"},
        });
        self.root.write("sys/audit/file", &options).await?;
        self.root
            .write(
                "sys/mounts/secret",
                &json!({"type": "kv", "options": {"version": "2"}}),
            )
            .await?;
        Ok(())
    }
}

fn write_configuration(
    home: &std::path::Path,
    kind: VaultKind,
    authority: &Authority,
    [plain, tls, mutual]: [SocketAddr; 3],
) -> Result<(), BedError> {
    // The last is what it is called in the examples.
    let Certificate { certificate, key } =
        authority.server(&["127.0.0.1", "localhost", "vault.vault.svc"])?;
    let strict = authority.server(&[MUTUAL_NAME])?;
    let mut configuration = json!({
        "disable_mlock": true,
        "disable_clustering": true,
        "api_addr": format!("http://{plain}"),
        "storage": {"file": {"path": home.join("data")}},
        "listener": [
            {"tcp": {"address": plain, "tls_disable": true}},
            {"tcp": {
                "address": tls,
                "tls_cert_file": home.join("server.pem"),
                "tls_key_file": home.join("server.key"),
            }},
            {"tcp": {
                "address": mutual,
                "tls_cert_file": home.join("mutual.pem"),
                "tls_key_file": home.join("mutual.key"),
                "tls_client_ca_file": home.join("authority.pem"),
                "tls_require_and_verify_client_cert": true,
            }},
        ],
    });
    if let (VaultKind::OpenBao, Value::Object(settings)) = (kind, &mut configuration) {
        // It would otherwise refuse to turn an audit log on through the API, which is the only way Vault knows.
        settings.insert("unsafe_allow_api_audit_creation".to_owned(), true.into());
    }
    let files = [
        ("server.pem", certificate),
        ("server.key", key),
        ("mutual.pem", strict.certificate),
        ("mutual.key", strict.key),
        ("authority.pem", authority.pem()),
        ("config.json", configuration.to_string()),
    ];
    for (name, content) in files {
        let path = home.join(name);
        std::fs::write(&path, content).map_err(BedError::file(&path))?;
    }
    Ok(())
}

fn launch(directory: &Directory, home: PathBuf, program: PathBuf) -> Launch {
    let mut configuration = std::ffi::OsString::from("-config=");
    configuration.push(home.join("config.json"));
    Launch {
        name: "vault",
        program,
        arguments: vec!["server".into(), configuration, "-log-level=info".into()],
        environment: vec![("HOME".to_owned(), home.clone().into())],
        user: None,
        directory: home,
        log: directory.join("vault.log"),
    }
}

/// Answers 200 whatever state it is in.
fn health(address: &str) -> String {
    format!("{address}/v1/sys/health?standbyok=true&sealedcode=200&uninitcode=200")
}

/// Initialises and unseals a new Vault and gives it the known root token; returns the unseal key.
async fn initialise(address: &str) -> Result<String, BedError> {
    let outcome = sys::start_initialization(&client(address, "")?, 1, 1, None).await?;
    let unseal_key = outcome
        .keys
        .into_iter()
        .next()
        .ok_or(BedError::Shape("the unseal key"))?;
    let first = VaultRoot::new(address.to_owned(), outcome.root_token, unseal_key.clone());
    first.unseal().await?;
    first
        .write(
            "auth/token/create-orphan",
            &json!({"id": ROOT_TOKEN, "policies": ["root"], "display_name": "root"}),
        )
        .await?;
    Ok(unseal_key)
}
