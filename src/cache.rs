//! Effects: watches at the apiserver. What is known of the cluster, cut down to what is needed.
//!
//! Each kind is watched once and projected before it is kept, so that the cost of an object is that of its
//! projection. A change is passed on only if the projection changed, deletions included, also those
//! that happened while the watch was away.

mod complaint;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource,
    core::{ApiResource, Status},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::complaint::{Complaint, Complaints};
use crate::{names::ObjectKey, telemetry::chain::chain};

/// How long a watch is refused before what it showed counts as out of date. An apiserver that has just started refuses what it
/// will allow.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long after it was refused a watch goes on for sure. A refused one is begun again after half a minute at most, and one
/// that is not refused says nothing until something changes.
const CALM: Duration = Duration::from_secs(90);

/// The projections of all objects of one kind.
pub struct Cache<V> {
    objects: RwLock<BTreeMap<ObjectKey, Arc<V>>>,
    sight: watch::Sender<Sight>,
}

/// How much of a kind is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// The first full list has not arrived yet.
    #[default]
    Awaited,
    /// The apiserver refuses it, for this reason. It is asked for again and again.
    Refused(String),
    /// The kind is not installed.
    Absent,
    /// It has arrived, and what came since.
    Synced,
    /// It has arrived, and the apiserver has refused for a while, for this reason, to show what came since. It is asked for again and again.
    Stale(String),
}

/// One object whose projection changed; both sides are there unless it came or went.
#[derive(Debug)]
pub struct Change<V> {
    /// Which object.
    pub key: ObjectKey,
    /// As it was.
    pub old: Option<Arc<V>>,
    /// As it is.
    pub new: Option<Arc<V>>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            sight: watch::Sender::default(),
        }
    }
}

