//! Effects: processes, files — the control plane: etcd, apiserver, controller manager, scheduler and KWOK.

use std::{ffi::OsString, path::PathBuf};

use serde_json::json;

use super::{
    authority::{Authority, Certificate},
    directory::Directory,
    ports, ready,
};
use crate::{
    error::BedError,
    parts::Tool,
    process::{Launch, Process},
};

/// Static tokens: nothing but loopback can reach the apiserver, and it dies with the test.
const ADMIN_TOKEN: &str = "testbed-admin";

/// Token, user and group of each client the apiserver knows from the start.
const USERS: [(&str, &str, &str); 4] = [
    (ADMIN_TOKEN, "testbed:admin", "system:masters"),
    ("testbed-kwok", "testbed:kwok", "system:masters"),
    // One identity for all its controllers, which therefore may do everything: a ServiceAccount for each, as real
    // clusters have them, would only slow the start.
    (
        "testbed-controller-manager",
        "system:kube-controller-manager",
        "system:masters",
    ),
    (
        "testbed-scheduler",
        "system:kube-scheduler",
        "system:authenticated",
    ),
];

/// High enough that the control plane never makes a test wait.
const CLIENT_LIMITS: [&str; 2] = ["--kube-api-qps=500", "--kube-api-burst=1000"];

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

/// What the launches have in common.
struct Layout<'a> {
    directory: &'a Directory,
    programs: Programs,
    access: Access,
    etcd_ports: [u16; 2],
    ports: ComponentPorts,
}

struct ComponentPorts {
    apiserver: u16,
    controller_manager: u16,
    scheduler: u16,
    kwok: u16,
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

impl<'a> Layout<'a> {
    fn prepare(directory: &'a Directory, programs: Programs) -> Result<Self, BedError> {
        let [client, peer, apiserver, controller_manager, scheduler, kwok] =
            ports::free().map_err(BedError::Prepare)?;
        let authority = Authority::new("testbed apiserver authority")?;
        let access = Access {
            url: format!("https://127.0.0.1:{apiserver}"),
            ca: authority.pem(),
            kubeconfig: directory.join("admin.kubeconfig"),
        };
        let layout = Self {
            directory,
            programs,
            access,
            etcd_ports: [client, peer],
            ports: ComponentPorts {
                apiserver,
                controller_manager,
                scheduler,
                kwok,
            },
        };
        layout.write_files(&authority)?;
        Ok(layout)
    }

    fn write_files(&self, authority: &Authority) -> Result<(), BedError> {
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        let Certificate { certificate, key } = authority.server(&names)?;
        let signing_key = rcgen::KeyPair::generate()?;
        let users = USERS
            .map(|(token, user, group)| format!("{token},{user},{user},{group}"))
            .join("\n");
        let stages = concat!(
            include_str!("../../stages/node.yaml"),
            "---\n",
            include_str!("../../stages/pod.yaml")
        );
        let mut files = vec![
            ("ca.pem".to_owned(), authority.pem()),
            ("apiserver.pem".to_owned(), certificate),
            ("apiserver.key".to_owned(), key),
            (
                "service-accounts.key".to_owned(),
                signing_key.serialize_pem(),
            ),
            (
                "service-accounts.pub".to_owned(),
                signing_key.public_key_pem(),
            ),
            ("tokens.csv".to_owned(), users),
            (
                "audit-policy.yaml".to_owned(),
                include_str!("audit-policy.yaml").to_owned(),
            ),
            ("stages.yaml".to_owned(), stages.to_owned()),
        ];
        for (token, ..) in USERS {
            files.push((kubeconfig_name(token), self.access.kubeconfig_text(token)));
        }
        for (name, content) in files {
            let path = self.directory.join(name);
            std::fs::write(&path, content).map_err(BedError::file(&path))?;
        }
        Ok(())
    }

