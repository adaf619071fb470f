//! Pure: PKCS#12 files (RFC 7292), as Java and OpenSSL read them.
//!
//! The same content and password give the same bytes: salts are derived from what they protect, not drawn. So
//! a Secret that is put together again is the same Secret, and nothing restarts. All ciphers are aws-lc-rs's.

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    digest, hmac,
    iv::FixedLength,
    pbkdf2,
};
use yasna::{DERWriter, Tag, construct_der, models::ObjectIdentifier};
use zeroize::Zeroizing;

use super::certificate::Der;

/// What Java uses. The password lies in the same namespace as the file, so it is no defence that could be stretched.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9_999);

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const KEY_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 2];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const X509: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
const LOCAL_KEY_ID: &[u64] = &[1, 2, 840, 113_549, 1, 9, 21];
/// Java's mark on certificates that are to be trusted, and its value, any use.
const TRUSTED_USE: &[u64] = &[2, 16, 840, 1, 113_894, 746_875, 1, 1];
const ANY_USE: &[u64] = &[2, 5, 29, 37, 0];
const PBES2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 12];
const HMAC_SHA256: &[u64] = &[1, 2, 840, 113_549, 2, 9];
const AES_256_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 42];
const SHA256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// A file could not be put together. The library gives no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotEncrypted;

/// A private key (PKCS#8) with its chain, under one name.
pub(super) fn key_store(
    alias: &str,
    key: &[u8],
    chain: &[Der],
    password: &str,
) -> Result<Vec<u8>, NotEncrypted> {
    let key_id = digest::digest(&digest::SHA256, chain.first().map_or(&[], Vec::as_slice));
    let key_id = key_id.as_ref();
    let certificates = bags(chain.iter().enumerate().map(|(index, certificate)| {
        // The leaf belongs to the key; what follows is found through its issuer.
        let attributes = match index {
            0 => vec![Attribute::Name(alias), Attribute::KeyId(key_id)],
            _ => Vec::new(),
        };
        certificate_bag(certificate, &attributes)
    }));
    let encrypted = encrypt(key, password)?;
    let attributes = [Attribute::Name(alias), Attribute::KeyId(key_id)];
    let keys = bags([bag(KEY_BAG, &encrypted, &attributes)].into_iter());
    Ok(file(&[certificates, keys], password))
}

/// Certificates to trust, each with its name.
pub(super) fn trust_store(certificates: &[(String, Der)], password: &str) -> Vec<u8> {
    let bags = bags(certificates.iter().map(|(alias, certificate)| {
        certificate_bag(certificate, &[Attribute::Name(alias), Attribute::Trusted])
    }));
    file(&[bags], password)
}

enum Attribute<'a> {
    Name(&'a str),
    KeyId(&'a [u8]),
    Trusted,
}

/// The outer part: the contents, and a code that proves them with the password.
fn file(contents: &[Der], password: &str) -> Vec<u8> {
    let safe = construct_der(|writer| {
        writer.write_sequence(|writer| {
            for content in contents {
                data(writer.next(), content);
            }
        });
    });
    let salt = salt(password.as_bytes(), b"mac", &safe);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*mac_key(password, &salt));
    let code = hmac::sign(&key, &safe);
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(3);
            data(writer.next(), &safe);
            writer.next().write_sequence(|writer| {
                writer.next().write_sequence(|writer| {
                    algorithm_without_parameters(writer.next(), SHA256);
                    writer.next().write_bytes(code.as_ref());
                });
                writer.next().write_bytes(&salt);
                writer.next().write_u32(ROUNDS.get());
            });
        });
    })
}

fn data(writer: DERWriter<'_>, content: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&oid(DATA));
        writer
            .next()
            .write_tagged(Tag::context(0), |writer| writer.write_bytes(content));
    });
}

fn bags(bags: impl Iterator<Item = Der>) -> Der {
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            for bag in bags {
                writer.next().write_der(&bag);
            }
        });
    })
}

fn certificate_bag(certificate: &[u8], attributes: &[Attribute<'_>]) -> Der {
    let value = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&oid(X509));
            writer
                .next()
                .write_tagged(Tag::context(0), |writer| writer.write_bytes(certificate));
        });
    });
    bag(CERTIFICATE_BAG, &value, attributes)
}

