//! Pure: the rotation hash.
//!
//! A revision is a keyed digest (HMAC-SHA256) of what a Secret holds, shown as `<key id>:<hex>`. The key
//! never leaves the operator's namespace, so that nobody who may read a Deployment can guess a short
//! password offline from the hash on its pod template.

use std::{collections::BTreeMap, fmt, fmt::Write};

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{names::ObjectKey, sensitive::Sensitive};

/// Bytes of the digest that are shown: 64 bits tell two values apart, and leave less to attack than all 256.
const SHOWN_BYTES: usize = 8;

/// Bytes of a seal: nobody finds one of 128 bits by trying.
const SEAL_BYTES: usize = 16;

/// Length of the key in bytes, that of the digest (RFC 2104 §3).
pub const KEY_BYTES: usize = 32;

/// The secret key of the digest, with the name under which it is shown.
#[derive(Clone, Debug)]
pub struct RevisionKey {
    id: String,
    key: Sensitive,
}

impl RevisionKey {
    /// A key of [`KEY_BYTES`] bytes, `None` if it has another length.
    pub fn new(id: impl Into<String>, key: Sensitive) -> Option<Self> {
        (key.len() == KEY_BYTES).then(|| Self { id: id.into(), key })
    }

    /// The revision of the `data` of `secret`: the same for the same keys and values, in whatever order they came.
    ///
    /// The name goes in, so that nobody can try guesses of somebody else's data in a Secret of their own and
    /// compare the hashes.
    pub fn revision(&self, secret: &ObjectKey, data: &BTreeMap<String, Sensitive>) -> Revision {
        let mut mac = self.mac();
        update_framed(&mut mac, secret.namespace.as_bytes());
        update_framed(&mut mac, secret.name.as_bytes());
        for (key, value) in data {
            update_framed(&mut mac, key.as_bytes());
            update_framed(&mut mac, value.expose());
        }
        Revision(format!(
            "{}:{}",
            self.id,
            hex(&mac.finalize().into_bytes(), SHOWN_BYTES)
        ))
    }

    /// A proof that whoever has this key wrote these `parts`, in hex.
    pub fn seal(&self, parts: &[String]) -> String {
        hex(&self.sealing(parts).finalize().into_bytes(), SEAL_BYTES)
    }

    /// Whether `seal` proves that whoever has this key wrote these `parts`. Takes the same time whatever is wrong.
    pub fn proves(&self, parts: &[String], seal: &str) -> bool {
        let bytes: Option<Vec<u8>> = seal
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let bytes = bytes.filter(|bytes| bytes.len() == SEAL_BYTES);
        bytes.is_some_and(|bytes| self.sealing(parts).verify_truncated_left(&bytes).is_ok())
    }

    fn sealing(&self, parts: &[String]) -> Hmac<Sha256> {
        let mut mac = self.mac();
        for part in parts {
            update_framed(&mut mac, part.as_bytes());
        }
        mac
    }

    fn mac(&self) -> Hmac<Sha256> {
        // HMAC pads a short key with zeros (RFC 2104 §2), so this is the digest under the key itself,
        // in the one form of the constructor that takes no length to check.
        let mut block = Zeroizing::new([0_u8; 64]);
        for (to, from) in block.iter_mut().zip(self.key.expose()) {
            *to = *from;
        }
        Hmac::<Sha256>::new((&*block).into())
    }
}

/// Adds `part` with its length in front, so that no two lists of parts look the same.
fn update_framed(mac: &mut Hmac<Sha256>, part: &[u8]) {
    mac.update(&(part.len() as u64).to_be_bytes());
    mac.update(part);
}

/// Keyed digest of what one Secret holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(String);

