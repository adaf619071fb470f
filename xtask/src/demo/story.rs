//! Effects: processes, apiserver, Vault, stdout — the chapters, and what must be seen in each.

mod order;
mod waves;

use std::time::Duration;

use lockstep_testbed::{Bed, Operator, eventually};
use serde_json::json;

use super::{
    cluster::{Cluster, DEPLOYMENT, NAMESPACE, Replica, Rollout},
    operator::Program,
    quickstart::{self, Changes},
    screen::Screen,
};
use crate::failure::Failure;

/// How long anything may take that takes some seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A secret of the quickstart: the VaultSecret and its Secret are called like the path in Vault.
#[derive(Clone, Copy)]
struct Source {
    name: &'static str,
    /// The key that is changed.
    key: &'static str,
    /// A key that is not, with its value.
    constant: Option<(&'static str, &'static str)>,
}

const DATABASE: Source = Source {
    name: "database",
    key: "DB_PASSWORD",
    constant: Some(("DB_USER", "checkout")),
};
const PAYMENT: Source = Source {
    name: "payment",
    key: "api-key",
    constant: None,
};

/// The world of the story.
pub(super) struct Story<'a> {
    bed: &'a Bed,
    program: Program,
    screen: Screen,
    cluster: Cluster,
    operator: Option<Operator>,
}

impl<'a> Story<'a> {
    pub(super) async fn new(
        bed: &'a Bed,
        program: Program,
        screen: Screen,
    ) -> Result<Self, Failure> {
        Ok(Self {
            cluster: Cluster::new(bed.client().await?),
            bed,
            program,
            screen,
            operator: None,
        })
    }

    /// The chapter it is in.
    pub(super) const fn chapter(&self) -> usize {
        self.screen.number()
    }

    /// Tells all of it; the first thing that is not seen ends it.
    pub(super) async fn tell(&mut self) -> Result<(), Failure> {
        self.install().await?;
        self.secrets_appear().await?;
        self.workload_starts().await?;
        self.one_change().await?;
        self.two_changes().await?;
        self.killed_in_between().await?;
        self.waves().await?;
        self.table().await
    }

    async fn install(&mut self) -> Result<(), Failure> {
        self.screen.chapter("The custom resources and the operator");
        self.bed
            .install_crds(&quickstart::read_all("crds")?)
            .await?;
        self.screen.seen("crds/ applied, and established");
        self.operator = Some(self.program.start(self.bed).await?);
        self.screen.seen("lockstep run: ready");
        Ok(())
    }

    async fn secrets_appear(&mut self) -> Result<(), Failure> {
        self.screen
            .chapter("examples/quickstart: Vault is set up, two Secrets appear");
        quickstart::set_up_vault(self.bed).await?;
        self.screen
            .seen("vault-setup.sh: a login for the namespace, a policy, two secrets");
        let changes = Changes::for_bed(self.bed);
        let files = ["1-namespace.yaml", "2-vault.yaml", "3-secrets.yaml"];
        quickstart::apply(self.bed, &files, &changes).await?;
        self.screen
            .seen(format!("applied {}, with", files.join(", ")));
        for line in changes.lines() {
            Screen::note(line);
        }
        for source in [DATABASE, PAYMENT] {
            self.holds(source, "first").await?;
            self.screen.seen(format!(
                "Secret {} is there and holds what Vault holds",
                source.name
            ));
        }
        Ok(())
    }

