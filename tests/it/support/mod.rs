//! The stage of a test: a bed with the CRDs, a connection and a login for everybody, and an operator.
//!
//! Tests that leave others alone share one stage ([`Stage::shared`]) and work in a [`Team`] of their own, at the
//! same time. Tests that kill, seal, pause, or count everything have a stage to themselves ([`Stage::own`]).

mod authority;
mod canary;
mod database;
mod front;
mod good;
mod inspect;
mod stand_in;
mod team;
mod workloads;

use std::{ops::Deref, path::PathBuf, time::Duration};

use lockstep_testbed::{Bed, Operator, OperatorOptions};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

pub use self::{
    authority::{Pki, SHORT, bytes_of, greets},
    canary::{Canary, hex},
    database::{Credentials, KEEP, LONG, Role, Ttl},
    front::{Front, Pause},
    good::{Good, good_data, most_within},
    stand_in::{Answer, Asked, StandIn},
    team::{Team, text_of},
    workloads::{InStep, PATIENCE, env_from, pod_stamp, settle, stamp_of, workload},
};

/// How long anything may take that takes milliseconds on a quiet machine.
pub const SOON: Duration = Duration::from_secs(30);

/// How long the garbage collector may take: it looks for new kinds every 30 seconds.
pub const GARBAGE: Duration = Duration::from_mins(2);

/// What an operator of a test is started with, unless it says otherwise.
const ARGUMENTS: [&str; 1] = ["--leader-election=false"];

/// A bed with an operator.
pub struct Stage {
    bed: Held,
    /// The operator; `None` while none runs.
    pub operator: Option<Operator>,
    _turn: Option<SemaphorePermit<'static>>,
}

enum Held {
    Shared(&'static Bed),
    Own(Box<Bed>),
}

/// Beds of their own that may run at once: each is six processes.
static TURNS: Semaphore = Semaphore::const_new(2);

impl Stage {
    /// The stage that most tests share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Stage> = OnceCell::const_new();
        let make = || async {
            let bed = Bed::shared().await.unwrap();
            Self::set_up(Held::Shared(bed), None, &[]).await
        };
        SHARED.get_or_init(make).await
    }

    /// A stage of its own, with an operator.
    pub async fn own() -> Self {
        Self::own_with(&[]).await
    }

    /// A stage of its own, whose operator is started with these arguments besides.
    pub async fn own_with(arguments: &[&str]) -> Self {
        let turn = TURNS.acquire().await.unwrap();
        let bed = Bed::start().await.unwrap();
        Self::set_up(Held::Own(Box::new(bed)), Some(turn), arguments).await
    }

    /// A stage of its own on which no operator runs yet.
    pub async fn own_without_operator() -> Self {
        let turn = TURNS.acquire().await.unwrap();
        let bed = Bed::start().await.unwrap();
        Self::furnish(Held::Own(Box::new(bed)), Some(turn)).await
    }

    async fn set_up(bed: Held, turn: Option<SemaphorePermit<'static>>, arguments: &[&str]) -> Self {
        let mut stage = Self::furnish(bed, turn).await;
        stage.start_operator(arguments).await;
        stage
    }

    async fn furnish(bed: Held, turn: Option<SemaphorePermit<'static>>) -> Self {
        let stage = Self {
            bed,
            operator: None,
            _turn: turn,
        };
        stage.install_crds(&crds()).await.unwrap();
        stage
            .login_for_everybody("tenant", &["tenant"], "1h")
            .await
            .unwrap();
        stage
    }

    /// Starts an operator and waits until it is ready.
    pub async fn start_operator(&mut self, arguments: &[&str]) {
        let usual = ARGUMENTS
            .iter()
            .filter(|usual| !sets_anew(arguments, usual));
        let arguments = usual.chain(arguments).map(|text| (*text).to_owned());
        let operator = self.bed().operator(&options(arguments.collect())).unwrap();
        operator.wait_ready(SOON).await.unwrap();
        self.operator = Some(operator);
    }

    /// The operator that runs.
    pub fn operator(&self) -> &Operator {
        self.operator.as_ref().unwrap()
    }

    /// A tenant: a namespace, and a Vault role that may read `secret/<namespace>/*`.
    pub async fn team(&self, prefix: &str) -> Team<'_> {
        Team::new(self, prefix).await
    }

    fn bed(&self) -> &Bed {
        match &self.bed {
            Held::Shared(bed) => bed,
            Held::Own(bed) => bed,
        }
    }
}

impl Deref for Stage {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        self.bed()
    }
}

/// Whether `arguments` give the flag of `usual` another value.
fn sets_anew(arguments: &[&str], usual: &str) -> bool {
    let flag = |argument: &str| argument.split_once('=').map(|(flag, _)| flag.to_owned());
    arguments
        .iter()
        .any(|argument| flag(argument) == flag(usual))
}

/// How to start the operator under test with these arguments.
pub fn options(args: Vec<String>) -> OperatorOptions {
    OperatorOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_lockstep")),
        args,
        ..OperatorOptions::default()
    }
}

/// The definitions as they are shipped.
pub fn crds() -> String {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    let files = std::fs::read_dir(directory).unwrap();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    texts.collect::<Vec<_>>().join("\n---\n")
}
