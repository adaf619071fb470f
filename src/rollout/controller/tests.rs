//! Effects: a listening socket. One pass against an apiserver that records what it is asked and answers what it is told.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use axum::{Router, extract::Request, response::IntoResponse};
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::vault_secret::{WorkloadKind, WorkloadState, WorkloadStatus},
    cache::Cache,
    names::SECRETS_HASH,
    queue::Queue,
    revision::Revision,
    rollout::{
        argo::Argo,
        bind::Follows,
        board::Board,
        decision::Waiting,
        fixtures::{at, deployment, s, view, workload},
        memory::Memory,
        report::RolloutNote,
        turn::{Hold, Limits},
        view::Counters,
    },
    secret_view::{Managed, SecretView},
    sync::holding::Verdict,
    telemetry::metrics::Metrics,
};

/// Method, path and query, and body of each request; and the answers still to be given.
#[derive(Default)]
struct Apiserver {
    asked: Mutex<Vec<(String, String, Value)>>,
    answers: Mutex<VecDeque<(u16, Value)>>,
}

impl Apiserver {
    async fn start() -> (Arc<Self>, kube::Client) {
        let this = Arc::new(Self::default());
        let served = Arc::clone(&this);
        let router =
            Router::new().fallback(move |request: Request| answer(Arc::clone(&served), request));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = kube::Config::new(address.parse().unwrap());
        (this, kube::Client::try_from(config).unwrap())
    }

    fn will_answer(&self, code: u16, body: Value) {
        self.answers.lock().unwrap().push_back((code, body));
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<(String, String, Value)> {
        assert_eq!(
            self.answers.lock().unwrap().len(),
            0,
            "an answer was not asked for"
        );
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(apiserver: Arc<Apiserver>, request: Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let asked = (parts.method.to_string(), parts.uri.to_string(), body);
    apiserver.asked.lock().unwrap().push(asked);
    let (code, body) = apiserver
        .answers
        .lock()
        .unwrap()
        .pop_front()
        .unwrap_or_else(|| {
            let unexpected = json!({"kind": "Status", "code": 500, "message": "not expected"});
            (500, unexpected)
        });
    (
        StatusCode::from_u16(code).unwrap(),
        [("content-type", "application/json")],
        body.to_string(),
    )
}

struct Bed {
    apiserver: Arc<Apiserver>,
    context: RolloutContext,
    told: Arc<Mutex<Told>>,
}

/// What went through the seams.
#[derive(Default)]
struct Told {
    notes: Vec<RolloutNote>,
    refreshed: Vec<ObjectKey>,
    reported: Vec<ObjectKey>,
}

impl Bed {
    /// The Deployment `web`, and a VaultSecret that writes `db` with data since 200.
    async fn new() -> Self {
        let (apiserver, client) = Apiserver::start().await;
        let told = Arc::new(Mutex::new(Told::default()));
        let seam = |put: fn(&mut Told, ObjectKey)| {
            let told = Arc::clone(&told);
            Arc::new(move |key| put(&mut told.lock().unwrap(), key))
        };
        let notes = Arc::clone(&told);
        let context = RolloutContext {
            client,
            follows: Arc::new(|namespace| vec![follows(namespace)]),
            secrets: Arc::default(),
            deployments: Arc::default(),
            stateful_sets: Arc::default(),
            daemon_sets: Arc::default(),
            rollouts: Arc::default(),
            queue: Arc::new(Queue::new("rollouts")),
            board: Arc::new(Board::default()),
            metrics: Arc::new(Metrics::new()),
            notify: Arc::new(move |note| notes.lock().unwrap().notes.push(note)),
            refresh: seam(|told, key| told.refreshed.push(key)),
            report: seam(|told, key| told.reported.push(key)),
            memory: Memory::default(),
            ends: Arc::new(|_| None),
            told: Arc::new(|_, _| None),
            clock: || at(1000),
            limits: Limits {
                cluster: 1,
                namespace: 1,
            },
            line: Mutex::default(),
        };
        let bed = Self {
            apiserver,
            context,
            told,
        };
        put(&bed.context.secrets, "db", secret(10));
        put(&bed.context.deployments, "web", view());
        bed
    }

    async fn pass(&self) -> Option<Duration> {
        let next = reconcile(&self.context, &deployment("web")).await;
        next.map(|next| next - Instant::now())
    }

    fn status(&self) -> Option<WorkloadStatus> {
        self.context
            .board
            .workloads(&ObjectKey::new("shop", "vs"), None)
            .into_iter()
            .next()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }
}

fn follows(namespace: &str) -> Follows {
    let spec = json!({"sources": [], "target": {"name": "db"}, "rollout": {"settle": "0s"}});
    Follows::from_spec(
        ObjectKey::new(namespace, "vs"),
        &serde_json::from_value(spec).unwrap(),
        false,
    )
}

fn put<V: PartialEq>(cache: &Cache<V>, name: &str, value: V) {
    cache.insert(ObjectKey::new("shop", name), value);
}

fn secret(created: i64) -> SecretView {
    SecretView {
        uid: "s".into(),
        resource_version: "1".into(),
        created: Some(at(created)),
        managed: Some(Managed {
            vault_secret: "vs".into(),
            revision: Revision::from_annotation("k1:1"),
            data_since: at(200),
            again: false,
            merged: false,
            remove_keys: false,
            holdings: None,
            fields: 0,
        }),
    }
}

fn pod_list(created: i64, stamp: Option<&str>) -> Value {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [{
        "metadata": {
            "name": "web-5d-a", "uid": "p1", "creationTimestamp": at(created).to_string(),
            "annotations": stamp.map(|stamp| json!({SECRETS_HASH: stamp})),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "r", "controller": true}],
        },
        "spec": {"nodeName": "n1", "containers": [], "volumes": [{"name": "v", "secret": {"secretName": "db"}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }]})
}

fn written(generation: i64) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "web", "namespace": "shop", "generation": generation},
    })
}