fn bag(kind: &[u64], value: &[u8], attributes: &[Attribute<'_>]) -> Der {
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&oid(kind));
            writer
                .next()
                .write_tagged(Tag::context(0), |writer| writer.write_der(value));
            if !attributes.is_empty() {
                writer.next().write_set_of(|writer| {
                    for attribute in attributes {
                        write_attribute(writer.next(), attribute);
                    }
                });
            }
        });
    })
}

fn write_attribute(writer: DERWriter<'_>, attribute: &Attribute<'_>) {
    writer.write_sequence(|writer| {
        let kind = match attribute {
            Attribute::Name(_) => FRIENDLY_NAME,
            Attribute::KeyId(_) => LOCAL_KEY_ID,
            Attribute::Trusted => TRUSTED_USE,
        };
        writer.next().write_oid(&oid(kind));
        writer.next().write_set(|writer| match attribute {
            Attribute::Name(name) => writer.next().write_bmp_string(name),
            Attribute::KeyId(id) => writer.next().write_bytes(id),
            Attribute::Trusted => writer.next().write_oid(&oid(ANY_USE)),
        });
    });
}

/// `EncryptedPrivateKeyInfo` with PBES2: PBKDF2 with HMAC-SHA-256, AES-256 in CBC mode.
fn encrypt(key: &[u8], password: &str) -> Result<Der, NotEncrypted> {
    let salt = salt(key, b"salt", password.as_bytes());
    let start: [u8; 16] = self::salt(key, b"start", password.as_bytes());
    let mut secret = Zeroizing::new([0; 32]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        &salt,
        password.as_bytes(),
        &mut *secret,
    );
    let cipher = UnboundCipherKey::new(&AES_256, &*secret)
        .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
        .map_err(|_| NotEncrypted)?;
    // Room for the padding, so that no copy of the key is left behind.
    let mut text = Vec::with_capacity(key.len() + 16);
    text.extend_from_slice(key);
    cipher
        .less_safe_encrypt(
            &mut text,
            EncryptionContext::Iv128(FixedLength::from(start)),
        )
        .map_err(|_| NotEncrypted)?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                writer.next().write_oid(&oid(PBES2));
                writer.next().write_sequence(|writer| {
                    derivation(writer.next(), &salt);
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&oid(AES_256_CBC));
                        writer.next().write_bytes(&start);
                    });
                });
            });
            writer.next().write_bytes(&text);
        });
    }))
}

fn derivation(writer: DERWriter<'_>, salt: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&oid(PBKDF2));
        writer.next().write_sequence(|writer| {
            writer.next().write_bytes(salt);
            writer.next().write_u32(ROUNDS.get());
            algorithm_without_parameters(writer.next(), HMAC_SHA256);
        });
    });
}

fn algorithm_without_parameters(writer: DERWriter<'_>, algorithm: &[u64]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&oid(algorithm));
        writer.next().write_null();
    });
}

/// The key of the code (RFC 7292, appendix B.2). One block of SHA-256 is all that is needed of it, so the part of the
/// procedure that makes further blocks is left out.
fn mac_key(password: &str, salt: &[u8]) -> Zeroizing<[u8; 32]> {
    const BLOCK: usize = 64;
    const KEY_OF_CODE: u8 = 3;
    let units = password.encode_utf16().chain([0]);
    let password: Zeroizing<Vec<u8>> = Zeroizing::new(units.flat_map(u16::to_be_bytes).collect());
    let filled = |bytes: &[u8]| {
        let length = bytes.len().div_ceil(BLOCK) * BLOCK;
        Zeroizing::new(
            bytes
                .iter()
                .copied()
                .cycle()
                .take(length)
                .collect::<Vec<_>>(),
        )
    };
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&[KEY_OF_CODE; BLOCK]);
    hash.update(&filled(salt));
    hash.update(&filled(&password));
    let mut digest = hash.finish();
    for _ in 1..ROUNDS.get() {
        digest = digest::digest(&digest::SHA256, digest.as_ref());
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(digest.as_ref());
    key
}

/// Bytes that nobody can tell without `secret`, and that are different for each use and content.
fn salt(secret: &[u8], purpose: &[u8], content: &[u8]) -> [u8; 16] {
    let mut code = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    code.update(purpose);
    code.update(&[0]);
    code.update(content);
    let mut salt = [0; 16];
    for (byte, from) in salt.iter_mut().zip(code.sign().as_ref()) {
        *byte = *from;
    }
    salt
}

fn oid(components: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(components)
}
