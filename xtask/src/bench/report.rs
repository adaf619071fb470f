//! Pure: the figures of a benchmark as text.

use std::{collections::BTreeMap, fmt, time::Duration};

use lockstep_testbed::{ApiRequest, VaultRequest};

use super::SyncArguments;

/// Most a cold sync may take of what the plain loop takes.
const MOST_RATIO: f64 = 1.25;
/// Most apiserver writes per object of a cold sync.
const MOST_WRITES: f64 = 3.0;
/// Most memory after a sync of 1,000 objects, in MiB.
const MOST_MEMORY: f64 = 40.0;

/// What a phase cost.
pub(super) struct Cost {
    /// Until the last Secret, or the length of the window.
    pub(super) wall: Duration,
    /// Until every object was reported ready.
    pub(super) until_ready: Duration,
    /// Of the operator, user and system.
    pub(super) cpu_seconds: f64,
    /// What it asked of the apiserver.
    pub(super) api: Vec<ApiRequest>,
    /// What it asked of Vault.
    pub(super) vault: Vec<VaultRequest>,
}

/// The figures of one run.
pub(super) struct Report {
    pub(super) arguments: SyncArguments,
    pub(super) plain: (Duration, Duration),
    pub(super) cold: Cost,
    pub(super) idle: Cost,
    /// With no objects, after the first sync, after the idle intervals.
    pub(super) rss_kib: [u64; 3],
}

impl Cost {
    fn writes(&self) -> impl Iterator<Item = &ApiRequest> {
        writes(&self.api)
    }

    fn requests(&self) -> impl Iterator<Item = &ApiRequest> {
        requests(&self.api)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SyncArguments {
            objects,
            workers,
            interval,
            ..
        } = self.arguments;
        writeln!(f, "\ncold sync of {objects} objects, {workers} at once")?;
        table(f, &self.cold_figures())?;
        writeln!(f, "  {}", kinds(&self.cold.api, &self.cold.vault))?;
        writeln!(f, "three idle intervals of {interval} s")?;
        table(f, &self.idle_figures())?;
        writeln!(f, "  {}", kinds(&self.idle.api, &self.idle.vault))
    }
}

/// What was measured, how much it was, and whether that is enough.
pub(super) type Figure = (&'static str, String, String);

impl Report {
    fn cold_figures(&self) -> Vec<Figure> {
        let cold = &self.cold;
        let plain = f64::midpoint(self.plain.0.as_secs_f64(), self.plain.1.as_secs_f64());
        let ratio = cold.wall.as_secs_f64() / plain;
        let writes = self.per_object(cold.writes().count());
        let [empty, synced, _] = self.memory();
        let small = self.arguments.objects <= 1000;
        let enough = if small {
            target(synced <= MOST_MEMORY, "at most 40 MiB")
        } else {
            String::new()
        };
        vec![
            (
                "plain loop, mean of two runs",
                format!("{plain:.2} s"),
                String::new(),
            ),
            (
                "operator, start to last Secret",
                format!("{:.2} s", cold.wall.as_secs_f64()),
                String::new(),
            ),
            (
                "  of the plain loop",
                format!("{ratio:.2}x"),
                target(ratio <= MOST_RATIO, "at most 1.25x"),
            ),
            (
                "operator, start to last status",
                format!("{:.2} s", cold.until_ready.as_secs_f64()),
                String::new(),
            ),
            (
                "apiserver writes per object",
                format!("{writes:.2}"),
                target(writes <= MOST_WRITES, "at most 3"),
            ),
            (
                "apiserver requests per object",
                format!("{:.2}", self.per_object(cold.requests().count())),
                String::new(),
            ),
            (
                "Vault requests per object",
                format!("{:.2}", self.per_object(cold.vault.len())),
                String::new(),
            ),
            (
                "CPU of the operator",
                format!("{:.2} s", cold.cpu_seconds),
                String::new(),
            ),
            (
                "memory, no objects",
                format!("{empty:.1} MiB"),
                String::new(),
            ),
            ("memory, after the sync", format!("{synced:.1} MiB"), enough),
        ]
    }

    fn idle_figures(&self) -> Vec<Figure> {
        let idle = &self.idle;
        let writes = idle.writes().count();
        let requests = idle
            .requests()
            .filter(|request| request.verb != "watch")
            .count();
        let reads = self.per_object(idle.vault.len()) / 3.0;
        let [_, _, rest] = self.memory();
        vec![
            (
                "apiserver writes",
                writes.to_string(),
                target(writes == 0, "0"),
            ),
            (
                "apiserver requests but watches",
                requests.to_string(),
                String::new(),
            ),
            (
                "Vault requests per object and interval",
                format!("{reads:.2}"),
                String::new(),
            ),
            (
                "CPU of the operator",
                format!("{:.2} s", idle.cpu_seconds),
                String::new(),
            ),
            ("memory", format!("{rest:.1} MiB"), String::new()),
        ]
    }

    fn per_object(&self, count: usize) -> f64 {
        as_f64(count) / as_f64(self.arguments.objects)
    }

    /// In MiB.
    fn memory(&self) -> [f64; 3] {
        self.rss_kib.map(mebibytes)
    }
}

/// KiB as MiB.
pub(super) fn mebibytes(kib: u64) -> f64 {
    as_f64(usize::try_from(kib).unwrap_or(usize::MAX)) / 1024.0
}

/// The writes, those of the Lease of leader election excluded.
pub(super) fn writes(api: &[ApiRequest]) -> impl Iterator<Item = &ApiRequest> {
    requests(api).filter(|request| request.is_write())
}

fn requests(api: &[ApiRequest]) -> impl Iterator<Item = &ApiRequest> {
    api.iter().filter(|request| !request.is_lease())
}

/// Figures below each other.
pub(super) fn table(f: &mut fmt::Formatter<'_>, figures: &[Figure]) -> fmt::Result {
    for (what, value, note) in figures {
        writeln!(
            f,
            "{}",
            format!("  {what:<40}{value:>12}  {note}").trim_end()
        )?;
    }
    Ok(())
}

/// Whether a target was met, and what it was.
pub(super) fn target(met: bool, wanted: &str) -> String {
    format!("{} (target: {wanted})", if met { "met" } else { "MISSED" })
}

/// What was asked, by kind.
pub(super) fn kinds(api: &[ApiRequest], vault: &[VaultRequest]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests(api) {
        let ApiRequest {
            verb,
            resource,
            subresource,
            ..
        } = request;
        let slash = if subresource.is_empty() { "" } else { "/" };
        *counts
            .entry(format!("{verb} {resource}{slash}{subresource}"))
            .or_default() += 1;
    }
    for request in vault {
        let place = if request.path.starts_with("secret/") {
            "secret"
        } else {
            &request.path
        };
        *counts
            .entry(format!("vault {} {place}", request.operation))
            .or_default() += 1;
    }
    let counts: Vec<_> = counts
        .into_iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    counts.join("; ")
}

/// A count, to calculate with.
pub(super) fn as_f64(count: usize) -> f64 {
    // Counts of a benchmark are far below where this loses a digit.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
