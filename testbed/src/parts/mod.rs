//! Effects: environment, processes, network, files — where the real binaries come from.
//!
//! Each part is named by an environment variable, or taken from the per-user cache, or built into it.

mod archive;
mod cache;
mod directory;
mod download;
mod error;
mod go;
mod java;
mod origin;
mod postgres;
pub(crate) mod progress;
mod toolchain;

use std::{env, path::PathBuf};

pub use self::error::PartError;
use self::go::GoModule;

/// A set of binaries that is built or fetched as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The store behind the apiserver.
    Etcd,
    /// apiserver, controller manager, scheduler and kubectl.
    Kubernetes,
    /// Plays the kubelet for nodes that do not exist.
    Kwok,
    /// HashiCorp Vault.
    Vault,
    /// Helm.
    Helm,
    /// The controller of Argo Rollouts, and its `CustomResourceDefinitions`.
    ArgoRollouts,
    /// PostgreSQL.
    Postgres,
    /// An LDAP directory, and the Java that runs it.
    Directory,
}

/// One program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `etcd`.
    Etcd,
    /// `kube-apiserver`.
    Apiserver,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kubectl`.
    Kubectl,
    /// `kwok`.
    Kwok,
    /// `vault`.
    Vault,
    /// `bao`, which only an override provides.
    OpenBao,
    /// `helm`.
    Helm,
    /// `rollouts-controller`.
    ArgoRollouts,
    /// `initdb`.
    Initdb,
    /// `postgres`.
    Postgres,
}

impl Part {
    /// Every part, in the order in which they are built: the quick ones first.
    pub const ALL: [Self; 8] = [
        Self::Etcd,
        Self::Postgres,
        Self::Directory,
        Self::Kwok,
        Self::Kubernetes,
        Self::Vault,
        Self::Helm,
        Self::ArgoRollouts,
    ];

    /// The name of the part in the cache and in progress lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kubernetes => "kubernetes",
            Self::Kwok => "kwok",
            Self::Vault => "vault",
            Self::Helm => "helm",
            Self::ArgoRollouts => "argo-rollouts",
            Self::Postgres => "postgres",
            Self::Directory => "directory",
        }
    }

    const fn module(self) -> Option<GoModule> {
        match self {
            Self::Etcd => Some(ETCD),
            Self::Kubernetes => Some(KUBERNETES),
            Self::Kwok => Some(KWOK),
            Self::Vault => Some(VAULT),
            Self::Helm => Some(HELM),
            Self::ArgoRollouts => Some(ARGO_ROLLOUTS),
            Self::Postgres | Self::Directory => None,
        }
    }
}

const ETCD: GoModule = GoModule {
    name: "etcd",
    packages: &[("go.etcd.io/etcd/server/v3", "etcd")],
    stamped: None,
    files: None,
    patience: "building, once per version, about half a minute",
};

const KUBERNETES: GoModule = GoModule {
    name: "kubernetes",
    packages: &[
        ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
        (
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "kube-controller-manager",
        ),
        ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
        ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    ],
    stamped: Some("k8s.io/kubernetes"),
    files: None,
    patience: "building, once per version, about five minutes on two cores",
};

const KWOK: GoModule = GoModule {
    name: "kwok",
    packages: &[("sigs.k8s.io/kwok/cmd/kwok", "kwok")],
    stamped: None,
    files: None,
    patience: "building, once per version, about one minute",
};

const VAULT: GoModule = GoModule {
    name: "vault",
    packages: &[("github.com/hashicorp/vault", "vault")],
    stamped: None,
    files: None,
    patience: "building, once per version, about five minutes on two cores",
};

const HELM: GoModule = GoModule {
    name: "helm",
    packages: &[("helm.sh/helm/v4/cmd/helm", "helm")],
    stamped: None,
    files: None,
    patience: "building, once per version, about two minutes",
};

const ARGO_ROLLOUTS: GoModule = GoModule {
    name: "argo-rollouts",
    packages: &[(
        "github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
        "rollouts-controller",
    )],
    stamped: None,
    files: Some(("github.com/argoproj/argo-rollouts", "manifests/crds")),
    patience: "building, once per version, about four minutes on two cores",
};

/// The directory of a part's binaries, built or fetched on first use; overrides do not count here.
///
/// Blocks, for minutes when the cache is cold.
pub fn ensure(part: Part) -> Result<PathBuf, PartError> {
    match (part, part.module()) {
        (_, Some(module)) => module.ensure(),
        (Part::Directory, None) => java::java().and_then(|_| directory::ensure()),
        (_, None) => Ok(postgres::ensure()?.join("bin")),
    }
}

/// The `java` program and the class path of the directory server, fetched on first use.
///
/// Blocks, for a while when the cache is cold.
pub(crate) fn directory_server() -> Result<(PathBuf, PathBuf), PartError> {
    Ok((java::java()?, directory::ensure()?.join("*")))
}

impl Tool {
    /// The path of the program: what the environment names, else what [`ensure`] provides.
    ///
    /// Blocks, for minutes when the cache is cold.
    pub fn locate(self) -> Result<PathBuf, PartError> {
        if let Some(path) = self.overridden()? {
            return Ok(path);
        }
        let part = self.part().ok_or_else(|| PartError::Platform {
            part: "openbao without BAO_BIN",
            platform: "any registry".to_owned(),
        })?;
        Ok(ensure(part)?.join(self.file_name()))
    }

    /// The part that the program belongs to; none for what only an override provides.
    pub const fn part(self) -> Option<Part> {
        match self {
            Self::Etcd => Some(Part::Etcd),
            Self::Apiserver | Self::ControllerManager | Self::Scheduler | Self::Kubectl => {
                Some(Part::Kubernetes)
            }
            Self::Kwok => Some(Part::Kwok),
            Self::Vault => Some(Part::Vault),
            Self::OpenBao => None,
            Self::Helm => Some(Part::Helm),
            Self::ArgoRollouts => Some(Part::ArgoRollouts),
            Self::Initdb | Self::Postgres => Some(Part::Postgres),
        }
    }

    const fn file_name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Kwok => "kwok",
            Self::Vault => "vault",
            Self::OpenBao => "bao",
            Self::Helm => "helm",
            Self::ArgoRollouts => "rollouts-controller",
            Self::Initdb => "initdb",
            Self::Postgres => "postgres",
        }
    }

    /// The path an environment variable leads to, where one is set; that nothing is there is an error, so that a
    /// mistyped override does not quietly test something else.
    fn overridden(self) -> Result<Option<PathBuf>, PartError> {
        let (variable, file_name) = match self {
            Self::Etcd | Self::Apiserver | Self::Kubectl => {
                ("KUBEBUILDER_ASSETS", Some(self.file_name()))
            }
            Self::Vault => ("VAULT_BIN", None),
            Self::OpenBao => ("BAO_BIN", None),
            Self::Initdb | Self::Postgres => ("POSTGRES_BIN_DIR", Some(self.file_name())),
            Self::ControllerManager
            | Self::Scheduler
            | Self::Kwok
            | Self::Helm
            | Self::ArgoRollouts => {
                return Ok(None);
            }
        };
        let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let path = file_name.map_or_else(
            || PathBuf::from(&value),
            |name| PathBuf::from(&value).join(name),
        );
        if path.is_file() {
            Ok(Some(path))
        } else {
            Err(PartError::Override { variable, path })
        }
    }
}
