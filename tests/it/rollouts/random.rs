//! Whatever happens in whatever order: in the end every pod runs the current data, and nothing was restarted for nothing.
//!
//! What happens is drawn from one number, which is printed. `LOCKSTEP_SEED` sets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use lockstep::{
    api::vault_secret::WorkloadState,
    names::{RESTART_BY, RESTART_BY_TEMPLATE},
};
use lockstep_testbed::{Bed, Component, Operator, eventually};
use serde_json::json;

use crate::support::{SOON, Stage, Team, env_from, options, settle, stamp_of, text_of, workload};

/// What is drawn from unless the environment says otherwise.
const SEED: u64 = 20_261_121;

/// So often something happens, and so often it is quiet after that.
const STEPS: usize = 40;
const ROUNDS: usize = 5;

/// How long it may take to be quiet: an apiserver that was away is asked again after seconds.
const QUIET: Duration = Duration::from_mins(2);

const SECRETS: [&str; 4] = ["k0", "k1", "k2", "k3"];

/// Workloads, and the Secrets they use.
const WORKLOADS: [(&str, &str, &[&str]); 10] = [
    ("Deployment", "d0", &["k0"]),
    ("Deployment", "d1", &["k1"]),
    ("Deployment", "d2", &["k2", "k3"]),
    ("Deployment", "d3", &SECRETS),
    ("StatefulSet", "s0", &["k0", "k1"]),
    ("StatefulSet", "s1", &["k3"]),
    ("DaemonSet", "a0", &["k1", "k2"]),
    ("DaemonSet", "a1", &["k3"]),
    ("Rollout", BY_TIME, &["k0", "k2"]),
    ("Rollout", BY_TEMPLATE, &["k1"]),
];

/// The Rollout that is restarted by time, and the one by its template.
const BY_TIME: &str = "r0";
const BY_TEMPLATE: &str = "r1";

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// New data of this Secret.
    Rotate(&'static str),
    /// Another pod template of this workload.
    Edit(usize),
    /// So many pods of this workload, unless it is a DaemonSet.
    Scale(usize, u64),
    /// A pod of this workload goes.
    DeletePod(usize),
    /// The operator is killed and started again.
    Kill,
    /// The apiserver stands still for so many milliseconds.
    Pause(u64),
    /// It stands still, and meanwhile there is new data and the operator is killed.
    PauseAndKill(u64, &'static str),
    /// Nothing for so many milliseconds.
    Wait(u64),
}

/// Numbers that look random and follow from the first (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.roll(count as u64)).unwrap()
    }

    fn step(&mut self) -> Step {
        let secret = SECRETS[self.pick(SECRETS.len())];
        let workload = self.pick(WORKLOADS.len());
        match self.roll(100) {
            0..28 => Step::Rotate(secret),
            28..40 => Step::Edit(workload),
            40..52 => Step::Scale(workload, self.roll(4)),
            52..62 => Step::DeletePod(workload),
            62..70 => Step::Kill,
            70..77 => Step::Pause(50 + self.roll(900)),
            77..80 => Step::PauseAndKill(50 + self.roll(900), secret),
            _ => Step::Wait(50 + self.roll(1500)),
        }
    }
}

/// What a watch saw since everything was in step for the first time.
#[derive(Clone, Default)]
struct Seen {
    /// By workload: each hash that it was restarted for.
    stamps: BTreeMap<String, Vec<String>>,
    /// By workload: each time for which it was asked to restart, empty while it is not.
    times: BTreeMap<String, Vec<String>>,
    /// By Secret: each data it held, the first included.
    data: BTreeMap<String, Vec<String>>,
}

/// Puts `value` behind the others of `name` if it is another than the last.
fn note(all: &mut BTreeMap<String, Vec<String>>, name: String, value: String) {
    let of = all.entry(name).or_default();
    if of.last() != Some(&value) {
        of.push(value);
    }
}