impl<V: PartialEq> Cache<V> {
    /// The projection of one object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<V>> {
        self.read().get(key).cloned()
    }

    /// Everything in one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<(ObjectKey, Arc<V>)> {
        let from = Bound::Included(ObjectKey::new(namespace, ""));
        self.read()
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(key, value)| (key.clone(), Arc::clone(value)))
            .collect()
    }

    /// What `pick` makes of the objects of one namespace, by name, without a copy of the others. It must not ask this cache.
    pub fn pick<T>(
        &self,
        namespace: &str,
        pick: impl FnMut((&ObjectKey, &V)) -> Option<T>,
    ) -> Vec<T> {
        let from = Bound::Included(ObjectKey::new(namespace, ""));
        self.read()
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(key, value)| (key, &**value))
            .filter_map(pick)
            .collect()
    }

    /// Everything.
    pub fn all(&self) -> Vec<(ObjectKey, Arc<V>)> {
        self.read()
            .iter()
            .map(|(key, value)| (key.clone(), Arc::clone(value)))
            .collect()
    }

    /// Returns when the first full list has arrived.
    pub async fn wait_until_synced(&self) {
        let arrived = |sight: &Sight| match sight {
            Sight::Synced | Sight::Stale(_) => true,
            Sight::Awaited | Sight::Refused(_) | Sight::Absent => false,
        };
        // The sender lives as long as `self`, so waiting cannot fail.
        _ = self.sight().wait_for(arrived).await;
    }

    /// Returns when the first full list has arrived or was refused, or there is none to be had.
    pub async fn wait_until_tried(&self) {
        // As above.
        _ = self
            .sight()
            .wait_for(|sight| *sight != Sight::Awaited)
            .await;
    }

    /// How much is known, and when that changes.
    pub fn sight(&self) -> watch::Receiver<Sight> {
        self.sight.subscribe()
    }

    /// Notes that the apiserver refuses the first list. What is known already is kept: see [`Sight::Stale`].
    pub(crate) fn refuse(&self, why: String) {
        self.sight.send_if_modified(|sight| {
            let refused = Sight::Refused(why);
            let news = match sight {
                Sight::Awaited | Sight::Refused(_) | Sight::Absent => *sight != refused,
                Sight::Synced | Sight::Stale(_) => false,
            };
            if news {
                *sight = refused;
            }
            news
        });
    }

    /// Notes that the kind is not installed, and returns what has gone with it.
    pub(crate) fn clear(&self) -> Vec<Change<V>> {
        let keys: Vec<_> = self.all().into_iter().map(|(key, _)| key).collect();
        let gone = keys.iter().filter_map(|key| self.remove(key)).collect();
        self.see(Sight::Absent);
        gone
    }

    /// Puts a projection in. `None` when nothing changed.
    pub fn insert(&self, key: ObjectKey, value: V) -> Option<Change<V>> {
        let mut objects = self.write();
        if objects.get(&key).is_some_and(|old| **old == value) {
            return None;
        }
        let new = Arc::new(value);
        let old = objects.insert(key.clone(), Arc::clone(&new));
        Some(Change {
            key,
            old,
            new: Some(new),
        })
    }

    /// Takes a projection out. `None` when it was not there.
    pub fn remove(&self, key: &ObjectKey) -> Option<Change<V>> {
        let (key, old) = self.write().remove_entry(key)?;
        Some(Change {
            key,
            old: Some(old),
            new: None,
        })
    }

    /// Takes in how much is known.
    pub(crate) fn see(&self, new: Sight) {
        self.sight.send_if_modified(|sight| {
            let news = *sight != new;
            *sight = new;
            news
        });
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ObjectKey, Arc<V>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<ObjectKey, Arc<V>>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies one watch event. `listed` collects the keys of a list under way.
fn observe<K, V>(
    cache: &Cache<V>,
    listed: &mut BTreeSet<ObjectKey>,
    event: watcher::Event<K>,
    project: &impl Fn(K) -> Option<V>,
) -> Vec<Change<V>>
where
    K: Resource,
    V: PartialEq,
{
    let put = |object: K, listed: Option<&mut BTreeSet<ObjectKey>>| {
        let key = key_of(&object);
        let Some(value) = project(object) else {
            return cache.remove(&key);
        };
        if let Some(listed) = listed {
            listed.insert(key.clone());
        }
        cache.insert(key, value)
    };
    match event {
        watcher::Event::Apply(object) => put(object, None).into_iter().collect(),
        watcher::Event::InitApply(object) => put(object, Some(listed)).into_iter().collect(),
        watcher::Event::Delete(object) => cache.remove(&key_of(&object)).into_iter().collect(),
        watcher::Event::Init => {
            listed.clear();
            Vec::new()
        }
        watcher::Event::InitDone => {
            let keep = std::mem::take(listed);
            let gone: Vec<_> = cache
                .read()
                .keys()
                .filter(|key| !keep.contains(key))
                .cloned()
                .collect();
            gone.iter().filter_map(|key| cache.remove(key)).collect()
        }
    }
}

/// Namespace and name of `object`.
pub fn key_of<K: Resource>(object: &K) -> ObjectKey {
    let meta = object.meta();
    ObjectKey {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

/// Why the apiserver refuses a list or a watch. That it cannot be reached is no refusal, nor that it does not serve a kind yet whose
/// definition is new.
pub(crate) fn refusal(error: &watcher::Error) -> Option<&str> {
    let status = answer(error)?;
    status.is_forbidden().then_some(&status.message)
}

/// What the apiserver answered to a list or a watch, if it did not begin.
fn answer(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => Some(status),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

/// Whether a kind is not installed. The answer is then a line of text, of which [`Status::is_not_found`] knows nothing.
fn is_absent(status: &Status) -> bool {
    status.code == 404
}

/// How a watch fares, its objects aside.
#[derive(Debug, Default)]
struct Course {
    is_listed: bool,
    /// When it was refused first and last, without anything in between.
    refused: Option<(Instant, Instant)>,
}

impl Course {
    /// Takes in that it goes on; returns how much is known then.
    fn goes_on(&mut self) -> Option<Sight> {
        self.refused = None;
        self.is_listed.then_some(Sight::Synced)
    }

    /// Takes in that it is refused; returns how much is known then, unless that is as before.
    fn is_refused(&mut self, why: &str, now: Instant) -> Option<Sight> {
        let first = self.refused.map_or(now, |(first, _)| first);
        self.refused = Some((first, now));
        if !self.is_listed {
            return Some(Sight::Refused(why.to_owned()));
        }
        (now >= first + PATIENCE).then(|| Sight::Stale(why.to_owned()))
    }

    /// When it goes on for sure, if it was refused and is not again until then.
    fn calm_at(&self) -> Option<Instant> {
        self.refused.map(|(_, last)| last + CALM)
    }
}

/// Keeps `cache` equal to what `events` tell until `stop`, and hands each change to `changed`.
///
/// A failing watch is retried for ever with back-off; it holds up nobody else. `resource` is what it is a watch of.
pub async fn keep<K, V>(
    (resource, events): (
        ApiResource,
        impl futures::Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    ),
    cache: Arc<Cache<V>>,
    project: impl Fn(K) -> Option<V> + Send,
    changed: impl Fn(&Change<V>) + Send,
    stop: CancellationToken,
) where
    K: Resource + Clone + Debug + Send + 'static,
    V: PartialEq + Send + Sync,
{
    let mut events = std::pin::pin!(events.take_until(stop.cancelled_owned()));
    let mut listed = BTreeSet::new();
    let mut course = Course::default();
    let mut complaints = Complaints::about(resource);
    loop {
        let next = match course.calm_at() {
            Some(at) => timeout_at(at, events.try_next()).await,
            None => Ok(events.try_next().await),
        };
        let sight = match next {
            Ok(Ok(Some(event))) => {
                let shows = shows(&event);
                course.is_listed |= shows;
                for change in observe(&cache, &mut listed, event, &project) {
                    changed(&change);
                }
                shows.then(|| course.goes_on()).flatten()
            }
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                let now = Instant::now();
                let complaint = complaints.next(&error, now.into_std());
                let kind = complaints.kind();
                match complaint {
                    Some(Complaint::Absent(why)) => tracing::error!(kind, "{why}"),
                    Some(Complaint::Failed) => {
                        tracing::warn!(
                            kind,
                            error = chain(&error),
                            "a watch failed and is tried again"
                        );
                    }
                    None => {}
                }
                refusal(&error).and_then(|why| course.is_refused(why, now))
            }
            Err(_) => course.goes_on(),
        };
        if let Some(sight) = sight {
            cache.see(sight);
        }
    }
}

/// Whether everything up to `event` was shown: within a list it was not.
fn shows<K>(event: &watcher::Event<K>) -> bool {
    match event {
        watcher::Event::Init | watcher::Event::InitApply(_) => false,
        watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_) => true,
    }
}

/// The events of a watch over whole objects.
pub fn objects<K>(
    api: Api<K>,
) -> impl futures::Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, watcher::Config::default()).default_backoff()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::SinkExt;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn config_map(name: &str, value: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("shop".into());
        object.metadata.name = Some(name.into());
        object.data = Some([("value".to_owned(), value.to_owned())].into());
        object
    }

    fn value(object: ConfigMap) -> Option<String> {
        object
            .data?
            .remove("value")
            .filter(|value| value != "hidden")
    }

    fn changes(
        cache: &Cache<String>,
        events: Vec<watcher::Event<ConfigMap>>,
    ) -> Vec<(String, bool, bool)> {
        let mut listed = BTreeSet::new();
        events
            .into_iter()
            .flat_map(|event| observe(cache, &mut listed, event, &value))
            .map(|change| (change.key.name, change.old.is_some(), change.new.is_some()))
            .collect()
    }

    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    #[test]
    fn only_a_changed_projection_is_passed_on() {
        let cache = Cache::default();
        let seen = changes(
            &cache,
            vec![
                Apply(config_map("a", "1")),
                Apply(config_map("a", "1")),
                Apply(config_map("a", "2")),
                Apply(config_map("a", "hidden")),
                Delete(config_map("a", "2")),
            ],
        );
        let expected = [("a", false, true), ("a", true, true), ("a", true, false)];
        assert_eq!(
            seen,
            expected.map(|(name, old, new)| (name.to_owned(), old, new))
        );
    }

    #[test]
    fn an_object_deleted_while_the_watch_was_away_is_noticed() {
        let cache = Cache::default();
        changes(
            &cache,
            vec![
                Init,
                InitApply(config_map("a", "1")),
                InitApply(config_map("b", "1")),
                InitDone,
            ],
        );
        let seen = changes(
            &cache,
            vec![Init, InitApply(config_map("b", "1")), InitDone],
        );
        assert_eq!(seen, [("a".to_owned(), true, false)]);
        assert!(cache.get(&ObjectKey::new("shop", "a")).is_none());
    }

    /// The apiserver answers a list, or else a watch, with this code.
    fn answered(code: u16, is_list: bool) -> watcher::Error {
        let reason = if code == 403 { "Forbidden" } else { "" };
        let status = Status::failure("no", reason).with_code(code);
        let error = kube::Error::Api(status.boxed());
        if is_list {
            watcher::Error::InitialListFailed(error)
        } else {
            watcher::Error::WatchStartFailed(error)
        }
    }

    /// Something happens to a watch, and so many seconds later we look how much is known.
    type Step = (
        u64,
        Result<watcher::Event<ConfigMap>, watcher::Error>,
        Sight,
    );

    async fn keeps(steps: Vec<Step>) {
        let cache: Arc<Cache<String>> = Arc::default();
        let (mut send, events) = futures::channel::mpsc::unbounded();
        let stop = CancellationToken::new();
        let resource = ApiResource::erase::<ConfigMap>(&());
        let kept = keep(
            (resource, events),
            Arc::clone(&cache),
            value,
            |_| {},
            stop.clone(),
        );
        let kept = tokio::spawn(kept);
        for (number, (seconds, what, expected)) in steps.into_iter().enumerate() {
            send.send(what).await.unwrap();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert_eq!(*cache.sight.borrow(), expected, "step {number}");
        }
        stop.cancel();
        kept.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_refused_is_told_at_once_until_it_arrives() {
        let no = || Sight::Refused("no".to_owned());
        keeps(vec![
            (30, Ok(Init), Sight::Awaited),
            (30, Err(answered(404, true)), Sight::Awaited),
            (200, Err(answered(403, true)), no()),
            (1, Err(watcher::Error::NoResourceVersion), no()),
            (1, Ok(InitApply(config_map("a", "1"))), no()),
            (1, Ok(InitDone), Sight::Synced),
        ])
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_for_a_minute_shows_what_is_out_of_date_until_it_goes_on() {
        let stale = || Sight::Stale("no".to_owned());
        let (refused, list) = (|| Err(answered(403, false)), Err(answered(403, true)));
        keeps(vec![
            (600, Ok(InitDone), Sight::Synced),
            (30, refused(), Sight::Synced),
            (29, refused(), Sight::Synced),
            (1, refused(), Sight::Synced),
            (30, refused(), stale()),
            (1, Err(watcher::Error::NoResourceVersion), stale()),
            (1, Ok(Init), stale()),
            (1, Ok(Apply(config_map("a", "1"))), Sight::Synced),
            (89, refused(), Sight::Synced),
            (89, refused(), stale()),
            (2, refused(), stale()),
            (91, refused(), Sight::Synced),
            // From the beginning again.
            (59, refused(), Sight::Synced),
            (30, refused(), Sight::Synced),
            (30, list, stale()),
            (1, Ok(InitDone), Sight::Synced),
        ])
        .await;
    }

    #[test]
    fn a_namespace_is_listed_without_its_neighbours() {
        let cache = Cache::default();
        for (namespace, name) in [("a", "x"), ("b", "x"), ("b", "y"), ("c", "x")] {
            cache.insert(ObjectKey::new(namespace, name), String::new());
        }
        let names: Vec<_> = cache
            .in_namespace("b")
            .into_iter()
            .map(|(key, _)| key.to_string())
            .collect();
        assert_eq!(names, ["b/x", "b/y"]);
    }
}
