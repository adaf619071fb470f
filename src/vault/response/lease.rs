//! Pure: the answers about leases.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::super::error::VaultError;
use super::super::json;
use super::super::request::lease::LeaseId;
use super::Response;
use crate::sensitive::Sensitive;

/// What an engine issued.
#[derive(Debug)]
pub struct Issued {
    /// What is to be used: strings are their bytes, `null` is empty, everything else is compact JSON.
    pub entries: BTreeMap<String, Sensitive>,
    /// The lease, if there is one.
    pub lease: Option<Granted>,
    /// Vault's id of the request: the line of its audit log.
    pub request_id: Option<String>,
}

/// A lease as it was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Its id.
    pub id: LeaseId,
    /// How it lives.
    pub life: Life,
}

/// How long a lease or a token lives from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// What is left.
    pub ttl: Duration,
    /// Whether it can be renewed.
    pub renewable: bool,
}

impl Response {
    /// What an engine issued. An answer without a lease is one, too: it has to be polled.
    pub fn issued(&self) -> Result<Issued, VaultError> {
        let body = self.text()?;
        let data = self.member(body, "data")?.ok_or_else(|| {
            self.invalid("the answer has no 'data', so there is nothing to put into a Secret")
        })?;
        let envelope: Envelope = self.parse()?;
        let members =
            json::members(data).map_err(|_| self.invalid("the data is not a JSON object"))?;
        let lease = envelope.granted();
        if lease.as_ref().is_some_and(|lease| lease.life.ttl.is_zero()) {
            return Err(self.invalid(
                "the role gives leases of zero length (lease_duration 0), which cannot be kept; set its TTL to a second or more",
            ));
        }
        Ok(Issued {
            entries: members
                .into_iter()
                .map(|(key, raw)| (key, json::secret_bytes(raw)))
                .collect(),
            lease,
            request_id: envelope.request_id,
        })
    }

    /// The lease in an answer, also in one that is of no use otherwise.
    pub fn granted(&self) -> Option<Granted> {
        self.parse::<Envelope>().ok()?.granted()
    }

    /// What a renewal of a lease granted.
    pub fn lease_renewal(&self) -> Result<Life, VaultError> {
        let Envelope {
            lease_duration,
            renewable,
            ..
        } = self.parse()?;
        Ok(Life {
            ttl: Duration::from_secs(lease_duration),
            renewable,
        })
    }

    /// What a lookup of a lease says.
    pub fn lease_info(&self) -> Result<Life, VaultError> {
        let parsed: super::WithData<LeaseData> = self.parse()?;
        let LeaseData { ttl, renewable, .. } = self.data(parsed)?;
        Ok(Life {
            // Negative for one that is being ended right now.
            ttl: Duration::from_secs(u64::try_from(ttl).unwrap_or(0)),
            renewable,
        })
    }

    /// When a lease that was looked up was issued, by Vault's clock.
    pub fn lease_issued_at(&self) -> Result<Timestamp, VaultError> {
        let parsed: super::WithData<LeaseData> = self.parse()?;
        let issued = self.data(parsed)?.issue_time;
        issued.ok_or_else(|| self.invalid("the answer has no 'issue_time'"))
    }

    /// What a renewal by accessor granted: the token itself is not told.
    pub fn accessor_renewal(&self) -> Result<Life, VaultError> {
        let parsed: AccessorAnswer = self.parse()?;
        let auth = parsed
            .auth
            .ok_or_else(|| self.invalid("the answer has no 'auth'"))?;
        Ok(Life {
            ttl: Duration::from_secs(auth.lease_duration),
            renewable: auth.renewable,
        })
    }

    /// The random ends of the leases below a path.
    pub fn lease_keys(&self) -> Result<Vec<String>, VaultError> {
        let parsed: super::WithData<Keys> = self.parse()?;
        Ok(self.data(parsed)?.keys)
    }
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    request_id: Option<String>,
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

impl Envelope {
    fn granted(&self) -> Option<Granted> {
        let life = Life {
            ttl: Duration::from_secs(self.lease_duration),
            renewable: self.renewable,
        };
        LeaseId::new(self.lease_id.as_str()).map(|id| Granted { id, life })
    }
}

#[derive(Deserialize)]
struct LeaseData {
    #[serde(default)]
    issue_time: Option<Timestamp>,
    #[serde(default)]
    ttl: i64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct AccessorAnswer {
    auth: Option<AccessorAuth>,
}

#[derive(Deserialize)]
struct AccessorAuth {
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::vault::{error::VaultErrorKind, path::ApiPath, request::Request};

    fn answer(body: &str) -> Response {
        let request = Request::issue(&ApiPath::parse("database/creds/app").unwrap(), None).unwrap();
        Response::new(&request, Zeroizing::new(body.as_bytes().to_vec()))
    }

    #[test]
    fn a_lease_is_taken_from_the_envelope() {
        let issued = answer(r#"{"request_id":"r","lease_id":"database/creds/app/x","lease_duration":60,"renewable":true,"data":{"username":"u","port":5432}}"#).issued().unwrap();
        let lease = issued.lease.unwrap();
        assert_eq!(lease.id.as_str(), "database/creds/app/x");
        assert_eq!((lease.life.ttl.as_secs(), lease.life.renewable), (60, true));
        assert_eq!(issued.entries["port"].expose(), b"5432");
        assert_eq!(issued.request_id.as_deref(), Some("r"));
    }

    #[test]
    fn an_answer_without_a_lease_has_to_be_polled() {
        let issued = answer(r#"{"lease_id":"","lease_duration":2764800,"data":{"a":"b"}}"#);
        assert!(issued.issued().unwrap().lease.is_none());
    }

    /// Vault made a lease all the same, which somebody has to revoke.
    #[test]
    fn an_answer_that_is_of_no_use_still_tells_its_lease() {
        for (body, why) in [
            (
                r#"{"lease_id":"database/creds/app/x","lease_duration":0,"data":{"a":"b"}}"#,
                "leases of zero length",
            ),
            (
                r#"{"lease_id":"database/creds/app/x","lease_duration":60,"data":null}"#,
                "no 'data'",
            ),
            (
                r#"{"lease_id":"database/creds/app/x","lease_duration":60,"data":[1]}"#,
                "not a JSON object",
            ),
        ] {
            let answer = answer(body);
            let error = answer.issued().unwrap_err();
            assert!(error.detail.contains(why), "{error}");
            assert_eq!(error.kind, VaultErrorKind::Invalid);
            let lease = answer.granted().unwrap();
            assert_eq!(lease.id.as_str(), "database/creds/app/x");
        }
    }

    #[test]
    fn an_answer_without_data_is_refused_without_its_text() {
        for body in [
            r#"{"lease_id":"canary"}"#,
            r#"{"data":["canary"]}"#,
            r#"{"data":null}"#,
        ] {
            let error = answer(body).issued().unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_lease_that_is_being_ended_has_nothing_left() {
        let life = answer(r#"{"data":{"id":"x","ttl":-3,"renewable":true}}"#)
            .lease_info()
            .unwrap();
        assert!(life.ttl.is_zero());
    }
}
