//! Effects: processes, files, stdout — the demo: what the operator does, told as it is seen to happen.

mod cluster;
mod operator;
mod quickstart;
mod screen;
mod story;

use std::process::ExitCode;

use lockstep_testbed::Bed;

use self::{operator::Program, screen::Screen, story::Story};
use crate::{
    bed::{Interruption, print_exports},
    failure::Failure,
};

/// Tells the story; with `keep`, leaves its world standing until Ctrl-C.
pub(crate) fn run(keep: bool) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Prepare)?;
    runtime.block_on(Box::pin(tell(keep)))
}

async fn tell(keep: bool) -> Result<ExitCode, Failure> {
    let program = Program::build().await?;
    let mut screen = Screen::open();
    screen.chapter("A control plane, three nodes and Vault");
    let bed = Bed::start().await?;
    screen.seen(
        "etcd, kube-apiserver, controller-manager, scheduler, kubectl and Vault: the real ones",
    );
    Screen::note(
        "Only the kubelets are played (by KWOK): a pod becomes ready, its container does not run.",
    );
    let mut story = Story::new(&bed, program, screen).await?;
    let told = Box::pin(story.tell()).await;
    if told.is_err() {
        bed.keep_directory();
        println!("\nThe demo stopped in chapter {}.", story.chapter());
        println!(
            "Logs of all parts, the operator's too: {}\n",
            bed.directory().display()
        );
    }
    told?;
    if keep {
        stay(&bed).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The operator runs on for as long as the story holds it.
async fn stay(bed: &Bed) -> Result<(), Failure> {
    let interruption = Interruption::watch()?;
    println!("\n# Everything stays up until Ctrl-C. In another shell:");
    print_exports(bed)?;
    println!("# For example: vault kv put secret/shop/database DB_USER=checkout DB_PASSWORD=yours");
    println!("#              kubectl -n shop get vsec,pods");
    interruption.wait().await
}
