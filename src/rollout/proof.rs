//! Pure: whether pods run the current data without a restart.
//!
//! The times of pods and Secrets are the apiserver's. A pod reads a Secret through the kubelet's cache, which
//! lags; so does what the kubelet reports. What follows from a list of pods therefore holds only if the data is
//! older than that lag, or if there was no older data that could have been read.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    bind::{Bound, Data},
    pod::PodFacts,
};

/// How long a kubelet may go on handing out what a Secret held before.
///
/// It watches the Secrets of its pods; this is many times the usual delay of a watch.
pub const LAG: Duration = Duration::from_secs(2);

/// How much later than the data a pod must have been made: [`LAG`], and a second because the apiserver's
/// times are whole seconds.
pub const SLACK: Duration = Duration::from_secs(3);

/// What a list of pods proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Some pod may run older data.
    Lacking,
    /// None does by the look of it, but the data is too new to be sure.
    TooEarly,
    /// No pod runs older data, and none that comes later will.
    Complete,
}

/// What is known besides the pods.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Data that all pods, also later ones, were already found to run.
    pub settled: &'a [Data],
    /// Pods, by UID, that were already found to run this data.
    pub proofs: &'a [(String, Data)],
    /// When the apiserver made the workload.
    pub created: Timestamp,
    /// When the data was first seen.
    pub began: Instant,
    /// Now.
    pub now: Instant,
}

/// What `pods`, just listed, prove for all of `bound`.
pub fn evidence(pods: &[PodFacts], bound: &[Bound], known: &Known<'_>) -> Evidence {
    bound
        .iter()
        .filter(|bound| !contains(known.settled, &bound.data))
        .map(|bound| evidence_for(pods, bound, known))
        .min()
        .unwrap_or(Evidence::Complete)
}

/// From when on a pod was made that can only have read the data of all of `bound`; `None` if there is none.
pub fn fresh_from(bound: &[Bound]) -> Option<Timestamp> {
    let since = bound.iter().map(|bound| bound.data.since).max()?;
    // The first whole second after the slack.
    let seconds = i64::try_from(SLACK.as_secs()).unwrap_or_default() + 1;
    Timestamp::from_second(since.as_second() + seconds).ok()
}

/// Those of `pods` that are proved to run the current data though they may be older, with the data.
pub fn new_proofs(pods: &[PodFacts], bound: &[Bound], known: &Known<'_>) -> Vec<(String, Data)> {
    let proved = |pod: &PodFacts, bound: &Bound| {
        !is_later(pod.created, bound.data.since) && of_pod(pod, bound, known) == Evidence::Complete
            || waits_for_node(pod) && is_lag_over(pods, bound, known)
    };
    pods.iter()
        .flat_map(|pod| {
            let proved = bound.iter().filter(move |bound| proved(pod, bound));
            proved.map(|bound| (pod.uid.clone(), bound.data.clone()))
        })
        .collect()
}

fn evidence_for(pods: &[PodFacts], bound: &Bound, known: &Known<'_>) -> Evidence {
    let concerned = |pod: &&PodFacts| bound.listed || pod.secrets.contains(&bound.data.secret);
    let least = pods
        .iter()
        .filter(concerned)
        .map(|pod| of_pod(pod, bound, known))
        .min()
        .unwrap_or(Evidence::Complete);
    match (least, is_lag_over(pods, bound, known)) {
        (Evidence::Lacking, _) => Evidence::Lacking,
        (_, true) => Evidence::Complete,
        (_, false) => Evidence::TooEarly,
    }
}

/// What one pod proves, `TooEarly` if only as long as the lag is over.
fn of_pod(pod: &PodFacts, bound: &Bound, known: &Known<'_>) -> Evidence {
    let data = &bound.data;
    let proved_before = known
        .proofs
        .iter()
        .any(|(uid, proved)| *uid == pod.uid && proved.is_same_as(data));
    // Before the Secret was there, nothing could start. That no container is reported as started would
    // not do otherwise: the report may be late, and a volume may have been filled before.
    let never_had_older = bound.born && !pod.started;
    if is_later(pod.created, data.since) || proved_before || never_had_older {
        Evidence::Complete
    } else if waits_for_node(pod) {
        Evidence::TooEarly
    } else {
        Evidence::Lacking
    }
}

/// Before a pod has a node, nothing was read for it.
fn waits_for_node(pod: &PodFacts) -> bool {
    !pod.started && !pod.scheduled
}

/// Whether everything that is read from now on is the current data.
fn is_lag_over(pods: &[PodFacts], bound: &Bound, known: &Known<'_>) -> bool {
    let clock = pods.iter().map(|pod| pod.created).max();
    let clock = clock.unwrap_or(Timestamp::MIN).max(known.created);
    bound.born || known.now >= known.began + LAG || is_later(clock, bound.data.since)
}

/// Whether what is read at `time` or later can only be data that was there at `since`.
fn is_later(time: Timestamp, since: Timestamp) -> bool {
    since.checked_add(SLACK).is_ok_and(|limit| time > limit)
}

fn contains(all: &[Data], data: &Data) -> bool {
    all.iter().any(|one| one.is_same_as(data))
}

#[cfg(test)]
mod tests;
