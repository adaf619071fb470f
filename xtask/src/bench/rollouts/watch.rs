//! Effects: apiserver, clock — watches the Deployments while they are restarted.

use std::{pin::pin, time::Instant};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use lockstep_testbed::Bed;
use tokio::{
    sync::watch::{self, Receiver},
    task::JoinSet,
};

use super::{
    super::frame::PATIENCE,
    restarts::{Key, Restarts, Sight},
};
use crate::failure::Failure;

/// A watch of all Deployments, until it is dropped.
pub(super) struct Watch {
    seen: Receiver<Restarts>,
    _task: JoinSet<()>,
}

impl Watch {
    /// Begins, and returns when so many were seen.
    pub(super) async fn start(bed: &Bed, workloads: usize) -> Result<Self, Failure> {
        let api = Api::<Deployment>::all(bed.client().await?);
        let (tell, seen) = watch::channel(Restarts::default());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let events = watcher(api, watcher::Config::default()).default_backoff();
            let mut events = pin!(events.applied_objects());
            while let Some(event) = events.next().await {
                // A watch that fails is begun anew.
                if let Ok(deployment) = event {
                    let key = (
                        deployment.namespace().unwrap_or_default(),
                        deployment.name_any(),
                    );
                    let now = Instant::now();
                    tell.send_modify(|seen| seen.saw(key, Sight::of(&deployment), now));
                }
            }
        });
        let watch = Self { seen, _task: task };
        watch.until(|seen| seen.known() == workloads).await?;
        Ok(watch)
    }

    /// Returns when a Deployment is done with this generation.
    pub(super) async fn done(&self, key: &Key, generation: i64) -> Result<(), Failure> {
        let done = |seen: &Restarts| seen.is_done(key, generation);
        self.until(done).await.map(drop)
    }

    /// Returns when all were restarted and are done.
    pub(super) async fn all_done(&self) -> Result<Restarts, Failure> {
        self.until(Restarts::all_done).await
    }

    async fn until(&self, so: impl Fn(&Restarts) -> bool) -> Result<Restarts, Failure> {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| so(seen))).await;
        match found {
            Ok(Ok(seen)) => Ok(seen.clone()),
            Ok(Err(_)) | Err(_) => Err(Failure::Wrong(
                "the Deployments did not come so far in time".to_owned(),
            )),
        }
    }
}