/// Everything that takes part.
struct Play<'a> {
    stage: &'a Stage,
    team: &'a Team<'a>,
    operator: Operator,
    /// What was last put into each Secret.
    current: BTreeMap<&'static str, String>,
    /// How often the pod template of each workload was edited, and its number of pods changed.
    edits: [i64; WORKLOADS.len()],
    scales: [i64; WORKLOADS.len()],
    replicas: [u64; WORKLOADS.len()],
    puts: u32,
}

impl Play<'_> {
    async fn happen(&mut self, step: Step, dice: &mut Dice) {
        match step {
            Step::Rotate(secret) => self.rotate(secret).await,
            Step::Edit(which) => {
                self.edits[which] += 1;
                let annotations = json!({"edit": self.edits[which].to_string()});
                let template = json!({"metadata": {"annotations": annotations}});
                self.change(which, json!({"template": template})).await;
            }
            Step::Scale(which, replicas) => {
                if WORKLOADS[which].0 != "DaemonSet" && self.replicas[which] != replicas {
                    self.scales[which] += 1;
                    self.replicas[which] = replicas;
                    self.change(which, json!({"replicas": replicas})).await;
                }
            }
            Step::DeletePod(which) => {
                let pods = self.team.pods(WORKLOADS[which].1).await;
                if !pods.is_empty() {
                    let name = pods[dice.pick(pods.len())].name_any();
                    let api = self.team.api::<Pod>();
                    // Somebody else may be faster.
                    drop(api.delete(&name, &DeleteParams::default()).await);
                }
            }
            Step::Kill => self.kill(),
            Step::Pause(milliseconds) => {
                self.apiserver_pauses(milliseconds, async |_| {}).await;
            }
            Step::PauseAndKill(milliseconds, secret) => {
                let meanwhile = async |play: &mut Self| {
                    play.rotate(secret).await;
                    play.kill();
                };
                self.apiserver_pauses(milliseconds, meanwhile).await;
            }
            Step::Wait(milliseconds) => pass(milliseconds).await,
        }
    }

    async fn rotate(&mut self, secret: &'static str) {
        self.puts += 1;
        let data = format!("{secret}-{}", self.puts);
        self.team.put(secret, &json!({"password": data})).await;
        self.current.insert(secret, data);
    }

    fn kill(&mut self) {
        self.operator.kill().unwrap();
        self.operator = start(self.stage);
    }

    async fn apiserver_pauses(
        &mut self,
        milliseconds: u64,
        meanwhile: impl AsyncFnOnce(&mut Self),
    ) {
        let apiserver = self.stage.component(Component::Apiserver);
        apiserver.pause().unwrap();
        pass(milliseconds / 2).await;
        meanwhile(self).await;
        pass(milliseconds / 2).await;
        self.stage.component(Component::Apiserver).resume().unwrap();
    }

    /// Changes the spec of a workload as somebody would.
    async fn change(&self, which: usize, spec: serde_json::Value) {
        let (kind, name, _) = WORKLOADS[which];
        let patch = Patch::Merge(json!({"spec": spec}));
        let params = PatchParams::default();
        let workloads = self.team.workloads(kind);
        workloads.patch(name, &params, &patch).await.unwrap();
    }

    /// Waits until every Secret holds what was put last, every pod runs it, and everybody says so.
    async fn quiet(&self) {
        self.operator.wait_ready(SOON).await.unwrap();
        for (secret, data) in &self.current {
            eventually(QUIET, &format!("{secret} holds {data}"), async || {
                let found = self.team.secret(secret).await?;
                (text_of(&found, "password").as_ref() == Some(data)).then_some(())
            })
            .await
            .unwrap();
        }
        for (which, (_, name, _)) in WORKLOADS.iter().enumerate() {
            let what = format!("{name} runs current data");
            eventually(QUIET, &what, async || self.is_in_step(which).await)
                .await
                .unwrap();
        }
    }

    /// Says what is not as it should be with a workload, by its pods alone and by what is told.
    async fn is_in_step(&self, which: usize) -> Result<(), String> {
        let (kind, name, secrets) = WORKLOADS[which];
        let pods = self.team.pods(name).await;
        let wanted = match kind {
            "DaemonSet" => 3,
            _ => self.replicas[which],
        };
        if pods.len() as u64 != wanted {
            return Err(format!("{} pods of {wanted}", pods.len()));
        }
        for secret in secrets {
            let since = written(&self.team.secret(secret).await.unwrap());
            let old = pods.iter().find(|pod| started(pod) <= Some(since));
            if let Some(old) = old {
                return Err(format!(
                    "{} is older than the data of {secret}",
                    old.name_any()
                ));
            }
        }
        let mut hashes = BTreeSet::new();
        for secret in secrets {
            let status = self.team.workload_status(secret, name).await;
            let status = status.ok_or("it is not in the status")?;
            if status.state != WorkloadState::Verified {
                return Err(format!("{status:?}"));
            }
            hashes.insert(status.hash);
        }
        (hashes.len() == 1)
            .then_some(())
            .ok_or_else(|| format!("{hashes:?}"))
    }

    /// Nothing was restarted more often than the data changed, and never twice for the same.
    async fn has_restarted_nothing_for_nothing(&self, seen: &Seen, before: &[i64]) {
        for (which, (kind, name, secrets)) in WORKLOADS.iter().enumerate() {
            let stamps = seen.stamps.get(*name).cloned().unwrap_or_default();
            let distinct: BTreeSet<_> = stamps.iter().collect();
            assert_eq!(distinct.len(), stamps.len(), "{name}: {stamps:?}");
            let changes = |secret: &&str| seen.data[*secret].len() - 1;
            let changes: usize = secrets.iter().map(changes).sum();
            assert!(
                stamps.len() <= changes,
                "{name}: {stamps:?}, {changes} changes"
            );
            let (_, template) = self.team.template(kind, name).await;
            let restarts = i64::try_from(stamps.len()).unwrap();
            let rolled = template - before[which];
            if *kind == "Deployment" {
                // Two changes in a row may become one.
                assert!(rolled <= restarts + self.edits[which], "{name}: {rolled}");
                continue;
            }
            let mut all = restarts + self.edits[which] + self.scales[which];
            if *name == BY_TIME {
                let times = &seen.times[*name][1..];
                let taken_back = times.iter().filter(|time| time.is_empty()).count();
                assert_eq!(times.len() - taken_back, stamps.len(), "{name}: {times:?}");
                // What is proved to need no restart takes back the one before.
                all += i64::try_from(taken_back).unwrap();
            }
            assert_eq!(rolled, all, "{name}");
        }
    }
}