fn one_pod(view: WorkloadView) -> WorkloadView {
    WorkloadView {
        counters: crate::rollout::fixtures::counters(1, 1, 1),
        ..view
    }
}

const LIST: &str = "/api/v1/namespaces/shop/pods?&fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&labelSelector=app%3Dweb&limit=500";
const PATCH: &str = "/apis/apps/v1/namespaces/shop/deployments/web?&fieldManager=lockstep-rollout";

async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(s(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn pods_in_step_are_recorded_once_and_then_nothing_is_asked_any_more() {
    let bed = Bed::new().await;
    bed.apiserver.will_answer(200, pod_list(204, None));
    bed.apiserver.will_answer(200, written(1));
    assert_eq!(bed.pass().await, None);
    let asked = bed.apiserver.asked();
    assert_eq!((asked[0].0.as_str(), asked[0].1.as_str()), ("GET", LIST));
    let forced = PATCH.replace("?&", "?&force=true&");
    assert_eq!(
        (asked[1].0.as_str(), asked[1].1.as_str()),
        ("PATCH", forced.as_str())
    );
    let status = bed.status().unwrap();
    let proof = json!({"lockstep.dev/in-step": status.hash.unwrap()});
    assert_eq!(asked[1].2["metadata"]["annotations"], proof);
    assert_eq!(status.state, WorkloadState::Verified);
    assert_eq!(bed.pass().await, None);
    assert_eq!(bed.apiserver.asked(), []);
    assert_eq!(bed.told().reported, [ObjectKey::new("shop", "vs")]);
    assert_eq!(bed.told().notes, []);
}

#[tokio::test]
async fn old_pods_are_restarted_and_verified() {
    let bed = Bed::new().await;
    bed.apiserver.will_answer(200, pod_list(100, None));
    assert!(bed.pass().await.unwrap() <= s(2));
    assert_eq!(bed.status().unwrap().state, WorkloadState::Pending);
    assert_eq!(bed.told().refreshed, [ObjectKey::new("shop", "vs")]);
    bed.apiserver.asked();

    later(2).await;
    bed.apiserver.will_answer(200, pod_list(100, None));
    bed.apiserver.will_answer(200, written(2));
    assert!(bed.pass().await.is_some());
    let status = bed.status().unwrap();
    let hash = status.hash.unwrap();
    let asked = bed.apiserver.asked();
    assert_eq!(asked[1].1, PATCH);
    assert_eq!(
        asked[1].2["spec"]["template"]["metadata"]["annotations"],
        json!({SECRETS_HASH: hash})
    );
    assert_eq!(
        (status.state, status.pods.as_deref()),
        (WorkloadState::Restarting, Some("0/3"))
    );
    assert_eq!(bed.told().notes[0].what, Announcement::Started);

    let rolled = WorkloadView {
        stamp: Some(hash.clone()),
        generation: 2,
        observed_generation: 2,
        ..one_pod(view())
    };
    put(&bed.context.deployments, "web", rolled);
    bed.apiserver.will_answer(200, pod_list(210, Some(&hash)));
    assert_eq!(bed.pass().await, None);
    assert_eq!(bed.status().unwrap().state, WorkloadState::Verified);
    assert_eq!(bed.told().notes[1].what, Announcement::Verified);
    bed.apiserver.asked();

    assert_eq!(bed.pass().await, None);
    assert_eq!(bed.apiserver.asked(), []);
    assert_eq!(bed.told().notes.len(), 2);
    assert_eq!(bed.told().refreshed.len(), 1);
}

#[tokio::test]
async fn a_restart_that_had_failed_before_this_process_began_is_not_waited_for_anew() {
    for state in [WorkloadState::Failed, WorkloadState::Restarting] {
        let mut bed = Bed::new().await;
        let hash = bed.context.gather(&deployment("web")).wanted.unwrap();
        let stands = WorkloadView {
            stamp: Some(hash.clone()),
            counters: Counters {
                wanted: 1,
                all: 2,
                updated: 1,
                ready: 1,
            },
            ..one_pod(view())
        };
        put(&bed.context.deployments, "web", stands.clone());
        let told = WorkloadStatus {
            kind: WorkloadKind::Deployment,
            name: "web".to_owned(),
            state,
            hash: Some(hash.clone()),
            pods: None,
            message: None,
        };
        bed.context.told = Arc::new(move |_, _| Some(told.clone()));
        if state == WorkloadState::Failed {
            // They say why.
            bed.apiserver.will_answer(200, pod_list(100, None));
        }
        bed.pass().await;
        assert_eq!(bed.status().unwrap().state, state);
        assert_eq!(bed.told().notes, [], "it was told before");

        // When it comes to its end, that is told.
        let rolled = WorkloadView {
            stamp: Some(hash.clone()),
            ..one_pod(view())
        };
        put(&bed.context.deployments, "web", rolled);
        bed.apiserver.will_answer(200, pod_list(210, Some(&hash)));
        bed.pass().await;
        assert_eq!(bed.status().unwrap().state, WorkloadState::Verified);
        assert_eq!(bed.told().notes[0].what, Announcement::Verified);
    }
}

/// What `kubectl rollout undo` leaves.
#[tokio::test]
async fn a_hash_of_ours_that_somebody_copied_is_written_over_and_no_other() {
    for (stamp, force) in [("0123456789abcdef", true), ("theirs", false)] {
        let bed = Bed::new().await;
        let copied = WorkloadView {
            stamp: Some(stamp.to_owned()),
            ..one_pod(view())
        };
        put(&bed.context.deployments, "web", copied);
        bed.apiserver.will_answer(200, pod_list(100, None));
        bed.pass().await;
        later(2).await;
        bed.apiserver.will_answer(200, pod_list(100, None));
        bed.apiserver.will_answer(200, written(2));
        bed.pass().await;
        let asked = bed.apiserver.asked();
        let (_, path, _) = asked.last().unwrap();
        assert!(path.contains("deployments/web"), "{path}");
        assert_eq!(path.contains("force=true"), force, "{path}");
    }
}

#[tokio::test]
async fn an_annotation_of_somebody_else_is_a_conflict_that_is_told_once() {
    let bed = Bed::new().await;
    bed.apiserver.will_answer(200, pod_list(100, None));
    bed.pass().await;
    later(2).await;
    bed.apiserver.will_answer(200, pod_list(100, None));
    let conflict = json!({
        "kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict",
        "details": {"causes": [{
            "reason": "FieldManagerConflict", "message": "conflict with \"helm\" using apps/v1",
            "field": format!(".spec.template.metadata.annotations.{SECRETS_HASH}"),
        }]},
    });
    bed.apiserver.will_answer(409, conflict);
    assert!(bed.pass().await.unwrap() > s(50));
    assert_eq!(bed.apiserver.asked().len(), 3);
    let status = bed.status().unwrap();
    assert_eq!(status.state, WorkloadState::Failed);
    assert!(status.message.unwrap().contains("helm"));
    bed.pass().await;
    assert_eq!(bed.apiserver.asked(), []);
    assert_eq!(bed.told().notes.len(), 1);
}

#[tokio::test]
async fn a_refused_list_is_reported_and_made_again() {
    let bed = Bed::new().await;
    let forbidden = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no pods for you"});
    bed.apiserver.will_answer(403, forbidden.clone());
    assert!(bed.pass().await.unwrap() <= s(1));
    let status = bed.status().unwrap();
    assert_eq!(status.state, WorkloadState::Pending);
    assert_eq!(
        status.message.unwrap(),
        "listing the pods failed: no pods for you"
    );
    bed.apiserver.asked();
    assert!(bed.pass().await.is_some());
    assert_eq!(bed.apiserver.asked(), []);

    later(1).await;
    bed.apiserver.will_answer(403, forbidden);
    bed.pass().await;
    assert_eq!(bed.status().unwrap().state, WorkloadState::Failed);
    let told = bed.told().notes.clone();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].what, Announcement::Failed);
    assert_eq!(told[0].message, "listing the pods failed: no pods for you");
}

