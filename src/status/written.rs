//! Effects: memory. The statuses we wrote a moment ago, which the watch may not have shown yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a status we wrote counts although the watch has not shown it yet.
const WATCH_LAG: Duration = Duration::from_secs(10);

/// The statuses of one kind as we wrote them in the last seconds, by UID: several looks in a row write once.
#[derive(Debug)]
pub struct Written<S>(Mutex<HashMap<String, (Arc<S>, Instant)>>);

impl<S> Default for Written<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> Written<S> {
    /// The newer of what the watch shows and what we wrote.
    pub fn newest(&self, uid: &str, watched: &Arc<S>, now: Instant) -> Arc<S> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(uid) {
            Some((status, when)) if is_recent(*when, now) => Arc::clone(status),
            Some(_) | None => Arc::clone(watched),
        }
    }

    /// Notes that `status` was written to the object with this UID.
    pub fn note(&self, uid: &str, status: S, now: Instant) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, (_, when)| is_recent(*when, now));
        written.insert(uid.to_owned(), (Arc::new(status), now));
    }
}

fn is_recent(when: Instant, now: Instant) -> bool {
    now.duration_since(when) < WATCH_LAG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_wrote_counts_until_the_watch_had_time_to_show_it() {
        let start = Instant::now();
        let written = Written::default();
        let watched = Arc::new(1);
        written.note("a", 2, start);
        assert_eq!(*written.newest("a", &watched, start), 2);
        assert_eq!(*written.newest("b", &watched, start), 1, "another object");
        let late = start + WATCH_LAG;
        assert_eq!(*written.newest("a", &watched, late), 1);
        written.note("b", 3, late);
        assert_eq!(written.0.lock().unwrap().len(), 1, "the old one is dropped");
    }
}
