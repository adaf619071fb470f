//! Effects: apiserver, Vault — database roles, `VaultSecrets` that each have a login of one, and some Deployments.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    core::DynamicObject,
};
use lockstep_testbed::Bed;
use serde_json::{Value, json};

use super::{
    super::furniture::{apply, deployment, deployments, furnish, objects, resource, revision},
    LeasesArguments, census,
};
use crate::failure::Failure;

/// Each is an identity in Vault, with a token of its own.
const NAMESPACES: usize = 20;
/// The first of so many objects has leases that end soon, and it and the next are used by a Deployment. The number of
/// namespaces is no multiple of it, so that they are in all of these.
const SPECIAL: usize = 21;
/// Pods of a Deployment.
const PODS: i32 = 2;
/// The annotation of a Secret that tells which leases it holds.
const RECORD: &str = "lockstep.dev/holdings";

/// What a login takes that has leases: Vault's `default` policy allows to look them up and to renew them.
const ALLOWED: &str = r#"
path "database/creds/*" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "auth/token/renew-accessor" { capabilities = ["update"] }
"#;

/// What becomes of the leases of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lot {
    /// They are extended for as long as the benchmark takes.
    Lasting,
    /// They live for twice their TTL at most, and are replaced.
    Turning,
}

impl Lot {
    fn of(number: usize) -> Self {
        if number.is_multiple_of(SPECIAL) {
            Self::Turning
        } else {
            Self::Lasting
        }
    }

    /// The role of the database engine, with which the names of the objects begin.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Lasting => "lasting",
            Self::Turning => "turning",
        }
    }

    /// Where Vault is asked for a login.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Lasting => "database/creds/lasting",
            Self::Turning => "database/creds/turning",
        }
    }

    /// For how many seconds a lease lives at most.
    pub(super) fn most(self, ttl: u32) -> u32 {
        match self {
            Self::Lasting => 24 * 3600,
            Self::Turning => 2 * ttl,
        }
    }
}

/// The objects of a benchmark.
pub(super) struct Load {
    pub(super) arguments: LeasesArguments,
    namespaces: Vec<String>,
}

/// Where one object is.
struct Place<'a> {
    namespace: &'a str,
    name: String,
    lot: Lot,
    /// Whether a Deployment uses its Secret.
    used: bool,
}

impl Load {
    /// Prepares CRDs, a connection, a login, namespaces, and the database.
    pub(super) async fn new(bed: &Bed, arguments: LeasesArguments) -> Result<Self, Failure> {
        let ttl = format!("{}s", arguments.ttl);
        let namespaces = furnish(bed, ALLOWED, &ttl, NAMESPACES).await?;
        bed.database_engine().await?;
        for lot in [Lot::Lasting, Lot::Turning] {
            let most = format!("{}s", lot.most(arguments.ttl));
            bed.database_role(lot.role(), &ttl, &most).await?;
        }
        Ok(Self {
            arguments,
            namespaces,
        })
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let namespaces = self.namespaces.iter().cycle();
        let numbered = (0..self.arguments.objects.into()).zip(namespaces);
        numbered.map(|(number, namespace)| Place {
            namespace,
            name: format!("{}-{number}", Lot::of(number).role()),
            lot: Lot::of(number),
            used: number % SPECIAL < 2,
        })
    }

    /// How many objects have leases of this kind.
    pub(super) fn count(&self, lot: Lot) -> usize {
        self.places().filter(|place| place.lot == lot).count()
    }

    /// Applies every `VaultSecret`, evenly spread over a time.
    pub(super) async fn apply_objects(&self, bed: &Bed, over: Duration) -> Result<(), Failure> {
        let client = bed.client().await?;
        let pause = over / u32::from(self.arguments.objects);
        let mut turns = tokio::time::interval(pause);
        for place in self.places() {
            turns.tick().await;
            let object = vault_secret(&place, self.arguments.interval);
            apply(client.clone(), place.namespace, &place.name, &object).await?;
        }
        Ok(())
    }