/// Lets time pass: when something happens is drawn as well.
async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

fn start(stage: &Stage) -> Operator {
    let flags = ["--leader-election=false".to_owned()];
    Bed::operator(stage, &options(flags.into())).unwrap()
}

/// When the data of the Secret was written, in whole seconds.
fn written(secret: &Secret) -> Timestamp {
    let entries = secret.metadata.managed_fields.as_deref().unwrap();
    let times = entries.iter().filter_map(|entry| entry.time.as_ref());
    times.map(|time| time.0).max().unwrap()
}

/// When the kubelet began with the pod, in whole seconds.
fn started(pod: &Pod) -> Option<Timestamp> {
    let start = pod.status.as_ref()?.start_time.as_ref()?;
    Some(start.0)
}

/// Watches the workloads and Secrets of the team from now on.
fn watch(team: &Team<'_>) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "Rollout"] {
        let (api, seen) = (team.workloads(kind), Arc::clone(&seen));
        tokio::spawn(follow(api, watcher::Config::default(), move |object| {
            let mut seen = seen.lock().unwrap();
            if let Some(stamp) = stamp_of(object) {
                note(&mut seen.stamps, object.name_any(), stamp);
            }
            let time = object.data["spec"]["restartAt"].as_str();
            let time = time.unwrap_or_default().to_owned();
            note(&mut seen.times, object.name_any(), time);
        }));
    }
    let (api, noted): (Api<DynamicObject>, _) = (secrets(team), Arc::clone(&seen));
    tokio::spawn(follow(api, watcher::Config::default(), move |object| {
        if let Some(data) = object.data["data"]["password"].as_str() {
            let mut seen = noted.lock().unwrap();
            note(&mut seen.data, object.name_any(), data.to_owned());
        }
    }));
    seen
}

