//! Effects: apiserver, processes, files — clients, kubeconfigs, kubectl, namespaces and manifests.

use std::{
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::io::AsyncWriteExt;

use super::{Bed, cluster};
use crate::{error::BedError, eventually::eventually};

/// How long a `ServiceAccount` token is good for: longer than any test.
const TOKEN_SECONDS: i64 = 6 * 60 * 60;

/// How long the apiserver may take to serve a new kind.
const ESTABLISHED: Duration = Duration::from_secs(30);

impl Bed {
    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.plane.access.kubeconfig
    }

    /// A client with the admin's rights. It belongs to the runtime it is made in.
    pub async fn client(&self) -> Result<Client, BedError> {
        client_for(Kubeconfig::read_from(&self.plane.access.kubeconfig)?).await
    }

    /// A client with the rights of whoever `token` names.
    pub async fn client_as(&self, token: &str) -> Result<Client, BedError> {
        client_for(Kubeconfig::from_yaml(
            &self.plane.access.kubeconfig_text(token),
        )?)
        .await
    }

    /// A token of a `ServiceAccount`, for these audiences, or for the apiserver when there are none.
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
    ) -> Result<String, BedError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audiences
                    .iter()
                    .map(|audience| (*audience).to_owned())
                    .collect(),
                expiration_seconds: Some(TOKEN_SECONDS),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        answer
            .status
            .map(|status| status.token)
            .ok_or(BedError::Shape("the requested token"))
    }

    /// A kubeconfig with the token of a `ServiceAccount`, so that exactly its RBAC rules apply.
    pub async fn kubeconfig_for(&self, namespace: &str, name: &str) -> Result<PathBuf, BedError> {
        let token = self.service_account_token(namespace, name, &[]).await?;
        let path = self
            .directory
            .join(format!("{namespace}.{name}.kubeconfig"));
        std::fs::write(&path, self.plane.access.kubeconfig_text(&token))
            .map_err(BedError::file(&path))?;
        Ok(path)
    }

    /// The admin's kubeconfig with another address in it, such as that of a proxy in front of the apiserver.
    ///
    /// The certificate of the apiserver is good for every port on 127.0.0.1.
    pub fn kubeconfig_through(&self, address: std::net::SocketAddr) -> Result<PathBuf, BedError> {
        let text = std::fs::read_to_string(self.kubeconfig())
            .map_err(BedError::file(self.kubeconfig()))?;
        let path = self
            .directory
            .join(format!("through-{}.kubeconfig", address.port()));
        let text = text.replace(&self.plane.access.url, &format!("https://{address}"));
        std::fs::write(&path, text).map_err(BedError::file(&path))?;
        Ok(path)
    }

    /// Creates a namespace with a name of its own that starts with `prefix`; pods can run in it at once.
    pub async fn namespace(&self, prefix: &str) -> Result<String, BedError> {
        let name = format!(
            "{prefix}-{:08x}",
            RandomState::new().hash_one(prefix) & 0xffff_ffff
        );
        cluster::create_namespace(&self.client().await?, &name).await?;
        Ok(name)
    }

    /// Runs kubectl as admin; how it ended is for the caller to judge.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output, BedError> {
        self.kubectl_with_input(arguments, "").await
    }

    /// Applies manifests (server-side, several documents allowed) as admin.
    pub async fn apply_yaml(&self, manifests: &str) -> Result<(), BedError> {
        self.kubectl_checked(
            &[
                "apply",
                "--server-side",
                "--field-manager=testbed",
                "-f",
                "-",
            ],
            manifests,
        )
        .await
    }

    /// Applies `CustomResourceDefinitions` and returns when objects of these kinds can be created.
    pub async fn install_crds(&self, manifests: &str) -> Result<(), BedError> {
        self.apply_yaml(manifests).await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
        let wait = [&wait[..], &["-f", "-"]].concat();
        // It gives up at once on one that has no conditions yet.
        eventually(ESTABLISHED, "the definitions are established", async || {
            self.kubectl_checked(&wait, manifests).await
        })
        .await?;
        Ok(())
    }

    async fn kubectl_checked(&self, arguments: &[&str], input: &str) -> Result<(), BedError> {
        let output = self.kubectl_with_input(arguments, input).await?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(BedError::Kubectl {
            arguments: arguments.join(" "),
            output: text,
        })
    }

    async fn kubectl_with_input(
        &self,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output, BedError> {
        let mut child = tokio::process::Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.directory.join("kubectl-cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(BedError::file(&self.kubectl))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that ends without reading says why on stderr.
            drop(stdin.write_all(input.as_bytes()).await);
        }
        child
            .wait_with_output()
            .await
            .map_err(BedError::file(&self.kubectl))
    }
}

async fn client_for(kubeconfig: Kubeconfig) -> Result<Client, BedError> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
