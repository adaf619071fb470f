//! Pure: what an operator cost, and figures as text.

use std::{collections::BTreeMap, fmt, time::Duration};

use lockstep_testbed::{ApiRequest, VaultRequest};

/// What a phase cost.
pub(super) struct Cost {
    /// How long it was.
    pub(super) wall: Duration,
    /// Of the operator, user and system.
    pub(super) cpu_seconds: f64,
    /// Its memory at the end.
    pub(super) rss_kib: u64,
    /// What it asked of the apiserver.
    pub(super) api: Vec<ApiRequest>,
    /// What it asked of Vault.
    pub(super) vault: Vec<VaultRequest>,
}

/// What was measured, how much it was, and whether that is enough.
pub(super) type Figure = (&'static str, String, String);

/// One without a target.
pub(super) fn figure(what: &'static str, value: String) -> Figure {
    (what, value, String::new())
}

/// One that is to be exactly this.
pub(super) fn exactly(what: &'static str, count: usize, wanted: usize) -> Figure {
    let note = target(count == wanted, &wanted.to_string());
    (what, count.to_string(), note)
}

/// A ratio with the most it may be.
pub(super) fn ratio(what: &'static str, ratio: f64, most: f64) -> Figure {
    let note = target(ratio <= most, &format!("at most {most}x"));
    (what, format!("{ratio:.2}x"), note)
}

/// The processor time of the operator.
pub(super) fn cpu(cost: &Cost) -> Figure {
    let used = format!("{:.2} s", cost.cpu_seconds);
    figure("CPU of the operator", used)
}

/// The memory of the operator.
pub(super) fn memory(cost: &Cost) -> Figure {
    let taken = format!("{:.1} MiB", mebibytes(cost.rss_kib));
    figure("memory", taken)
}

/// KiB as MiB.
pub(super) fn mebibytes(kib: u64) -> f64 {
    as_f64(usize::try_from(kib).unwrap_or(usize::MAX)) / 1024.0
}

/// The writes, those of the Lease of leader election excluded.
pub(super) fn writes(api: &[ApiRequest]) -> impl Iterator<Item = &ApiRequest> {
    requests(api).filter(|request| request.is_write())
}

/// The requests, those of the Lease of leader election excluded.
pub(super) fn requests(api: &[ApiRequest]) -> impl Iterator<Item = &ApiRequest> {
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
