//! Effects: processes, files — the control plane: etcd, apiserver, controller manager, scheduler and KWOK.

mod layout;

use std::path::PathBuf;

use serde_json::json;

pub(crate) use self::layout::AUDIT_LOG;
use self::layout::{ComponentPorts, Layout};
use super::{directory::Directory, ready};
use crate::{error::BedError, parts::Tool, process::Process};

/// The running control plane.
pub(crate) struct ControlPlane {
    // Clients before servers: dropped in this order, nothing logs about a server that went away.
    pub(crate) kwok: Process,
    pub(crate) scheduler: Process,
    pub(crate) controller_manager: Process,
    pub(crate) apiserver: Process,
    pub(crate) etcd: Process,
    pub(crate) access: Access,
}

/// What a client needs to reach the apiserver.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// `https://127.0.0.1:<port>`.
    pub(crate) url: String,
    /// The authority of the apiserver's certificate, as PEM.
    pub(crate) ca: String,
    /// The admin's kubeconfig.
    pub(crate) kubeconfig: PathBuf,
}

/// The paths of the programs.
pub(crate) struct Programs {
    pub(crate) etcd: PathBuf,
    pub(crate) apiserver: PathBuf,
    pub(crate) controller_manager: PathBuf,
    pub(crate) scheduler: PathBuf,
    pub(crate) kwok: PathBuf,
}

impl Programs {
    /// Finds or builds them. Blocks.
    pub(crate) fn locate() -> Result<Self, BedError> {
        Ok(Self {
            etcd: Tool::Etcd.locate()?,
            apiserver: Tool::Apiserver.locate()?,
            controller_manager: Tool::ControllerManager.locate()?,
            scheduler: Tool::Scheduler.locate()?,
            kwok: Tool::Kwok.locate()?,
        })
    }
}

impl Access {
    /// A kubeconfig for `token`: JSON, which YAML includes.
    pub(crate) fn kubeconfig_text(&self, token: &str) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bed", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "users": [{"name": "bed", "user": {"token": token}}],
            "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
            "current-context": "bed",
        })
        .to_string()
    }
}

/// Starts everything and returns when the apiserver serves and the others are healthy.
pub(crate) async fn start(
    directory: &Directory,
    programs: Programs,
) -> Result<ControlPlane, BedError> {
    let layout = Layout::prepare(directory, programs)?;
    let ComponentPorts {
        apiserver: _,
        controller_manager,
        scheduler,
        kwok,
    } = layout.ports;
    let etcd = layout.etcd().start()?;
    ready::answers(
        &etcd,
        &format!("http://127.0.0.1:{}/readyz", layout.etcd_ports[0]),
    )
    .await?;
    let apiserver = layout.apiserver().start()?;
    ready::answers(&apiserver, &format!("{}/readyz", layout.access.url)).await?;
    let plane = ControlPlane {
        kwok: layout.kwok().start()?,
        scheduler: layout.scheduler().start()?,
        controller_manager: layout.controller_manager().start()?,
        apiserver,
        etcd,
        access: layout.access,
    };
    let [controller_manager, scheduler, kwok] = [
        format!("https://127.0.0.1:{controller_manager}/healthz"),
        format!("https://127.0.0.1:{scheduler}/healthz"),
        format!("http://127.0.0.1:{kwok}/healthz"),
    ];
    tokio::try_join!(
        ready::answers(&plane.controller_manager, &controller_manager),
        ready::answers(&plane.scheduler, &scheduler),
        ready::answers(&plane.kwok, &kwok),
    )?;
    Ok(plane)
}
