//! Pure: keyed digests of what was read, to see a change without keeping the values.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::response::Content;

/// Digest of the data of one reading. Comparable within one process only.
pub type Fingerprint = [u8; 32];

/// The key of all fingerprints of a process: random, and gone when the process ends.
/// As long as a block of SHA-256, which makes it the one length that HMAC takes without a check.
pub struct FingerprintKey(Zeroizing<[u8; 64]>);

impl FingerprintKey {
    /// The key made of these random bytes.
    pub fn new(random: [u8; 64]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// The digest of the entries. The version and the request id are not part of it: a new version
    /// with the same data is not a change.
    pub fn digest(&self, data: &Content) -> Fingerprint {
        let mut mac = Hmac::<Sha256>::new((&*self.0).into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitive::Sensitive;

    fn data(entries: &[(&str, &str)], version: u64) -> Content {
        Content {
            entries: entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value)))
                .collect(),
            version: Some(version),
            request_id: Some(format!("request-{version}")),
        }
    }

    #[test]
    fn only_the_values_matter() {
        let key = FingerprintKey::new([7; 64]);
        let base = key.digest(&data(&[("a", "x"), ("b", "y")], 1));
        assert_eq!(base, key.digest(&data(&[("b", "y"), ("a", "x")], 2)));
        for other in [
            data(&[("a", "x"), ("b", "z")], 1),
            data(&[("a", "x")], 1),
            data(&[("a", "x"), ("c", "y")], 1),
            data(&[("a", "xb"), ("", "y")], 1),
            data(&[], 1),
        ] {
            assert_ne!(base, key.digest(&other), "{other:?}");
        }
    }

    #[test]
    fn another_key_gives_another_digest() {
        let value = data(&[("a", "x")], 1);
        let digest = |byte| FingerprintKey::new([byte; 64]).digest(&value);
        assert_ne!(digest(1), digest(2));
        assert_eq!(
            format!("{:?}", FingerprintKey::new([1; 64])),
            "FingerprintKey"
        );
    }
}