impl Revision {
    /// A revision read back from the cluster.
    pub fn from_annotation(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Which key it was made with.
    pub fn key_id(&self) -> Option<&str> {
        Some(self.0.split_once(':')?.0)
    }

    /// `<key id>:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one Secret holds: its revision, and since when, in the apiserver's time.
pub type Held<'a> = (&'a Revision, Timestamp);

/// The hash a workload carries: one digest of the names, revisions and ages of all managed Secrets it uses.
///
/// The age goes in, because data may change and change back: pods that were made meanwhile read the other data,
/// and nothing but the time tells. `None` when there are no Secrets. No key is needed: the revisions are keyed.
pub fn combine<'a>(secrets: &BTreeMap<&'a str, Held<'a>>) -> Option<String> {
    if secrets.is_empty() {
        return None;
    }
    let mut digest = Sha256::new();
    for (name, (revision, since)) in secrets {
        let since = since.as_second().to_be_bytes();
        for part in [name.as_bytes(), revision.as_str().as_bytes(), &since] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    Some(hex(&digest.finalize(), SHOWN_BYTES))
}

/// Whether `text` looks like a hash that [`combine`] made.
pub fn is_combined(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 2 * SHOWN_BYTES && text.bytes().all(is_hex)
}

/// The first `count` bytes in hex.
fn hex(bytes: &[u8], count: usize) -> String {
    bytes
        .iter()
        .take(count)
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> RevisionKey {
        RevisionKey::new("k1", Sensitive::new(vec![byte; KEY_BYTES])).unwrap()
    }

    fn secret() -> ObjectKey {
        ObjectKey::new("shop", "checkout")
    }

    fn data(pairs: &[(String, Vec<u8>)]) -> BTreeMap<String, Sensitive> {
        pairs
            .iter()
            .map(|(k, v)| (k.clone(), Sensitive::new(v.clone())))
            .collect()
    }

    #[test]
    fn a_revision_shows_its_key_id_and_sixteen_hex_digits() {
        let revision = key(1).revision(&secret(), &data(&[("a".into(), b"b".to_vec())]));
        let (id, digits) = revision.as_str().split_once(':').unwrap();
        assert_eq!((id, digits.len()), ("k1", 16));
    }

    #[test]
    fn equal_data_in_two_secrets_has_two_revisions() {
        let data = data(&[("a".into(), b"b".to_vec())]);
        let of = |namespace, name| key(1).revision(&ObjectKey::new(namespace, name), &data);
        assert_ne!(of("shop", "checkout"), of("spy", "checkout"));
        assert_ne!(of("shop", "checkout"), of("shop", "guess"));
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        assert!(RevisionKey::new("k1", Sensitive::new([0; 31])).is_none());
    }

    #[test]
    fn nothing_combines_to_nothing() {
        assert_eq!(combine(&BTreeMap::new()), None);
    }

    #[test]
    fn the_combined_hash_depends_on_names_revisions_and_ages() {
        let (r1, r2) = (
            Revision::from_annotation("k1:1"),
            Revision::from_annotation("k1:2"),
        );
        let of = |pairs: &[(&'static str, &Revision, i64)]| {
            let held = pairs.iter().map(|(name, revision, since)| {
                (*name, (*revision, Timestamp::from_second(*since).unwrap()))
            });
            combine(&held.collect())
        };
        let one = of(&[("a", &r1, 1), ("b", &r2, 1)]);
        assert_eq!(one, of(&[("b", &r2, 1), ("a", &r1, 1)]));
        assert_ne!(one, of(&[("a", &r2, 1), ("b", &r1, 1)]));
        assert_ne!(of(&[("a", &r1, 1)]), of(&[("b", &r1, 1)]));
        assert_ne!(of(&[("a", &r1, 1)]), of(&[("a", &r1, 2)]));
    }

    proptest! {
        #[test]
        fn a_revision_tells_data_apart_and_depends_on_the_key(
            a in prop::collection::vec(("[a-z]{0,3}", prop::collection::vec(any::<u8>(), 0..4)), 0..4),
            b in prop::collection::vec(("[a-z]{0,3}", prop::collection::vec(any::<u8>(), 0..4)), 0..4),
        ) {
            let (a, b) = (data(&a), data(&b));
            prop_assert_eq!(key(1).revision(&secret(), &a) == key(1).revision(&secret(), &b), a == b);
            prop_assert_ne!(key(1).revision(&secret(), &a), key(2).revision(&secret(), &a));
        }

        #[test]
        fn the_order_of_keys_is_no_change(pairs in prop::collection::btree_map("[a-z]{1,3}", prop::collection::vec(any::<u8>(), 0..4), 0..5)) {
            let forward: Vec<_> = pairs.into_iter().collect();
            let backward: Vec<_> = forward.iter().rev().cloned().collect();
            prop_assert_eq!(key(1).revision(&secret(), &data(&forward)), key(1).revision(&secret(), &data(&backward)));
        }
    }
}
