//! Pure: what went wrong at Vault, classified once.
//!
//! [`classify`] is the only place that looks at a status code. Everything else (retry, gate, condition
//! reason, metric label) follows from [`VaultErrorKind`]. The text of an error comes from Vault's
//! `errors` array alone, never from a raw body.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::request::Request;

/// Longest text taken from Vault's answer, in characters. Enough for the first error of a list.
const DETAIL_CHARS: usize = 200;

/// What kind of failure it was. The words are condition reasons and metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VaultErrorKind {
    /// The token or the login may not do this (403).
    Denied,
    /// There is nothing at this path (404).
    NotFound,
    /// The version of a KV v2 secret was deleted or destroyed.
    Deleted,
    /// Vault is sealed.
    Sealed,
    /// Too many requests (429).
    Throttled,
    /// Vault or something in front of it cannot answer now (5xx, a standby without an active node).
    Unavailable,
    /// No answer at all: connection refused, timeout, TLS.
    Unreachable,
    /// Vault does not understand the request, or we do not understand the answer.
    Invalid,
    /// There is more to read than the limit allows, so nothing of it was read.
    TooMany,
    /// We did not send the request because it could not have been right.
    Refused,
    /// The credential for the login could not be had.
    CredentialUnavailable,
}

impl VaultErrorKind {
    /// The one word for it in conditions, events, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "Denied",
            Self::NotFound => "NotFound",
            Self::Deleted => "VersionDeleted",
            Self::Sealed => "Sealed",
            Self::Throttled => "Throttled",
            Self::Unavailable => "Unavailable",
            Self::Unreachable => "Unreachable",
            Self::Invalid => "Invalid",
            Self::TooMany => "TooMany",
            Self::Refused => "Refused",
            Self::CredentialUnavailable => "CredentialUnavailable",
        }
    }

    /// Half a sentence for people.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Denied => "permission denied by Vault",
            Self::NotFound => "nothing found",
            Self::Deleted => "this version was deleted or destroyed",
            Self::Sealed => "Vault is sealed",
            Self::Throttled => "Vault limits the request rate",
            Self::Unavailable => "Vault is not available",
            Self::Unreachable => "Vault cannot be reached",
            Self::Invalid => "request or answer is not valid",
            Self::TooMany => "too much to read",
            Self::Refused => "not sent",
            Self::CredentialUnavailable => "the credential for the login is not available",
        }
    }
}

/// One failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the answer; no two exclude each other"
)]
pub struct VaultError {
    /// What kind of failure it was.
    pub kind: VaultErrorKind,
    /// What was attempted: `read`, `login`, …
    pub operation: &'static str,
    /// The path in Vault, without `/v1/`, and the version if one is wanted. Paths are not secret.
    pub path: String,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// The answer holds Vault's `errors`: it does not come from a proxy in front of it.
    pub by_vault: bool,
    /// One line of at most 200 characters; may be empty.
    pub detail: String,
    /// How long Vault asked us to wait.
    pub retry_after: Option<Duration>,
    /// The request was not sent: the failure told here, of another request, closed the gate of the connection.
    pub held_back: bool,
    /// It was sent, and no whole answer came: Vault may have done what was asked.
    pub unanswered: bool,
    /// What failed is behind a Vault that works: one engine, auth method or namespace.
    pub behind: bool,
}