#[tokio::test]
async fn all_pages_of_pods_are_read() {
    let bed = Bed::new().await;
    let mut first = pod_list(204, None);
    first["metadata"] = json!({"continue": "more"});
    bed.apiserver.will_answer(200, first);
    bed.apiserver.will_answer(200, pod_list(100, None));
    bed.pass().await;
    let asked = bed.apiserver.asked();
    assert!(asked[1].1.contains("continue=more"), "{}", asked[1].1);
    assert_eq!(
        bed.status().unwrap().state,
        WorkloadState::Pending,
        "the old pod is on the second page"
    );
}

#[tokio::test]
async fn a_workload_that_is_no_longer_bound_is_taken_down() {
    let bed = Bed::new().await;
    bed.apiserver.will_answer(200, pod_list(100, None));
    bed.pass().await;
    assert!(bed.status().is_some());
    bed.context
        .deployments
        .remove(&ObjectKey::new("shop", "web"));
    bed.pass().await;
    assert_eq!(bed.status(), None);
    assert_eq!(bed.told().reported.len(), 2);
}

#[tokio::test]
async fn changes_of_secrets_and_vault_secrets_touch_the_workloads_that_use_them() {
    let bed = Bed::new().await;
    let (db, vs) = (ObjectKey::new("shop", "db"), ObjectKey::new("shop", "vs"));
    put(&bed.context.daemon_sets, "agent", view());
    put(
        &bed.context.stateful_sets,
        "other",
        WorkloadView {
            secrets: [].into(),
            ..view()
        },
    );
    let borrower = |lender: &str| WorkloadView {
        secrets: [].into(),
        argo: Some(Box::new(Argo {
            template_of: Some(lender.to_owned()),
            ..Argo::default()
        })),
        ..view()
    };
    put(&bed.context.rollouts, "site", borrower("web"));
    put(&bed.context.rollouts, "else", borrower("other"));
    let agent = workload(WorkloadKind::DaemonSet, "agent");
    let site = workload(WorkloadKind::Rollout, "site");
    let expected = [deployment("web"), agent, site];
    assert_eq!(bed.context.touched_by_secret(&db), expected);
    assert_eq!(bed.context.touched_by_vault_secret(&vs), expected);
    assert_eq!(
        bed.context
            .touched_by_secret(&ObjectKey::new("shop", "unused")),
        []
    );
    assert_eq!(
        bed.context
            .touched_by_secret(&ObjectKey::new("elsewhere", "db")),
        []
    );
}

