//! A PostgreSQL behind Vault's database engine, and what is to be known of its leases.

use lockstep::api::vault_secret::VaultSecret;
use lockstep::names::HOLDINGS;
use lockstep_testbed::eventually;
use serde_json::{Value, json};

use super::{SOON, Team, text_of};

/// A role with which Vault makes logins of PostgreSQL.
pub struct Role<'a> {
    team: &'a Team<'a>,
    /// Where it is asked for a login.
    pub path: String,
}

/// How long leases of a role live.
#[derive(Clone, Copy)]
pub struct Ttl {
    /// Until they are renewed.
    pub default: &'static str,
    /// In all.
    pub max: &'static str,
}

/// For leases that outlive every test.
pub const LONG: Ttl = Ttl {
    default: "1h",
    max: "24h",
};

impl<'a> Role<'a> {
    /// A role of the team, called `<namespace>-<name>`.
    pub async fn new(team: &'a Team<'a>, name: &str, ttl: Ttl) -> Self {
        let stage = team.stage;
        stage.database_engine().await.unwrap();
        let role = format!("{}-{name}", team.namespace);
        // The connection may just be being made by another test.
        eventually(SOON, "the role is written", async || {
            stage.database_role(&role, ttl.default, ttl.max).await
        })
        .await
        .unwrap();
        Self {
            team,
            path: format!("database/creds/{role}"),
        }
    }

    /// A source of this role, called `db`.
    pub fn source(&self) -> Value {
        json!({"name": "db", "dynamic": {"path": self.path}})
    }

    /// The ids of its leases that live.
    pub async fn leases(&self) -> Vec<String> {
        let vault = self.team.stage.vault();
        vault.leases(&self.path).await.unwrap()
    }

    /// Waits until just one lease lives; returns its id.
    pub async fn one_lease(&self) -> String {
        eventually(SOON, "there is one lease", async || {
            let leases = self.leases().await;
            match leases.as_slice() {
                [one] => Ok(one.clone()),
                _ => Err(format!("{} leases", leases.len())),
            }
        })
        .await
        .unwrap()
    }
}

/// A login of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// What a policy needs so that leases are kept as well as can be.
pub const KEEP: [(&str, &str); 2] = [
    ("sys/leases/revoke", "\"update\""),
    ("auth/token/renew-accessor", "\"update\""),
];

impl Team<'_> {
    /// From now on this namespace logs in at `address` with a role of its own, whose tokens live so long, and whose
    /// policy is that of [`Team::may`].
    pub async fn of_its_own(&self, address: impl ToString, ttl: &str, paths: &[(&str, &str)]) {
        self.role_of_its_own("kubernetes", ttl).await;
        self.may(paths).await;
        self.logs_in_at(address, "kubernetes", &self.namespace)
            .await;
    }

    /// The policy of the role: it may have logins of the team's roles issued, and what is said of these paths.
    pub async fn may(&self, paths: &[(&str, &str)]) {
        let own = format!("database/creds/{}-*", self.namespace);
        let all = [(own.as_str(), "\"read\"")];
        let lines = all.iter().chain(paths).map(|(path, capabilities)| {
            format!("path \"{path}\" {{ capabilities = [{capabilities}] }}")
        });
        let rules = lines.collect::<Vec<_>>().join("\n");
        let vault = self.stage.vault();
        vault.policy(&self.namespace, &rules).await.unwrap();
    }

    /// Applies a `VaultSecret` with these sources.
    pub async fn issue(&self, name: &str, sources: &[Value], extra: Value) {
        let mut spec =
            json!({"refreshInterval": "10s", "sources": sources, "rollout": {"settle": "0s"}});
        super::team::merge(&mut spec, extra);
        self.apply(&json!({
            "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
            "metadata": {"name": name}, "spec": spec,
        }))
        .await;
    }

    /// The login that Secret `name` holds.
    pub async fn credentials(&self, name: &str) -> Option<Credentials> {
        let secret = self.secret(name).await?;
        Some(Credentials {
            username: text_of(&secret, "username")?,
            password: text_of(&secret, "password")?,
        })
    }

    /// Waits until Secret `name` holds another login than `before`.
    pub async fn credentials_other_than(
        &self,
        name: &str,
        before: Option<&Credentials>,
    ) -> Credentials {
        let what = format!("Secret {name} holds another login");
        eventually(SOON, &what, async || {
            let found = self.credentials(name).await;
            let found = found.ok_or("there is none")?;
            if before == Some(&found) {
                Err("it is the same")
            } else {
                Ok(found)
            }
        })
        .await
        .unwrap()
    }

    /// Whether PostgreSQL lets them in.
    pub async fn logs_in(&self, credentials: &Credentials) -> bool {
        let postgres = self.stage.postgres().await.unwrap();
        let Credentials { username, password } = credentials;
        postgres
            .query_as(username, password, "select 1")
            .await
            .is_ok()
    }

    /// Waits until PostgreSQL does not let them in any more.
    pub async fn refused(&self, credentials: &Credentials) {
        eventually(SOON, "the old login is refused", async || {
            if self.logs_in(credentials).await {
                Err("it is let in")
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
    }

    /// The lease that the record in Secret `name` says is held for source `db`.
    pub async fn recorded_lease(&self, name: &str) -> Option<String> {
        let secret = self.secret(name).await?;
        let record = secret.metadata.annotations?.get(HOLDINGS)?.clone();
        let record: Value = serde_json::from_str(&record).unwrap();
        let id = record["held"]["db"]["lease"]["id"].as_str()?;
        Some(id.to_owned())
    }

    /// Whether the `VaultSecret` is there.
    pub async fn exists(&self, name: &str) -> bool {
        let found = self.api::<VaultSecret>().get_opt(name).await.unwrap();
        found.is_some()
    }
}
