//! Effects: apiserver, stdout — what `kubectl rollout restart` and `kubectl rollout status` do, for all workloads, so many at
//! once.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use lockstep_testbed::{ApiRequest, Bed};

use super::{fleet::Fleet, restarts::Restarts, watch::Watch};
use crate::failure::Failure;

/// What restarting all workloads once took.
pub(super) struct Plain {
    /// Until all pods were new and ready.
    pub(super) wall: Duration,
    /// What was seen of the Deployments.
    pub(super) seen: Restarts,
    /// What anybody asked of the apiserver meanwhile.
    pub(super) api: Vec<ApiRequest>,
}

/// Restarts all workloads once.
pub(super) async fn run(bed: &Bed, fleet: &Fleet, name: &str) -> Result<Plain, Failure> {
    let client = bed.client().await?;
    let watch = Watch::start(bed, fleet.arguments.workloads.into()).await?;
    let mark = bed.audit_mark().await?;
    let started = Instant::now();
    stream::iter(fleet.workloads())
        .map(Ok::<_, Failure>)
        .try_for_each_concurrent(usize::from(fleet.arguments.at_once), async |workload| {
            let api = Api::<Deployment>::namespaced(client.clone(), &workload.0);
            let restarted = api.restart(&workload.1).await?;
            let generation = restarted.metadata.generation.unwrap_or_default();
            watch.done(&workload, generation).await
        })
        .await?;
    let wall = started.elapsed();
    println!(
        "kubectl rollout restart would take {:.2} s ({name})",
        wall.as_secs_f64()
    );
    Ok(Plain {
        wall,
        seen: watch.all_done().await?,
        api: bed.audit_since(mark, |_| true).await?,
    })
}
