//! Effects: loopback HTTP — how often Vault is asked, and what is kept in memory.

mod kinds;

use futures::future::join_all;

use super::entry::KEEP_LEAST;
use super::*;
use crate::vault::error::VaultErrorKind;
use crate::vault::path::{MountPath, SecretPath};
use crate::vault::place::KvPlace;
use crate::vault::request::KvVersion;
use crate::vault::schedule::Freshness;
use crate::vault::sessions::SessionStore;
use crate::vault::testing::{CANARY, Clock, TestVault, kv2};

const READ: &str = "GET secret/data/a";
const LOOKUP: &str = "GET sys/internal/ui/mounts/secret";
const MINUTE: Duration = Duration::from_mins(1);

fn kv(engine: Option<KvVersion>) -> Place {
    Place::Kv(KvPlace {
        namespace: None,
        mount: MountPath::parse("secret").unwrap(),
        path: SecretPath::parse("a").unwrap(),
        engine,
        version: None,
    })
}

fn kv2_place() -> Place {
    kv(Some(KvVersion::V2))
}

fn want() -> Want {
    Want {
        interval: MINUTE,
        freshness: Freshness::WithinInterval,
        need_data: true,
        seed: 1,
    }
}

fn newer() -> Want {
    Want {
        freshness: Freshness::NotBefore(now()),
        ..want()
    }
}

struct Bed {
    clock: Clock,
    vault: TestVault,
    identity: Identity,
    readings: Arc<Readings>,
}

impl Bed {
    fn new() -> Self {
        let clock = Clock::stop();
        let vault = TestVault::start();
        vault.put("secret/data/a", 200, &kv2(CANARY, 1));
        let (identity, _) = vault.identity("shop/default");
        let sessions = Arc::new(Sessions::new(SessionStore::default()));
        let metrics = Arc::new(Metrics::default());
        let readings = Arc::new(Readings::new(sessions, metrics).unwrap());
        Self {
            clock,
            vault,
            identity,
            readings,
        }
    }

    async fn get(&self, want: &Want) -> Result<Reading, ReadFailure> {
        self.get_from(&kv2_place(), want).await
    }

    async fn get_from(&self, place: &Place, want: &Want) -> Result<Reading, ReadFailure> {
        self.readings.get(&self.identity, place, want).await
    }

    fn key(&self) -> PlaceKey {
        PlaceKey {
            identity: self.identity.key.clone(),
            place: kv2_place(),
        }
    }

    fn reads(&self) -> usize {
        self.vault.count(READ)
    }

    async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds)).await;
    }
}

#[tokio::test]
async fn fifty_callers_are_one_read() {
    let bed = Bed::new();
    let want = want();
    let results = join_all((0..50).map(|_| bed.get(&want))).await;
    let first = results[0].as_ref().unwrap().fingerprint;
    for reading in results {
        let reading = reading.unwrap();
        assert_eq!((reading.fingerprint, reading.version), (first, Some(1)));
        assert_eq!(
            reading.data.unwrap().entries["k"].expose_text(),
            Some(CANARY)
        );
    }
    assert_eq!(bed.reads(), 1);
}

#[tokio::test]
async fn identities_do_not_share_what_they_read() {
    let bed = Bed::new();
    bed.get(&want()).await.unwrap();
    let (other, _) = bed.vault.identity("bank/default");
    bed.readings
        .get(&other, &kv2_place(), &want())
        .await
        .unwrap();
    assert_eq!((bed.reads(), bed.readings.count()), (2, 2));
}

#[tokio::test]
async fn it_is_read_again_when_due_and_a_change_shows() {
    let bed = Bed::new();
    let first = bed.get(&want()).await.unwrap();
    let due = bed.readings.next_due(&bed.key(), MINUTE, &first, 1);
    bed.clock
        .advance((due - now()).saturating_sub(Duration::from_secs(1)))
        .await;
    bed.vault.put("secret/data/a", 200, &kv2(CANARY, 2));
    bed.clock.advance(due - now()).await;
    let same = bed.get(&want()).await.unwrap();
    assert_eq!((bed.reads(), same.version), (2, Some(2)));
    assert_eq!(
        same.fingerprint, first.fingerprint,
        "a new version is no change"
    );
    bed.vault.put("secret/data/a", 200, &kv2("other", 3));
    bed.pass(1).await;
    let changed = bed.get(&newer()).await.unwrap();
    assert_ne!(changed.fingerprint, first.fingerprint);
}

