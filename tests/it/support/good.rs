//! A Secret and its workload as they were when all was well, and logins of a team's own.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::api::ListParams;
use lockstep::api::vault_secret::VaultSecret;
use lockstep_testbed::{ApiRequest, AuditMark, KubernetesRole, VaultRequest, eventually};
use serde_json::{Value, json};

use super::{SOON, Team};

/// Longer than any recovery may take: the longest pause of one object is a minute.
const RECOVERY: Duration = Duration::from_secs(90);

/// The data every good Secret holds.
pub fn good_data() -> Value {
    json!({"user": "u", "password": "good"})
}

/// A `VaultSecret` in step, with a Deployment of two pods that runs with its data.
pub struct Good<'a> {
    /// Whose it is.
    pub team: &'a Team<'a>,
    /// What the `VaultSecret`, the Secret, the Deployment and the path in Vault are called.
    pub name: String,
    secret: Secret,
    deployment: Deployment,
    pods: BTreeSet<String>,
}

impl<'a> Good<'a> {
    /// Makes one, and waits until all is well.
    pub async fn make(team: &'a Team<'a>, name: &str) -> Self {
        team.put(name, &good_data()).await;
        team.vault_secret(name, json!({})).await;
        team.secret_with(name, "password", "good").await;
        team.deployment(name, 2, &[name]).await;
        team.settled(name).await;
        team.condition_is(name, "RolledOut", "True Verified").await;
        team.condition_is(name, "Ready", "True InStep").await;
        Self {
            secret: team.secret(name).await.unwrap(),
            deployment: team.api::<Deployment>().get(name).await.unwrap(),
            pods: pods(team, name).await,
            name: name.to_owned(),
            team,
        }
    }

    /// Nobody has written the Secret, and nothing has restarted.
    pub async fn assert_untouched(&self) {
        let Self {
            team,
            name,
            secret,
            deployment,
            pods: before,
        } = self;
        assert_eq!(team.secret(name).await.as_ref(), Some(secret));
        let now = team.api::<Deployment>().get(name).await.unwrap();
        assert_eq!(now.metadata.generation, deployment.metadata.generation);
        assert_eq!(now.metadata.uid, deployment.metadata.uid);
        assert_eq!(pods(team, name).await, *before);
    }

    /// Its path in Vault, below the mount `secret`.
    pub fn path(&self) -> String {
        self.team.path(&self.name)
    }
}

async fn pods(team: &Team<'_>, name: &str) -> BTreeSet<String> {
    let pods = team.pods(name).await.into_iter();
    pods.filter_map(|pod| pod.metadata.uid).collect()
}

