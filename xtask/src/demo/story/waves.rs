//! Effects: apiserver, Vault, stdout — the chapter in which many workloads restart, in waves and a few at once.

use std::collections::BTreeMap;

use lockstep_testbed::eventually;
use serde_json::{Value, json};

use super::{
    super::{
        cluster::{NAMESPACE, Rollout},
        operator::AT_ONCE,
        screen::Screen,
    },
    PATIENCE, Source, Story,
    order::{Order, State, WAVES, head, names},
    wrong,
};
use crate::failure::Failure;

const PLATFORM: Source = Source {
    name: "platform",
    key: "token",
    constant: None,
};
/// The label that tells a Deployment its wave.
const TIER: &str = "tier";
/// Pods of each Deployment.
const PODS: usize = 2;

type Rollouts = BTreeMap<String, Rollout>;

impl Story<'_> {
    pub(super) async fn waves(&mut self) -> Result<(), Failure> {
        self.screen.chapter(&format!(
            "Seven Deployments of one secret: data before api before web, {AT_ONCE} at once"
        ));
        let before = self.seven_start().await?;
        self.put(PLATFORM, "second").await?;
        self.screen.seen("vault kv put secret/shop/platform ...");
        self.watch_waves(&before).await?;
        self.all_are_new(&before).await
    }

    /// Applies them and waits until all are in step, which takes no restart.
    async fn seven_start(&self) -> Result<Rollouts, Failure> {
        self.put(PLATFORM, "first").await?;
        let waves = WAVES.iter();
        let deployments =
            waves.flat_map(|(tier, names)| names.iter().map(|name| deployment(name, tier)));
        let manifests: Vec<_> = std::iter::once(vault_secret()).chain(deployments).collect();
        let manifests: Vec<_> = manifests.iter().map(Value::to_string).collect();
        self.bed.apply_yaml(&manifests.join("\n---\n")).await?;
        self.screen.seen(format!(
            "applied VaultSecret platform with rollout.waves {}",
            order()
        ));
        let started = eventually(PATIENCE, "seven Deployments in step", async || {
            let rollouts = self.rollouts().await?;
            let running = rollouts.values().filter(|one| one.complete).count();
            let verified = self.verified_platform().await?.len();
            match (running, verified) {
                (7, 7) => Ok(rollouts),
                _ => Err(format!("{running} run, {verified} are verified")),
            }
        });
        let started = started.await?;
        if started.values().any(|one| one.revision != 1) {
            return wrong("a first sync restarted a Deployment");
        }
        self.screen
            .seen(format!("{} pods run, none was restarted", 7 * PODS));
        Ok(started)
    }

    /// Prints a line whenever one of them has come farther, until all are new.
    async fn watch_waves(&self, before: &Rollouts) -> Result<(), Failure> {
        for line in head() {
            Screen::note(line);
        }
        let mut order = Order::default();
        let mut told = false;
        let seen = eventually(PATIENCE, "all waves are done", async || {
            let now = self.rollouts().await?;
            let line = match order.see(|name| state(before.get(name), now.get(name))) {
                Ok(line) => line,
                Err(what) => return Ok(Err(what)),
            };
            if let Some(line) = line {
                self.screen.seen(line);
            }
            if !told && let Some(message) = self.front_waits().await? {
                Screen::note(format!("(status of front: {message})"));
                told = true;
            }
            if order.is_done() {
                Ok(Ok(()))
            } else {
                Err(format!("{order:?}"))
            }
        });
        match seen.await? {
            Err(what) => wrong(&what),
            Ok(()) if !told => wrong("no status told what front waits for"),
            Ok(()) => Ok(()),
        }
    }

    /// What the Deployment of the last wave waits for, by the status.
    async fn front_waits(&self) -> Result<Option<String>, String> {
        let all = self.cluster.all_reported(PLATFORM.name).await;
        let front = all.map_err(|error| error.chain())?.remove("front");
        Ok(front
            .filter(|front| front.state == "Waiting")
            .map(|front| format!("Waiting, {}", front.message)))
    }

    /// The status says so, and so do the pods themselves.
    async fn all_are_new(&self, before: &Rollouts) -> Result<(), Failure> {
        let told = eventually(PATIENCE, "a status that says Verified", async || {
            let verified = self.verified_platform().await?;
            let now = self.rollouts().await?;
            let hash = |name: &str| now.get(name).and_then(|one| one.hash.as_ref());
            let agree = names().filter(|name| {
                verified
                    .get(*name)
                    .is_some_and(|told| Some(told) == hash(name))
            });
            match agree.count() {
                7 => Ok(now),
                agree => Err(format!("{agree} of 7")),
            }
        });
        let now = told.await?;
        let pods = self.cluster.labelled_pods(TIER).await?;
        let hashes: Vec<_> = now.values().map(|one| &one.hash).collect();
        let new = pods
            .iter()
            .filter(|pod| pod.ready && hashes.contains(&&pod.hash));
        if pods.len() != 7 * PODS || new.count() != pods.len() {
            return wrong(&format!(
                "the status says Verified, and of pods there are {pods:?}"
            ));
        }
        let once = |name: &str| {
            let revision = |all: &Rollouts| all.get(name).map_or(0, |one| one.revision);
            revision(&now) == revision(before) + 1
        };
        if !names().all(once) {
            return wrong(&format!("not each was restarted once: {now:?}"));
        }
        self.screen.seen(format!(
            "status: Verified. {} of {} pods are new; each Deployment was restarted once",
            pods.len(),
            pods.len()
        ));
        Ok(())
    }

    async fn rollouts(&self) -> Result<Rollouts, String> {
        let found = self.cluster.rollouts(TIER).await;
        found.map_err(|error| error.chain())
    }

    /// By name, the hash of the Deployments that the status calls verified.
    async fn verified_platform(&self) -> Result<BTreeMap<String, String>, String> {
        let all = self.cluster.all_reported(PLATFORM.name).await;
        let all = all.map_err(|error| error.chain())?;
        let verified = all.into_iter().filter(|(_, one)| one.state == "Verified");
        Ok(verified.map(|(name, one)| (name, one.hash)).collect())
    }
}

fn state(before: Option<&Rollout>, now: Option<&Rollout>) -> State {
    match (before, now) {
        (Some(before), Some(now)) if now.hash == before.hash => State::Old,
        (_, Some(now)) if now.complete => State::New,
        (_, _) => State::Restarting,
    }
}

/// What goes into `rollout.waves`.
fn order() -> Value {
    let order: Vec<_> = WAVES.iter().map(|(wave, _)| *wave).collect();
    json!({"byLabel": TIER, "order": order})
}

fn vault_secret() -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
        "metadata": {"name": PLATFORM.name, "namespace": NAMESPACE},
        "spec": {
            "refreshInterval": "1s",
            "sources": [{"name": "platform", "kv": {"mount": "secret", "path": "shop/platform"}}],
            "rollout": {"settle": "2s", "waves": order()},
        },
    })
}

fn deployment(name: &str, tier: &str) -> Value {
    let labels = json!({"app": name, TIER: tier});
    // The status tells what the others wait for within ten seconds: so long the first wave takes.
    let metadata = if tier == WAVES[0].0 {
        json!({"labels": labels, "annotations": {"testbed.lockstep.dev/slow": "true"}})
    } else {
        json!({"labels": labels})
    };
    let container = json!({
        "name": "app", "image": "app", "envFrom": [{"secretRef": {"name": PLATFORM.name}}],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {TIER: tier}},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": metadata, "spec": pod},
        },
    })
}
