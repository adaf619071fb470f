//! Effects: counters in memory.

/// Every metric family of the process.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// One request to Vault: `operation` is `read`, `login`, …; `result` is `ok` or an error kind.
    pub fn vault_request(&self, operation: &'static str, result: &'static str, seconds: f64) {
        _ = (operation, result, seconds);
    }

    /// A read answered from one made for another object.
    pub fn read_coalesced(&self) {}

    /// A write to the apiserver: `resource` is `secrets`, `vaultsecrets/status`, `deployments`, …; `result` is `ok` or `error`.
    pub fn apiserver_write(&self, resource: &'static str, result: &'static str) {
        _ = (resource, result);
    }

    /// One pass of a controller over one object: `outcome` is the name of the outcome's variant.
    pub fn reconcile(&self, controller: &'static str, outcome: &'static str) {
        _ = (controller, outcome);
    }

    /// A pod template was stamped.
    pub fn rollout_started(&self, kind: &'static str) {
        _ = kind;
    }

    /// Every pod of a stamped workload was seen ready with the new hash, `seconds` after the stamp.
    pub fn rollout_verified(&self, kind: &'static str, seconds: f64) {
        _ = (kind, seconds);
    }

    /// A rollout was not verified before its deadline.
    pub fn rollout_failed(&self, kind: &'static str) {
        _ = kind;
    }

    /// Keys waiting in a queue.
    pub fn queue_depth(&self, queue: &'static str, depth: usize) {
        _ = (queue, depth);
    }

    /// Whether this process is the leader.
    pub fn leader(&self, leading: bool) {
        _ = leading;
    }

    /// Everything in OpenMetrics text.
    pub fn encode(&self) -> String {
        String::new()
    }
}
