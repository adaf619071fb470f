//! Pure: what a Secret says about what was issued for it.
//!
//! The record is written in the same apply as the data, as an annotation, so that the two can never disagree, and
//! so that the next process knows what it has to keep alive and what is still to be revoked. It holds no value: a
//! lease id, an accessor and a serial number are names, and of no use without a token.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    names::ObjectKey,
    pki::certificate::Facts,
    revision::RevisionKey,
    vault::{backoff, lease::Lease, path::VaultNamespace, request::lease::LeaseId},
};

/// How long a lease of which Vault says that it has no length is tried to be revoked.
const LENGTH_UNKNOWN: Duration = Duration::from_hours(1);

/// Everything issued for one Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// What is in use, by the name of its source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Record>,
    /// What was replaced, and is to be revoked once nothing uses it any more. What was revoked since stays listed until
    /// the next write: to take it out is not worth a write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
    /// Proof that this operator wrote the record: whoever may edit the Secret must not make the operator revoke a
    /// lease of somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
}

/// What one source holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of what was asked of Vault: an edit that leaves it the same issues nothing.
    pub ask: String,
    /// What was issued.
    #[serde(flatten)]
    pub issued: Issued,
    /// When, by this process's clock: only compared roughly.
    pub at: Timestamp,
    /// Which key of the Secret each key of the answer became; empty for one that was left out.
    pub keys: BTreeMap<String, String>,
    /// The request to issue everything anew that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate: Option<String>,
    /// Whether it was taken over without a proof that this operator wrote it: then it is kept, but never revoked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
}

/// One thing that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// The namespace of Vault it was issued in, if it is not the login's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The connection it was issued through: another Vault does not know it. `None` in records of before that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Whether the token it was issued with was given to Lockstep, and is not Lockstep's to revoke.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given: bool,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

/// What can be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// Something with a lease.
    #[serde(rename_all = "camelCase")]
    Lease {
        /// Its id.
        id: String,
        /// For how many seconds it was granted.
        ttl: u64,
        /// Whether it can be renewed.
        renewable: bool,
        /// Accessor of the token it was issued with: when that ends, the lease does. `None` for a batch token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// A certificate.
    #[serde(rename_all = "camelCase")]
    Certificate {
        /// Where the engine is mounted.
        mount: String,
        /// Its serial number, as Vault writes it.
        serial: String,
        /// From when it is valid, by Vault's clock.
        not_before: Timestamp,
        /// Until when it is valid, by Vault's clock.
        not_after: Timestamp,
        /// When it was issued, by Vault's clock.
        issued: Timestamp,
        /// Whether it is to be revoked once it is replaced.
        #[serde(default)]
        revoke: bool,
        /// The key stores that the Secret holds besides; `None` when there are none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layout: Option<String>,
        /// Accessor of the token it was issued with, for a role that makes leases: when that ends, Vault revokes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// Something without a lease: nothing to renew and nothing to revoke.
    Unleased {},
}

/// Something that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// What it is.
    #[serde(flatten)]
    pub issued: Issued,
    /// Since when it is, by this process's clock.
    pub since: Timestamp,
    /// Whether it was never in the Secret, so that nobody can use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unused: bool,
}

/// What may be believed of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Believed {
    /// It, as far as it may be.
    pub records: Records,
    /// Whether it is proven that this operator wrote it.
    pub proven: bool,
}

impl Records {
    /// Reads the annotation. Somebody may have written anything there; what is not understood counts as nothing.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The same with a proof that it was written for `vault_secret`.
    #[must_use]
    pub fn sealed(self, key: &RevisionKey, vault_secret: &ObjectKey) -> Self {
        if self == Self::default() {
            return self;
        }
        let bare = Self { seal: None, ..self };
        let seal = key.seal(&bare.sealed_parts(vault_secret));
        Self {
            seal: Some(seal),
            ..bare
        }
    }