#[tokio::test]
async fn a_target_that_does_not_exist_is_looked_at_too() {
    let mut bed = Bed::new().await;
    bed.context.follows = Arc::new(|namespace| {
        let mut follows = follows(namespace);
        let target = json!({"kind": "StatefulSet", "name": "absent"});
        follows.policy.targets = vec![serde_json::from_value(target).unwrap()];
        vec![follows]
    });
    let absent = WorkloadKey::new(WorkloadKind::StatefulSet, &ObjectKey::new("shop", "absent"));
    let every: Vec<_> = bed.context.every_workload().into_iter().collect();
    assert_eq!(every, [deployment("web"), absent.clone()]);
    assert_eq!(reconcile(&bed.context, &absent).await, None);
    let status = bed.status().unwrap();
    assert_eq!(status.state, WorkloadState::Waiting);
    let told = "no such StatefulSet: create it, or take it out of spec.rollout.targets";
    assert_eq!(status.message.unwrap(), told);
}

#[tokio::test]
async fn a_window_that_shuts_gives_the_place_in_the_line_to_the_next() {
    let bed = Bed::new().await;
    let (web, other) = (deployment("web"), deployment("other"));
    let (view, now) = (view(), std::time::Instant::now());
    let ask = |workload| bed.context.ask(workload, &view, &[], now);
    let mine = Turn::Mine { early: false };
    assert_eq!(ask(&web), mine);
    assert!(matches!(ask(&other), Turn::Hold { .. }));
    let shut = Decision::Waiting(Waiting::Turn {
        hold: Hold::Window { opens: None },
        again: now,
    });
    bed.context.concluded(&web, Some(&view), &shut);
    assert_eq!(ask(&other), mine);
    assert!(matches!(ask(&web), Turn::Hold { .. }));
}

