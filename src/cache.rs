//! Effects: watches at the apiserver. What is known of the cluster, cut down to what is needed.
//!
//! Each kind is watched once and projected before it is kept, so that the cost of an object is that of its
//! projection. A change is passed on only if the projection changed, deletions included, also those
//! that happened while the watch was away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::names::ObjectKey;

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
    /// It has arrived.
    Synced,
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
        // The sender lives as long as `self`, so waiting cannot fail.
        _ = self.sight().wait_for(|sight| *sight == Sight::Synced).await;
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

    /// Why the apiserver refuses the first list, if it does.
    pub fn refused(&self) -> Option<String> {
        match &*self.sight.borrow() {
            Sight::Refused(why) => Some(why.clone()),
            Sight::Awaited | Sight::Absent | Sight::Synced => None,
        }
    }

    /// Notes that the apiserver refuses the first list. What is known already is kept: an apiserver that has just started refuses what it will allow.
    pub(crate) fn refuse(&self, why: String) {
        self.sight.send_if_modified(|sight| {
            let refused = Sight::Refused(why);
            let news = *sight != Sight::Synced && *sight != refused;
            if news {
                *sight = refused;
            }
            news
        });
    }

    /// Notes what the apiserver refuses with `error`; that it cannot be reached is no refusal.
    pub(crate) fn note(&self, error: &watcher::Error) {
        if let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error
            && (status.is_forbidden() || status.is_not_found())
        {
            self.refuse(status.message.clone());
        }
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

    fn see(&self, new: Sight) {
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
            cache.see(Sight::Synced);
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

/// Keeps `cache` equal to what `api` holds until `stop`, and hands each change to `changed`.
///
/// A failing watch is retried for ever with back-off; it holds up nobody else.
pub async fn keep<K, V>(
    events: impl futures::Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
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
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                for change in observe(&cache, &mut listed, event, &project) {
                    changed(&change);
                }
            }
            Ok(None) => return,
            Err(error) => {
                cache.note(&error);
                let kind = std::any::type_name::<V>();
                tracing::warn!(cache = kind, error = %crate::telemetry::chain::chain(&error), "a watch failed and is tried again");
            }
        }
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
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

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

    #[test]
    fn what_was_refused_is_told_until_the_first_list_arrives() {
        let cache: Cache<String> = Cache::default();
        let mut sight = cache.sight();
        let mut news =
            || sight.has_changed().unwrap() && *sight.borrow_and_update() != Sight::Awaited;
        let mut told = Vec::new();
        let mut note = |cache: &Cache<String>| told.push((news(), cache.refused()));
        for why in ["no", "no", "still no"] {
            cache.refuse(why.to_owned());
            note(&cache);
        }
        changes(&cache, vec![Init, InitDone]);
        note(&cache);
        cache.refuse("again".to_owned());
        note(&cache);
        let told_as = |news: bool, why: Option<&str>| (news, why.map(str::to_owned));
        let expected = [
            told_as(true, Some("no")),
            told_as(false, Some("no")),
            told_as(true, Some("still no")),
            told_as(true, None),
            told_as(false, None),
        ];
        assert_eq!(told, expected);
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