impl Team<'_> {
    /// From now on this namespace reaches Vault at `address`, which has a second to answer, and logs in there with
    /// `role` of `mount`.
    pub async fn logs_in_at(&self, address: impl ToString, mount: &str, role: &str) {
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultConnection",
            "metadata": {"name": "own"},
            "spec": {"address": format!("http://{}", address.to_string()), "timeout": "1s"},
        }))
        .await;
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth",
            "metadata": {"name": "default"},
            "spec": {
                "connectionRef": {"kind": "VaultConnection", "name": "own"},
                "mount": mount,
                "kubernetes": {"role": role, "audiences": ["vault"]},
            },
        }))
        .await;
    }

    /// Applies a `VaultAuth` with the role of all teams, with tokens of the apiserver that live this long.
    pub async fn auth(&self, name: &str, token_ttl: &str) {
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultAuth",
            "metadata": {"name": name},
            "spec": {
                "connectionRef": {"kind": "ClusterVaultConnection", "name": "main"},
                "kubernetes": {"role": "tenant", "audiences": ["vault"], "tokenTTL": token_ttl},
            },
        }))
        .await;
    }

    /// The accessor of the token that the team's newest login gave.
    pub fn newest_login(&self, mark: AuditMark) -> String {
        let logins = self.asked(mark, "auth/kubernetes/login");
        logins.last().unwrap().accessor.clone()
    }

    /// Whether the token lives.
    pub async fn token_lives(&self, accessor: &str) -> bool {
        let vault = self.stage.vault();
        let body = json!({"accessor": accessor});
        vault
            .write("auth/token/lookup-accessor", &body)
            .await
            .is_ok()
    }

    /// Waits until the token is revoked.
    pub async fn token_ends(&self, accessor: &str) {
        eventually(SOON, "the token is revoked", async || {
            !self.token_lives(accessor).await
        })
        .await
        .unwrap();
    }

    /// A role of `mount` for this namespace alone, called as the namespace is, with a policy of that name that
    /// reads what is the team's.
    pub async fn role_of_its_own(&self, mount: &str, ttl: &str) {
        self.allow_reads().await;
        let role = KubernetesRole {
            mount,
            name: &self.namespace,
            namespaces: &[&self.namespace],
            service_accounts: &["default"],
            policies: &[&self.namespace],
            ttl,
        };
        self.stage.vault().kubernetes_role(role).await.unwrap();
    }

    /// Writes the policy of [`Team::role_of_its_own`].
    pub async fn allow_reads(&self) {
        let rules = format!(
            "path \"secret/data/{}/*\" {{ capabilities = [\"read\"] }}",
            self.namespace
        );
        self.stage
            .vault()
            .policy(&self.namespace, &rules)
            .await
            .unwrap();
    }

    /// Makes `count` `VaultSecrets` on as many paths, all at once, and waits until all are ready; returns their names.
    pub async fn fleet(&self, count: usize) -> Vec<String> {
        let names: Vec<String> = (0..count).map(|number| format!("app-{number}")).collect();
        for name in &names {
            self.put(name, &good_data()).await;
        }
        let object = |name: &String| {
            json!({
                "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "refreshInterval": "2s",
                    "sources": [{"name": "main", "kv": {"mount": "secret", "path": self.path(name)}}],
                },
            })
        };
        let items: Vec<Value> = names.iter().map(object).collect();
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))
            .await;
        self.all_are("Ready", "True InStep").await;
        names
    }

    /// Waits until the condition `kind` of every `VaultSecret` of the team begins like this.
    pub async fn all_are(&self, kind: &str, wanted: &str) {
        let what = format!("{kind} of all is {wanted}");
        eventually(RECOVERY, &what, async || {
            let mut found = self.conditions(kind).await;
            found.retain(|text| !text.starts_with(wanted));
            if found.is_empty() {
                Ok(())
            } else {
                Err(format!("{} others: {found:?}", found.len()))
            }
        })
        .await
        .unwrap();
    }

    /// The condition `kind` of every `VaultSecret` of the team, as `status reason`.
    pub async fn conditions(&self, kind: &str) -> Vec<String> {
        let api = self.api::<VaultSecret>();
        let all = api.list(&ListParams::default()).await.unwrap();
        let texts = all.items.into_iter().map(|object| {
            let conditions = object.status.unwrap_or_default().conditions;
            let found = conditions.iter().find(|found| found.type_ == kind);
            found.map_or_else(
                || "none".to_owned(),
                |found| format!("{} {}", found.status, found.reason),
            )
        });
        texts.collect()
    }

    /// What the operator wrote in this namespace, events excepted.
    pub async fn writes(&self, mark: AuditMark) -> Vec<ApiRequest> {
        let mut writes = self.stage.writes_by(mark, "lockstep/").await.unwrap();
        writes.retain(|write| write.namespace == self.namespace && write.resource != "events");
        writes
    }

    /// What the operator asked of Vault for this team, at paths that end like this.
    pub fn asked(&self, mark: AuditMark, end: &str) -> Vec<VaultRequest> {
        let wanted = |request: &VaultRequest| self.made(request) && request.path.ends_with(end);
        self.stage.vault_audit_since(mark, wanted).unwrap()
    }

    /// Whether a request to Vault was made with a token of this team, or issued one.
    pub fn made(&self, request: &VaultRequest) -> bool {
        request
            .display_name
            .ends_with(&format!("{}-default", self.namespace))
    }
}

/// How many of these moments are in the fullest stretch of this length.
pub fn most_within(moments: &[std::time::Instant], stretch: Duration) -> usize {
    let within = |start: &std::time::Instant| {
        moments
            .iter()
            .filter(|moment| *moment >= start && moment.duration_since(*start) < stretch)
            .count()
    };
    moments.iter().map(within).max().unwrap_or_default()
}
