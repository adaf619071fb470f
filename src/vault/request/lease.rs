//! Pure: the requests about leases and about the tokens they were issued with.

use http::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Repeat, Request, json};
use crate::vault::error::VaultError;
use crate::vault::path::ApiPath;

/// A lease id, as Vault gave it: the path it was issued at, and a random end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(String);

impl LeaseId {
    /// `None` when it is empty: then there is no lease.
    pub fn new(id: impl Into<String>) -> Option<Self> {
        let id = id.into();
        (!id.is_empty()).then_some(Self(id))
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without the random end: what messages show.
    pub fn path(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(path, _)| path)
    }
}

impl std::fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LeaseId({}/…)", self.path())
    }
}

impl Request {
    /// Has something issued: `GET` or, with `parameters`, `POST` at any path.
    ///
    /// It is sent again after a refusal of a token that had died, since then nothing was issued, and never else.
    pub fn issue(
        path: &ApiPath,
        parameters: Option<&Map<String, Value>>,
    ) -> Result<Self, VaultError> {
        let request = Self::get("issue", path.to_string(), path.encoded());
        let Some(parameters) = parameters else {
            return Ok(request);
        };
        Ok(Self {
            method: Method::POST,
            body: Some(body("issue", path.as_str(), parameters)?),
            ..request
        })
    }

    /// Extends a lease by `increment` from now (`PUT sys/leases/renew`).
    pub fn lease_renew(id: &LeaseId, increment: std::time::Duration) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            lease_id: &'a str,
            increment: u64,
        }
        let lease_id = id.as_str();
        let increment = increment.as_secs();
        Self::of_lease(
            "renew-lease",
            "renew",
            id,
            &Body {
                lease_id,
                increment,
            },
        )
    }

    /// What is left of a lease (`PUT sys/leases/lookup`).
    pub fn lease_lookup(id: &LeaseId) -> Result<Self, VaultError> {
        Self::of_lease("lookup-lease", "lookup", id, &OnlyLease::of(id))
    }

    /// Ends a lease (`PUT sys/leases/revoke`). Ending one that is gone already is a success.
    /// Answered once it is done: what it stood for is refused from then on.
    pub fn lease_revoke(id: &LeaseId) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            lease_id: &'a str,
            sync: bool,
        }
        let lease_id = id.as_str();
        let body = Body {
            lease_id,
            sync: true,
        };
        Self::of_lease("revoke-lease", "revoke", id, &body)
    }

    /// The leases whose ids begin with `path` (`LIST sys/leases/lookup/:path`). Needs `sudo`.
    pub fn lease_list(path: &ApiPath) -> Self {
        let below = format!("sys/leases/lookup/{}/", path.encoded());
        Self {
            query: Some("list=true".to_owned()),
            ..Self::get("list-leases", format!("sys/leases/lookup/{path}/"), below)
        }
    }

    /// Extends the token with this accessor by its own period (`POST auth/token/renew-accessor`).
    pub fn accessor_renew(accessor: &str) -> Result<Self, VaultError> {
        Self::of_accessor("renew-accessor", accessor)
    }

    /// Ends the token with this accessor and everything issued with it (`POST auth/token/revoke-accessor`).
    pub fn accessor_revoke(accessor: &str) -> Result<Self, VaultError> {
        Self::of_accessor("revoke-accessor", accessor)
    }

    fn of_lease(
        operation: &'static str,
        what: &str,
        id: &LeaseId,
        parameters: &impl Serialize,
    ) -> Result<Self, VaultError> {
        let path = format!("sys/leases/{what}");
        let shown = format!("{path} of {}", id.path());
        Ok(Self {
            method: Method::PUT,
            body: Some(body(operation, &shown, parameters)?),
            urgent: true,
            ..Self::get(operation, shown, path)
        })
    }

    fn of_accessor(operation: &'static str, accessor: &str) -> Result<Self, VaultError> {
        #[derive(Serialize)]
        struct Body<'a> {
            accessor: &'a str,
        }
        let path = format!("auth/token/{operation}");
        Ok(Self {
            method: Method::POST,
            body: Some(body(operation, &path, &Body { accessor })?),
            repeat: Repeat::Never,
            urgent: true,
            ..Self::get(operation, path.clone(), path)
        })
    }
}

#[derive(Serialize)]
struct OnlyLease<'a> {
    lease_id: &'a str,
}

impl<'a> OnlyLease<'a> {
    fn of(id: &'a LeaseId) -> Self {
        Self {
            lease_id: id.as_str(),
        }
    }
}

fn body(
    operation: &'static str,
    path: &str,
    parameters: &impl Serialize,
) -> Result<crate::sensitive::Sensitive, VaultError> {
    json(parameters).ok_or_else(|| {
        VaultError::refused(operation, path, "the request cannot be written as JSON")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_url() {
        let id = LeaseId::new("database/creds/app/Xy1").unwrap();
        let path = ApiPath::parse("database/creds/app").unwrap();
        let parameters = Map::from_iter([("ttl".to_owned(), Value::from("1h"))]);
        let rows = [
            (Request::issue(&path, None), "GET database/creds/app"),
            (
                Request::issue(&path, Some(&parameters)),
                "POST database/creds/app",
            ),
            (
                Request::lease_renew(&id, std::time::Duration::from_mins(1)),
                "PUT sys/leases/renew",
            ),
            (Request::lease_lookup(&id), "PUT sys/leases/lookup"),
            (Request::lease_revoke(&id), "PUT sys/leases/revoke"),
            (
                Ok(Request::lease_list(&path)),
                "GET sys/leases/lookup/database/creds/app/?list=true",
            ),
            (
                Request::accessor_renew("a"),
                "POST auth/token/renew-accessor",
            ),
            (
                Request::accessor_revoke("a"),
                "POST auth/token/revoke-accessor",
            ),
        ];
        for (request, expected) in rows {
            let request = request.unwrap();
            assert_eq!(
                format!("{} {}", request.method(), request.target()),
                expected
            );
            assert!(!format!("{request:?} {}", request.path()).contains("Xy1"));
        }
    }
}
