//! Effects: everything — one whole environment: control plane, fake nodes, Vault, and PostgreSQL on demand.

mod access;
mod audits;
pub mod authority;
pub(crate) mod cluster;
pub(crate) mod directory;
mod furniture;
mod kubernetes;
mod plain;
pub(crate) mod ports;
pub(crate) mod ready;
mod vault_kubernetes;

use std::{
    net::SocketAddr,
    panic,
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

pub use self::{
    authority::{Authority, Certificate},
    cluster::OPERATOR_NAMESPACE,
    plain::PlainApiserver,
};
use self::{
    directory::Directory,
    kubernetes::{ControlPlane, Programs},
};
use crate::{
    error::BedError,
    ldap::Ldap,
    operator::{Operator, OperatorOptions},
    parts::Tool,
    postgres::Postgres,
    process::Process,
    vault::{VaultRoot, server::VaultServer},
};

/// Which program plays Vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VaultKind {
    /// HashiCorp Vault.
    #[default]
    Vault,
    /// OpenBao, the binary that `BAO_BIN` names.
    OpenBao,
}

/// What can be chosen about a bed.
#[derive(Debug, Clone, Copy, Default)]
pub struct BedBuilder {
    vault: VaultKind,
}

/// A process of the bed that a test may pause, kill and restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The store of the apiserver.
    Etcd,
    /// The apiserver.
    Apiserver,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The kubelets' stand-in.
    Kwok,
    /// Vault.
    Vault,
}

/// A running environment. It ends when the handle is dropped, or with the process.
///
/// It holds no connection, so that a bed can be shared by tests that each have a runtime of their own.
pub struct Bed {
    // In this order: processes end before their files go.
    vault: VaultServer,
    postgres: OnceCell<Postgres>,
    ldap: OnceCell<Ldap>,
    plane: ControlPlane,
    kubectl: PathBuf,
    started_in: Duration,
    directory: Directory,
}

impl BedBuilder {
    /// Chooses who plays Vault.
    #[must_use]
    pub const fn vault(mut self, kind: VaultKind) -> Self {
        self.vault = kind;
        self
    }

    /// Starts the bed. The first time ever, its parts are built, which takes minutes.
    pub async fn start(self) -> Result<Bed, BedError> {
        // Fails when one is installed already, which is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let (programs, vault, kubectl) = tokio::task::spawn_blocking(move || self.locate())
            .await
            .map_err(|error| BedError::Prepare(error.into()))??;
        let started = Instant::now();
        let directory = Directory::create().map_err(BedError::Prepare)?;
        let (plane, vault) = tokio::try_join!(
            Box::pin(kubernetes::start(&directory, programs)),
            Box::pin(VaultServer::start(&directory, self.vault, vault)),
        )
        .inspect_err(|_| directory.keep())?;
        let mut bed = Bed {
            vault,
            postgres: OnceCell::new(),
            ldap: OnceCell::new(),
            plane,
            kubectl,
            started_in: Duration::ZERO,
            directory,
        };
        bed.furnish().await.inspect_err(|_| bed.directory.keep())?;
        bed.started_in = started.elapsed();
        Ok(bed)
    }

    fn locate(self) -> Result<(Programs, PathBuf, PathBuf), BedError> {
        let vault = match self.vault {
            VaultKind::Vault => Tool::Vault,
            VaultKind::OpenBao => Tool::OpenBao,
        };
        Ok((
            Programs::locate()?,
            vault.locate()?,
            Tool::Kubectl.locate()?,
        ))
    }
}

impl Bed {
    /// What can be chosen.
    pub fn builder() -> BedBuilder {
        BedBuilder::default()
    }

    /// Starts a bed of one's own.
    pub async fn start() -> Result<Self, BedError> {
        BedBuilder::default().start().await
    }