impl std::error::Error for VaultError {}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.operation, self.path)?;
        if self.held_back {
            f.write_str("not sent because the connection just failed: ")?;
        }
        f.write_str(self.kind.phrase())?;
        if let Some(status) = self.status {
            write!(f, " ({status})")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl VaultError {
    /// A failure of `request` without an HTTP answer. `detail` must not hold a value.
    pub fn new(kind: VaultErrorKind, request: &Request, detail: impl AsRef<str>) -> Self {
        Self {
            kind,
            operation: request.operation(),
            path: request.path().to_owned(),
            status: None,
            by_vault: false,
            detail: one_line(detail.as_ref()),
            retry_after: None,
            held_back: false,
            unanswered: false,
            behind: false,
        }
    }

    /// A refusal before there is a request: settings that cannot work.
    pub fn refused(operation: &'static str, path: &str, detail: impl AsRef<str>) -> Self {
        Self {
            kind: VaultErrorKind::Refused,
            operation,
            path: path.to_owned(),
            status: None,
            by_vault: false,
            detail: one_line(detail.as_ref()),
            retry_after: None,
            held_back: false,
            unanswered: false,
            behind: false,
        }
    }

    /// The same failure told to `request`, which is not sent because of it.
    #[must_use]
    pub fn held_back(&self, request: &Request, reopens_in: Duration) -> Self {
        Self {
            operation: request.operation(),
            path: request.path().to_owned(),
            retry_after: Some(reopens_in),
            held_back: true,
            unanswered: false,
            ..self.clone()
        }
    }

    /// Whether there was no token to send the request with, so that nothing is known about its path.
    pub fn concerns_login(&self) -> bool {
        self.operation == "login"
    }

    /// Whether the whole connection is affected, not only this path or identity.
    ///
    /// What is behind a Vault that works is not counted: one tenant's broken database or sealed namespace must not
    /// close the connection for everyone. Nor is a 429 of Vault itself, whose quotas are set per path or mount; one of
    /// a proxy or load balancer is.
    pub fn concerns_connection(&self) -> bool {
        match self.kind {
            VaultErrorKind::Sealed | VaultErrorKind::Unreachable => true,
            VaultErrorKind::Throttled => !self.by_vault,
            VaultErrorKind::Unavailable => !self.behind,
            VaultErrorKind::Denied
            | VaultErrorKind::NotFound
            | VaultErrorKind::Deleted
            | VaultErrorKind::Invalid
            | VaultErrorKind::TooMany
            | VaultErrorKind::Refused
            | VaultErrorKind::CredentialUnavailable => false,
        }
    }

    /// The same failure with more to say.
    #[must_use]
    pub(super) fn explained(self, more: &str) -> Self {
        let detail = match self.detail.as_str() {
            "" => one_line(more),
            known => one_line(&format!("{known}; {more}")),
        };
        Self { detail, ..self }
    }
}

/// Names the failure behind an answer that is not a success.
pub fn classify(
    request: &Request,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> VaultError {
    if wants_tls(status, body) {
        return VaultError {
            status: Some(status.as_u16()),
            ..VaultError::new(
                VaultErrorKind::Unreachable,
                request,
                "the server speaks TLS at this port; use https:// in the connection's address",
            )
        };
    }
    let answer = serde_json::from_slice::<Answer>(body).ok();
    let kind = kind_of(status, answer.as_ref());
    let by_vault = answer
        .as_ref()
        .is_some_and(|answer| answer.errors.is_some());
    VaultError {
        kind,
        operation: request.operation(),
        path: request.path().to_owned(),
        status: Some(status.as_u16()),
        by_vault,
        detail: detail_of(kind, status, headers, answer.as_ref()),
        retry_after: retry_after(headers),
        held_back: false,
        // What stands in front of Vault waited for it in vain.
        unanswered: !by_vault && matches!(status.as_u16(), 502 | 504),
        behind: status == StatusCode::INTERNAL_SERVER_ERROR
            || answer.as_ref().is_some_and(Answer::says_what_is_behind),
    }
}

/// The failure of a request that was answered with a 307 that is not followed; `why` completes "because".
pub(super) fn not_followed(request: &Request, why: &str) -> VaultError {
    VaultError {
        status: Some(StatusCode::TEMPORARY_REDIRECT.as_u16()),
        ..VaultError::new(
            VaultErrorKind::Unavailable,
            request,
            format!("the answer is a redirect, which is not followed because {why}"),
        )
    }
}

/// Whether a server for TLS says that it was spoken to without: Go's, which Vault is, and nginx.
fn wants_tls(status: StatusCode, body: &[u8]) -> bool {
    const WORDS: [&str; 2] = [
        "Client sent an HTTP request to an HTTPS server",
        "The plain HTTP request was sent to HTTPS port",
    ];
    let says = |words: &str| {
        body.windows(words.len())
            .any(|part| part == words.as_bytes())
    };
    status == StatusCode::BAD_REQUEST && body.len() < 1024 && WORDS.into_iter().any(says)
}

/// The parts of an error body that we look at. Values under `data` are skipped, not read.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: Option<Vec<String>>,
    #[serde(default)]
    data: Option<AnswerData>,
    #[serde(default)]
    sealed: bool,
}

#[derive(Deserialize)]
struct AnswerData {
    #[serde(default)]
    metadata: Option<AnswerMetadata>,
}

#[derive(Deserialize)]
struct AnswerMetadata {
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    destroyed: bool,
    #[serde(default)]
    deletion_time: String,
}

impl Answer {
    fn says_sealed(&self) -> bool {
        self.sealed || self.says("is sealed")
    }

    /// A namespace is sealed (OpenBao) or locked, which is a 503 like that of a whole Vault that is, or OpenBao does
    /// not reach an LDAP directory, which is a 400 like that of a wrong password.
    fn says_what_is_behind(&self) -> bool {
        let closed = [
            "namespace is sealed",
            "access to this namespace has been locked",
        ];
        closed.into_iter().any(|words| self.says(words)) || self.says_directory_is_away()
    }

    fn says_directory_is_away(&self) -> bool {
        self.says("error connecting to host")
    }

    fn says(&self, words: &str) -> bool {
        let mut texts = self.errors.iter().flatten();
        texts.any(|text| text.to_ascii_lowercase().contains(words))
    }

    fn metadata(&self) -> Option<&AnswerMetadata> {
        self.data.as_ref()?.metadata.as_ref()
    }
}

fn kind_of(status: StatusCode, answer: Option<&Answer>) -> VaultErrorKind {
    match status.as_u16() {
        401 | 403 => VaultErrorKind::Denied,
        400 if answer.is_some_and(Answer::says_directory_is_away) => VaultErrorKind::Unavailable,
        503 if answer.is_some_and(Answer::says_what_is_behind) => VaultErrorKind::Unavailable,
        404 if answer.and_then(Answer::metadata).is_some() => VaultErrorKind::Deleted,
        404 => VaultErrorKind::NotFound,
        429 => VaultErrorKind::Throttled,
        503 if answer.is_some_and(Answer::says_sealed) => VaultErrorKind::Sealed,
        // 307 is a standby that cannot forward; 472 to 474 are secondaries and standbys.
        307 | 472..=474 | 500..=599 => VaultErrorKind::Unavailable,
        _ => VaultErrorKind::Invalid,
    }
}

fn detail_of(
    kind: VaultErrorKind,
    status: StatusCode,
    headers: &HeaderMap,
    answer: Option<&Answer>,
) -> String {
    let Some(answer) = answer else {
        if status.is_redirection() {
            return "the answer is a redirect, which is not followed".to_owned();
        }
        return one_line(&format!(
            "the answer does not come from Vault's API ({})",
            content_type(headers)
        ));
    };
    if let Some(metadata) = answer.metadata() {
        return deleted_detail(metadata);
    }
    one_line(&said_beyond(kind, answer.errors.as_deref().unwrap_or_default()).join("; "))
}

/// What Vault says beyond the phrase of the kind, each thing once.
fn said_beyond(kind: VaultErrorKind, errors: &[String]) -> Vec<&str> {
    let mut said = Vec::new();
    for text in errors.iter().flat_map(|error| items(error)) {
        if !text.is_empty() && !kind.phrase().contains(text) && !said.contains(&text) {
            said.push(text);
        }
    }
    said
}

/// The errors in one text: Go lists several as `2 errors occurred:` and a line with `\t* ` for each.
fn items(text: &str) -> Vec<&str> {
    let text = text.trim();
    match text.split_once(" occurred:") {
        Some((count, list)) if is_count(count) && list.starts_with("\n\t* ") => {
            let mut items = list.split("\n\t* ").map(str::trim);
            items.next();
            items.collect()
        }
        _ => vec![text],
    }
}

fn is_count(text: &str) -> bool {
    text.split_once(' ').is_some_and(|(number, noun)| {
        number.parse::<u32>().is_ok() && matches!(noun, "error" | "errors")
    })
}

fn deleted_detail(metadata: &AnswerMetadata) -> String {
    let version = metadata
        .version
        .map_or_else(|| "the version".to_owned(), |n| format!("version {n}"));
    if metadata.destroyed {
        return format!("{version} is destroyed");
    }
    one_line(&format!(
        "{version} was deleted at {}",
        metadata.deletion_time
    ))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("no content type")
}

/// Longer than any outage is waited for in one piece; also keeps dates within what a clock can say.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Seconds only. A date would need the wall clock, and neither Vault nor the usual proxies send one.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// `text` on one line, without control characters, cut at a character boundary.
pub(super) fn one_line(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let joined = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    if joined.chars().count() <= DETAIL_CHARS {
        return joined;
    }
    let mut cut: String = joined.chars().take(DETAIL_CHARS - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests;
