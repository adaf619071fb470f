//! Effects: counters in memory.
//!
//! Every metric family of the process, in one struct. Labels take their values from fixed sets of words:
//! there are no names of objects and no texts of errors, so the number of series is bounded.

mod rollouts;

use std::{
    fmt,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::rollouts::Rollouts;

/// Upper bounds in seconds of a request to Vault: a warm KV read takes about 1 ms, a database login 100 ms,
/// and 10 s is the default timeout.
const REQUEST_BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0,
];

/// Every metric family of the process. Shared as `Arc<Metrics>`; each method is cheap and never fails.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    vault_requests: Family<OperationResult, Counter>,
    vault_request_duration: Family<Operation, Histogram, Buckets>,
    vault_reads_coalesced: Counter,
    apiserver_writes: Family<ResourceResult, Counter>,
    reconciles: Family<ControllerOutcome, Counter>,
    rollouts: Rollouts,
    queue_depth: Family<Queue, Gauge>,
    objects: Family<KindState, Gauge>,
    staleness: Gauge<f64, AtomicU64>,
    credentials: Family<KindState, Gauge>,
    credential_expiry: Family<Kind, Gauge<f64, AtomicU64>>,
    credentials_issued: Family<KindWhy, Counter>,
    credentials_lost: Family<Kind, Counter>,
    credentials_revoked: Family<Kind, Counter>,
    credential_revocations_failed: Family<Kind, Counter>,
    leases_renewed: Counter,
    leader: Gauge,
    scrape: Scrape,
}

/// How many leases or certificates there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In Secrets.
    pub in_use: usize,
    /// Of these, those that have ended.
    pub over: usize,
    /// Waiting to be written.
    pub unwritten: usize,
    /// Replaced, and not revoked yet.
    pub superseded: usize,
    /// How long the one in use lives that ends first, unless it is renewed or replaced.
    pub soonest: Option<Duration>,
}

/// Sets the gauges that are not kept by events.
pub type Measure = Box<dyn Fn(&Metrics) + Send>;