    /// The bed that all tests of this process share, started by the first that asks.
    ///
    /// When a test panics, the bed's logs are kept, and stderr says where.
    pub async fn shared() -> Result<&'static Self, BedError> {
        // A failure is remembered, too: what failed once would only keep every other test waiting.
        static SHARED: OnceCell<Result<Bed, String>> = OnceCell::const_new();
        static HOOK: Once = Once::new();
        let start = async || Self::start().await.map_err(|error| format!("{error:?}"));
        let bed = SHARED
            .get_or_init(start)
            .await
            .as_ref()
            .map_err(|first| BedError::Shared(first.clone()))?;
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |what| {
                before(what);
                bed.directory.keep();
            }));
        });
        Ok(bed)
    }

    /// How long the start took, without building parts.
    pub const fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The directory with the logs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the directory when the bed ends.
    pub fn keep_directory(&self) {
        self.directory.keep();
    }

    /// One of the processes, to pause, resume, kill or restart. For a restart that waits, see
    /// [`Bed::restart_apiserver`] and [`Bed::restart_vault`].
    pub const fn component(&self, component: Component) -> &Process {
        match component {
            Component::Etcd => &self.plane.etcd,
            Component::Apiserver => &self.plane.apiserver,
            Component::ControllerManager => &self.plane.controller_manager,
            Component::Scheduler => &self.plane.scheduler,
            Component::Kwok => &self.plane.kwok,
            Component::Vault => &self.vault.process,
        }
    }

    /// Kills the apiserver, starts it again, and returns when it serves.
    pub async fn restart_apiserver(&self) -> Result<(), BedError> {
        self.plane.apiserver.restart()?;
        ready::answers(
            &self.plane.apiserver,
            &format!("{}/readyz", self.plane.access.url),
        )
        .await
    }

    /// Kills Vault, starts it again on the same data, and unseals it.
    pub async fn restart_vault(&self) -> Result<(), BedError> {
        self.vault.process.restart()?;
        self.vault.answers().await?;
        self.vault.root.unseal().await
    }

    /// Vault, with the rights of root.
    pub fn vault(&self) -> VaultRoot {
        self.vault.root.clone()
    }

    /// Where Vault speaks plain HTTP: `http://127.0.0.1:<port>`.
    pub fn vault_address(&self) -> String {
        self.vault.root.address().to_owned()
    }

    /// Where Vault speaks TLS: `https://127.0.0.1:<port>`.
    pub fn vault_tls_address(&self) -> String {
        format!("https://{}", self.vault.tls)
    }

    /// Where Vault speaks TLS to those only who show a certificate of [`Bed::vault_authority`]:
    /// `https://127.0.0.1:<port>`. Its own certificate is good for the name `vault.internal` alone.
    pub fn vault_mutual_tls_address(&self) -> String {
        format!("https://{}", self.vault.mutual)
    }

    /// The socket behind [`Bed::vault_address`], for a proxy in front of it.
    pub fn vault_socket(&self) -> Result<SocketAddr, BedError> {
        socket(self.vault.root.address())
    }

    /// The socket of the apiserver, for a proxy in front of it.
    pub fn apiserver_socket(&self) -> Result<SocketAddr, BedError> {
        socket(&self.plane.access.url)
    }

    /// The authority of Vault's certificate, as PEM.
    pub fn vault_ca_pem(&self) -> String {
        self.vault.authority.pem()
    }

    /// The authority itself: it signs client certificates for Vault's cert auth method.
    pub const fn vault_authority(&self) -> &Authority {
        &self.vault.authority
    }

    /// PostgreSQL, started when it is first asked for.
    pub async fn postgres(&self) -> Result<&Postgres, BedError> {
        self.postgres
            .get_or_try_init(|| Box::pin(Postgres::start(&self.directory)))
            .await
    }

    /// A directory server, started when it is first asked for.
    pub async fn ldap(&self) -> Result<&Ldap, BedError> {
        self.ldap
            .get_or_try_init(|| Box::pin(Ldap::start(&self.directory)))
            .await
    }

    /// Starts an operator against this bed.
    pub fn operator(&self, options: &OperatorOptions) -> Result<Operator, BedError> {
        Operator::start(&self.directory, &self.plane.access.kubeconfig, options)
    }

    async fn furnish(&self) -> Result<(), BedError> {
        let client = self.client().await?;
        cluster::furnish(&client).await?;
        self.prepare_token_reviewer(&client).await?;
        self.enable_kubernetes_auth("kubernetes").await
    }
}

fn socket(url: &str) -> Result<SocketAddr, BedError> {
    let authority = url.rsplit_once('/').map(|(_, authority)| authority);
    authority
        .and_then(|authority| authority.parse().ok())
        .ok_or(BedError::Shape("an address"))
}