#[tokio::test]
async fn events_that_cannot_be_read_are_named_where_nothing_else_says_why_pods_are_missing() {
    let bed = Bed::new().await;
    let set = WorkloadKey::new(WorkloadKind::StatefulSet, &ObjectKey::new("shop", "set"));
    put(&bed.context.stateful_sets, "set", view());
    let stamped = WorkloadView {
        stamp: bed.context.gather(&set).wanted,
        counters: crate::rollout::fixtures::counters(3, 0, 0),
        ..view()
    };
    put(&bed.context.stateful_sets, "set", stamped);
    assert!(reconcile(&bed.context, &set).await.is_some());
    assert_eq!(bed.apiserver.asked(), []);

    later(600).await;
    let none = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []});
    bed.apiserver.will_answer(200, none);
    let forbidden = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no events for you"});
    bed.apiserver.will_answer(403, forbidden);
    reconcile(&bed.context, &set).await;
    let asked = bed.apiserver.asked();
    let events = "/apis/events.k8s.io/v1/namespaces/shop/events?&fieldSelector=regarding.uid%3Dw1%2Creason%3DFailedCreate&limit=500";
    assert_eq!((asked.len(), asked[1].1.as_str()), (2, events));
    let told = "0 of 3 pods are ready with the current data after 10m: reading the events of the workload, which may say why, failed: no events for you";
    assert_eq!(bed.status().unwrap().message.as_deref(), Some(told));
    // Not again before the next look at its pods.
    reconcile(&bed.context, &set).await;
    assert_eq!(bed.apiserver.asked(), []);
}