    async fn workload_starts(&mut self) -> Result<(), Failure> {
        self.screen.chapter("A Deployment that uses both Secrets");
        let changes = Changes::for_bed(self.bed);
        quickstart::apply(self.bed, &["4-deployment.yaml"], &changes).await?;
        self.screen.seen("applied 4-deployment.yaml");
        let running = eventually(PATIENCE, "a running Deployment", async || {
            let rollout = self
                .cluster
                .rollout()
                .await
                .map_err(|error| error.chain())?;
            if rollout.complete {
                Ok(rollout)
            } else {
                Err(format!("{rollout:?}"))
            }
        });
        let running = running.await?;
        let pods = self.cluster.pods().await?.len();
        self.screen.seen(format!(
            "{pods} pods run, in a namespace with Pod Security \"restricted\""
        ));
        let told = eventually(PATIENCE, "a status that says Verified", async || {
            let reported = self.cluster.reported(DATABASE.name).await;
            match reported.map_err(|error| error.chain())? {
                Some(reported) if reported.state == "Verified" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        told.await?;
        if running.revision != 1 || self.cluster.rollout().await?.revision != 1 {
            return wrong("the first sync restarted the Deployment");
        }
        self.screen
            .seen("in step already, so not restarted: revision 1 still");
        Ok(())
    }

    async fn one_change(&mut self) -> Result<(), Failure> {
        self.screen.chapter("A new password in Vault");
        let before = self.cluster.rollout().await?;
        self.put(DATABASE, "second").await?;
        self.screen.seen("vault kv put secret/shop/database ...");
        self.holds(DATABASE, "second").await?;
        self.screen.seen("Secret database holds it");
        self.restarted(&before).await?;
        self.verified(&before, &[DATABASE]).await
    }

    async fn two_changes(&mut self) -> Result<(), Failure> {
        self.screen
            .chapter("Two secrets change at once, for one restart");
        let before = self.cluster.rollout().await?;
        tokio::try_join!(self.put(DATABASE, "third"), self.put(PAYMENT, "third"))?;
        self.screen
            .seen("vault kv put secret/shop/database ... and secret/shop/payment ...");
        tokio::try_join!(self.holds(DATABASE, "third"), self.holds(PAYMENT, "third"))?;
        self.screen
            .seen("Secrets database and payment hold the new values");
        self.restarted(&before).await?;
        self.verified(&before, &[DATABASE, PAYMENT]).await
    }

    async fn killed_in_between(&mut self) -> Result<(), Failure> {
        self.screen
            .chapter("The operator is killed between the Secret and the restart");
        let before = self.cluster.rollout().await?;
        self.put(DATABASE, "fourth").await?;
        self.screen.seen("vault kv put secret/shop/database ...");
        self.holds(DATABASE, "fourth").await?;
        self.screen.seen("Secret database holds it");
        if let Some(operator) = self.operator.take() {
            operator.kill().map_err(lockstep_testbed::BedError::from)?;
        }
        if self.cluster.rollout().await? != before {
            return wrong(
                "the restart began before the operator was dead: this machine is too slow for the demo",
            );
        }
        self.screen.seen(format!(
            "SIGKILL. Nothing was restarted yet: revision {} still",
            before.revision
        ));
        self.operator = Some(self.program.start(self.bed).await?);
        self.screen
            .seen("lockstep run again: ready; it knows nothing of what was before");
        self.restarted(&before).await?;
        self.verified(&before, &[DATABASE]).await
    }

    async fn table(&mut self) -> Result<(), Failure> {
        self.screen.chapter("What a user sees");
        let arguments = ["-n", NAMESPACE, "get", "vsec", "-o", "wide"];
        let output = self.bed.kubectl(&arguments).await?;
        Screen::note(format!("$ kubectl {}", arguments.join(" ")));
        Screen::note(String::from_utf8_lossy(&output.stdout));
        self.screen.close();
        Ok(())
    }

    /// Writes a new version in Vault.
    async fn put(&self, source: Source, value: &str) -> Result<(), Failure> {
        let data = match source.constant {
            Some((key, constant)) => json!({(source.key): value, (key): constant}),
            None => json!({(source.key): value}),
        };
        let path = format!("{NAMESPACE}/{}", source.name);
        self.bed.vault().kv_put("secret", &path, &data).await?;
        Ok(())
    }

    /// Waits until the Secret holds the value.
    async fn holds(&self, source: Source, value: &str) -> Result<(), Failure> {
        let what = format!("Secret {} with a new {}", source.name, source.key);
        let held = eventually(PATIENCE, &what, async || {
            let found = self.cluster.value(source.name, source.key).await;
            match found.map_err(|error| error.chain())? {
                Some(found) if found == value => Ok(()),
                Some(_) => Err("the Secret with another value"),
                None => Err("no such Secret or key"),
            }
            .map_err(str::to_owned)
        });
        Ok(held.await?)
    }

    /// Waits until the Deployment has another pod template.
    async fn restarted(&self, before: &Rollout) -> Result<(), Failure> {
        let changed = eventually(PATIENCE, "a restart of the Deployment", async || {
            let now = self
                .cluster
                .rollout()
                .await
                .map_err(|error| error.chain())?;
            if now.revision == before.revision {
                Err(format!("{now:?}"))
            } else {
                Ok(now)
            }
        });
        let now = changed.await?;
        self.screen.seen(format!(
            "Deployment {DEPLOYMENT} is restarted: revision {} -> {}",
            before.revision, now.revision
        ));
        Ok(())
    }

    /// Waits until both `VaultSecrets` say that every pod is new, and then takes the cluster's word, not theirs.
    async fn verified(&self, before: &Rollout, changed: &[Source]) -> Result<(), Failure> {
        let told = eventually(PATIENCE, "a status that says Verified", async || {
            self.both_verified().await.map_err(|error| error.chain())?
        });
        let rollout = told.await?;
        let pods = self.cluster.pods().await?;
        self.screen
            .seen("status of both VaultSecrets: Verified. And the pods themselves:");
        for pod in &pods {
            self.check(pod, &rollout, changed).await?;
        }
        if pods.is_empty() || !rollout.complete {
            return wrong("the status says Verified while the rollout goes on");
        }
        if rollout.revision != before.revision + 1 {
            return wrong(&format!(
                "{} restarts instead of one",
                rollout.revision - before.revision
            ));
        }
        self.screen.seen(format!(
            "{} of {} pods are new, with the hash in the status; exactly one restart",
            pods.len(),
            pods.len()
        ));
        Ok(())
    }

    /// The Deployment, if both `VaultSecrets` say that its pods carry the hash of its template.
    async fn both_verified(&self) -> Result<Result<Rollout, String>, Failure> {
        let rollout = self.cluster.rollout().await?;
        for source in [DATABASE, PAYMENT] {
            let reported = self.cluster.reported(source.name).await?;
            let agrees = reported.as_ref().is_some_and(|reported| {
                reported.state == "Verified" && Some(&reported.hash) == rollout.hash.as_ref()
            });
            if !agrees {
                return Ok(Err(format!(
                    "{} says {reported:?} of {rollout:?}",
                    source.name
                )));
            }
        }
        Ok(Ok(rollout))
    }

    /// A pod must be ready, carry the hash, and be younger than what the Secrets hold, all by the apiserver's word.
    async fn check(
        &self,
        pod: &Replica,
        rollout: &Rollout,
        changed: &[Source],
    ) -> Result<(), Failure> {
        let Replica {
            name,
            created,
            hash,
            ready,
        } = pod;
        for source in changed {
            let written = self.cluster.written(source.name).await?;
            if *created < written {
                return wrong(&format!(
                    "pod {name} is older than what Secret {} holds",
                    source.name
                ));
            }
        }
        if !ready || *hash != rollout.hash {
            return wrong(&format!(
                "the status says Verified, and of pods there is {pod:?}"
            ));
        }
        let created = created
            .as_ref()
            .map(|time| time.0.strftime("%H:%M:%S").to_string());
        Screen::note(format!(
            "{name}  ready  created {}  {}",
            created.unwrap_or_default(),
            hash.as_deref().unwrap_or_default()
        ));
        Ok(())
    }
}

fn wrong<T>(what: &str) -> Result<T, Failure> {
    Err(Failure::Wrong(what.to_owned()))
}