fn secrets(team: &Team<'_>) -> Api<DynamicObject> {
    let resource = kube::core::ApiResource::erase::<Secret>(&());
    Api::namespaced_with(team.client.clone(), &team.namespace, &resource)
}

/// Shows every version of every object, also past an apiserver that stood still.
async fn follow(api: Api<DynamicObject>, config: watcher::Config, look: impl Fn(&DynamicObject)) {
    let mut events = watcher(api, config)
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(event) = events.next().await {
        if let Ok(object) = event {
            look(&object);
        }
    }
}

/// Ten workloads in step with four Secrets.
async fn furnish(team: &Team<'_>) -> Vec<i64> {
    for name in SECRETS {
        team.put(name, &json!({"password": name})).await;
        team.vault_secret(name, settle("1s")).await;
        team.ready(name).await;
    }
    team.polled("k0").await;
    for (kind, name, secrets) in WORKLOADS {
        let mut manifest = workload(kind, name, &env_from(secrets));
        if name == BY_TEMPLATE {
            manifest["metadata"]["annotations"] = json!({RESTART_BY: RESTART_BY_TEMPLATE});
        }
        team.apply(&manifest).await;
    }
    let each = WORKLOADS.map(|(kind, name, secrets)| team.in_step(secrets[0], (kind, name), None));
    join_all(each)
        .await
        .iter()
        .map(|one| one.template)
        .collect()
}

#[expect(clippy::print_stdout, reason = "shown when the test fails")]
#[tokio::test]
async fn two_hundred_random_steps_leave_every_pod_on_current_data_and_restart_nothing_for_nothing()
{
    let number = std::env::var_os("LOCKSTEP_SEED")
        .map_or(SEED, |text| text.into_string().unwrap().parse().unwrap());
    println!("LOCKSTEP_SEED={number}");
    let mut stage = Stage::own().await;
    stage.argo_rollouts().await.unwrap();
    let operator = stage.operator.take().unwrap();
    let team = stage.team("dice").await;
    let before = furnish(&team).await;
    let seen = watch(&team);
    let watched = async || seen.lock().unwrap().data.len() == SECRETS.len();
    eventually(SOON, "the first data", watched).await.unwrap();
    let mut play = Play {
        stage: &stage,
        team: &team,
        operator,
        current: BTreeMap::new(),
        edits: [0; WORKLOADS.len()],
        scales: [0; WORKLOADS.len()],
        replicas: [2; WORKLOADS.len()],
        puts: 0,
    };
    let (mut dice, start) = (Dice(number), Instant::now());
    for _ in 0..ROUNDS {
        for _ in 0..STEPS {
            let step = dice.step();
            println!("{:>7.3} {step:?}", start.elapsed().as_secs_f32());
            play.happen(step, &mut dice).await;
        }
        play.quiet().await;
        println!("{:>7.3} quiet", start.elapsed().as_secs_f32());
        let seen = seen.lock().unwrap().clone();
        play.has_restarted_nothing_for_nothing(&seen, &before).await;
    }
    let quiet = seen.lock().unwrap().stamps.clone();
    play.kill();
    play.quiet().await;
    team.polled("k0").await;
    assert_eq!(seen.lock().unwrap().stamps, quiet, "by a new operator");
}
