//! Effects: files — one temporary directory per bed, removed with it, and the sweeping of what dead processes left.
//!
//! A directory is alive while its process holds the lock on the file `alive` in it: a lock ends with its process, and
//! unlike a process id it is never reused.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const PREFIX: &str = "lockstep-bed-";

/// Held by the process that uses the directory.
const ALIVE: &str = "alive";

/// Present when the directory is to stay for somebody to read.
const KEEP: &str = "keep";

/// How long the directory of a failed test is kept: until the next day's work.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// The directory of one bed.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _alive: File,
    kept: AtomicBool,
}

impl Directory {
    /// Makes a new one, after removing those of processes that are gone.
    pub(crate) fn create() -> io::Result<Self> {
        let parent = env::temp_dir();
        sweep(&parent);
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&parent)?
            .keep();
        // Others may pass through, so that PostgreSQL, which refuses to be root, reaches its part of it.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        // Locked before it has its name, so that no sweep sees it unlocked.
        let unnamed = path.join("alive.new");
        let alive = File::create(&unnamed)?;
        alive.lock()?;
        fs::rename(&unnamed, path.join(ALIVE))?;
        let directory = Self {
            path,
            _alive: alive,
            kept: AtomicBool::new(false),
        };
        if env::var_os("LOCKSTEP_BED_KEEP").is_some_and(|value| value == "1") {
            directory.keep();
        }
        Ok(directory)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Leaves it for somebody to read, and says where it is, once.
    pub(crate) fn keep(&self) {
        if self.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        // Telling is all that can be done here, and the directory is kept by the flag as long as this process lives.
        drop(fs::write(self.path.join(KEEP), ""));
        drop(writeln!(
            io::stderr().lock(),
            "testbed: logs are kept in {}",
            self.path.display()
        ));
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep();
        }
        if !self.kept.load(Ordering::Relaxed) {
            // What stays behind is swept by the next bed.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// Removes the directories of dead processes. Whatever cannot be removed is left: it is not worth failing for.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && is_dead(&path)
            && !is_kept(&path)
        {
            drop(fs::remove_dir_all(&path));
        }
    }
}

fn is_dead(path: &Path) -> bool {
    // No such file: it is being made at this moment.
    File::open(path.join(ALIVE)).is_ok_and(|file| file.try_lock().is_ok())
}

fn is_kept(path: &Path) -> bool {
    let age = fs::metadata(path.join(KEEP))
        .and_then(|kept| kept.modified())
        .map(|since| since.elapsed());
    matches!(age, Ok(Ok(age)) if age < KEPT_FOR)
}
