//! Pure: the figures of the benchmark of rollouts as text.

use std::{
    fmt,
    time::{Duration, Instant},
};

use lockstep_testbed::ApiRequest;

use super::{
    super::figures::{
        Cost, Figure, as_f64, cpu, exactly, figure, kinds, mebibytes, ratio, requests, table,
        target, writes,
    },
    RolloutsArguments,
    plain::Plain,
    restarts::Restarts,
};

/// Most that a change may take of what the control plane alone takes for the restarts.
const MOST_RATIO: f64 = 1.15;
/// Most memory for the workloads and their pods, in MiB.
const MOST_MEMORY: f64 = 25.0;

/// What the operator did.
pub(super) struct Rollout {
    /// From the change in Vault until all workloads were reported as verified.
    pub(super) verified: Duration,
    /// When the change in Vault began.
    pub(super) started: Instant,
    /// What was seen of the Deployments.
    pub(super) seen: Restarts,
    /// How many pods carry the new hash.
    pub(super) new_pods: usize,
    pub(super) cost: Cost,
}

/// The figures of one run.
pub(super) struct Report {
    pub(super) arguments: RolloutsArguments,
    /// The memory of the operator with no workload, in KiB.
    pub(super) rss_empty: u64,
    /// With all workloads, at rest.
    pub(super) rest: Cost,
    /// Before and after.
    pub(super) plain: [Plain; 2],
    pub(super) rollout: Rollout,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RolloutsArguments {
            workloads,
            secrets,
            pods,
            at_once,
        } = self.arguments;
        writeln!(
            f,
            "\n{secrets} secrets change, {workloads} workloads of {pods} pods restart, {at_once} at once"
        )?;
        table(f, &self.time_figures())?;
        table(f, &self.request_figures())?;
        let cost = &self.rollout.cost;
        writeln!(f, "  {}", kinds(&cost.api, &cost.vault))?;
        writeln!(f, "memory")?;
        table(f, &self.memory_figures())
    }
}

impl Report {
    fn time_figures(&self) -> Vec<Figure> {
        let rollout = &self.rollout;
        let walls = self.plain.each_ref().map(|plain| plain.wall.as_secs_f64());
        let plain = f64::midpoint(walls[0], walls[1]);
        let verified = rollout.verified.as_secs_f64();
        let until = |at: Option<Instant>| {
            at.map_or(0.0, |at| at.duration_since(rollout.started).as_secs_f64())
        };
        let (first, done) = (until(rollout.seen.first), until(rollout.seen.last));
        let mean = |seen: &Restarts| format!("{:.1}", seen.mean_at_once());
        let at_once = self.arguments.at_once.into();
        vec![
            (
                "kubectl rollout restart, mean of two",
                seconds(plain),
                format!("{:.1} s, {:.1} s", walls[0], walls[1]),
            ),
            figure("operator, change in Vault to Verified", seconds(verified)),
            ratio("  of kubectl rollout restart", verified / plain, MOST_RATIO),
            figure("  until the first restart began", seconds(first)),
            figure("  until all pods were new and ready", seconds(done)),
            figure("first restart to Verified", seconds(verified - first)),
            figure(
                "  of kubectl rollout restart",
                format!("{:.2}x", (verified - first) / plain),
            ),
            figure("restarts at once, on average", mean(&rollout.seen)),
            figure("  kubectl, first run", mean(&self.plain[0].seen)),
            exactly(
                "restarts",
                rollout.seen.count(),
                self.arguments.workloads.into(),
            ),
            exactly(
                "pods with the new hash",
                rollout.new_pods,
                self.arguments.all_pods(),
            ),
            (
                "most restarts at once",
                rollout.seen.most.to_string(),
                target(rollout.seen.most <= at_once, &format!("at most {at_once}")),
            ),
        ]
    }

    fn request_figures(&self) -> Vec<Figure> {
        let api = &self.rollout.cost.api;
        let count =
            |wanted: fn(&&ApiRequest) -> bool| self.each(requests(api).filter(wanted).count());
        let alone: usize = self
            .plain
            .iter()
            .map(|plain| writes(&plain.api).count())
            .sum();
        vec![
            figure(
                "apiserver requests per rollout",
                self.each(requests(api).count()),
            ),
            figure("  writes", self.each(writes(api).count())),
            figure(
                "    of the workload",
                count(|request| request.is_write() && request.resource == "deployments"),
            ),
            figure(
                "    of a Secret",
                count(|request| request.is_write() && request.resource == "secrets"),
            ),
            figure(
                "    of a status",
                count(|request| request.is_write() && request.subresource == "status"),
            ),
            figure(
                "    of an event",
                count(|request| request.is_write() && request.resource == "events"),
            ),
            figure(
                "  lists of pods",
                count(|request| request.verb == "list" && request.resource == "pods"),
            ),
            figure(
                "writes of kubectl and the control plane",
                self.each(alone / self.plain.len()),
            ),
            cpu(&self.rollout.cost),
        ]
    }

    fn memory_figures(&self) -> Vec<Figure> {
        let empty = mebibytes(self.rss_empty);
        let more = |cost: &Cost| {
            let more = mebibytes(cost.rss_kib) - empty;
            let note = target(more <= MOST_MEMORY, &format!("at most {MOST_MEMORY} MiB"));
            (format!("+{more:.1} MiB"), note)
        };
        let (rest, note) = more(&self.rest);
        let (rolled, rolled_note) = more(&self.rollout.cost);
        vec![
            figure("no workloads", format!("{empty:.1} MiB")),
            ("all workloads, at rest", rest, note),
            ("after the rollouts, another process", rolled, rolled_note),
            exactly(
                "apiserver writes at rest",
                writes(&self.rest.api).count(),
                0,
            ),
        ]
    }

    /// So many, for each workload.
    fn each(&self, count: usize) -> String {
        let workloads = as_f64(self.arguments.workloads.into());
        format!("{:.2}", as_f64(count) / workloads)
    }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}
