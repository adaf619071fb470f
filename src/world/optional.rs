//! Effects: watches at the apiserver. Rollouts of Argo, which need not be installed.
//!
//! Their definition is watched, by its name and as metadata, and they as long as it is there: nothing is asked in between, and
//! nothing has to be restarted when it comes or goes. Without the right to watch one or the other they cannot be seen, which holds
//! up nobody else.

use std::{pin::pin, sync::Arc};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Fuse, FusedFuture},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio_util::sync::CancellationToken;

use super::Listener;
use crate::{
    api::vault_secret::WorkloadKind,
    cache::{Cache, Change, keep, objects, refusal},
    rollout::{argo, view::WorkloadView},
    telemetry::chain::chain,
};

/// Keeps `rollouts` equal to what there is until `stop`.
pub(super) async fn follow<L: Listener>(
    client: Client,
    rollouts: Arc<Cache<WorkloadView>>,
    listener: Arc<L>,
    stop: CancellationToken,
) {
    let definitions = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
    let by_name = watcher::Config::default().fields(&format!("metadata.name={}", argo::DEFINITION));
    let events = watcher(definitions, by_name).default_backoff();
    let mut events = pin!(events.take_until(stop.cancelled()));
    let mut watch: Fuse<BoxFuture<'_, ()>> = Fuse::terminated();
    let mut listed = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut watch => continue,
        };
        let is_installed = match event {
            None => return,
            Some(Ok(Event::Init)) => {
                listed = false;
                continue;
            }
            Some(Ok(Event::InitApply(_))) => {
                listed = true;
                continue;
            }
            Some(Ok(Event::InitDone)) => listed,
            Some(Ok(Event::Apply(_))) => true,
            Some(Ok(Event::Delete(_))) => false,
            Some(Err(error)) => {
                if let Some(why) = refusal(&error) {
                    rollouts.refuse(why.to_owned());
                }
                tracing::warn!(
                    error = chain(&error),
                    "whether there are Rollouts of Argo cannot be seen; it is tried again"
                );
                continue;
            }
        };
        if !is_installed {
            watch = Fuse::terminated();
            for change in rollouts.clear() {
                listener.workload(WorkloadKind::Rollout, &change);
            }
        } else if watch.is_terminated() {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &argo::resource());
            let listener = Arc::clone(&listener);
            let kept = keep(
                (argo::resource(), objects(api)),
                Arc::clone(&rollouts),
                |object: DynamicObject| Some(WorkloadView::project(&object)),
                move |change| {
                    warn(change);
                    listener.workload(WorkloadKind::Rollout, change);
                },
                stop.clone(),
            );
            watch = kept.boxed().fuse();
        }
    }
}

/// Tells of a Rollout that would be missed.
fn warn(change: &Change<WorkloadView>) {
    if let Some(field) = argo::unreadable(change) {
        tracing::warn!(rollout = %change.key, field, "the template of a Rollout cannot be read, so nobody knows which Secrets it uses: it is restarted only for a VaultSecret that names it in its targets");
    }
}
