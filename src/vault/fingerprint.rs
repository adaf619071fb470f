//! Pure: keyed digests of what was read, to see a change without keeping the values.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::response::KvData;

/// Digest of the data of one reading. Comparable within one process only.
pub type Fingerprint = [u8; 32];

/// The key of all fingerprints of a process: random, and gone when the process ends.
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

impl FingerprintKey {
    /// The key made of these random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// The digest of the entries. The version and the request id are not part of it: a new version
    /// with the same data is not a change.
    pub fn digest(&self, data: &KvData) -> Fingerprint {
        // HMAC takes keys of any length, so the error cannot happen; a constant would be noticed
        // by no one but would only say "changed" too rarely, so fall back to it rather than panic.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else {
            return Fingerprint::default();
        };
        for (key, value) in &data.entries {
            frame(&mut mac, key.as_bytes());
            frame(&mut mac, value.expose());
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey")
    }
}

/// Length first, so that moving bytes from one field to the next changes the digest.
fn frame(mac: &mut Hmac<Sha256>, bytes: &[u8]) {
    mac.update(&bytes.len().to_be_bytes());
    mac.update(bytes);
}
