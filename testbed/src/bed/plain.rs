//! Effects: processes — the apiserver as plain HTTP, so that what stands between can read the requests.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use super::{Bed, ports};
use crate::{error::BedError, eventually::eventually, process::Launch, process::Process};

/// A process that speaks plain HTTP and passes everything on to the apiserver, as admin.
#[derive(Debug)]
pub struct PlainApiserver {
    address: SocketAddr,
    _process: Process,
}

impl PlainApiserver {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Bed {
    /// Starts `kubectl proxy` and returns when it serves.
    pub async fn plain_apiserver(&self) -> Result<PlainApiserver, BedError> {
        let [port] = ports::free().map_err(BedError::Prepare)?;
        let arguments = [
            format!("--kubeconfig={}", self.kubeconfig().display()),
            "proxy".to_owned(),
            format!("--port={port}"),
        ];
        let launch = Launch {
            name: "kubectl proxy",
            program: self.kubectl.clone(),
            arguments: arguments.into_iter().map(OsString::from).collect(),
            environment: Vec::new(),
            user: None,
            directory: self.directory.path().to_owned(),
            log: self.directory.join(format!("kubectl-proxy-{port}.log")),
        };
        let process = launch.start()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listens = async || tokio::net::TcpStream::connect(address).await.map(drop);
        eventually(Duration::from_secs(10), "kubectl proxy", listens).await?;
        Ok(PlainApiserver {
            address,
            _process: process,
        })
    }

    /// A kubeconfig for an apiserver that speaks plain HTTP at `address` and asks nobody who he is.
    pub fn plain_kubeconfig(&self, address: SocketAddr) -> Result<PathBuf, BedError> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: plain\nclusters:\n- name: plain\n  cluster: {{server: 'http://{address}'}}\nusers:\n- name: plain\n  user: {{}}\ncontexts:\n- name: plain\n  context: {{cluster: plain, user: plain}}\n"
        );
        let path = self
            .directory
            .join(format!("plain-{}.kubeconfig", address.port()));
        std::fs::write(&path, text).map_err(BedError::file(&path))?;
        Ok(path)
    }
}
