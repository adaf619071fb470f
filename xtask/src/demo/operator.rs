//! Effects: processes — the operator of this repository: built, started, ready.

use std::{path::PathBuf, time::Duration};

use lockstep_testbed::{Bed, Operator, OperatorOptions};

use crate::{
    cargo::{self, Profile},
    failure::Failure,
};

/// How long the operator may take to fill its caches.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many workloads of a namespace restart at once.
pub(super) const AT_ONCE: usize = 2;

/// The operator's program.
pub(super) struct Program(PathBuf);

impl Program {
    /// Builds it as `cargo build` does.
    pub(super) async fn build() -> Result<Self, Failure> {
        cargo::build_operator(Profile::Dev).await.map(Self)
    }

    /// Starts it on `bed` and waits until it is ready.
    pub(super) async fn start(&self, bed: &Bed) -> Result<Operator, Failure> {
        let options = OperatorOptions {
            binary: self.0.clone(),
            // Whoever is killed here leaves a Lease behind that its successor would wait for.
            args: vec![
                "--leader-election=false".to_owned(),
                format!("--max-concurrent-rollouts-per-namespace={AT_ONCE}"),
            ],
            ..OperatorOptions::default()
        };
        let operator = bed.operator(&options)?;
        operator.wait_ready(PATIENCE).await?;
        Ok(operator)
    }
}
