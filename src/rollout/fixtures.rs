//! Pure: values for tests.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    WorkloadKey,
    bind::{Bound, Data},
    pod::PodFacts,
    view::{Counters, ForeignWrite, Restart, WorkloadView},
};
use crate::{api::vault_secret::WorkloadKind, names::ObjectKey, revision::Revision};

/// `seconds` after the epoch, in the apiserver's time.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn deployment(name: &str) -> WorkloadKey {
    workload(WorkloadKind::Deployment, name)
}

pub fn workload(kind: WorkloadKind, name: &str) -> WorkloadKey {
    WorkloadKey::new(kind, &ObjectKey::new("shop", name))
}

/// A Deployment of three ready pods, made at 100, that uses the Secret `db`.
pub fn view() -> WorkloadView {
    WorkloadView {
        uid: "w1".into(),
        labels: BTreeMap::new(),
        created: at(100),
        deleting: false,
        restart: Restart::Always,
        generation: 1,
        observed_generation: 1,
        secrets: ["db".to_owned()].into(),
        secrets_in_env: ["db".to_owned()].into(),
        stamp: None,
        stamp_is_ours: false,
        in_step: None,
        last_foreign: Some(ForeignWrite {
            manager: "kubectl".into(),
            at: Some(at(100)),
        }),
        owner: None,
        selector: "app=web".into(),
        paused: false,
        manual: None,
        counters: counters(3, 3, 3),
        refused: None,
        lent_to: None,
        argo: None,
    }
}

/// As many wanted as there are; `updated` and `ready` of them.
pub fn counters(all: u32, updated: u32, ready: u32) -> Counters {
    Counters {
        wanted: all,
        all,
        updated,
        ready,
    }
}

pub fn data(secret: &str, revision: &str, since: i64) -> Data {
    Data {
        secret: secret.into(),
        revision: Revision::from_annotation(format!("k1:{revision}")),
        since: at(since),
    }
}

/// `secret` with data since `since`; it existed before.
pub fn bound(secret: &str, since: i64) -> Bound {
    Bound {
        data: data(secret, "1", since),
        vault_secret: ObjectKey::new("shop", secret),
        born: false,
        listed: false,
        settle: s(10),
        verify_timeout: s(600),
        waves: None,
        windows: Vec::new(),
        urgent: false,
    }
}

/// A ready pod made at `created` that uses `db`.
pub fn pod(uid: &str, created: i64) -> PodFacts {
    PodFacts {
        uid: uid.into(),
        created: at(created),
        secrets: ["db".to_owned()].into(),
        scheduled: true,
        started: true,
        ready: true,
        stamp: None,
        trouble: None,
    }
}
