//! The operator is killed wherever it is about to tell the apiserver something of a restart, or has just told it.

use futures::future::join_all;
use lockstep::{api::vault_secret::VaultSecret, names::SECRETS_HASH};
use lockstep_testbed::{Bed, Operator, OperatorOptions, eventually};
use serde_json::json;

use crate::support::{
    Front, InStep, Pause, SOON, Stage, Team, env_from, options, stamp_of, workload,
};

/// How far a restart is when the trap is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum During {
    /// The data has not changed yet.
    Due,
    /// The pod template is new, its pods are not.
    Rolling,
    /// One of two workloads, which restart one after the other, is rolling.
    Wave,
    /// The same, for want of a place.
    Turn,
}

/// What the operator says when it is killed: `NS` is the namespace of the team.
type Words = &'static [&'static str];

const LOOK: Words = &["GET /api/v1/namespaces/NS/pods?"];
const STAMP: Words = &["PATCH ", "/namespaces/NS/", "s/app?", SECRETS_HASH];
const LATER: Words = &["PATCH ", "/namespaces/NS/deployments/later?", SECRETS_HASH];
const RESTARTING: Words = &["PATCH ", STATUS, "\"state\":\"Restarting\""];
const VERIFIED: Words = &["PATCH ", STATUS, "\"reason\":\"Verified\""];
const IN_TURN: Words = &["PATCH ", STATUS, "waits for its turn"];
const IN_WAVE: Words = &["PATCH ", STATUS, "waits for Deployment app"];
const STATUS: &str = "/namespaces/NS/vaultsecrets/app/status?";

/// What it says only of restarts that take more than ten seconds.
const PROGRESS: [Words; 3] = [RESTARTING, IN_TURN, IN_WAVE];

/// Where it is killed: before the request is heard, or before its answer is. And of which kind the workloads are.
const POINTS: [(During, Pause, Words, &str); 17] = [
    (During::Due, Pause::Request, LOOK, "Deployment"),
    (During::Due, Pause::Request, STAMP, "StatefulSet"),
    (During::Due, Pause::Request, STAMP, "Rollout"),
    (During::Due, Pause::Answer, STAMP, "DaemonSet"),
    (During::Due, Pause::Answer, STAMP, "Rollout"),
    (During::Due, Pause::Request, RESTARTING, "Deployment"),
    (During::Due, Pause::Request, RESTARTING, "Rollout"),
    (During::Rolling, Pause::Request, LOOK, "StatefulSet"),
    (During::Rolling, Pause::Request, LOOK, "Rollout"),
    (During::Rolling, Pause::Request, VERIFIED, "DaemonSet"),
    (During::Rolling, Pause::Answer, VERIFIED, "Deployment"),
    (During::Rolling, Pause::Answer, VERIFIED, "Rollout"),
    (During::Wave, Pause::Request, IN_WAVE, "Deployment"),
    (During::Wave, Pause::Answer, LATER, "Deployment"),
    (During::Turn, Pause::Answer, IN_TURN, "Deployment"),
    (During::Turn, Pause::Request, LATER, "Deployment"),
    (During::Turn, Pause::Answer, LATER, "Deployment"),
];

/// One restart of a namespace at a time, so that two workloads take turns.
const ONE_BY_ONE: [&str; 2] = [
    "--leader-election=false",
    "--max-concurrent-rollouts-per-namespace=1",
];

impl During {
    /// The names of the workloads of a team.
    fn workloads(self) -> &'static [&'static str] {
        match self {
            Self::Due | Self::Rolling => &["app"],
            Self::Wave | Self::Turn => &["app", "later"],
        }
    }

    /// `app` comes before `later`.
    fn rollout(self) -> serde_json::Value {
        let mut rollout = json!({"settle": "1s"});
        if self == Self::Wave {
            rollout["waves"] = json!({"byLabel": "tier", "order": ["app"]});
        }
        json!({"rollout": rollout})
    }
}

/// Applies what the team restarts at a point, and waits until it is in step.
async fn prepare(
    team: &Team<'_>,
    during: During,
    (words, kind): (Words, &'static str),
) -> Vec<InStep> {
    team.put("app", &json!({"password": "one"})).await;
    team.vault_secret("app", during.rollout()).await;
    team.ready("app").await;
    for name in during.workloads() {
        let mut manifest = workload(kind, name, &env_from(&["app"]));
        manifest["metadata"]["labels"] = json!({"tier": name});
        // Which of two is first in the line is not said.
        if PROGRESS.contains(&words) {
            let slow = json!({"testbed.lockstep.dev/slow": "true"});
            manifest["spec"]["template"]["metadata"]["annotations"] = slow;
            manifest["spec"]["replicas"] = json!(3);
        }
        team.apply(&manifest).await;
    }
    let names = during.workloads().iter();
    join_all(names.map(|name| team.in_step("app", (kind, name), None))).await
}

#[tokio::test]
async fn an_operator_killed_at_any_step_of_a_restart_leaves_one_restart_that_is_verified() {
    let stage = Stage::own_without_operator().await;
    stage.argo_rollouts().await.unwrap();
    let plain = stage.plain_apiserver().await.unwrap();
    let front = Front::start(plain.address()).await;
    let start = async || {
        let options = OperatorOptions {
            kubeconfig: Some(stage.plain_kubeconfig(front.address()).unwrap()),
            ..options(ONE_BY_ONE.map(str::to_owned).into())
        };
        let operator = Bed::operator(&stage, &options).unwrap();
        operator.wait_ready(SOON).await.unwrap();
        operator
    };
    let mut operator: Operator = start().await;
    let mut teams = Vec::new();
    for _ in POINTS {
        teams.push(stage.team("step").await);
    }
    let prepared = teams.iter().zip(POINTS);
    let prepared =
        prepared.map(|(team, (during, _, words, kind))| prepare(team, during, (words, kind)));
    let before = join_all(prepared).await;

    for ((team, before), (during, pause, words, _)) in teams.iter().zip(&before).zip(POINTS) {
        let name = |word: &&str| word.replace("NS", &team.namespace);
        let words: Vec<_> = words.iter().map(name).collect();
        let change = async || {
            team.put("app", &json!({"password": "two"})).await;
            team.refresh("app", "now").await;
        };
        if during == During::Rolling {
            change().await;
            stamped(team, &before[0]).await;
            front.hold(pause, &words);
        } else {
            front.hold(pause, &words);
            change().await;
        }
        front.sprung().await;
        operator.kill().unwrap();
        // The restarts of the teams before go on meanwhile, and are cut off as well.
        operator = start().await;
    }
    let mut after = Vec::new();
    for (team, before) in teams.iter().zip(&before) {
        for one in before {
            after.push((team, team.restarted_once("app", one).await));
        }
        team.condition_is("app", "RolledOut", "True Verified").await;
    }
    teams[0].polled("app").await;
    for (team, one) in &after {
        team.not_restarted(one).await;
        let object = team.api::<VaultSecret>().get("app").await.unwrap();
        assert_eq!(object.metadata.generation, Some(1));
    }
}

/// Waits until the workload carries another hash.
async fn stamped(team: &Team<'_>, before: &InStep) {
    eventually(SOON, "a new stamp", async || {
        let found = team.workloads(before.kind).get(&before.name).await.unwrap();
        stamp_of(&found) != before.stamp
    })
    .await
    .unwrap();
}