/// One scrape at a time: what measures, once there is something to measure.
#[derive(Default)]
struct Scrape(Mutex<Option<Measure>>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Metrics {
    /// All families, registered, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lockstep"),
            vault_requests: Family::default(),
            vault_request_duration: Family::new_with_constructor(Buckets(&REQUEST_BUCKETS)),
            vault_reads_coalesced: Counter::default(),
            apiserver_writes: Family::default(),
            reconciles: Family::default(),
            rollouts: Rollouts::default(),
            queue_depth: Family::default(),
            objects: Family::default(),
            staleness: Gauge::default(),
            credentials: Family::default(),
            credential_expiry: Family::default(),
            credentials_issued: Family::default(),
            credentials_lost: Family::default(),
            credentials_revoked: Family::default(),
            credential_revocations_failed: Family::default(),
            leases_renewed: Counter::default(),
            leader: Gauge::default(),
            scrape: Scrape::default(),
        };
        metrics.register_vault();
        metrics.register_credentials();
        metrics.register_kubernetes();
        metrics.register_process();
        metrics
    }

    /// One request to Vault: `operation` is `read`, `login`, …; `result` is `ok` or an error kind.
    pub fn vault_request(&self, operation: &'static str, result: &'static str, seconds: f64) {
        self.vault_requests
            .get_or_create(&OperationResult { operation, result })
            .inc();
        self.vault_request_duration
            .get_or_create(&Operation { operation })
            .observe(seconds);
    }

    /// A read answered from one made for another object.
    pub fn read_coalesced(&self) {
        self.vault_reads_coalesced.inc();
    }

    /// A write to the apiserver: `resource` is `secrets`, `vaultsecrets/status`, `deployments`, …; `result` is `ok` or `error`.
    pub fn apiserver_write(&self, resource: &'static str, result: &'static str) {
        self.apiserver_writes
            .get_or_create(&ResourceResult { resource, result })
            .inc();
    }

    /// One pass of a controller over one object: `outcome` is the name of the outcome's variant.
    pub fn reconcile(&self, controller: &'static str, outcome: &'static str) {
        self.reconciles
            .get_or_create(&ControllerOutcome {
                controller,
                outcome,
            })
            .inc();
    }

    /// Keys waiting in a queue.
    pub fn queue_depth(&self, queue: &'static str, depth: usize) {
        self.queue_depth
            .get_or_create(&Queue { queue })
            .set(gauge_value(depth));
    }

    /// How many objects of a kind are in a state. A state that has emptied must be set to zero by the caller.
    pub fn objects(&self, kind: &'static str, state: &'static str, count: usize) {
        self.objects
            .get_or_create(&KindState { kind, state })
            .set(gauge_value(count));
    }

    /// For how long the object that waits longest could not be read; zero when all can be.
    pub fn staleness(&self, age: Duration) {
        self.staleness.set(age.as_secs_f64());
    }

    /// What lives of `kind`, which is `lease` or `certificate`.
    pub fn credentials(&self, kind: &'static str, tally: &Tally) {
        let Tally {
            in_use,
            over,
            unwritten,
            superseded,
            soonest,
        } = *tally;
        for (state, count) in [
            ("in_use", in_use),
            ("over", over),
            ("unwritten", unwritten),
            ("superseded", superseded),
        ] {
            self.credentials
                .get_or_create(&KindState { kind, state })
                .set(gauge_value(count));
        }
        match soonest {
            Some(left) => {
                let expiry = self.credential_expiry.get_or_create(&Kind { kind });
                expiry.set(left.as_secs_f64());
            }
            None => {
                self.credential_expiry.remove(&Kind { kind });
            }
        }
    }

    /// Vault issued something; `why` is a word of `Need`.
    pub fn credential_issued(&self, kind: &'static str, why: &'static str) {
        self.credentials_issued
            .get_or_create(&KindWhy { kind, why })
            .inc();
    }

    /// Something had ended before its successor was issued.
    pub fn credential_lost(&self, kind: &'static str) {
        self.credentials_lost.get_or_create(&Kind { kind }).inc();
    }

    /// Vault was asked to revoke something.
    pub fn credential_revoked(&self, kind: &'static str, done: bool) {
        let family = if done {
            &self.credentials_revoked
        } else {
            &self.credential_revocations_failed
        };
        family.get_or_create(&Kind { kind }).inc();
    }

    /// Vault extended a lease.
    pub fn lease_renewed(&self) {
        self.leases_renewed.inc();
    }

    /// From now on `measure` is called before each scrape.
    pub fn at_scrape(&self, measure: Measure) {
        *self.scrape.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(measure);
    }

    /// Whether this process is the leader.
    pub fn leader(&self, leading: bool) {
        self.leader.set(i64::from(leading));
    }

    /// Everything in OpenMetrics text.
    pub fn encode(&self) -> String {
        let measure = self.scrape.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(measure) = measure.as_ref() {
            measure(self);
        }
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            // Writing into a String cannot fail; without its `# EOF` line a scraper refuses the rest anyway.
            Err(fmt::Error) => String::new(),
        }
    }

    fn register_vault(&mut self) {
        self.registry.register(
            "vault_requests",
            "Requests sent to Vault, by operation and by result (ok or the kind of error)",
            self.vault_requests.clone(),
        );
        self.registry.register_with_unit(
            "vault_request_duration",
            "Time from sending a request to Vault to its whole answer",
            Unit::Seconds,
            self.vault_request_duration.clone(),
        );
        self.registry.register(
            "vault_reads_coalesced",
            "Reads answered from a request made for another object",
            self.vault_reads_coalesced.clone(),
        );
    }

    fn register_credentials(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "credentials",
            "Leases and certificates by state: in_use in a Secret (over: of these, those that have ended), unwritten, or superseded and not revoked yet",
            self.credentials.clone(),
        );
        registry.register_with_unit(
            "credential_expiry",
            "Time until the first lease or certificate in use ends unless it is renewed or replaced; absent when none is in use or known",
            Unit::Seconds,
            self.credential_expiry.clone(),
        );
        registry.register(
            "credentials_issued",
            "Leases, certificates and answers without a lease that Vault issued, and why they were asked for",
            self.credentials_issued.clone(),
        );
        registry.register(
            "credentials_lost",
            "Leases and certificates that had ended before their successor was issued",
            self.credentials_lost.clone(),
        );
        registry.register(
            "credentials_revoked",
            "Leases and certificates that were revoked",
            self.credentials_revoked.clone(),
        );
        registry.register(
            "credential_revocations_failed",
            "Requests to revoke a lease or certificate that failed; they are tried again",
            self.credential_revocations_failed.clone(),
        );
        registry.register(
            "leases_renewed",
            "Leases that Vault extended",
            self.leases_renewed.clone(),
        );
    }

    fn register_kubernetes(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "apiserver_writes",
            "Writes sent to the Kubernetes API, by resource and result; a steady system makes none",
            self.apiserver_writes.clone(),
        );
        registry.register(
            "reconciles",
            "Passes of a controller over one object, by what came of it",
            self.reconciles.clone(),
        );
        self.rollouts.register(registry);
    }

    fn register_process(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "queue_depth",
            "Keys waiting to be worked on, by queue",
            self.queue_depth.clone(),
        );
        registry.register("objects", "VaultSecrets, by state", self.objects.clone());
        registry.register_with_unit(
            "staleness",
            "For how long the VaultSecret that waits longest could not be read from Vault; 0 when all can be",
            Unit::Seconds,
            self.staleness.clone(),
        );
        registry.register(
            "leader",
            "1 while this process is the leader, otherwise 0",
            self.leader.clone(),
        );
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that is running", version);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes histograms with fixed upper bounds.
#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationResult {
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceResult {
    resource: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerOutcome {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindState {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindWhy {
    kind: &'static str,
    why: &'static str,
}

/// A count as a gauge takes it; more than 2^63 of anything does not happen.
fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One sample in every family.
    fn filled() -> Metrics {
        let metrics = Metrics::new();
        metrics.vault_request("read", "ok", 0.004);
        metrics.read_coalesced();
        metrics.apiserver_write("secrets", "ok");
        metrics.reconcile("VaultSecret", "UpToDate");
        metrics.rollout_requested("Deployment");
        metrics.rollout_started("Deployment");
        metrics.rollout_verified("Deployment", 12.0);
        metrics.rollout_failed("StatefulSet");
        metrics.change_verified("Deployment", Duration::from_secs(15));
        metrics.rollouts_waiting(2, 1);
        metrics.workloads("Failed", 3);
        metrics.queue_depth("sync", 3);
        metrics.objects("VaultSecret", "Ready", 7);
        metrics.leader(true);
        metrics.staleness(Duration::from_secs(90));
        metrics.credentials("lease", &LEASES);
        metrics.credential_issued("lease", "First");
        metrics.credential_lost("certificate");
        metrics.credential_revoked("lease", true);
        metrics.credential_revoked("lease", false);
        metrics.lease_renewed();
        metrics
    }

    const LEASES: Tally = Tally {
        in_use: 4,
        over: 1,
        unwritten: 2,
        superseded: 3,
        soonest: Some(Duration::from_millis(1500)),
    };

    /// What is gone leaves no series behind that says otherwise.
    #[test]
    fn what_is_not_there_any_more_is_not_told_any_more() {
        let metrics = Metrics::new();
        let left = std::sync::Arc::new(Mutex::new(Some(LEASES)));
        let measured = std::sync::Arc::clone(&left);
        metrics.at_scrape(Box::new(move |metrics| {
            let tally = measured.lock().unwrap().unwrap_or_default();
            metrics.credentials("lease", &tally);
        }));
        let text = metrics.encode();
        let lines = [
            "lockstep_credentials{kind=\"lease\",state=\"superseded\"} 3\n",
            "lockstep_credential_expiry_seconds{kind=\"lease\"} 1.5\n",
        ];
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        *left.lock().unwrap() = None;
        let text = metrics.encode();
        assert!(
            text.contains("state=\"superseded\"} 0\n")
                && !text.contains("lockstep_credential_expiry_seconds{"),
            "{text}"
        );
    }

    #[test]
    fn every_family_has_help_and_a_unit_where_it_is_a_time() {
        let text = filled().encode();
        let head: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        insta::assert_snapshot!(head.join("\n"));
    }

    #[test]
    fn samples_carry_the_documented_names() {
        let text = filled().encode();
        let mut samples: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
            .collect();
        // Those of one family come in any order.
        samples.sort_unstable();
        insta::assert_snapshot!(samples.join("\n"));
    }

    #[test]
    fn gauges_go_back() {
        let metrics = filled();
        metrics.leader(false);
        metrics.objects("VaultSecret", "Ready", 0);
        let text = metrics.encode();
        assert!(
            text.contains("lockstep_leader 0\n") && text.contains("state=\"Ready\"} 0\n"),
            "{text}"
        );
    }
}
