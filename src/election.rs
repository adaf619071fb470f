//! Effects: apiserver — holds a `coordination.k8s.io/Lease`, so that one process at a time writes.
//!
//! The rules are those of client-go: every write carries the `resourceVersion` that was read, so two
//! candidates cannot both win; a lease has run out when its record has not changed for its whole duration
//! *on our own monotonic clock*, so the clocks of other nodes do not matter; and a leader stops leading at
//! the renew deadline, well before anybody else may take over.
//!
//! What to do is decided over values in `decision`; [`Elector`] reads, writes and keeps the time.

mod decision;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::decision::{Attempt, Candidate, Observed, decide};
use crate::telemetry::chain::chain;
use crate::telemetry::metrics::Metrics;

/// How long giving the lease back may hold up the exit. Without it the next leader waits for the lease to run out.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Who holds the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Somebody else, or nobody yet.
    Follower {
        /// The identity of the holder as last seen.
        leader: Option<String>,
    },
    /// This process.
    Leader {
        /// How often the lease has changed hands; greater than that of every earlier leader.
        epoch: i32,
    },
}

impl Leadership {
    /// Whether this process may write.
    pub fn is_leader(&self) -> bool {
        self.epoch().is_some()
    }

    fn epoch(&self) -> Option<i32> {
        match self {
            Self::Follower { .. } => None,
            Self::Leader { epoch } => Some(*epoch),
        }
    }
}

/// Which lease, for whom, and how often.
#[derive(Clone, Debug)]
pub struct Params {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; no two processes may share it, not even one after the other.
    pub identity: String,
    /// How long the record must stand still before somebody else may take over.
    pub lease: Duration,
    /// How long a leader leads without a successful renewal; below `lease`.
    pub renew_deadline: Duration,
    /// Time between two tries; up to a fifth of it is added.
    pub retry: Duration,
}

impl Params {
    /// The Lease `lockstep` in `namespace`, with the times of client-go: 15 s, 10 s and 2 s.
    pub fn new(namespace: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: "lockstep".to_owned(),
            identity: identity.to_owned(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Leadership ended without anybody asking for it. The process must exit: its work is somebody else's now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionError {
    /// The Lease does not name us any more.
    #[error("leadership lost: the lease is held by {holder:?}")]
    TakenOver {
        /// The identity in the Lease; empty when somebody cleared it.
        holder: String,
    },
    /// The Lease could not be renewed in time.
    #[error("leadership lost: the lease was not renewed for {} s", after.as_secs())]
    NotRenewed {
        /// The renew deadline.
        after: Duration,
    },
}

/// Leadership without an election, for a single replica. It lasts as long as the sender is kept.
pub fn unopposed() -> (watch::Sender<Leadership>, watch::Receiver<Leadership>) {
    watch::channel(Leadership::Leader { epoch: 0 })
}

/// A candidate.
pub struct Elector {
    api: Api<Lease>,
    params: Params,
    metrics: Arc<Metrics>,
    state: watch::Sender<Leadership>,
    seen: Option<Observed>,
    /// When the candidate was made: the zero of the moments in `decision`.
    start: Instant,
    /// When the last successful write was sent.
    written: Instant,
    rounds: u32,
}

/// What came of one try.
enum Round {
    /// We hold the lease by a write sent at `written`.
    Held { epoch: i32, written: Instant },
    /// Somebody else does.
    Taken { leader: String },
    /// We did, and do not any more.
    Lost { holder: String },
    /// Somebody wrote between our read and our write.
    Raced,
}

impl Elector {
    /// A candidate, and where its state appears; `Follower` at first.
    ///
    /// `client` should be one of its own that does not retry: a retry that outlives the renew deadline helps nobody.
    pub fn new(
        client: kube::Client,
        params: Params,
        metrics: Arc<Metrics>,
    ) -> (Self, watch::Receiver<Leadership>) {
        let (state, leadership) = watch::channel(Leadership::Follower { leader: None });
        let api = Api::namespaced(client, &params.namespace);
        let now = Instant::now();
        let elector = Self {
            api,
            params,
            metrics,
            state,
            seen: None,
            start: now,
            written: now,
            rounds: 0,
        };
        (elector, leadership)
    }

    /// Campaigns and leads until `stop` is cancelled, then publishes `Follower` and gives the lease back.
    ///
    /// Cancel `stop` when everything that needs leadership has stopped, not before. Fails when leadership is
    /// lost; `Follower` has been published by then and the lease is left alone.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ElectionError> {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            error = self.campaign() => Err(error),
        };
        let leading = self.state.borrow().epoch();
        self.publish(Leadership::Follower { leader: None });
        if let (Ok(()), Some(epoch)) = (&ended, leading)
            && tokio::time::timeout(RELEASE_TIMEOUT, self.release(epoch))
                .await
                .is_err()
        {
            tracing::warn!("the lease was not released in time; it runs out by itself");
        }
        ended
    }