/// It serves requests to its end, which takes as long as its grace period.
#[tokio::test]
async fn an_old_pod_that_is_on_its_way_out_keeps_what_was_replaced_alive() {
    let bed = Bed::new().await;
    let hash = bed.context.gather(&deployment("web")).wanted.unwrap();
    let rolled = WorkloadView {
        stamp: Some(hash.clone()),
        ..one_pod(view())
    };
    put(&bed.context.deployments, "web", rolled);
    let mut pods = pod_list(210, Some(&hash));
    let mut old = pod_list(100, Some("k1:old"))["items"][0].take();
    old["metadata"]["uid"] = "p0".into();
    // By a clock that has nothing to do with ours.
    old["metadata"]["deletionTimestamp"] = at(5).to_string().into();
    old["metadata"]["deletionGracePeriodSeconds"] = 90.into();
    pods["items"].as_array_mut().unwrap().push(old);
    let (vs, revision) = (
        ObjectKey::new("shop", "vs"),
        Revision::from_annotation("k1:1"),
    );
    let verdict = || bed.context.verdict(&vs, &revision, at(200));

    bed.apiserver.will_answer(200, pods.clone());
    let next = bed.pass().await.unwrap();
    assert!(s(29) < next && next <= s(30), "{next:?}");
    assert_eq!(bed.status().unwrap().state, WorkloadState::Verified);
    assert_eq!(verdict(), Verdict::Waiting);
    bed.apiserver.asked();

    later(20).await;
    assert!(bed.pass().await.is_some());
    assert_eq!(bed.apiserver.asked(), []);
    later(10).await;
    bed.apiserver.will_answer(200, pods.clone());
    assert!(bed.pass().await.is_some());
    assert_eq!(verdict(), Verdict::Waiting);
    later(30).await;
    bed.apiserver.will_answer(200, pod_list(210, Some(&hash)));
    let reported = bed.told().reported.len();
    assert_eq!(bed.pass().await, None);
    assert_eq!(verdict(), Verdict::Verified);
    assert_eq!(
        bed.told().reported.len(),
        reported + 1,
        "whoever revokes is woken"
    );

    // Nobody looks whether one that has less time than that is gone when its time is over.
    bed.context.memory.set(&deployment("web"), None);
    // Its time runs since it was first seen on its way out.
    pods["items"][1]["metadata"]["deletionGracePeriodSeconds"] = 50.into();
    for seconds in [0, 30] {
        later(seconds).await;
        bed.apiserver.will_answer(200, pods.clone());
        bed.pass().await;
    }
    let next = bed.pass().await.unwrap();
    assert!(s(19) < next && next <= s(20), "{next:?}");
    assert_eq!(verdict(), Verdict::Waiting);
    bed.apiserver.asked();
    later(21).await;
    assert_eq!(bed.pass().await, None);
    assert_eq!(bed.apiserver.asked(), []);
    assert_eq!(verdict(), Verdict::Verified);
}

/// Workloads that nobody sees may use what was replaced.
#[tokio::test]
async fn while_a_kind_may_not_be_seen_nobody_says_that_all_are_done() {
    let mut bed = Bed::new().await;
    let vs = ObjectKey::new("shop", "vs");
    let revision = Revision::from_annotation("k1:1");
    let verdict = |bed: &Bed| bed.context.verdict(&vs, &revision, at(200));
    assert_eq!(verdict(&bed), Verdict::NoneSeen);
    assert_eq!(bed.context.unseen(&vs), None);
    bed.context.daemon_sets.refuse("forbidden".to_owned());
    assert_eq!(verdict(&bed), Verdict::Undecided);
    let told = "DaemonSets cannot be seen and are not restarted: forbidden";
    assert_eq!(bed.context.unseen(&vs).as_deref(), Some(told));

    bed.context.follows = Arc::new(|namespace| {
        let mut follows = follows(namespace);
        follows.policy.discover = false;
        vec![follows]
    });
    assert_eq!(verdict(&bed), Verdict::NoneSeen);
    let agent = WorkloadKey::new(WorkloadKind::DaemonSet, &ObjectKey::new("shop", "agent"));
    bed.context.follows = Arc::new(move |namespace| {
        let mut follows = follows(namespace);
        let target = json!({"kind": "DaemonSet", "name": "agent"});
        follows.policy.targets = vec![serde_json::from_value(target).unwrap()];
        vec![follows]
    });
    reconcile(&bed.context, &agent).await;
    assert_eq!(verdict(&bed), Verdict::Waiting);
}
