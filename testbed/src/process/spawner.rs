//! Effects: threads, processes — starts children that die with this process, however it ends.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that started the child ends.
//! A test's runtime ends its threads with the test, so every child is started from one thread that lives as long as
//! the process.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{OnceLock, mpsc},
    thread,
};

use rustix::process::{Signal, set_parent_process_death_signal};

struct Job {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Starts `command` such that the kernel kills the child when this process is gone.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    die_with_parent(&mut command);
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner().send(Job { command, reply }).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for Job { mut command, reply } in jobs {
                // Whoever asked and went away gets no child: the answer is dropped, and with it a handle nobody reads.
                drop(reply.send(command.spawn()));
            }
        });
        sender
    })
}

#[expect(
    unsafe_code,
    reason = "there is no safe way to ask for a signal at the parent's death"
)]
fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is one, and nothing allocates.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}
