//! Pure: what the command line of `lockstep run` means, checked.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::args::RunArgs;
use crate::api::duration::GoDuration;
use crate::cloud::endpoints::{Endpoint, Endpoints};
use crate::connection::resolve::Permitted;
use crate::rollout::turn::Limits;
use crate::telemetry::log::LogFormat;
use crate::vault::reach::{NoPattern, Reach};
use crate::vault::sessions::SessionStore;

/// The shortest duration a flag takes; for intervals the same as for `spec.refreshInterval`.
const MIN_DURATION: Duration = Duration::from_secs(1);

/// More workers than this only wait for each other.
const MAX_WORKERS: u16 = 1000;

/// Everything the operator is told from outside. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the operator itself.
    pub namespace: String,
    /// Name of the pod, for events.
    pub pod: String,
    /// Name of this very process in the Lease: the pod and a random suffix.
    pub identity: String,
    /// Whether a Lease decides who writes.
    pub leader_election: bool,
    /// Where the admin endpoints listen.
    pub admin_address: SocketAddr,
    /// Syncs at once, at least 1.
    pub workers: u16,
    /// Rollouts at once, at least 1.
    pub rollout_workers: u16,
    /// How many workloads may restart at once.
    pub rollout_limits: Limits,
    /// Refresh interval of a `VaultSecret` that has none; at least a second.
    pub default_refresh_interval: Duration,
    /// How long a Secret counts as usable while Vault cannot be read.
    pub staleness_budget: Duration,
    /// What becomes of tokens that leases depend on.
    pub session_store: SessionStore,
    /// Whether a lease that was issued without an answer is revoked, where only one can be it.
    pub revoke_unanswered_leases: bool,
    /// What connections may do.
    pub permitted: Permitted,
    /// Where services of clouds are that are not at their public addresses.
    pub cloud_endpoints: Endpoints,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// What is logged; checked when the log is set up.
    pub log_filter: String,
}

/// A flag whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// What was given.
    pub value: String,
    /// What is wanted, as the end of a sentence that begins with the value.
    pub wanted: &'static str,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flag,
            value,
            wanted,
        } = self;
        write!(f, "{flag}: {value:?} is not {wanted}")
    }
}

impl std::error::Error for SettingsError {}

impl Settings {
    /// Checks `args`; `suffix` sets this process apart from every other with the same name.
    ///
    /// Fails at the first flag with a value that cannot be used.
    pub fn new(args: RunArgs, suffix: &str) -> Result<Self, SettingsError> {
        let RunArgs {
            namespace,
            identity,
            leader_election,
            admin_address,
            workers,
            rollout_workers,
            max_concurrent_rollouts,
            max_concurrent_rollouts_per_namespace,
            default_refresh_interval,
            staleness_budget,
            session_store,
            revoke_unanswered_leases,
            allow_insecure_tls,
            allowed_vault_addresses,
            cloud_endpoint,
            log_format,
            log_filter,
        } = args;
        let pod = pod_name(identity)?;
        Ok(Self {
            namespace: namespace_name(namespace)?,
            identity: format!("{pod}_{suffix}"),
            pod,
            leader_election,
            admin_address: address(&admin_address)?,
            workers: count("--workers", workers)?,
            rollout_workers: count("--rollout-workers", rollout_workers)?,
            rollout_limits: Limits {
                cluster: limit(max_concurrent_rollouts),
                namespace: limit(max_concurrent_rollouts_per_namespace),
            },
            default_refresh_interval: duration(
                "--default-refresh-interval",
                &default_refresh_interval,
            )?,
            staleness_budget: duration("--staleness-budget", &staleness_budget)?,
            session_store,
            revoke_unanswered_leases,
            permitted: Permitted {
                insecure_tls: allow_insecure_tls,
                reach: reach(&allowed_vault_addresses)?,
            },
            cloud_endpoints: cloud_endpoints(cloud_endpoint)?,
            log_format,
            log_filter,
        })
    }
}

/// No pattern at all allows every address; an empty one allows none by itself, so it is a mistake.
fn reach(patterns: &[String]) -> Result<Reach, SettingsError> {
    if patterns.is_empty() {
        return Ok(Reach::default());
    }
    Reach::only(patterns).map_err(|NoPattern| SettingsError {
        flag: "--allowed-vault-addresses",
        value: patterns.join(","),
        wanted: "a list of patterns scheme://host[:port]; use some such as https://vault.vault.svc:8200 or https://*.example.com:*",
    })
}