    /// Applies the Deployments.
    pub(super) async fn apply_workloads(&self, bed: &Bed) -> Result<(), Failure> {
        let used = self.places().filter(|place| place.used);
        let manifests: Vec<_> = used
            .map(|place| deployment(place.namespace, &place.name, &place.name, PODS).to_string())
            .collect();
        Ok(bed.apply_yaml(&manifests.join("\n---\n")).await?)
    }

    /// Deletes the `VaultSecrets` of a kind.
    pub(super) async fn delete(&self, bed: &Bed, lot: Lot) -> Result<(), Failure> {
        let client = bed.client().await?;
        for place in self.places().filter(|place| place.lot == lot) {
            let namespace = place.namespace;
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource());
            api.delete(&place.name, &DeleteParams::default()).await?;
        }
        Ok(())
    }

    /// Whether the status of every object with leases that last says that the pods that use it have the data.
    pub(super) async fn all_verified(&self, bed: &Bed) -> Result<(), String> {
        let lasting = |place: &Place<'_>| place.used && place.lot == Lot::Lasting;
        let wanted = self.places().filter(lasting).count();
        let all = objects(bed).await?;
        let verified = all
            .iter()
            .filter(|object| object.name_any().starts_with(Lot::Lasting.role()))
            .filter_map(|object| object.data.pointer("/status/rollout/workloads/0/state"))
            .filter(|state| *state == "Verified")
            .count();
        if verified == wanted {
            Ok(())
        } else {
            Err(format!("{verified} of {wanted}"))
        }
    }

    /// Whether all pods of all Deployments run, and their controller has counted their templates.
    pub(super) async fn all_run(&self, bed: &Bed) -> Result<(), String> {
        let wanted = self.places().filter(|place| place.used).count();
        let all = deployments(bed).await.map_err(|failure| failure.chain())?;
        let runs = |deployment: &&Deployment| {
            let status = deployment.status.as_ref();
            revision(deployment).is_some()
                && status.and_then(|status| status.available_replicas) >= Some(PODS)
        };
        let run = all.iter().filter(runs).count();
        if run == wanted {
            Ok(())
        } else {
            Err(format!("{run} of {wanted}"))
        }
    }

    /// How many pod templates the Deployments have had, those that use leases that last and the others. Each but the
    /// first is a restart.
    pub(super) async fn pod_templates(&self, bed: &Bed) -> Result<[usize; 2], Failure> {
        let all = deployments(bed).await?;
        Ok([Lot::Lasting, Lot::Turning].map(|lot| {
            all.iter()
                .filter(|deployment| deployment.name_any().starts_with(lot.role()))
                .filter_map(revision)
                .sum()
        }))
    }

    /// The ids of all leases that live in Vault.
    pub(super) async fn alive(&self, bed: &Bed) -> Result<BTreeSet<String>, Failure> {
        let mut alive = BTreeSet::new();
        for lot in [Lot::Lasting, Lot::Turning] {
            alive.extend(bed.vault().leases(lot.path()).await?);
        }
        Ok(alive)
    }

    /// The ids of the leases that each Secret tells of.
    pub(super) async fn recorded(&self, bed: &Bed) -> Result<Vec<Vec<String>>, Failure> {
        let api = Api::<Secret>::all(bed.client().await?);
        let all = api.list_metadata(&ListParams::default()).await?;
        let record = |annotations: &std::collections::BTreeMap<String, String>| {
            serde_json::from_str::<Value>(annotations.get(RECORD)?).ok()
        };
        let records = all.iter().filter_map(|secret| record(secret.annotations()));
        Ok(records.map(|record| census::told(&record)).collect())
    }
}

fn vault_secret(place: &Place<'_>, interval: u64) -> Value {
    json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "VaultSecret",
        "metadata": {"name": place.name},
        "spec": {
            "refreshInterval": format!("{interval}s"),
            "sources": [{"name": "db", "dynamic": {"path": place.lot.path()}}],
        },
    })
}
