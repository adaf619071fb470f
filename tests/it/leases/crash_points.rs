//! The operator is killed wherever it is about to tell somebody something, or has just told it.

use std::{path::PathBuf, time::Duration};

use lockstep::{api::vault_secret::VaultSecret, names::SECRETS_HASH};
use lockstep_testbed::{Bed, Operator, OperatorOptions, eventually};
use serde_json::json;

use super::{APP, consumer};
use crate::support::{
    Credentials, Front, InStep, LONG, Pause, Role, SOON, Stage, Team, Ttl, options,
};

/// Long enough to be renewed by an operator that was just started, short enough to wait for the end of a lost one.
const SHORT: Ttl = Ttl {
    default: "20s",
    max: "1h",
};
/// By then a lease that nobody knows has ended.
const OVER: Duration = Duration::from_mins(1);

/// How long leases live: short where a lost one has to end by itself, or is to be renewed; else so long that only who
/// knows a lease can have ended it.
fn ttl(during: During, pause: Pause, words: Words) -> Ttl {
    let lost = [(Pause::Answer, ISSUE), (Pause::Request, WRITE)];
    if during == During::Renewal || lost.contains(&(pause, words)) {
        SHORT
    } else {
        LONG
    }
}

/// What the operator is doing when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum During {
    Birth,
    Renewal,
    Rotation,
    Deletion,
}

/// Whom it is talking to.
#[derive(Clone, Copy, Debug)]
enum With {
    Vault,
    Apiserver,
}

/// What it is about to say: `NS` is the namespace of the team.
type Words = &'static [&'static str];

const ISSUE: Words = &["GET /v1/database/creds/NS-app"];
const RENEW: Words = &["/v1/sys/leases/renew", "database/creds/NS-app/"];
const REVOKE: Words = &["/v1/sys/leases/revoke", "database/creds/NS-app/"];
const WRITE: Words = &["PATCH ", "/namespaces/NS/secrets/app?"];
const STAMP: Words = &["PATCH ", "/namespaces/NS/deployments/app?", SECRETS_HASH];
const FINALIZER: Words = &[
    "PATCH ",
    "/namespaces/NS/vaultsecrets/app?",
    "[\"lockstep.dev/",
];
const NO_FINALIZER: Words = &[
    "PATCH ",
    "/namespaces/NS/vaultsecrets/app?",
    "\"finalizers\":[]",
];

const STATUS: Words = &["PATCH ", "/namespaces/NS/vaultsecrets/app/status?"];

/// Each is tried twice: before the request is heard, and before its answer is.
const POINTS: [(During, With, Words); 11] = [
    (During::Birth, With::Apiserver, FINALIZER),
    (During::Birth, With::Vault, ISSUE),
    (During::Birth, With::Apiserver, WRITE),
    (During::Renewal, With::Vault, RENEW),
    (During::Rotation, With::Vault, ISSUE),
    (During::Rotation, With::Apiserver, WRITE),
    (During::Rotation, With::Apiserver, STAMP),
    (During::Rotation, With::Vault, REVOKE),
    (During::Deletion, With::Vault, REVOKE),
    (During::Deletion, With::Apiserver, NO_FINALIZER),
    (During::Birth, With::Apiserver, STATUS),
];

/// A stage whose operator reaches Vault and the apiserver through fronts.
struct Scene<'a> {
    stage: &'a Stage,
    vault: Front,
    apiserver: Front,
    kubeconfig: PathBuf,
}

/// A team after its operator was killed and another one has put things right.
struct Survivor<'a> {
    what: String,
    team: &'a Team<'a>,
    role: Role<'a>,
    login: Credentials,
    workload: Option<InStep>,
}

impl Scene<'_> {
    async fn operator(&self) -> Operator {
        let options = OperatorOptions {
            kubeconfig: Some(self.kubeconfig.clone()),
            ..options(vec!["--leader-election=false".into()])
        };
        let operator = Bed::operator(self.stage, &options).unwrap();
        operator.wait_ready(SOON).await.unwrap();
        operator
    }

    /// Kills the operator when it gets there; returns the next one.
    async fn kill(
        &self,
        operator: Operator,
        pause: Pause,
        (with, words): (With, &[String]),
        action: impl AsyncFnOnce(),
    ) -> Operator {
        let front = match with {
            With::Vault => &self.vault,
            With::Apiserver => &self.apiserver,
        };
        front.hold(pause, words);
        action().await;
        front.sprung().await;
        operator.kill().unwrap();
        self.operator().await
    }
}

