//! Effects: processes, files, apiserver — the controller of Argo Rollouts, started when it is first asked for.

use std::{fs, path::Path};

use crate::{
    bed::{Bed, ports, ready},
    error::BedError,
    parts::{self, Part, Tool},
    process::{Launch, Process},
};

/// What the kind of the workload itself is defined in; the other files define what its controller looks at besides.
const ROLLOUT: &str = "rollout-crd.yaml";

/// Of the YAML files of the module, the one that defines nothing.
const NO_DEFINITION: &str = "kustomization.yaml";

/// A running controller.
pub struct ArgoRollouts {
    process: Process,
}

impl ArgoRollouts {
    /// Installs the definitions and starts the controller.
    pub(crate) async fn start(bed: &Bed) -> Result<Self, BedError> {
        let locate = || Ok::<_, BedError>((definitions()?, Tool::ArgoRollouts.locate()?));
        let (definitions, program) = tokio::task::spawn_blocking(locate)
            .await
            .map_err(|error| BedError::Prepare(error.into()))??;
        bed.install_crds(&definitions).await?;
        let [metrics, health] = ports::free().map_err(BedError::Prepare)?;
        let launch = Launch {
            name: "argo-rollouts",
            program,
            arguments: vec![
                "--kubeconfig".into(),
                bed.kubeconfig().as_os_str().to_owned(),
                "--leader-elect=false".into(),
                format!("--metricsPort={metrics}").into(),
                format!("--healthzPort={health}").into(),
                // High enough that it never makes a test wait.
                "--qps=500".into(),
                "--burst=1000".into(),
            ],
            environment: Vec::new(),
            user: None,
            directory: bed.directory().to_owned(),
            log: bed.directory().join("argo-rollouts.log"),
        };
        let controller = Self {
            process: launch.start()?,
        };
        let url = format!("http://127.0.0.1:{health}/healthz");
        ready::answers(&controller.process, &url).await?;
        Ok(controller)
    }

    /// The definition of the kind `Rollout` alone, for a cluster in which no controller runs.
    ///
    /// Blocks, for minutes when the cache is cold.
    pub fn definition() -> Result<String, BedError> {
        let path = parts::ensure(Part::ArgoRollouts)?.join(ROLLOUT);
        read(&path)
    }

    /// The process.
    pub const fn process(&self) -> &Process {
        &self.process
    }
}

/// All that its controller needs.
fn definitions() -> Result<String, BedError> {
    let directory = parts::ensure(Part::ArgoRollouts)?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(&directory).map_err(BedError::file(&directory))? {
        let path = entry.map_err(BedError::file(&directory))?.path();
        let is_yaml = path.extension().is_some_and(|kind| kind == "yaml");
        if is_yaml && path.file_name().is_some_and(|name| name != NO_DEFINITION) {
            texts.push(read(&path)?);
        }
    }
    Ok(texts.join("\n---\n"))
}

fn read(path: &Path) -> Result<String, BedError> {
    fs::read_to_string(path).map_err(BedError::file(path))
}
