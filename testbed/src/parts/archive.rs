//! Effects: files — unpacks the two kinds of archive that parts come in.

use std::{
    fs,
    io::{Cursor, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::PartError;

/// Unpacks what is below the second level of a zip, such as that of a Go module, where `host/module@version/` is in front
/// of each name, or a wheel.
///
/// A module zip keeps no permissions, so everything becomes executable: harmless for sources, needed for tools.
pub(crate) fn unpack_zip(name: &str, bytes: &[u8], target: &Path) -> Result<(), PartError> {
    let mut archive = open(name, bytes)?;
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| broken(name, &error))?;
        let inside = entry
            .enclosed_name()
            .ok_or_else(|| broken(name, &"a name leads out of the archive"))?;
        let below: PathBuf = inside.components().skip(2).collect();
        if entry.is_dir() || below.as_os_str().is_empty() {
            continue;
        }
        let path = target.join(below);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(PartError::file("create", parent))?;
        }
        let mut content = Vec::new();
        entry
            .read_to_end(&mut content)
            .map_err(|error| broken(name, &error))?;
        fs::write(&path, content).map_err(PartError::file("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(PartError::file("make executable", &path))?;
    }
    Ok(())
}

/// Unpacks the one `.txz` inside a zip below `target`.
pub(crate) fn unpack_txz_in_zip(name: &str, bytes: &[u8], target: &Path) -> Result<(), PartError> {
    let mut archive = open(name, bytes)?;
    let inner = archive
        .file_names()
        // A name that cannot be read is not the one that is looked for.
        .filter_map(Result::ok)
        .find(|inner| inner.ends_with(".txz"))
        .map(std::borrow::Cow::into_owned)
        .ok_or_else(|| broken(name, &"there is no .txz in it"))?;
    let compressed = archive
        .by_name(&inner)
        .map_err(|error| broken(name, &error))?;
    let plain = lzma_rust2::XzReader::new(compressed, true);
    tar::Archive::new(plain)
        .unpack(target)
        .map_err(|error| broken(name, &error))
}

fn open<'a>(name: &str, bytes: &'a [u8]) -> Result<zip::ZipArchive<Cursor<&'a [u8]>>, PartError> {
    zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(name, &error))
}

fn broken(name: &str, reason: &dyn std::fmt::Display) -> PartError {
    PartError::Archive {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}
