//! Effects: processes, files — the files and command lines of the control plane's processes.

use std::{ffi::OsString, fs, path::Path};

use super::{Access, Programs};
use crate::{
    bed::{
        authority::{Authority, Certificate},
        directory::Directory,
        ports,
    },
    error::BedError,
    process::Launch,
};

/// The name of the apiserver's audit log in the bed's directory.
pub(crate) const AUDIT_LOG: &str = "audit.log";

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

/// What the launches have in common.
pub(super) struct Layout<'a> {
    directory: &'a Directory,
    programs: Programs,
    pub(super) access: Access,
    pub(super) etcd_ports: [u16; 2],
    pub(super) ports: ComponentPorts,
}

pub(super) struct ComponentPorts {
    pub(super) apiserver: u16,
    pub(super) controller_manager: u16,
    pub(super) scheduler: u16,
    pub(super) kwok: u16,
}

impl<'a> Layout<'a> {
    pub(super) fn prepare(directory: &'a Directory, programs: Programs) -> Result<Self, BedError> {
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
            include_str!("../../../stages/node.yaml"),
            "---\n",
            include_str!("../../../stages/pod.yaml")
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
            fs::write(&path, content).map_err(BedError::file(&path))?;
        }
        Ok(())
    }

    pub(super) fn etcd(&self) -> Launch {
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

    pub(super) fn apiserver(&self) -> Launch {
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

    pub(super) fn controller_manager(&self) -> Launch {
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

    pub(super) fn scheduler(&self) -> Launch {
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

    pub(super) fn kwok(&self) -> Launch {
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
        program: &Path,
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

fn kubeconfig_name(token: &str) -> String {
    format!("{}.kubeconfig", token.trim_start_matches("testbed-"))
}
