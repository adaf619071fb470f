//! Effects: processes, files — one child process: started, paused, killed, started again; killed at drop.

mod spawner;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Everything needed to start a program, once or again.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What the process is called in messages and in the name of its log.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What is added to the environment.
    pub environment: Vec<(String, OsString)>,
    /// The user to run as, where it is not ours.
    pub user: Option<u32>,
    /// The working directory.
    pub directory: PathBuf,
    /// Where stdout and stderr go; appended to.
    pub log: PathBuf,
}

/// Why a process could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It did not start.
    #[error("start {name}")]
    Start {
        /// Which process.
        name: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It could not be signalled or waited for.
    #[error("control {name}")]
    Control {
        /// Which process.
        name: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not there any more.
    #[error("{name} is not running")]
    Gone {
        /// Which process.
        name: &'static str,
    },
}

/// A running child process. It is killed when the handle is dropped, or when this process dies.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: Mutex<Child>,
}

impl Launch {
    /// Starts the program.
    pub fn start(self) -> Result<Process, ProcessError> {
        let child = self.spawn().map_err(|source| ProcessError::Start {
            name: self.name,
            source,
        })?;
        Ok(Process {
            child: Mutex::new(child),
            launch: self,
        })
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(File::open("/dev/null")?)
            .stderr(log.try_clone()?)
            .stdout(log);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        spawner::spawn(command)
    }
}

impl Process {
    /// What the process is called.
    pub const fn name(&self) -> &'static str {
        self.launch.name
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// What it wrote to stdout and stderr so far, over all of its starts.
    pub fn log_text(&self) -> String {
        // The file is made before the process is; should it be gone, there is nothing to tell.
        fs::read(&self.launch.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log, for messages.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 20;
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(LINES)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// How it ended, if it did.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        // A child that cannot be asked was waited for elsewhere; that cannot be, the handle is ours.
        self.child().try_wait().ok().flatten()
    }

    /// Stops it in its tracks (`SIGSTOP`): its sockets stay open, and nothing answers.
    pub fn pause(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused process go on (`SIGCONT`).
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    /// Kills it (`SIGKILL`) and waits until it is gone. Killing what is gone already is fine.
    pub fn kill(&self) -> Result<(), ProcessError> {
        let mut child = self.child();
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(|source| self.control(source))?;
        Ok(())
    }

    /// Asks it to end (`SIGTERM`) and waits; after `grace` it is killed. Returns how it ended and after how long.
    ///
    /// Blocks.
    pub fn terminate(&self, grace: Duration) -> Result<(ExitStatus, Duration), ProcessError> {
        let started = Instant::now();
        self.signal(Signal::TERM)?;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok((status, started.elapsed()));
            }
            if started.elapsed() > grace {
                self.kill()?;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it and starts it again with the same arguments.
    pub fn restart(&self) -> Result<(), ProcessError> {
        self.kill()?;
        let started = self.launch.spawn().map_err(|source| ProcessError::Start {
            name: self.launch.name,
            source,
        })?;
        *self.child() = started;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        // Held while the signal is sent, so that nobody else reaps the child and its id cannot be another's.
        let mut child = self.child();
        let gone = child
            .try_wait()
            .map_err(|source| self.control(source))?
            .is_some();
        let id = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .filter(|_| !gone);
        let id = id.ok_or(ProcessError::Gone {
            name: self.launch.name,
        })?;
        kill_process(id, signal).map_err(|error| self.control(error.into()))
    }

    fn control(&self, source: io::Error) -> ProcessError {
        ProcessError::Control {
            name: self.launch.name,
            source,
        }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        // A panic elsewhere does not make the handle wrong.
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to be told; the kernel kills it at the latest when this process ends.
        drop(self.kill());
    }
}
