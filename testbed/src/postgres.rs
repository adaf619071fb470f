//! Effects: processes, files, network — a PostgreSQL for database credentials, started when it is first asked for.

use std::{
    fs,
    os::unix::fs::chown,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::{
    bed::{directory::Directory, ports, ready},
    error::BedError,
    parts::{PartError, Tool},
    process::{Launch, Process},
};

/// The superuser that Vault manages roles with.
const USER: &str = "postgres";
const PASSWORD: &str = "testbed-postgres-password";

/// "nobody": PostgreSQL refuses to run as root, and this user exists everywhere.
const UNPRIVILEGED: u32 = 65_534;

/// A running server on loopback.
pub struct Postgres {
    process: Process,
    port: u16,
}

impl Postgres {
    /// Makes a database cluster and starts a server on it.
    pub(crate) async fn start(directory: &Directory) -> Result<Self, BedError> {
        let home = directory.join("postgres");
        let prepared = home.clone();
        let (program, user) = tokio::task::spawn_blocking(move || prepare(&prepared))
            .await
            .map_err(|error| BedError::Prepare(error.into()))??;
        let [port] = ports::free().map_err(BedError::Prepare)?;
        let arguments = [
            "-D".into(),
            home.join("data").into_os_string(),
            "-p".into(),
            port.to_string().into(),
            "-h".into(),
            "127.0.0.1".into(),
            "-c".into(),
            "fsync=off".into(),
            "-c".into(),
            "unix_socket_directories=".into(),
        ];
        let launch = Launch {
            name: "postgres",
            program,
            arguments: arguments.into(),
            environment: Vec::new(),
            user,
            directory: home,
            log: directory.join("postgres.log"),
        };
        let server = Self {
            process: launch.start()?,
            port,
        };
        ready::until(&server.process, async || {
            server.query_as(USER, PASSWORD, "select 1").await.map(drop)
        })
        .await?;
        Ok(server)
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The superuser and the password.
    pub const fn credentials(&self) -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// A connection URL for Vault's database engine, with its placeholders for user and password.
    pub fn vault_url(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@{}/postgres?sslmode=disable",
            self.address()
        )
    }

    /// Runs SQL as the superuser and returns the rows as text.
    pub async fn query(&self, sql: &str) -> Result<Vec<Vec<String>>, BedError> {
        self.query_as(USER, PASSWORD, sql).await
    }

    /// Runs SQL as somebody: an error when the credentials are not good.
    pub async fn query_as(
        &self,
        user: &str,
        password: &str,
        sql: &str,
    ) -> Result<Vec<Vec<String>>, BedError> {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .password(password)
            .dbname("postgres")
            .connect(NoTls)
            .await?;
        let answer = tokio::select! {
            answer = client.simple_query(sql) => answer?,
            ended = connection => return Err(ended.err().map_or(BedError::Shape("an answer"), BedError::Postgres)),
        };
        Ok(answer.iter().filter_map(row).collect())
    }

    /// The process.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}

fn row(message: &SimpleQueryMessage) -> Option<Vec<String>> {
    let SimpleQueryMessage::Row(row) = message else {
        return None;
    };
    Some(
        (0..row.len())
            .map(|column| row.get(column).unwrap_or_default().to_owned())
            .collect(),
    )
}

/// Makes the home with its database cluster; returns the server program and whom to run it as.
fn prepare(home: &Path) -> Result<(PathBuf, Option<u32>), BedError> {
    fs::create_dir(home).map_err(BedError::file(home))?;
    let (mut initdb, mut server) = (Tool::Initdb.locate()?, Tool::Postgres.locate()?);
    let user = rustix::process::geteuid().is_root().then_some(UNPRIVILEGED);
    if user.is_some() {
        chown(home, user, user).map_err(BedError::file(home))?;
        // The unprivileged user may not enter root's cache, so it gets a copy.
        let bundle = home.join("bundle");
        copy_tree(bundle_of(&server)?, &bundle)?;
        (initdb, server) = (bundle.join("bin/initdb"), bundle.join("bin/postgres"));
    }
    let password = home.join("password");
    fs::write(&password, PASSWORD).map_err(BedError::file(&password))?;
    let mut command = Command::new(&initdb);
    command
        .current_dir(home)
        .arg("-D")
        .arg(home.join("data"))
        .arg("--pwfile")
        .arg(&password)
        .args([
            "--username",
            USER,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command.output().map_err(|source| PartError::Start {
        program: initdb.display().to_string(),
        source,
    })?;
    if output.status.success() {
        Ok((server, user))
    } else {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(BedError::NotReady {
            name: "initdb",
            reason: output.status.to_string(),
            log,
        })
    }
}

/// The directory above `bin`.
fn bundle_of(program: &Path) -> Result<&Path, BedError> {
    program
        .parent()
        .and_then(Path::parent)
        .ok_or(BedError::Shape("the directory of PostgreSQL"))
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), BedError> {
    fs::create_dir(to).map_err(BedError::file(to))?;
    for entry in fs::read_dir(from).map_err(BedError::file(from))? {
        let entry = entry.map_err(BedError::file(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(BedError::file(&source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(BedError::file(&source))?;
            std::os::unix::fs::symlink(link, &target).map_err(BedError::file(&target))?;
        } else {
            fs::copy(&source, &target).map_err(BedError::file(&target))?;
        }
    }
    Ok(())
}
