//! Pure: the places in Vault that can be read again and again.

use super::path::{MountPath, SecretPath, VaultNamespace};
use super::request::KvVersion;

/// Where values are. Whoever means the same place shares its readings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// One secret of a KV engine.
    Kv(KvPlace),
}

/// One secret of a KV engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvPlace {
    /// The namespace; that of the identity when `None`.
    pub namespace: Option<VaultNamespace>,
    /// Where the KV engine is mounted.
    pub mount: MountPath,
    /// The path below the mount.
    pub path: SecretPath,
    /// The version of the engine; looked up when `None`.
    pub engine: Option<KvVersion>,
    /// The version of the secret; the latest when `None`. Ignored by KV version 1.
    pub version: Option<u64>,
}