fn namespace_name(value: String) -> Result<String, SettingsError> {
    if value.len() <= 63 && is_label(&value) {
        return Ok(value);
    }
    let wanted = "the name of a namespace: at most 63 lower-case letters, digits and dashes, such as lockstep-system";
    Err(SettingsError {
        flag: "--namespace",
        value,
        wanted,
    })
}

/// Pod names may hold dots; a host name is as good.
fn pod_name(value: String) -> Result<String, SettingsError> {
    if value.len() <= 253 && value.split('.').all(is_label) {
        return Ok(value);
    }
    let wanted = "a name for this process: lower-case letters, digits, dashes and dots, such as the name of its pod";
    Err(SettingsError {
        flag: "--identity",
        value,
        wanted,
    })
}

/// Whether `text` is a DNS label, but for its length.
fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn address(value: &str) -> Result<SocketAddr, SettingsError> {
    value.parse().map_err(|_not_an_address| SettingsError {
        flag: "--admin-address",
        value: value.to_owned(),
        wanted: "an IP address and a port; use one such as 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080",
    })
}

fn cloud_endpoints(values: Vec<String>) -> Result<Endpoints, SettingsError> {
    let parsed = values.into_iter().map(|value| {
        value.parse::<Endpoint>().map_err(|_no_endpoint| SettingsError {
            flag: "--cloud-endpoint",
            value,
            wanted: "NAME=URL; use one of aws-sts, gcp-sts, gcp-iam, azure-login and azure-metadata, and an https address without path",
        })
    });
    parsed.collect()
}

/// 0 stands for no limit.
fn limit(value: u16) -> usize {
    match value {
        0 => usize::MAX,
        value => value.into(),
    }
}

fn count(flag: &'static str, value: u16) -> Result<u16, SettingsError> {
    if (1..=MAX_WORKERS).contains(&value) {
        return Ok(value);
    }
    Err(SettingsError {
        flag,
        value: value.to_string(),
        wanted: "a number from 1 to 1000",
    })
}

fn duration(flag: &'static str, value: &str) -> Result<Duration, SettingsError> {
    let duration = value
        .parse::<GoDuration>()
        .ok()
        .map(|parsed| parsed.as_duration());
    duration.filter(|duration| *duration >= MIN_DURATION).ok_or_else(|| SettingsError {
        flag,
        value: value.to_owned(),
        wanted: "a duration between 1s and 366d; use numbers with units, such as 30s, 5m or 1h30m",
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Args, Command};
    use super::*;

    fn settings(flags: &[&str]) -> Result<Settings, SettingsError> {
        let args = Args::try_parse_from(["lockstep", "run"].iter().chain(flags)).unwrap();
        let Command::Run(args) = args.command else {
            unreachable!("`run` was typed")
        };
        Settings::new(args, "0badcafe")
    }

    #[test]
    fn every_flag_has_a_default() {
        // The two that read the environment are given, so that the test does not depend on it.
        let flags = [
            "--namespace=lockstep-system",
            "--identity=lockstep-0",
            "--log-filter=info",
        ];
        insta::assert_debug_snapshot!(settings(&flags).unwrap());
    }

    #[test]
    fn flags_are_taken_over() {
        let flags = [
            "--leader-election=false",
            "--workers=4",
            "--default-refresh-interval=1h30m",
            "--identity=a.b",
            "--allowed-vault-addresses=https://a,https://b",
            "--allowed-vault-addresses=https://c",
        ];
        let settings = settings(&flags).unwrap();
        assert!(!settings.leader_election);
        assert_eq!((settings.workers, settings.rollout_workers), (4, 8));
        assert_eq!(settings.default_refresh_interval, Duration::from_mins(90));
        assert_eq!(settings.identity, "a.b_0badcafe");
        let three = Reach::only(&["https://a", "https://b", "https://c"]);
        assert_eq!(Ok(settings.permitted.reach), three);
    }

    #[test]
    fn a_refused_value_is_named_with_its_flag_and_a_way_out() {
        let messages: Vec<String> = [
            "--namespace=Team_A",
            "--identity=",
            "--admin-address=:8080",
            "--workers=0",
            "--rollout-workers=1001",
            "--default-refresh-interval=5 minutes",
            "--default-refresh-interval=10ms",
            "--allowed-vault-addresses=https://vault,vault:8200",
            "--allowed-vault-addresses=",
            "--cloud-endpoint=aws-sts=http://sts.example",
        ]
        .iter()
        .map(|flag| settings(&[flag]).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(messages.join("\n"));
    }
}