#[tokio::test]
async fn a_refresh_reads_at_once_and_only_once() {
    let bed = Bed::new();
    bed.get(&want()).await.unwrap();
    bed.pass(1).await;
    let newer = newer();
    let results = join_all((0..20).map(|_| bed.get(&newer))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(bed.reads(), 2);
    bed.get(&want()).await.unwrap();
    assert_eq!(bed.reads(), 2);
}

#[tokio::test]
async fn values_are_forgotten_soon_and_read_again_when_needed() {
    let bed = Bed::new();
    let stop = CancellationToken::new();
    let (worker, stopped) = (bed.readings.clone(), stop.clone());
    let task = tokio::spawn(async move { worker.maintain(stopped).await });
    let hour = Want {
        interval: 60 * MINUTE,
        ..want()
    };
    let fingerprint_only = Want {
        need_data: false,
        ..hour
    };
    bed.get(&hour).await.unwrap();
    let held = |bed: &Bed| {
        let entries = bed.readings.entries();
        entries.values().any(|e| e.holds_data())
    };
    // Moves in small steps, so that the task sees its dates.
    for second in 0..40 {
        assert!(second >= 30 || held(&bed), "kept for 30 s");
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        bed.pass(1).await;
    }
    bed.clock.wait_until("forgotten", || !held(&bed)).await;
    assert!(bed.get(&fingerprint_only).await.unwrap().data.is_none());
    assert_eq!(bed.reads(), 1);
    assert!(bed.get(&hour).await.unwrap().data.is_some());
    assert_eq!(bed.reads(), 2);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn keys_that_nobody_wants_are_forgotten() {
    let bed = Bed::new();
    bed.get(&want()).await.unwrap();
    bed.readings
        .sweep(now() + KEEP_LEAST.saturating_sub(Duration::from_secs(1)));
    assert_eq!(bed.readings.count(), 1);
    bed.readings.sweep(now() + KEEP_LEAST);
    assert_eq!(bed.readings.count(), 0);
}

#[tokio::test]
async fn a_refused_path_is_asked_for_less_and_less_by_all_together() {
    let bed = Bed::new();
    bed.vault.put("secret/data/a", 404, r#"{"errors":[]}"#);
    let want = want();
    let results = join_all((0..20).map(|_| bed.get(&want))).await;
    let first = results[0].clone().unwrap_err();
    assert_eq!(
        (first.error.kind, first.attempts),
        (VaultErrorKind::NotFound, 1)
    );
    assert!(results.iter().all(|r| r.as_ref().unwrap_err() == &first));
    assert_eq!(bed.reads(), 1);
    for attempts in 2..5 {
        let failure = bed.get(&want).await.unwrap_err();
        bed.clock.advance(failure.retry_at - now()).await;
        assert_eq!(bed.get(&want).await.unwrap_err().attempts, attempts);
    }
    bed.vault.put("secret/data/a", 200, &kv2("x", 1));
    assert!(bed.get(&want).await.is_err(), "remembered");
    bed.pass(1).await;
    assert!(bed.get(&newer()).await.is_ok(), "a refresh does not wait");
    assert!(bed.get(&want).await.is_ok());
}

#[tokio::test]
async fn an_outage_keeps_what_is_fresh_and_spreads_the_rest() {
    let bed = Bed::new();
    bed.get(&want()).await.unwrap();
    bed.pass(1).await;
    bed.vault.model().sealed = true;
    let mut dates = Vec::new();
    for seed in 0..20 {
        let newer = Want { seed, ..newer() };
        let failure = bed.get(&newer).await.unwrap_err();
        assert_eq!(failure.error.kind, VaultErrorKind::Sealed);
        dates.push(failure.retry_at);
    }
    dates.sort();
    dates.dedup();
    assert_eq!(dates.len(), 20, "no two callers come back together");
    assert_eq!(bed.reads(), 2, "the gate answers for Vault");
    assert!(bed.get(&want()).await.is_ok(), "still fresh");
}

#[tokio::test]
async fn the_kv_version_is_looked_up_once() {
    let bed = Bed::new();
    bed.vault.put(
        "sys/internal/ui/mounts/secret",
        200,
        r#"{"data":{"type":"kv","options":{"version":"2"}}}"#,
    );
    for _ in 0..3 {
        bed.get_from(&kv(None), &newer()).await.unwrap();
        bed.pass(1).await;
    }
    assert_eq!((bed.vault.count(LOOKUP), bed.reads()), (1, 3));
    bed.pass(KEEP_LEAST.as_secs() * 6).await;
    bed.get_from(&kv(None), &newer()).await.unwrap();
    assert_eq!(bed.vault.count(LOOKUP), 2);
}

#[tokio::test]
async fn a_kv_version_that_changed_is_looked_up_again() {
    let bed = Bed::new();
    let path = "sys/internal/ui/mounts/secret";
    bed.vault
        .put(path, 200, r#"{"data":{"type":"kv","options":null}}"#);
    let failure = bed.get_from(&kv(None), &want()).await.unwrap_err();
    assert_eq!(failure.error.kind, VaultErrorKind::NotFound);
    bed.vault.put(
        path,
        200,
        r#"{"data":{"type":"kv","options":{"version":"2"}}}"#,
    );
    bed.clock.advance(failure.retry_at - now()).await;
    bed.get_from(&kv(None), &want()).await.unwrap();
}

#[tokio::test]
async fn a_lookup_that_is_refused_says_what_to_set() {
    let bed = Bed::new();
    let path = "sys/internal/ui/mounts/secret";
    for (status, body, expected) in [
        (
            403,
            r#"{"errors":["preflight capability check returned 403"]}"#,
            "engineVersion",
        ),
        (
            200,
            r#"{"data":{"type":"database"}}"#,
            "the engine mounted here is 'database', not 'kv'",
        ),
    ] {
        bed.vault.put(path, status, body);
        bed.pass(60).await;
        let failure = bed.get_from(&kv(None), &want()).await.unwrap_err();
        assert!(failure.to_string().contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn nothing_shows_a_value() {
    let bed = Bed::new();
    let reading = bed.get(&want()).await.unwrap();
    let all = format!("{reading:?} {:?}", bed.readings);
    assert!(!all.contains(CANARY));
}
