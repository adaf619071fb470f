//! Effects: timers and tasks. A queue of keys and the workers that serve it.
//!
//! A trigger carries a key and nothing else. A key is served by one worker at a time; asked for again
//! while it is served, it is served once more. There is one time per key, and the earliest asked for wins.
//!
//! `kube_runtime::Controller` is not used, because it serves only objects of one kind that exist: rollouts
//! are keyed by workloads of several kinds, and a Secret that outlived its VaultSecret needs a look too.
//! One panic or one failing watch would also stop it for every object.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a key rests after its worker panicked.
const AFTER_PANIC: Duration = Duration::from_mins(1);

/// How long running work may go on once the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(8);

/// Keys and when to serve them.
pub struct Queue<K> {
    name: &'static str,
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    /// When each waiting key is due.
    due: HashMap<K, Instant>,
    /// The same, ordered by time.
    order: BTreeSet<(Instant, K)>,
    /// Keys that a worker holds.
    running: HashSet<K>,
    /// Keys asked for while they were running.
    again: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// An empty queue; `name` is its label in metrics and logs.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Mutex::new(State {
                due: HashMap::new(),
                order: BTreeSet::new(),
                running: HashSet::new(),
                again: HashMap::new(),
            }),
            changed: Notify::new(),
        }
    }

    /// The name it was made with.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Serve `key` as soon as a worker is free.
    pub fn add(&self, key: K) {
        self.add_at(key, Instant::now());
    }

    /// Serve `key` at `at`, or earlier if that was asked for before.
    pub fn add_at(&self, key: K, at: Instant) {
        let mut state = self.lock();
        if state.running.contains(&key) {
            let again = state.again.entry(key).or_insert(at);
            *again = at.min(*again);
            return;
        }
        state.schedule(key, at);
        drop(state);
        self.changed.notify_one();
    }

    /// Keys that are due at `now` and not yet served, counted up to `most`.
    pub fn backlog(&self, now: Instant, most: usize) -> usize {
        let state = self.lock();
        state
            .order
            .iter()
            .take(most)
            .take_while(|(at, _)| *at <= now)
            .count()
    }

    /// Whether no key is due and none is served.
    pub fn is_idle(&self, now: Instant) -> bool {
        let state = self.lock();
        state.running.is_empty() && state.order.first().is_none_or(|(at, _)| *at > now)
    }

    /// The next key that is due. It is held until [`Queue::done`].
    async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let earliest = match self.take(Instant::now()) {
                Ok(key) => return key,
                Err(earliest) => earliest,
            };
            match earliest {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    fn take(&self, now: Instant) -> Result<K, Option<Instant>> {
        let mut state = self.lock();
        match state.order.first() {
            Some((at, _)) if *at <= now => {}
            Some((at, _)) => return Err(Some(*at)),
            None => return Err(None),
        }
        let Some((_, key)) = state.order.pop_first() else {
            return Err(None);
        };
        state.due.remove(&key);
        state.running.insert(key.clone());
        Ok(key)
    }

    /// Lets go of `key` and serves it again at `next`, or when it was asked for meanwhile.
    fn done(&self, key: K, next: Option<Instant>) {
        let mut state = self.lock();
        state.running.remove(&key);
        let again = state.again.remove(&key);
        let at = match (again, next) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(at) = at {
            state.schedule(key, at);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // A panic while the lock is held can leave no half-made change behind that matters: every field is
        // repaired by the next trigger of the key.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn schedule(&mut self, key: K, at: Instant) {
        let at = match self.due.get(&key) {
            Some(&earlier) if earlier <= at => return,
            Some(&later) => {
                self.order.remove(&(later, key.clone()));
                at
            }
            None => at,
        };
        self.due.insert(key.clone(), at);
        self.order.insert((at, key));
    }
}

/// Serves `queue` with at most `workers` keys at a time until `stop`, then lets running work finish for some seconds.
///
/// `serve` returns when to look at the key again. A panic in it is logged without its payload and
/// costs that key a minute's rest; nobody else notices.
pub async fn work<K, S, F>(queue: Arc<Queue<K>>, workers: usize, stop: CancellationToken, serve: S)
where
    K: Clone + Eq + Hash + Ord + fmt::Display + Send + Sync + 'static,
    S: Fn(K) -> F,
    F: Future<Output = Option<Instant>> + Send + 'static,
{
    let mut running = JoinSet::new();
    loop {
        let free = running.len() < workers.max(1);
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = running.join_next() => continue,
            key = queue.next(), if free => key,
        };
        let (queue, served) = (Arc::clone(&queue), serve(key.clone()));
        running.spawn(async move {
            let next = if let Ok(next) = AssertUnwindSafe(served).catch_unwind().await { next } else {
                tracing::error!(queue = queue.name, %key, "a panic was contained; the object rests for a minute");
                Some(Instant::now() + AFTER_PANIC)
            };
            queue.done(key, next);
        });
    }
    let drain = async { while running.join_next().await.is_some() {} };
    if timeout(DRAIN, drain).await.is_err() {
        tracing::warn!(
            queue = queue.name,
            "work was still under way when the time to stop was over"
        );
        running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was served, and when.
    type Log = Arc<Mutex<Vec<(u32, Duration)>>>;

    fn served(queue: &Arc<Queue<u32>>) -> (Log, CancellationToken) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let start = Instant::now();
        let (sink, queue, token) = (Arc::clone(&log), Arc::clone(queue), stop.clone());
        tokio::spawn(work(queue, 2, token, move |key| {
            let sink = Arc::clone(&sink);
            async move {
                sink.lock().unwrap().push((key, start.elapsed()));
                assert_ne!(key, 13, "unlucky");
                tokio::time::sleep(Duration::from_secs(1)).await;
                None
            }
        }));
        (log, stop)
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_asked_for_wins() {
        let queue = Arc::new(Queue::new("test"));
        queue.add_at(1, Instant::now() + s(60));
        queue.add_at(1, Instant::now() + s(5));
        queue.add_at(1, Instant::now() + s(30));
        let (log, _stop) = served(&queue);
        tokio::time::sleep(s(100)).await;
        assert_eq!(*log.lock().unwrap(), [(1, s(5))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_asked_for_while_it_is_served_is_served_once_more_afterwards() {
        let queue = Arc::new(Queue::new("test"));
        let (log, _stop) = served(&queue);
        queue.add(1);
        tokio::time::sleep(Duration::from_millis(500)).await;
        queue.add(1);
        queue.add(1);
        tokio::time::sleep(s(10)).await;
        assert_eq!(*log.lock().unwrap(), [(1, s(0)), (1, s(1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_keys_than_workers_are_served_at_once() {
        let queue = Arc::new(Queue::new("test"));
        let (log, _stop) = served(&queue);
        for key in 1..=4 {
            queue.add(key);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(log.lock().unwrap().len(), 2);
        assert_eq!(queue.backlog(Instant::now(), 9), 2);
        tokio::time::sleep(s(5)).await;
        assert_eq!(log.lock().unwrap().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_its_own_key_a_rest_and_nobody_else_anything() {
        let queue = Arc::new(Queue::new("test"));
        let (log, _stop) = served(&queue);
        queue.add(13);
        tokio::time::sleep(s(1)).await;
        queue.add(2);
        tokio::time::sleep(s(62)).await;
        assert_eq!(*log.lock().unwrap(), [(13, s(0)), (2, s(1)), (13, s(60))]);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_the_loop_although_all_workers_are_busy() {
        let queue = Arc::new(Queue::new("test"));
        let stop = CancellationToken::new();
        let worker = tokio::spawn(work(Arc::clone(&queue), 1, stop.clone(), |_: u32| {
            std::future::pending()
        }));
        queue.add(1);
        tokio::time::sleep(s(1)).await;
        let asked = Instant::now();
        stop.cancel();
        timeout(s(60), worker).await.unwrap().unwrap();
        assert_eq!(asked.elapsed(), DRAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_work_under_way() {
        let queue = Arc::new(Queue::new("test"));
        let finished = Arc::new(Mutex::new(false));
        let stop = CancellationToken::new();
        let flag = Arc::clone(&finished);
        let worker = tokio::spawn(work(Arc::clone(&queue), 1, stop.clone(), move |_: u32| {
            let flag = Arc::clone(&flag);
            async move {
                tokio::time::sleep(s(3)).await;
                *flag.lock().unwrap() = true;
                None
            }
        }));
        queue.add(1);
        tokio::time::sleep(s(1)).await;
        stop.cancel();
        worker.await.unwrap();
        assert!(*finished.lock().unwrap());
    }
}
