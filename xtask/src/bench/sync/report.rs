//! Pure: the figures of the benchmark of a first sync as text.

use std::{fmt, time::Duration};

use super::{
    super::figures::{
        Cost, Figure, as_f64, cpu, exactly, figure, kinds, mebibytes, memory, ratio, requests,
        table, target, writes,
    },
    SyncArguments,
};

/// Most a cold sync may take of what the plain loop takes.
const MOST_RATIO: f64 = 1.25;
/// Most apiserver writes per object of a cold sync.
const MOST_WRITES: f64 = 3.0;
/// Most memory after a sync of 1,000 objects, in MiB.
const MOST_MEMORY: f64 = 40.0;

/// The figures of one run.
pub(super) struct Report {
    pub(super) arguments: SyncArguments,
    pub(super) plain: (Duration, Duration),
    /// With no objects.
    pub(super) rss_empty: u64,
    /// From the start of the process to the last Secret.
    pub(super) secrets: Duration,
    /// Until every object was reported ready.
    pub(super) cold: Cost,
    pub(super) idle: Cost,
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

impl Report {
    fn cold_figures(&self) -> Vec<Figure> {
        let cold = &self.cold;
        let plain = f64::midpoint(self.plain.0.as_secs_f64(), self.plain.1.as_secs_f64());
        let secrets = self.secrets.as_secs_f64();
        let writes = self.per_object(writes(&cold.api).count());
        vec![
            figure("plain loop, mean of two runs", format!("{plain:.2} s")),
            figure("operator, start to last Secret", format!("{secrets:.2} s")),
            ratio("  of the plain loop", secrets / plain, MOST_RATIO),
            figure(
                "operator, start to last status",
                format!("{:.2} s", cold.wall.as_secs_f64()),
            ),
            (
                "apiserver writes per object",
                format!("{writes:.2}"),
                target(writes <= MOST_WRITES, "at most 3"),
            ),
            figure(
                "apiserver requests per object",
                format!("{:.2}", self.per_object(requests(&cold.api).count())),
            ),
            figure(
                "Vault requests per object",
                format!("{:.2}", self.per_object(cold.vault.len())),
            ),
            cpu(cold),
            figure(
                "memory, no objects",
                format!("{:.1} MiB", mebibytes(self.rss_empty)),
            ),
            self.memory_after_the_sync(),
        ]
    }

    fn memory_after_the_sync(&self) -> Figure {
        let synced = mebibytes(self.cold.rss_kib);
        let small = self.arguments.objects <= 1000;
        let enough = if small {
            target(synced <= MOST_MEMORY, "at most 40 MiB")
        } else {
            String::new()
        };
        ("memory, after the sync", format!("{synced:.1} MiB"), enough)
    }

    fn idle_figures(&self) -> Vec<Figure> {
        let idle = &self.idle;
        let asked = requests(&idle.api).filter(|request| request.verb != "watch");
        let reads = self.per_object(idle.vault.len()) / 3.0;
        vec![
            exactly("apiserver writes", writes(&idle.api).count(), 0),
            figure("apiserver requests but watches", asked.count().to_string()),
            figure(
                "Vault requests per object and interval",
                format!("{reads:.2}"),
            ),
            cpu(idle),
            memory(idle),
        ]
    }

    fn per_object(&self, count: usize) -> f64 {
        as_f64(count) / as_f64(self.arguments.objects)
    }
}
