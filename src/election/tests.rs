//! Effects: memory — candidates in paused time, against an apiserver that knows one Lease and its version.

use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;

#[derive(Default)]
struct FakeApi {
    lease: Mutex<Option<Lease>>,
    version: AtomicU64,
    down: AtomicBool,
}

impl FakeApi {
    fn client(self: &Arc<Self>) -> kube::Client {
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(self));
        kube::Client::new(router, "default")
    }

    fn holder(&self) -> Option<String> {
        self.lease.lock().unwrap().clone()?.spec?.holder_identity
    }

    fn set_holder(&self, holder: &str) {
        let mut lease = self.lease.lock().unwrap();
        let lease = lease.as_mut().unwrap();
        lease.spec.as_mut().unwrap().holder_identity = Some(holder.to_owned());
        lease.metadata.resource_version = Some(self.next_version());
    }

    fn next_version(&self) -> String {
        self.version.fetch_add(1, SeqCst).to_string()
    }

    fn store(&self, body: &Bytes) -> (StatusCode, Value) {
        let mut lease: Lease = serde_json::from_slice(body).unwrap();
        lease.metadata.resource_version = Some(self.next_version());
        *self.lease.lock().unwrap() = Some(lease.clone());
        (StatusCode::OK, serde_json::to_value(lease).unwrap())
    }

    fn handle(&self, method: &Method, body: &Bytes) -> (StatusCode, Value) {
        if self.down.load(SeqCst) {
            return failure(StatusCode::SERVICE_UNAVAILABLE);
        }
        let current = self.lease.lock().unwrap().clone();
        match (method.as_str(), current) {
            ("GET", None) => failure(StatusCode::NOT_FOUND),
            ("GET", Some(lease)) => (StatusCode::OK, serde_json::to_value(lease).unwrap()),
            ("POST", None) => self.store(body),
            ("PUT", Some(lease)) => {
                let sent: Lease = serde_json::from_slice(body).unwrap();
                if sent.metadata.resource_version != lease.metadata.resource_version {
                    return failure(StatusCode::CONFLICT);
                }
                self.store(body)
            }
            _ => failure(StatusCode::CONFLICT),
        }
    }
}

fn failure(code: StatusCode) -> (StatusCode, Value) {
    let reason: String = code.canonical_reason().unwrap().split(' ').collect();
    (
        code,
        json!({"kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code.as_u16()}),
    )
}

async fn answer(
    State(api): State<Arc<FakeApi>>,
    method: Method,
    body: Bytes,
) -> (StatusCode, String) {
    // Both candidates of a race read before either writes.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (code, value) = api.handle(&method, &body);
    (code, value.to_string())
}

struct Running {
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ElectionError>>,
}

impl Running {
    fn leads(&self) -> bool {
        self.leadership.borrow().is_leader()
    }

    /// How long it takes until this candidate leads.
    async fn until_leading(&mut self) -> Duration {
        let start = Instant::now();
        self.leadership
            .wait_for(Leadership::is_leader)
            .await
            .unwrap();
        start.elapsed()
    }
}

fn start(api: &Arc<FakeApi>, identity: &str) -> Running {
    let params = Params::new("lockstep-system", identity);
    let (elector, leadership) = Elector::new(api.client(), params, Arc::default());
    let stop = CancellationToken::new();
    Running {
        leadership,
        task: tokio::spawn(elector.run(stop.clone())),
        stop,
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_many_leads() {
    let api = Arc::new(FakeApi::default());
    let candidates: Vec<Running> = (0..20).map(|n| start(&api, &format!("pod-{n}"))).collect();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let leaders = candidates
        .iter()
        .filter(|candidate| candidate.leads())
        .count();
    assert_eq!(leaders, 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_try() {
    let api = Arc::new(FakeApi::default());
    let mut first = start(&api, "first");
    first.until_leading().await;
    let mut second = start(&api, "second");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!second.leads());
    first.stop.cancel();
    assert_eq!(first.task.await.unwrap(), Ok(()));
    assert!(!first.leadership.borrow().is_leader());
    let taken_after = second.until_leading().await;
    assert!(taken_after < Duration::from_secs(3), "{taken_after:?}");
    assert_eq!(*second.leadership.borrow(), Leadership::Leader { epoch: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_when_its_lease_has_run_out() {
    let api = Arc::new(FakeApi::default());
    let mut first = start(&api, "first");
    first.until_leading().await;
    let mut second = start(&api, "second");
    tokio::time::sleep(Duration::from_secs(5)).await;
    first.task.abort();
    let taken_after = second.until_leading().await;
    assert!(
        taken_after >= Duration::from_secs(12) && taken_after < Duration::from_secs(20),
        "{taken_after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_anybody_else_may_lead() {
    let api = Arc::new(FakeApi::default());
    let mut leader = start(&api, "first");
    leader.until_leading().await;
    let start = Instant::now();
    api.down.store(true, SeqCst);
    let ended = leader.task.await.unwrap();
    assert_eq!(
        ended,
        Err(ElectionError::NotRenewed {
            after: Duration::from_secs(10)
        })
    );
    assert!(
        start.elapsed() <= Duration::from_secs(11),
        "{:?}",
        start.elapsed()
    );
    assert!(!leader.leadership.borrow().is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_nothing() {
    let api = Arc::new(FakeApi::default());
    let mut leader = start(&api, "first");
    leader.until_leading().await;
    api.down.store(true, SeqCst);
    tokio::time::sleep(Duration::from_secs(7)).await;
    api.down.store(false, SeqCst);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(*leader.leadership.borrow(), Leadership::Leader { epoch: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_leader_yields_to_a_new_holder() {
    let api = Arc::new(FakeApi::default());
    let mut leader = start(&api, "first");
    leader.until_leading().await;
    api.set_holder("second");
    let ended = leader.task.await.unwrap();
    assert_eq!(
        ended,
        Err(ElectionError::TakenOver {
            holder: "second".to_owned()
        })
    );
    assert_eq!(api.holder().as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_written_again_by_its_leader() {
    let api = Arc::new(FakeApi::default());
    let mut leader = start(&api, "first");
    leader.until_leading().await;
    let follower = start(&api, "second");
    tokio::time::sleep(Duration::from_secs(5)).await;
    *api.lease.lock().unwrap() = None;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(*leader.leadership.borrow(), Leadership::Leader { epoch: 1 });
    assert!(!follower.leads());
}
