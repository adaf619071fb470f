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
    env,
    net::SocketAddr,
    panic,
    path::{Path, PathBuf},
    sync::Once,
    thread,
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
    argo_rollouts::ArgoRollouts,
    error::BedError,
    ldap::Ldap,
    operator::{Operator, OperatorOptions},
    parts::{Tool, progress::line},
    postgres::Postgres,
    process::Process,
    vault::{VaultRoot, server::VaultServer},
};

/// Which program plays Vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaultKind {
    /// HashiCorp Vault.
    Vault,
    /// OpenBao, the binary that `BAO_BIN` names.
    OpenBao,
}

impl VaultKind {
    /// OpenBao when `BAO_BIN` is set, so that whatever is tried is tried against it; else Vault.
    fn chosen() -> Self {
        match env::var_os("BAO_BIN") {
            Some(path) if !path.is_empty() => Self::OpenBao,
            _ => Self::Vault,
        }
    }

    const fn tool(self) -> Tool {
        match self {
            Self::Vault => Tool::Vault,
            Self::OpenBao => Tool::OpenBao,
        }
    }

    /// Whether a test is to end because this one plays Vault and does not have `feature`. Says so on stderr, past the
    /// harness: to that, a test that tries nothing is one that passes.
    pub fn lacks(self, feature: &str) -> bool {
        let lacks = self == Self::chosen();
        if lacks {
            let test = thread::current();
            let name = test.name().unwrap_or("a test");
            line(name, &format!("skipped, {self:?} does not have {feature}"));
        }
        lacks
    }
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
    argo_rollouts: OnceCell<ArgoRollouts>,
    plane: ControlPlane,
    kubectl: PathBuf,
    started_in: Duration,
    directory: Directory,
}

impl Bed {
    /// Starts a bed of one's own. The first time ever, its parts are built, which takes minutes.
    pub async fn start() -> Result<Self, BedError> {
        // Fails when one is installed already, which is as good.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let kind = VaultKind::chosen();
        let locate = move || -> Result<_, BedError> {
            let vault = kind.tool().locate()?;
            Ok((Programs::locate()?, vault, Tool::Kubectl.locate()?))
        };
        let (programs, vault, kubectl) = tokio::task::spawn_blocking(locate)
            .await
            .map_err(|error| BedError::Prepare(error.into()))??;
        let started = Instant::now();
        let directory = Directory::create().map_err(BedError::Prepare)?;
        let (plane, vault) = tokio::try_join!(
            Box::pin(kubernetes::start(&directory, programs)),
            Box::pin(VaultServer::start(&directory, kind, vault)),
        )
        .inspect_err(|_| directory.keep())?;
        let mut bed = Self {
            vault,
            postgres: OnceCell::new(),
            ldap: OnceCell::new(),
            argo_rollouts: OnceCell::new(),
            plane,
            kubectl,
            started_in: Duration::ZERO,
            directory,
        };
        bed.furnish().await.inspect_err(|_| bed.directory.keep())?;
        bed.started_in = started.elapsed();
        Ok(bed)
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

    /// The controller of Argo Rollouts with its `CustomResourceDefinitions`, started when it is first asked for.
    pub async fn argo_rollouts(&self) -> Result<&ArgoRollouts, BedError> {
        self.argo_rollouts
            .get_or_try_init(|| Box::pin(ArgoRollouts::start(self)))
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