    /// What may be believed of it: all, if it carries its proof, and then also that it is so. Else what is in use is
    /// kept and never revoked, and the rest is left to end by itself. So it is, too, after the key of the hashes was lost.
    pub fn believed(self, key: &RevisionKey, vault_secret: &ObjectKey) -> Believed {
        let seal = self.seal.clone().unwrap_or_default();
        let bare = Self { seal: None, ..self };
        if key.proves(&bare.sealed_parts(vault_secret), &seal) {
            return Believed {
                records: bare,
                proven: true,
            };
        }
        let unproven = |(name, record)| {
            let record = Record {
                unproven: true,
                ..record
            };
            (name, record)
        };
        Believed {
            records: Self {
                held: bare.held.into_iter().map(unproven).collect(),
                ..Self::default()
            },
            proven: false,
        }
    }

    /// Whether `issued` is in use.
    pub fn names(&self, issued: &Issued) -> bool {
        self.held.values().any(|record| record.issued.is(issued))
    }

    fn sealed_parts(&self, vault_secret: &ObjectKey) -> [String; 4] {
        let record = serde_json::to_string(self).unwrap_or_default();
        [
            "holdings".to_owned(),
            vault_secret.namespace.clone(),
            vault_secret.name.clone(),
            record,
        ]
    }

    /// As the annotation holds it; `None` when there is nothing to hold.
    pub fn to_annotation(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        serde_json::to_string(self).ok()
    }
}

impl Record {
    /// Whether both are about the same data.
    pub fn is(&self, other: &Self) -> bool {
        let named = !matches!(self.issued.what, What::Unleased {});
        self.issued.is(&other.issued) && (named || self.at == other.at)
    }
}

impl Issued {
    /// Whether both are the same thing, as Vault knows it. What has no lease has no name.
    pub fn is(&self, other: &Self) -> bool {
        let same = match (&self.what, &other.what) {
            (What::Lease { id, .. }, What::Lease { id: other, .. }) => id == other,
            (
                What::Certificate { mount, serial, .. },
                What::Certificate {
                    mount: other_mount,
                    serial: other_serial,
                    ..
                },
            ) => (mount, serial) == (other_mount, other_serial),
            (What::Unleased {}, What::Unleased {}) => true,
            (What::Lease { .. } | What::Certificate { .. } | What::Unleased {}, _) => false,
        };
        same && self.namespace == other.namespace
    }

    /// What metrics call it.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Lease { .. } => "lease",
            What::Certificate { .. } => "certificate",
            What::Unleased {} => "unleased",
        }
    }

    /// Accessor of the token it was issued with.
    pub fn parent(&self) -> Option<&str> {
        match &self.what {
            What::Lease { parent, .. } | What::Certificate { parent, .. } => parent.as_deref(),
            What::Unleased {} => None,
        }
    }

    /// The namespace of Vault it was issued in; that of the login when `None`.
    pub fn vault_namespace(&self) -> Option<VaultNamespace> {
        VaultNamespace::parse(self.namespace.as_deref()?).ok()
    }

    /// The lease, if it has one.
    pub fn lease(&self) -> Option<LeaseId> {
        match &self.what {
            What::Lease { id, .. } => LeaseId::new(id),
            What::Certificate { .. } | What::Unleased {} => None,
        }
    }

    /// The dates of the certificate, and when it was issued, if it is one.
    pub fn certificate(&self) -> Option<(Facts, Timestamp)> {
        match &self.what {
            What::Certificate {
                serial,
                not_before,
                not_after,
                issued,
                ..
            } => Some((
                Facts {
                    serial: serial.clone(),
                    not_before: *not_before,
                    not_after: *not_after,
                },
                *issued,
            )),
            What::Lease { .. } | What::Unleased {} => None,
        }
    }

    /// Whether it is to be revoked.
    pub fn is_revocable(&self) -> bool {
        match &self.what {
            What::Lease { .. } => true,
            What::Certificate { revoke, .. } => *revoke,
            What::Unleased {} => false,
        }
    }
}

impl std::fmt::Display for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            What::Lease { id, .. } => write!(f, "lease {id}"),
            What::Certificate { mount, serial, .. } => write!(f, "certificate {serial} of {mount}"),
            What::Unleased {} => f.write_str("something without a lease"),
        }
    }
}

