//! Effects: processes, files — a directory server for LDAP logins, started when it is first asked for.

use std::{fs, net::SocketAddr};

use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use crate::{
    bed::{directory::Directory, ports, ready},
    error::BedError,
    parts::Tool,
    process::{Launch, Process},
};

/// Everything is below this name.
const BASE: &str = "dc=example,dc=com";

/// The user that looks others up, and its password.
const SEARCH: (&str, &str) = ("search", "search-password");

/// A user and his password.
const USER: (&str, &str) = ("checkout", "correct-horse");

/// A running server on loopback.
pub struct Ldap {
    process: Process,
    address: SocketAddr,
}

impl Ldap {
    /// Starts a server that knows one user, and one that may search.
    pub(crate) async fn start(directory: &Directory) -> Result<Self, BedError> {
        let program = tokio::task::spawn_blocking(|| Tool::Glauth.locate())
            .await
            .map_err(|error| BedError::Prepare(error.into()))??;
        let [port] = ports::free().map_err(BedError::Prepare)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let home = directory.join("ldap");
        fs::create_dir(&home).map_err(BedError::file(&home))?;
        let configuration = home.join("glauth.toml");
        fs::write(&configuration, settings(address)).map_err(BedError::file(&configuration))?;
        let launch = Launch {
            name: "ldap",
            program,
            arguments: vec!["-c".into(), configuration.into_os_string()],
            environment: Vec::new(),
            user: None,
            directory: home,
            log: directory.join("ldap.log"),
        };
        let server = Self {
            process: launch.start()?,
            address,
        };
        ready::until(&server.process, async || {
            TcpStream::connect(address).await.map(drop)
        })
        .await?;
        Ok(server)
    }

    /// `ldap://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("ldap://{}", self.address)
    }

    /// Where the users are.
    pub const fn user_dn(&self) -> &'static str {
        BASE
    }

    /// Who may search, and the password.
    pub fn search(&self) -> (String, &'static str) {
        (format!("cn={},ou=services,{BASE}", SEARCH.0), SEARCH.1)
    }

    /// A user, and the password.
    pub const fn user(&self) -> (&'static str, &'static str) {
        USER
    }

    /// The process.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}

fn settings(address: SocketAddr) -> String {
    let digest = |password: &str| {
        let digest = Sha256::digest(password);
        let digits = digest.iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    };
    let ((search, search_password), (user, password)) = (SEARCH, USER);
    format!(
        r#"
[ldap]
  enabled = true
  listen = "{address}"
[ldaps]
  enabled = false
[api]
  enabled = false
[tracing]
  enabled = false
[backend]
  datastore = "config"
  baseDN = "{BASE}"
[behaviors]
  LimitFailedBinds = false
[[groups]]
  name = "services"
  gidnumber = 5001
[[groups]]
  name = "people"
  gidnumber = 5002
[[users]]
  name = "{search}"
  uidnumber = 5101
  primarygroup = 5001
  passsha256 = "{}"
  [[users.capabilities]]
    action = "search"
    object = "*"
[[users]]
  name = "{user}"
  uidnumber = 5102
  primarygroup = 5002
  passsha256 = "{}"
"#,
        digest(search_password),
        digest(password)
    )
}
