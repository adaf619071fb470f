//! Effects: files, processes, Vault, apiserver — the files of `examples/quickstart`, as a user applies them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use lockstep_testbed::{Bed, parts::Tool};
use tokio::process::Command;

use crate::failure::Failure;

/// What is different here from what the files say: text in them, and what the demo puts there.
pub(super) struct Changes(Vec<(&'static str, String)>);

impl Changes {
    /// The address of this bed's Vault, and shorter times, for who watches does not want to wait.
    pub(super) fn for_bed(bed: &Bed) -> Self {
        Self(vec![
            ("http://vault.vault.svc:8200", bed.vault_address()),
            ("refreshInterval: 1m", "refreshInterval: 1s".to_owned()),
            ("settle: 10s", "settle: 2s".to_owned()),
        ])
    }

    /// One line per change.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(from, to)| format!("{from}  ->  {to}"))
    }

    fn apply(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// A file of this repository.
pub(super) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Its text.
pub(super) fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(file(path)).map_err(failed(path))
}

/// The texts of all files in a directory, as one stream of YAML documents.
pub(super) fn read_all(directory: &str) -> Result<String, Failure> {
    let entries = fs::read_dir(file(directory)).map_err(failed(directory))?;
    let texts: Result<Vec<_>, _> = entries
        .map(|entry| fs::read_to_string(entry?.path()))
        .collect();
    Ok(texts.map_err(failed(directory))?.join("\n---\n"))
}

/// Applies files of the quickstart with these changes.
pub(super) async fn apply(bed: &Bed, names: &[&str], changes: &Changes) -> Result<(), Failure> {
    for name in names {
        let text = read(&format!("examples/quickstart/{name}"))?;
        bed.apply_yaml(&changes.apply(&text)).await?;
    }
    Ok(())
}

/// Runs `vault-setup.sh` on a Vault that has nothing of what it sets up, as the administrator of a Vault that does not
/// run in the cluster.
pub(super) async fn set_up_vault(bed: &Bed) -> Result<(), Failure> {
    for path in ["sys/auth/kubernetes", "sys/mounts/secret"] {
        bed.vault().delete(path).await?;
    }
    let authority = bed.directory().join("apiserver-ca.crt");
    let arguments = [
        "get",
        "configmap",
        "kube-root-ca.crt",
        "-o",
        r"jsonpath={.data.ca\.crt}",
    ];
    fs::write(&authority, bed.kubectl(&arguments).await?.stdout)
        .map_err(failed("the authority of the apiserver"))?;
    let reviewer = bed.service_account_token("vault", "vault", &[]).await?;
    let script = file("examples/quickstart/vault-setup.sh");
    let mut path = Tool::Vault
        .locate()?
        .parent()
        .unwrap_or_else(|| Path::new(""))
        .as_os_str()
        .to_owned();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .arg(&script)
        .env("PATH", path)
        .env("HOME", bed.directory())
        .env("VAULT_ADDR", bed.vault_address())
        .env("VAULT_TOKEN", bed.vault().token())
        .env(
            "KUBERNETES_HOST",
            format!("https://{}", bed.apiserver_socket()?),
        )
        .env("KUBERNETES_CA_FILE", authority)
        .env("REVIEWER_TOKEN", reviewer)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|source| Failure::Run {
            program: script.display().to_string(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Ended {
        program: script.display().to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn failed(path: &str) -> impl Fn(std::io::Error) -> Failure {
    move |source| Failure::File {
        path: path.to_owned(),
        source,
    }
}
