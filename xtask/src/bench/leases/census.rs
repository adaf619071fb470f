//! Pure: which leases live in Vault beside those that are wanted.

use std::collections::BTreeSet;

use serde_json::Value;

/// What was seen each time the leases were counted.
#[derive(Debug, Default)]
pub(super) struct Census(Vec<Count>);

/// What was seen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    /// Leases that live.
    alive: usize,
    /// Secrets that tell of one that lives, at least.
    served: usize,
    /// Most leases of one Secret that live.
    most: usize,
    /// Leases that live and that no Secret tells of.
    unknown: usize,
}

impl Census {
    /// These leases live, and each Secret tells of these. What is told must not be older than what lives.
    pub(super) fn saw(&mut self, alive: &BTreeSet<String>, told: &[Vec<String>]) {
        let living = told
            .iter()
            .map(|ids| ids.iter().filter(|id| alive.contains(*id)).count());
        let living: Vec<usize> = living.collect();
        self.0.push(Count {
            alive: alive.len(),
            served: living.iter().filter(|count| **count > 0).count(),
            most: living.iter().copied().max().unwrap_or_default(),
            unknown: alive.len().saturating_sub(living.iter().sum()),
        });
    }

    /// Fewest and most leases that lived at once.
    pub(super) fn alive(&self) -> (usize, usize) {
        let alive = || self.0.iter().map(|count| count.alive);
        (
            alive().min().unwrap_or_default(),
            alive().max().unwrap_or_default(),
        )
    }

    /// Leases that lived, summed up over all counts, and how many counts that were.
    pub(super) fn sum(&self) -> (usize, usize) {
        (self.0.iter().map(|count| count.alive).sum(), self.0.len())
    }

    /// Fewest Secrets that told of a lease that lived.
    pub(super) fn served(&self) -> usize {
        let served = self.0.iter().map(|count| count.served);
        served.min().unwrap_or_default()
    }

    /// Most leases of one Secret that lived at once.
    pub(super) fn most(&self) -> usize {
        let most = self.0.iter().map(|count| count.most);
        most.max().unwrap_or_default()
    }

    /// Most leases that lived and that no Secret told of.
    pub(super) fn unknown(&self) -> usize {
        let unknown = self.0.iter().map(|count| count.unknown);
        unknown.max().unwrap_or_default()
    }
}

/// The leases that the record in a Secret tells of: in use, or replaced.
pub(super) fn told(record: &Value) -> Vec<String> {
    let held = record.get("held").and_then(Value::as_object);
    let held = held.into_iter().flat_map(|held| held.values());
    let superseded = record.get("superseded").and_then(Value::as_array);
    let all = held.chain(superseded.into_iter().flatten());
    all.filter_map(|issued| issued.pointer("/lease/id")?.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_tells_of_what_is_in_use_and_of_what_was_replaced() {
        let record = json!({
            "held": {"db": {"ask": "x", "lease": {"id": "a", "ttl": 60}}, "tls": {"certificate": {}}},
            "superseded": [{"lease": {"id": "b"}, "since": "…"}], "seal": "…",
        });
        assert_eq!(told(&record), ["a", "b"]);
        assert!(told(&json!({})).is_empty());
    }

    #[test]
    fn what_nobody_tells_of_and_who_has_none_is_seen() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let mut census = Census::default();
        let alive = ids(&["a", "b", "c"]).into_iter().collect();
        census.saw(&alive, &[ids(&["a", "b"]), ids(&["c"])]);
        assert_eq!(
            (census.served(), census.most(), census.unknown()),
            (2, 2, 0)
        );
        census.saw(&alive, &[ids(&["a"]), ids(&["d"])]);
        assert_eq!(
            (census.served(), census.most(), census.unknown()),
            (1, 2, 2)
        );
        assert_eq!((census.alive(), census.sum()), ((3, 3), (6, 2)));
    }
}
