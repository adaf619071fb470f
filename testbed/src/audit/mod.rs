//! Pure: what the audit logs of the apiserver and of Vault say, as values.

pub(crate) mod log;

use jiff::Timestamp;
use serde_json::Value;

pub use self::log::AuditMark;
use self::log::text;

/// One request to the apiserver, when it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRequest {
    /// When it came in.
    pub time: Timestamp,
    /// The client's `User-Agent`.
    pub user_agent: String,
    /// Who it was, like `system:serviceaccount:shop:default`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// The resource in plural, like `secrets`; empty for what is no resource.
    pub resource: String,
    /// The subresource, like `status`.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// The path with its query.
    pub uri: String,
    /// The HTTP status of the answer.
    pub code: u16,
}

/// One request to Vault, when it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRequest {
    /// When it was answered.
    pub time: Timestamp,
    /// `read`, `update`, `create`, `delete`, `list`, `revoke` and so on.
    pub operation: String,
    /// The path, like `secret/data/app`.
    pub path: String,
    /// The display name of the token, like `kubernetes-shop-default`; for a login that of the token that was issued.
    pub display_name: String,
    /// The accessor of that token.
    pub accessor: String,
    /// Whether that token is root's, as the tests' own are.
    pub is_root: bool,
    /// Why it was refused; empty when it was not.
    pub error: String,
}

impl ApiRequest {
    /// Whether the request can change something: a write of an object, or of one of its subresources.
    ///
    /// Requests for tokens and access reviews are created, too, and change nothing.
    pub fn is_write(&self) -> bool {
        let writes = ["create", "update", "patch", "delete", "deletecollection"]
            .contains(&self.verb.as_str());
        writes && self.subresource != "token" && !self.resource.ends_with("reviews")
    }

    /// Whether it is about a Lease of leader election.
    pub fn is_lease(&self) -> bool {
        self.group == "coordination.k8s.io" && self.resource == "leases"
    }

    /// Reads one entry of the apiserver's log; none where it is not the end of a request.
    pub(crate) fn parse(entry: &Value) -> Option<Self> {
        (text(entry, "/stage") == "ResponseComplete").then_some(())?;
        Some(Self {
            time: text(entry, "/requestReceivedTimestamp").parse().ok()?,
            user_agent: text(entry, "/userAgent"),
            user: text(entry, "/user/username"),
            verb: text(entry, "/verb"),
            group: text(entry, "/objectRef/apiGroup"),
            resource: text(entry, "/objectRef/resource"),
            subresource: text(entry, "/objectRef/subresource"),
            namespace: text(entry, "/objectRef/namespace"),
            name: text(entry, "/objectRef/name"),
            uri: text(entry, "/requestURI"),
            code: entry
                .pointer("/responseStatus/code")
                .and_then(Value::as_u64)
                .and_then(|code| code.try_into().ok())?,
        })
    }
}

impl VaultRequest {
    /// Reads one entry of Vault's log; none where it is not an answer, since each request has one of each.
    pub(crate) fn parse(entry: &Value) -> Option<Self> {
        (text(entry, "/type") == "response").then_some(())?;
        // For a login the request has no token and the answer has one.
        let either = |name: &str| {
            let asked = text(entry, &format!("/auth/{name}"));
            if asked.is_empty() {
                text(entry, &format!("/response/auth/{name}"))
            } else {
                asked
            }
        };
        let policies = entry
            .pointer("/auth/policies")
            .and_then(Value::as_array)
            .map(Vec::as_slice);
        Some(Self {
            time: text(entry, "/time").parse().ok()?,
            operation: text(entry, "/request/operation"),
            path: text(entry, "/request/path"),
            display_name: either("display_name"),
            accessor: either("accessor"),
            is_root: policies
                .is_some_and(|policies| policies.iter().any(|policy| policy == "root")),
            error: text(entry, "/error"),
        })
    }
}
