//! Pure: the command line, exactly as it was typed.
//!
//! What it means is decided in [`settings`](super::settings); here are only names, defaults and help.

use clap::{ArgAction, Parser, Subcommand};

use crate::telemetry::log::{DEFAULT_FILTER, LogFormat};
use crate::vault::sessions::SessionStore;

/// Keeps Kubernetes Secrets in step with Vault and OpenBao, and workloads in step with their Secrets.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, disable_help_subcommand = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    ///
    /// It needs a kubeconfig or, inside a cluster, the rights the Helm chart grants. It
    /// logs to stderr, and stops within seconds of SIGTERM.
    Run(RunArgs),
    /// Revoke everything that was issued, before the operator is uninstalled.
    ///
    /// Workloads that use it stop working. Ends a running operator by taking its Lease, then revokes the leases and
    /// certificates that the records of Secrets name, and the tokens they were issued with, and takes the finalizers off
    /// VaultSecrets. Prints what was revoked and what is left, and fails if leases are. Takes the flags of `run`: give it the same.
    Uninstall(RunArgs),
    /// Print the custom resource definitions.
    ///
    /// `lockstep crds | kubectl apply --server-side -f -` installs or updates them.
    Crds(CrdsArgs),
    /// Print the version.
    Version,
}

/// The flags of `lockstep run` and `lockstep uninstall`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Namespace of the operator itself: its Lease and the key of its hashes live there.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        hide_env_values = true,
        default_value = "lockstep-system"
    )]
    pub namespace: String,

    /// Name of this process in the Lease, in events and in logs. A random suffix is added in the Lease.
    #[arg(
        long,
        env = "POD_NAME",
        hide_env_values = true,
        default_value = "lockstep"
    )]
    pub identity: String,

    /// Write only while holding the Lease `lockstep`. With `false`, run exactly one process.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    pub leader_election: bool,

    /// Where `/livez`, `/readyz` and `/metrics` are served, without TLS.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    pub admin_address: String,

    /// How many secrets are synced at once.
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    pub workers: u16,

    /// How many workloads are looked at at once, to decide about their restarts.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pub rollout_workers: u16,

    /// How many workloads may restart at once; the others wait for their turn. 0 is no limit.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub max_concurrent_rollouts: u16,

    /// The same in each namespace.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub max_concurrent_rollouts_per_namespace: u16,

    /// How often Vault is read for a `VaultSecret` without `refreshInterval`, such as 30s, 5m or 1h30m.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub default_refresh_interval: String,

    /// How long a Secret counts as Ready while Vault cannot be read.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub staleness_budget: String,

    /// How tokens of Vault that leases depend on outlive this process.
    #[arg(long, value_name = "STORE", value_enum, default_value_t = SessionStore::Accessor)]
    pub session_store: SessionStore,

    /// Revoke a lease that was issued without an answer, where only one lease can be it.
    ///
    /// For clusters that share no role in Vault with another cluster, an operator or a person: nothing in Vault tells
    /// whose a lease is. Takes the right to list leases. Without it, such a lease lives until its TTL.
    #[arg(long)]
    pub revoke_unanswered_leases: bool,

    /// Accept connections with `insecureSkipVerify`. Anybody on the way to Vault can then read every secret.
    #[arg(long)]
    pub allow_insecure_tls: bool,

    /// Which addresses connections may name, such as `https://vault.vault.svc:8200` or `https://*.example.com:*`.
    ///
    /// Comma-separated, or given several times; without it, all. `*` stands for one label of the host, for the
    /// whole host, or for the port; without a port, it is the usual one of the scheme. Link-local addresses and
    /// the metadata services of clouds are always refused.
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    pub allowed_vault_addresses: Vec<String>,

    /// Where a service of a cloud is, in place of its public address: for private endpoints. May be given several times.
    ///
    /// Logins with identities of clouds send tokens there. NAME is one of aws-sts, gcp-sts, gcp-iam, azure-login
    /// and azure-metadata.
    #[arg(long, value_name = "NAME=URL")]
    pub cloud_endpoint: Vec<String>,

    /// How a log line looks.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// What is logged: a level, then exceptions, such as `info,lockstep::sync=debug`.
    ///
    /// Libraries are kept at `warn` whatever is given here, because some of them log what they send and receive.
    #[arg(long, value_name = "DIRECTIVES", env = "LOCKSTEP_LOG", hide_env_values = true, default_value = DEFAULT_FILTER)]
    pub log_filter: String,
}

/// The flags of `lockstep crds`.
#[derive(Debug, clap::Args)]
pub struct CrdsArgs {
    /// Write one file per kind into this directory instead of printing them.
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<std::path::PathBuf>,
}