#[tokio::test]
async fn an_operator_killed_anywhere_leaves_one_lease_per_source_and_restarts_nothing_twice() {
    let stage = Stage::own_without_operator().await;
    let plain = stage.plain_apiserver().await.unwrap();
    let apiserver = Front::start(plain.address()).await;
    let vault = Front::start(stage.vault_socket().unwrap()).await;
    let address = format!("http://{}", vault.address());
    let connection = json!({
        "apiVersion": "lockstep.dev/v1alpha1", "kind": "ClusterVaultConnection",
        "metadata": {"name": "main"}, "spec": {"address": address},
    });
    stage.apply_yaml(&connection.to_string()).await.unwrap();
    let scene = Scene {
        stage: &stage,
        kubeconfig: stage.plain_kubeconfig(apiserver.address()).unwrap(),
        vault,
        apiserver,
    };
    let mut teams = Vec::new();
    for _ in 0..2 * POINTS.len() {
        teams.push(stage.team("point").await);
    }
    let mut operator = scene.operator().await;
    let mut survivors = Vec::new();
    for (number, team) in teams.iter().enumerate() {
        let pause = [Pause::Request, Pause::Answer][number % 2];
        let (during, with, spoken) = POINTS[number / 2];
        let what = format!("{during:?}, {pause:?} of {}", spoken.join(" … "));
        let words: Vec<_> = spoken
            .iter()
            .map(|word| word.replace("NS", &team.namespace))
            .collect();
        let kill = (operator, pause, (with, words.as_slice()));
        let life = (during, ttl(during, pause, spoken));
        let (next, survivor) = at(&scene, kill, life, team).await;
        operator = next;
        survivors.extend(survivor.map(|(role, login, workload)| Survivor {
            what,
            team,
            role,
            login,
            workload,
        }));
    }
    for survivor in &survivors {
        survivor.holds_one_lease().await;
    }
}

type Kill<'a> = (Operator, Pause, (With, &'a [String]));
type Left<'a> = (Role<'a>, Credentials, Option<InStep>);

/// One point: what is there before, the kill, and what the next operator makes of it.
async fn at<'a>(
    scene: &Scene<'_>,
    (operator, pause, place): Kill<'_>,
    (during, ttl): (During, Ttl),
    team: &'a Team<'a>,
) -> (Operator, Option<Left<'a>>) {
    let role = Role::new(team, "app", ttl).await;
    let mut source = role.source();
    if during == During::Renewal {
        source["renewAt"] = json!("10%");
    }
    let born = async || team.issue("app", &[source], json!({})).await;
    if during == During::Birth {
        let operator = scene.kill(operator, pause, place, born).await;
        team.ready("app").await;
        let login = team.credentials_other_than("app", None).await;
        return (operator, Some((role, login, None)));
    }
    born().await;
    team.ready("app").await;
    consumer(team).await;
    let before = team.in_step("app", APP, None).await;
    let old = team.credentials_other_than("app", None).await;
    let action = async || match during {
        During::Rotation => team.annotate("app", "lockstep.dev/rotate", "now").await,
        During::Deletion => team.delete::<VaultSecret>("app").await,
        During::Birth | During::Renewal => {}
    };
    let operator = scene.kill(operator, pause, place, action).await;
    if during == During::Deletion {
        let gone = async || {
            (!team.exists("app").await)
                .then_some(())
                .ok_or("it is there")
        };
        eventually(SOON, "the object is gone", gone).await.unwrap();
        assert_eq!(role.leases().await, Vec::<String>::new());
        team.refused(&old).await;
        return (operator, None);
    }
    if during == During::Renewal {
        team.ready("app").await;
        team.not_restarted(&before).await;
        assert_eq!(team.credentials("app").await, Some(old.clone()));
        return (operator, Some((role, old, Some(before))));
    }
    let new = team.credentials_other_than("app", Some(&old)).await;
    let after = team.restarted_once("app", &before).await;
    team.refused(&old).await;
    (operator, Some((role, new, Some(after))))
}

impl Survivor<'_> {
    async fn holds_one_lease(&self) {
        let Self { team, role, .. } = self;
        let agree = async || {
            let (live, recorded) = (role.leases().await, team.recorded_lease("app").await);
            let one = live.len() == 1 && live.first() == recorded.as_ref();
            one.then_some(())
                .ok_or_else(|| format!("{live:?}, {recorded:?}"))
        };
        let what = format!("one lease, which is the recorded one, after {}", self.what);
        eventually(OVER, &what, agree).await.unwrap();
        assert_eq!(
            team.credentials("app").await.as_ref(),
            Some(&self.login),
            "{}",
            self.what
        );
        assert!(team.logs_in(&self.login).await, "{}", self.what);
        if let Some(workload) = &self.workload {
            team.not_restarted(workload).await;
        }
    }
}
