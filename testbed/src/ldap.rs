//! Effects: processes, network, files — a directory for LDAP logins and passwords that Vault changes, started when it is
//! first asked for.

use std::{collections::HashSet, ffi::OsString, fs, net::SocketAddr};

use ldap3::{LdapConnAsync, LdapError};

use crate::{
    bed::{directory::Directory, ports, ready},
    error::BedError,
    parts,
    process::{Launch, Process},
};

/// Everything is below this name.
const BASE: &str = "dc=example,dc=com";

/// Who may do everything, and the password.
const MANAGER: (&str, &str) = ("cn=manager,dc=example,dc=com", "manager-password");

/// The user that looks others up, and its password.
const SEARCH: (&str, &str) = ("cn=search,ou=services,dc=example,dc=com", "search-password");

/// A user and his password.
const USER: (&str, &str) = ("checkout", "correct-horse");

/// The program that runs the script.
const SHELL: &str = "org.mozilla.javascript.tools.shell.Main";

/// What sets the directory up.
const SCRIPT: &str = include_str!("../parts/directory/serve.js");

/// What LDAP calls a wrong name or password.
const INVALID_CREDENTIALS: u32 = 49;

/// A running server on loopback.
pub struct Ldap {
    process: Process,
    address: SocketAddr,
}

impl Ldap {
    /// Starts a server that knows a manager, one user, and one that may search.
    pub(crate) async fn start(directory: &Directory) -> Result<Self, BedError> {
        let (program, classes) = tokio::task::spawn_blocking(parts::directory_server)
            .await
            .map_err(|error| BedError::Prepare(error.into()))??;
        let [port] = ports::free().map_err(BedError::Prepare)?;
        let home = directory.join("ldap");
        fs::create_dir(&home).map_err(BedError::file(&home))?;
        let (script, entries) = (home.join("serve.js"), home.join("entries.ldif"));
        fs::write(&script, SCRIPT).map_err(BedError::file(&script))?;
        fs::write(&entries, first_entries()).map_err(BedError::file(&entries))?;
        // Nothing here lives long enough for the better compiler to pay.
        let arguments: [OsString; 12] = [
            "-Xmx64m".into(),
            "-XX:+UseSerialGC".into(),
            "-XX:TieredStopAtLevel=1".into(),
            "-cp".into(),
            classes.into_os_string(),
            SHELL.into(),
            script.into_os_string(),
            port.to_string().into(),
            MANAGER.0.into(),
            MANAGER.1.into(),
            BASE.into(),
            entries.into_os_string(),
        ];
        let launch = Launch {
            name: "ldap",
            program,
            arguments: arguments.into(),
            environment: Vec::new(),
            user: None,
            directory: home,
            log: directory.join("ldap.log"),
        };
        let server = Self {
            process: launch.start()?,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        ready::until(&server.process, async || {
            server.lets_in(MANAGER.0, MANAGER.1).await.map(drop)
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

    /// Who may change everything, and the password.
    pub const fn manager(&self) -> (&'static str, &'static str) {
        MANAGER
    }

    /// Who may search, and the password.
    pub const fn search(&self) -> (&'static str, &'static str) {
        SEARCH
    }

    /// A user, and the password.
    pub const fn user(&self) -> (&'static str, &'static str) {
        USER
    }

    /// Makes a user with this common name; returns the distinguished name.
    pub async fn add_user(&self, name: &str, password: &str) -> Result<String, BedError> {
        let dn = format!("cn={name},ou=people,{BASE}");
        let attributes = [
            ("objectClass", "inetOrgPerson"),
            ("cn", name),
            ("sn", name),
            ("userPassword", password),
        ];
        let attributes = attributes.map(|(name, value)| (name, HashSet::from([value])));
        let (connection, mut ldap) = LdapConnAsync::new(&self.url()).await?;
        ldap3::drive!(connection);
        ldap.simple_bind(MANAGER.0, MANAGER.1).await?.success()?;
        ldap.add(&dn, attributes.into()).await?.success()?;
        ldap.unbind().await?;
        Ok(dn)
    }

    /// Whether the directory lets somebody in with this password.
    pub async fn lets_in(&self, dn: &str, password: &str) -> Result<bool, BedError> {
        let (connection, mut ldap) = LdapConnAsync::new(&self.url()).await?;
        ldap3::drive!(connection);
        let answer = ldap.simple_bind(dn, password).await?;
        ldap.unbind().await?;
        match answer.rc {
            0 => Ok(true),
            INVALID_CREDENTIALS => Ok(false),
            _ => Err(LdapError::from(answer).into()),
        }
    }

    /// The process.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}

fn first_entries() -> String {
    let ((search, search_password), (user, password)) = (SEARCH, USER);
    format!(
        "dn: {BASE}
objectClass: domain
dc: example

dn: ou=services,{BASE}
objectClass: organizationalUnit
ou: services

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: {search}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: search
userPassword: {search_password}

dn: cn={user},ou=people,{BASE}
objectClass: inetOrgPerson
cn: {user}
sn: {user}
userPassword: {password}
"
    )
}