    fn etcd(&self) -> Launch {
        let [client, peer] = self
            .etcd_ports
            .map(|port| format!("http://127.0.0.1:{port}"));
        self.launch(
            "etcd",
            &self.programs.etcd,
            [
                "--unsafe-no-fsync".into(),
                self.path_flag("--data-dir", "etcd"),
                format!("--listen-client-urls={client}").into(),
                format!("--advertise-client-urls={client}").into(),
                format!("--listen-peer-urls={peer}").into(),
                format!("--initial-advertise-peer-urls={peer}").into(),
                format!("--initial-cluster=default={peer}").into(),
            ],
        )
    }

    fn apiserver(&self) -> Launch {
        self.launch(
            "kube-apiserver",
            &self.programs.apiserver,
            [
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_ports[0]).into(),
                "--bind-address=127.0.0.1".into(),
                // Loopback cannot be an endpoint of the kubernetes Service, so nobody maintains them.
                "--advertise-address=127.0.0.1".into(),
                "--endpoint-reconciler-type=none".into(),
                format!("--secure-port={}", self.ports.apiserver).into(),
                self.path_flag("--tls-cert-file", "apiserver.pem"),
                self.path_flag("--tls-private-key-file", "apiserver.key"),
                self.path_flag("--token-auth-file", "tokens.csv"),
                "--authorization-mode=RBAC".into(),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                self.path_flag("--service-account-key-file", "service-accounts.pub"),
                self.path_flag("--service-account-signing-key-file", "service-accounts.key"),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                self.path_flag("--audit-policy-file", "audit-policy.yaml"),
                self.path_flag("--audit-log-path", AUDIT_LOG),
                // Never rotated: positions in it are used as marks.
                "--audit-log-maxsize=100000".into(),
                "--profiling=false".into(),
            ],
        )
    }

    fn controller_manager(&self) -> Launch {
        let component = self.component("testbed-controller-manager", self.ports.controller_manager);
        let own = [
            self.path_flag("--service-account-private-key-file", "service-accounts.key"),
            self.path_flag("--root-ca-file", "ca.pem"),
        ];
        self.launch(
            "kube-controller-manager",
            &self.programs.controller_manager,
            component.into_iter().chain(own),
        )
    }

    fn scheduler(&self) -> Launch {
        let component = self.component("testbed-scheduler", self.ports.scheduler);
        self.launch("kube-scheduler", &self.programs.scheduler, component)
    }

    /// The flags that the controller manager and the scheduler share.
    fn component(&self, token: &str, port: u16) -> Vec<OsString> {
        let mut flags = vec![
            self.path_flag("--kubeconfig", &kubeconfig_name(token)),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}").into(),
            self.path_flag("--cert-dir", token),
            "--profiling=false".into(),
        ];
        flags.extend(CLIENT_LIMITS.map(OsString::from));
        flags
    }

    fn kwok(&self) -> Launch {
        self.launch(
            "kwok",
            &self.programs.kwok,
            [
                self.path_flag("--kubeconfig", &kubeconfig_name("testbed-kwok")),
                self.path_flag("--config", "stages.yaml"),
                "--manage-all-nodes=false".into(),
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".into(),
                "--node-ip=127.0.0.1".into(),
                "--cidr=10.0.0.0/16".into(),
                format!("--server-address=127.0.0.1:{}", self.ports.kwok).into(),
            ],
        )
    }

    fn launch(
        &self,
        name: &'static str,
        program: &std::path::Path,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Launch {
        Launch {
            name,
            program: program.to_owned(),
            arguments: arguments.into_iter().collect(),
            // KWOK looks for a configuration in the home directory, and nothing here should find anybody's.
            environment: vec![("HOME".to_owned(), self.directory.path().into())],
            user: None,
            directory: self.directory.path().to_owned(),
            log: self.directory.join(format!("{name}.log")),
        }
    }

    fn path_flag(&self, flag: &str, name: &str) -> OsString {
        let mut argument = OsString::from(flag);
        argument.push("=");
        argument.push(self.directory.join(name));
        argument
    }
}

/// The name of the apiserver's audit log in the bed's directory.
pub(crate) const AUDIT_LOG: &str = "audit.log";

fn kubeconfig_name(token: &str) -> String {
    format!("{}.kubeconfig", token.trim_start_matches("testbed-"))
}
