//! Effects: processes, stdout — what the benchmarks share: the operator, built for release, and what it costs.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use lockstep_testbed::{ApiRequest, AuditMark, Bed, Operator, OperatorOptions, eventually};

use super::figures::Cost;
use crate::{cargo, failure::Failure};

/// Longest time a phase may take before the benchmark is given up.
pub(super) const PATIENCE: Duration = Duration::from_mins(10);
/// How long the operator may take to start.
const START: Duration = Duration::from_secs(30);
/// The name the operator gives itself at the apiserver.
const AGENT: &str = "lockstep/";

/// Builds the operator, has it measured, and prints the figures.
pub(super) fn run<R: Display>(
    measure: impl AsyncFnOnce(PathBuf) -> Result<R, Failure>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Prepare)?;
    let report = runtime.block_on(Box::pin(async {
        let binary = cargo::build_operator(cargo::Profile::Release).await?;
        measure(binary).await
    }))?;
    print!("{report}");
    Ok(ExitCode::SUCCESS)
}

/// Starts the operator.
pub(super) fn launch(bed: &Bed, binary: &Path, flags: &[String]) -> Result<Operator, Failure> {
    Ok(bed.operator(&OperatorOptions {
        binary: binary.to_owned(),
        args: flags.to_vec(),
        ..OperatorOptions::default()
    })?)
}

/// Starts the operator and waits until it is ready.
pub(super) async fn start(bed: &Bed, binary: &Path, flags: &[String]) -> Result<Operator, Failure> {
    let operator = launch(bed, binary, flags)?;
    operator.wait_ready(START).await?;
    Ok(operator)
}

/// Waits until the operator is the one that acts.
pub(super) async fn leads(operator: &Operator) -> Result<(), Failure> {
    let leads = async || operator.log_text().contains("\"leading\"");
    Ok(eventually(START, "the operator leads", leads).await?)
}

/// Measures what operators do from now on.
pub(super) struct Meter<'a> {
    bed: &'a Bed,
    marks: (AuditMark, AuditMark),
    cpu_seconds: f64,
    pub(super) started: Instant,
}

impl<'a> Meter<'a> {
    /// Begins; `cpu_seconds` is what the operator had used before.
    pub(super) async fn start(bed: &'a Bed, cpu_seconds: f64) -> Result<Self, Failure> {
        Ok(Self {
            bed,
            marks: (bed.audit_mark().await?, bed.vault_audit_mark()?),
            cpu_seconds,
            started: Instant::now(),
        })
    }

    /// Ends with what `operator` is and has done by now.
    pub(super) async fn stop(self, operator: &Operator) -> Result<Cost, Failure> {
        let wall = self.started.elapsed();
        let (cpu_seconds, rss_kib) = (operator.cpu_seconds()?, operator.rss_kib()?);
        let vault = self
            .bed
            .vault_audit_since(self.marks.1, |request| !request.is_root)?;
        let ours = |request: &ApiRequest| request.user_agent.starts_with(AGENT);
        Ok(Cost {
            wall,
            cpu_seconds: cpu_seconds - self.cpu_seconds,
            rss_kib,
            api: self.bed.audit_since(self.marks.0, ours).await?,
            vault,
        })
    }
}