    /// Tries round after round; returns only when leadership is lost.
    async fn campaign(&mut self) -> ElectionError {
        loop {
            match tokio::time::timeout(self.time_left(), self.attempt()).await {
                Ok(Ok(Round::Held { epoch, written })) => {
                    self.written = written;
                    self.publish(Leadership::Leader { epoch });
                }
                Ok(Ok(Round::Taken { leader })) => self.publish(Leadership::Follower {
                    leader: Some(leader),
                }),
                Ok(Ok(Round::Lost { holder })) => return ElectionError::TakenOver { holder },
                Ok(Ok(Round::Raced)) => tracing::debug!("somebody else wrote the lease first"),
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the lease was not updated");
                }
                Err(_elapsed) => tracing::warn!("the apiserver did not answer in time"),
            }
            self.rounds = self.rounds.wrapping_add(1);
            let pause = record::pause(&self.params, self.rounds);
            tokio::time::sleep(pause.min(self.time_left())).await;
            if self.time_left().is_zero() {
                return ElectionError::NotRenewed {
                    after: self.params.renew_deadline,
                };
            }
        }
    }

    /// How long one try may take: what is left of the renew deadline while leading, all of it otherwise.
    fn time_left(&self) -> Duration {
        let all = self.params.renew_deadline;
        if self.state.borrow().is_leader() {
            all.saturating_sub(self.written.elapsed())
        } else {
            all
        }
    }

    /// Reads the lease, decides, and writes at most once. A conflict is a lost race, not an error.
    async fn attempt(&mut self) -> kube::Result<Round> {
        let current = self.api.get_opt(&self.params.name).await?;
        self.observe(current.as_ref());
        let candidate = Candidate {
            identity: &self.params.identity,
            lease: self.params.lease,
            leading: self.state.borrow().epoch(),
        };
        let written = Instant::now();
        let (epoch, result) = match decide(self.seen.as_ref(), candidate, self.start.elapsed()) {
            Attempt::Wait { leader } => return Ok(Round::Taken { leader }),
            Attempt::Yield { holder } => return Ok(Round::Lost { holder }),
            Attempt::Create { epoch } => (epoch, self.create(epoch).await),
            Attempt::Take { epoch } => (epoch, self.replace(current, epoch, None).await),
            Attempt::Renew { epoch } => {
                let acquired = record::acquired(current.as_ref());
                (epoch, self.replace(current, epoch, acquired).await)
            }
        };
        match result {
            Ok(lease) => {
                self.observe(Some(&lease));
                Ok(Round::Held { epoch, written })
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Round::Raced),
            Err(error) => Err(error),
        }
    }

    /// Notes what was read.
    fn observe(&mut self, lease: Option<&Lease>) {
        let later = lease.map(|lease| record::observed(lease, self.start.elapsed()));
        self.seen = match (self.seen.take(), later) {
            (Some(earlier), Some(later)) => Some(earlier.followed_by(later)),
            (Some(earlier), None) => Some(earlier.gone()),
            (None, later) => later,
        };
    }

    async fn create(&self, epoch: i32) -> kube::Result<Lease> {
        let now = wall_clock();
        let metadata = ObjectMeta {
            name: Some(self.params.name.clone()),
            ..ObjectMeta::default()
        };
        let lease = Lease {
            metadata,
            spec: Some(record::held(&self.params, epoch, now.clone(), now)),
        };
        self.api.create(&post_params(), &lease).await
    }

    /// Writes our record over `current`, whose `resourceVersion` makes the write fail if it is not current.
    async fn replace(
        &self,
        current: Option<Lease>,
        epoch: i32,
        acquired: Option<MicroTime>,
    ) -> kube::Result<Lease> {
        let now = wall_clock();
        let acquired = acquired.unwrap_or_else(|| now.clone());
        let record = record::held(&self.params, epoch, acquired, now);
        let lease = Lease {
            spec: Some(record),
            ..current.unwrap_or_default()
        };
        self.api
            .replace(&self.params.name, &post_params(), &lease)
            .await
    }

    /// Clears the holder, so that the next leader need not wait. Tried twice: a renewal that was under way when
    /// we stopped may still be written between our read and our write.
    async fn release(&self, epoch: i32) {
        for _ in 0..2 {
            match self.try_release(epoch).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(error = chain(&error), "the lease was not released"),
            }
        }
    }

    async fn try_release(&self, epoch: i32) -> kube::Result<()> {
        let Some(current) = self.api.get_opt(&self.params.name).await? else {
            return Ok(());
        };
        let holder = current
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref());
        if holder != Some(self.params.identity.as_str()) {
            return Ok(());
        }
        let lease = Lease {
            spec: Some(record::released(epoch, wall_clock())),
            ..current
        };
        self.api
            .replace(&self.params.name, &post_params(), &lease)
            .await?;
        tracing::info!(epoch, "lease released");
        Ok(())
    }

    fn publish(&self, next: Leadership) {
        self.metrics.leader(next.is_leader());
        self.state.send_if_modified(|state| {
            if *state == next {
                return false;
            }
            match &next {
                Leadership::Leader { epoch } => {
                    tracing::info!(epoch, identity = self.params.identity, "leading");
                }
                Leadership::Follower { leader } => tracing::info!(leader, "not leading"),
            }
            *state = next;
            true
        });
    }
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some("lockstep-election".to_owned()),
        ..PostParams::default()
    }
}

/// For people who read the Lease; no candidate decides by it.
#[expect(
    clippy::disallowed_methods,
    reason = "the record of a lease carries a time"
)]
fn wall_clock() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}
