//! Effects: files — the per-user cache: each entry is made once, under a lock, and appears at once or not at all.

use std::{
    env, fs,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{PartError, progress};

/// A key that changes whenever one of the inputs changes.
pub(crate) fn key(inputs: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for input in inputs {
        digest.update(u64::try_from(input.len()).unwrap_or(u64::MAX).to_le_bytes());
        digest.update(input);
    }
    hex(&digest.finalize()).chars().take(16).collect()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The directory of the entry `<part>-<key>`, made by `build` when it is not there yet.
///
/// `build` gets an empty directory and may leave half of its work there when it fails: nobody else sees it.
pub(crate) fn entry(
    part: &'static str,
    key: &str,
    build: impl FnOnce(&Path) -> Result<(), PartError>,
) -> Result<PathBuf, PartError> {
    let root = root()?;
    let wanted = root.join(format!("{part}-{key}"));
    if wanted.is_dir() {
        return Ok(wanted);
    }
    fs::create_dir_all(&root).map_err(PartError::file("create", &root))?;
    let _held = lock(part, &root.join(format!("{part}-{key}.lock")))?;
    if wanted.is_dir() {
        return Ok(wanted);
    }
    // Under the lock there is one builder only, so the name need not be unique; what a crash left is replaced.
    let partial = root.join(format!("{part}-{key}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(PartError::file("remove", &partial))?;
    }
    fs::create_dir(&partial).map_err(PartError::file("create", &partial))?;
    build(&partial)?;
    fs::rename(&partial, &wanted).map_err(PartError::file("rename to", &wanted))?;
    Ok(wanted)
}

fn root() -> Result<PathBuf, PartError> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .ok_or(PartError::NoCacheDirectory)?;
    Ok(cache.join("lockstep").join("testbed"))
}

fn lock(part: &'static str, path: &Path) -> Result<File, PartError> {
    let file = File::create(path).map_err(PartError::file("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress::line(part, "another process is making it, waiting");
            file.lock().map_err(PartError::file("lock", path))?;
            Ok(file)
        }
        Err(TryLockError::Error(source)) => Err(PartError::file("lock", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn a_key_depends_on_where_one_input_ends() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_eq!(key(&[b"ab"]).len(), 16);
    }
}
