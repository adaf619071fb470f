//! Pure: key stores of Java's own format, `JKS`. For programs that insist: what protects the key in it is SHA-1.
//!
//! Layout and cipher are those of the class `sun.security.provider.JavaKeyStore` and `KeyProtector` of the JDK.
//! The same content and password give the same bytes: the salt is derived from the key.

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use yasna::{construct_der, models::ObjectIdentifier};
use zeroize::Zeroizing;

use super::certificate::Der;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const KEY_ENTRY: u32 = 1;
const TRUSTED_ENTRY: u32 = 2;
/// Names the cipher below.
const KEY_PROTECTOR: &[u64] = &[1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1];
/// Length of a digest of SHA-1, and of the salt.
const DIGEST: usize = 20;

/// A private key (PKCS#8) with its chain, under one name.
pub(super) fn key_store(
    alias: &str,
    key: &[u8],
    chain: &[Der],
    made: Timestamp,
    password: &str,
) -> Vec<u8> {
    let password = characters(password);
    let mut store = Store::new(1);
    store.number(KEY_ENTRY);
    store.entry(alias, made);
    store.bytes(&protect(key, &password));
    store.length(chain.len());
    for certificate in chain {
        store.certificate(certificate);
    }
    store.sealed(&password)
}

/// Certificates to trust, each with its name.
pub(super) fn trust_store(
    certificates: &[(String, Der)],
    made: Timestamp,
    password: &str,
) -> Vec<u8> {
    let mut store = Store::new(certificates.len());
    for (alias, certificate) in certificates {
        store.number(TRUSTED_ENTRY);
        store.entry(alias, made);
        store.certificate(certificate);
    }
    store.sealed(&characters(password))
}

struct Store(Vec<u8>);

impl Store {
    fn new(entries: usize) -> Self {
        let mut store = Self(Vec::new());
        store.number(MAGIC);
        store.number(VERSION);
        store.length(entries);
        store
    }

    fn number(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// Nothing here comes near the limit: an answer of Vault has at most 4 MiB.
    fn length(&mut self, length: usize) {
        self.number(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Short ASCII texts, for which Java's form of UTF-8 is no other.
    fn text(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn entry(&mut self, alias: &str, made: Timestamp) {
        self.text(alias);
        self.0
            .extend_from_slice(&made.as_millisecond().to_be_bytes());
    }

    fn certificate(&mut self, der: &[u8]) {
        self.text("X.509");
        self.bytes(der);
    }

    /// Ends the store with the digest that proves it with the password.
    fn sealed(self, password: &[u8]) -> Vec<u8> {
        let Self(mut bytes) = self;
        let digest = sha1(&[password, b"Mighty Aphrodite", &bytes]);
        bytes.extend_from_slice(&digest);
        bytes
    }
}

/// `EncryptedPrivateKeyInfo`: the key under a stream of chained digests, between its salt and its digest.
fn protect(key: &[u8], password: &[u8]) -> Der {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, key);
    let salt = hmac::sign(&secret, password);
    let mut text: Vec<u8> = salt.as_ref().iter().copied().take(DIGEST).collect();
    let mut stream: Vec<u8> = text.clone();
    for block in key.chunks(DIGEST) {
        stream = sha1(&[password, &stream]).to_vec();
        text.extend(block.iter().zip(&stream).map(|(byte, mask)| byte ^ mask));
    }
    text.extend_from_slice(&sha1(&[password, key]));
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                let protector = ObjectIdentifier::from_slice(KEY_PROTECTOR);
                writer.next().write_oid(&protector);
                writer.next().write_null();
            });
            writer.next().write_bytes(&text);
        });
    })
}

fn sha1(parts: &[&[u8]]) -> [u8; DIGEST] {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        hash.update(part);
    }
    let mut bytes = [0; DIGEST];
    for (byte, from) in bytes.iter_mut().zip(hash.finish().as_ref()) {
        *byte = *from;
    }
    bytes
}

/// Java's characters, two bytes each.
fn characters(password: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(password.encode_utf16().flat_map(u16::to_be_bytes).collect())
}
