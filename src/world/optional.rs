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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Listener;
use crate::{
    api::vault_secret::WorkloadKind,
    cache::{Cache, keep, objects},
    rollout::{argo, view::WorkloadView},
    telemetry::chain::chain,
};

/// Longest message of the apiserver that goes into a status.
const LONGEST_CAUSE: usize = 300;

/// What whoever names a Rollout is told where there are none.
const ABSENT: &str = "Argo Rollouts is not installed here: install it, or take the target away";

/// Every Rollout, if they can be seen.
#[derive(Default)]
pub struct Rollouts {
    /// Every Rollout.
    pub cache: Arc<Cache<WorkloadView>>,
    sight: watch::Sender<Sight>,
}

/// Whether they can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Sight {
    /// That was not found out yet.
    #[default]
    Unknown,
    /// They can.
    Clear,
    /// They cannot, for this reason.
    None(String),
}

impl Rollouts {
    /// Why they cannot be seen, if they cannot.
    pub fn unseen(&self) -> Option<String> {
        match &*self.sight.borrow() {
            Sight::None(why) => Some(why.clone()),
            Sight::Unknown | Sight::Clear => None,
        }
    }

    /// Returns when the first full list has arrived, or it is known that there will be none for now.
    pub(super) async fn wait_until_known(&self) {
        let mut sight = self.sight.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        let known = sight.wait_for(|sight| *sight != Sight::Unknown).await;
        let is_clear = known.is_ok_and(|sight| *sight == Sight::Clear);
        if is_clear {
            self.cache.wait_until_synced().await;
        }
    }

    /// Keeps the cache equal to what there is until `stop`.
    pub(super) async fn follow<L: Listener>(
        self: Arc<Self>,
        client: Client,
        listener: Arc<L>,
        stop: CancellationToken,
    ) {
        let definitions = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client.clone());
        let by_name = format!("metadata.name={}", argo::DEFINITION);
        let events = watcher(definitions, watcher::Config::default().fields(&by_name));
        let events = events.default_backoff().take_until(stop.cancelled());
        let mut events = pin!(events);
        let mut rollouts: Fuse<BoxFuture<'_, ()>> = Fuse::terminated();
        let mut listed = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = &mut rollouts => continue,
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
                    self.failed(&error, &*listener);
                    continue;
                }
            };
            if !is_installed {
                rollouts = Fuse::terminated();
                self.forget(&*listener);
            } else if rollouts.is_terminated() {
                let watch = self.watch(client.clone(), Arc::clone(&listener), stop.clone());
                rollouts = watch.boxed().fuse();
            }
        }
    }

    async fn watch<L: Listener>(&self, client: Client, listener: Arc<L>, stop: CancellationToken) {
        let api: Api<DynamicObject> = Api::all_with(client, &argo::resource());
        let seen = |event: &Result<Event<DynamicObject>, watcher::Error>| match event {
            Ok(Event::InitDone) => self.see(Sight::Clear, &*listener),
            Ok(_) => {}
            Err(error) => self.failed(error, &*listener),
        };
        keep(
            objects(api).inspect(seen),
            Arc::clone(&self.cache),
            |object: DynamicObject| Some(WorkloadView::project(&object)),
            |change| listener.workload(WorkloadKind::Rollout, change),
            stop,
        )
        .await;
    }

    /// They are gone, with their definition.
    fn forget<L: Listener>(&self, listener: &L) {
        self.see(Sight::None(ABSENT.to_owned()), listener);
        for (key, _) in self.cache.all() {
            if let Some(change) = self.cache.remove(&key) {
                listener.workload(WorkloadKind::Rollout, &change);
            }
        }
    }

    /// What the apiserver refuses is a reason; that it cannot be reached is none.
    fn failed<L: Listener>(&self, error: &watcher::Error, listener: &L) {
        use kube::Error::Api;
        use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
        let (InitialListFailed(Api(status))
        | WatchStartFailed(Api(status))
        | WatchFailed(Api(status))) = error
        else {
            return;
        };
        if !matches!(status.code, 403 | 404) {
            return;
        }
        tracing::warn!(error = chain(error), "Rollouts of Argo cannot be seen");
        let message: String = status.message.chars().take(LONGEST_CAUSE).collect();
        self.see(Sight::None(message), listener);
    }

    fn see<L: Listener>(&self, sight: Sight, listener: &L) {
        let is_new = self.sight.send_if_modified(|before| {
            let is_new = *before != sight;
            *before = sight;
            is_new
        });
        if is_new {
            listener.rollouts_of_argo();
        }
    }
}