impl Superseded {
    /// Its lease, as far as the record tells at `now`, if somebody may need it.
    pub fn taken_over(&self, now: Instant, seed: u64) -> Option<Lease> {
        match &self.issued.what {
            What::Lease { id, ttl, .. } if !self.unused => {
                let seed = backoff::seed_of(&(seed, id));
                Some(Lease::taken_over(Duration::from_secs(*ttl), now, now, seed))
            }
            What::Lease { .. } | What::Certificate { .. } | What::Unleased {} => None,
        }
    }

    /// When Vault ends it by itself at the latest, as far as the record tells.
    pub fn ends_after(&self) -> Duration {
        match &self.issued.what {
            What::Lease { ttl: 0, .. } => LENGTH_UNKNOWN,
            What::Lease { ttl, .. } => Duration::from_secs(*ttl),
            What::Certificate {
                issued, not_after, ..
            } => Duration::try_from(issued.duration_until(*not_after)).unwrap_or_default(),
            What::Unleased {} => Duration::ZERO,
        }
    }
}

/// A digest of what is asked of Vault. It needs no key, as it tells nothing that is not in the spec.
pub fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: &str) -> Issued {
        Issued {
            namespace: None,
            connection: None,
            given: false,
            what: What::Lease {
                id: id.into(),
                ttl: 3600,
                renewable: true,
                parent: Some("acc".into()),
            },
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let records = Records {
            held: [(
                "db".to_owned(),
                Record {
                    ask: digest(&["a", "b"]),
                    issued: lease("database/creds/app/1"),
                    at: Timestamp::UNIX_EPOCH,
                    keys: [("username".to_owned(), "user".to_owned())].into(),
                    rotate: Some("1".into()),
                    unproven: false,
                },
            )]
            .into(),
            superseded: vec![Superseded {
                issued: lease("database/creds/app/0"),
                since: Timestamp::UNIX_EPOCH,
                unused: false,
            }],
            seal: None,
        };
        let text = records.to_annotation().unwrap();
        assert_eq!(Records::parse(&text), Some(records), "{text}");
    }

    #[test]
    fn only_what_this_operator_wrote_for_this_object_is_believed() {
        use crate::sensitive::Sensitive;
        let key = |byte: u8| RevisionKey::new("k1", Sensitive::new([byte; 32])).unwrap();
        let (shop, other) = (
            ObjectKey::new("shop", "app"),
            ObjectKey::new("other", "app"),
        );
        let record = Record {
            ask: "a".into(),
            issued: lease("database/creds/app/1"),
            at: Timestamp::UNIX_EPOCH,
            keys: BTreeMap::new(),
            rotate: None,
            unproven: false,
        };
        let records = Records {
            held: [("db".to_owned(), record)].into(),
            superseded: vec![Superseded {
                issued: lease("database/creds/app/0"),
                since: Timestamp::UNIX_EPOCH,
                unused: false,
            }],
            seal: None,
        };
        let sealed = records.clone().sealed(&key(1), &shop);
        let read = Records::parse(&sealed.to_annotation().unwrap()).unwrap();
        let believed = read.clone().believed(&key(1), &shop);
        assert_eq!((believed.records, believed.proven), (records.clone(), true));
        let mut forged = read.clone();
        forged.superseded[0].issued = lease("database/creds/somebody/else");
        for doubtful in [
            forged.believed(&key(1), &shop),
            read.clone().believed(&key(1), &other),
            read.believed(&key(2), &shop),
            records.believed(&key(1), &shop),
        ] {
            assert!(!doubtful.proven);
            assert_eq!(doubtful.records.superseded, []);
            assert!(doubtful.records.held["db"].unproven);
        }
    }

    #[test]
    fn nothing_held_is_no_annotation_and_nonsense_is_nothing() {
        assert_eq!(Records::default().to_annotation(), None);
        assert_eq!(Records::parse("{\"held\": 7}"), None);
    }

    #[test]
    fn the_digest_tells_parts_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab"]).len(), 16);
    }
}
