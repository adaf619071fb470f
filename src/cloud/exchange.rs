//! Pure: one request to a cloud as a value, and what its refusal means.

use http::Method;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use crate::{
    sensitive::Sensitive,
    vault::identity::{CredentialError, Remedy},
};

/// The longest explanation of a cloud that is shown.
const LONGEST: usize = 160;

/// One request to a cloud.
#[derive(Debug)]
pub struct Exchange {
    /// Who is asked, such as `AWS STS`.
    pub who: &'static str,
    /// What helps when it is refused, as the end of a sentence.
    pub advice: String,
    /// The method.
    pub method: Method,
    /// The address, with its query.
    pub url: Url,
    /// Headers, with names in lower case.
    pub headers: Vec<(&'static str, Sensitive)>,
    /// The body with its content type.
    pub body: Option<(&'static str, Sensitive)>,
}

impl Exchange {
    /// The cloud said no. Tried again: what helps is an edit in the cloud, and nothing tells us of it.
    pub fn refused(&self, status: u16, body: &[u8]) -> CredentialError {
        let why = explanation(body).map_or_else(String::new, |why| format!(": {why}"));
        self.failed(&format!("answers {status}{why}; {}", self.advice))
    }

    /// The cloud did not answer.
    pub fn unreachable(&self, why: &str) -> CredentialError {
        self.failed(&format!("cannot be reached: {why}"))
    }

    /// The cloud answered something else than documented.
    pub fn misunderstood(&self, lacking: &str) -> CredentialError {
        self.failed(&format!("answers without {lacking}"))
    }

    fn failed(&self, what: &str) -> CredentialError {
        CredentialError {
            message: format!("{} at {} {what}", self.who, authority(&self.url)),
            remedy: Remedy::Retry,
        }
    }
}

/// Fields as the body of a form.
pub fn form(fields: &[(&str, &str)]) -> (&'static str, Sensitive) {
    // Large enough for a token: a string that grows leaves copies behind.
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(16 * 1024));
    form.extend_pairs(fields);
    (
        "application/x-www-form-urlencoded",
        Sensitive::new(form.finish()),
    )
}

/// `value` as text; `what` names it for people.
pub fn text<'a>(what: &str, value: &'a Sensitive) -> Result<&'a str, CredentialError> {
    value.expose_text().ok_or_else(|| CredentialError {
        message: format!("{what} is not text"),
        remedy: Remedy::Edit,
    })
}

fn authority(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// The access token in the answer to an exchange of OAuth (RFC 6749, section 5.1); `None` if it holds none.
pub fn granted(answer: &Sensitive) -> Option<Sensitive> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: String,
    }
    let granted: Granted = serde_json::from_str(answer.expose_text()?).ok()?;
    Some(Sensitive::new(granted.access_token)).filter(|token| !token.is_empty())
}

/// What the body of a refusal says, in the words of the cloud, if it can be shown.
fn explanation(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let said = from_json(text).or_else(|| from_xml(text))?;
    // Azure ends with ids and the time of the request, which are different each time.
    let said = said.split("Trace ID:").next().unwrap_or_default();
    let line: Vec<&str> = said.split_whitespace().collect();
    let line: String = line.join(" ").chars().take(LONGEST).collect();
    // No cloud is known to repeat a token; if one does, it says nothing. A JWT starts like this.
    (!line.is_empty() && !line.contains("eyJ")).then_some(line)
}

/// The two shapes of OAuth (RFC 6749, section 5.2) and of Google's APIs.
#[derive(Deserialize)]
struct Refusal {
    error: Detail,
    error_description: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Detail {
    Word(String),
    Object {
        status: Option<String>,
        message: Option<String>,
    },
}

fn from_json(text: &str) -> Option<String> {
    let Refusal {
        error,
        error_description,
    } = serde_json::from_str(text).ok()?;
    let (word, words) = match error {
        Detail::Word(word) => (Some(word), error_description),
        Detail::Object { status, message } => (status, message),
    };
    joined(word.as_deref(), words.as_deref())
}

/// The shape of AWS's query APIs.
fn from_xml(text: &str) -> Option<String> {
    let document = roxmltree::Document::parse(text).ok()?;
    let element = |name: &str| {
        let mut nodes = document.descendants();
        nodes
            .find(|node| node.tag_name().name() == name)
            .and_then(|node| node.text())
    };
    joined(element("Code"), element("Message"))
}

fn joined(word: Option<&str>, words: Option<&str>) -> Option<String> {
    match (word, words) {
        (Some(word), Some(words)) => Some(format!("{word}: {words}")),
        (only, None) | (None, only) => only.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange {
            who: "AWS STS",
            advice: "check the role".to_owned(),
            method: Method::POST,
            url: Url::parse("https://sts.amazonaws.com/").unwrap(),
            headers: Vec::new(),
            body: Some(form(&[("Token", "canary 5f1c&")])),
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_cloud() {
        let rows = [
            (
                r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error><RequestId>1</RequestId></ErrorResponse>"#,
                ": AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"The audience in ID Token does not match."}"#,
                ": invalid_grant: The audience in ID Token does not match.",
            ),
            (
                r#"{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}"#,
                ": PERMISSION_DENIED: Permission denied",
            ),
            (
                "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS700213: No matching record. Trace ID: 1 Correlation ID: 2\"}",
                ": invalid_client: AADSTS700213: No matching record.",
            ),
            (r#"{"error":"invalid_request"}"#, ": invalid_request"),
            (
                r#"{"error":"bad","error_description":"token eyJhbGciOi"}"#,
                "",
            ),
            ("<html>gateway</html>", ""),
            ("", ""),
        ];
        for (body, expected) in rows {
            let error = exchange().refused(403, body.as_bytes());
            let message =
                format!("AWS STS at sts.amazonaws.com answers 403{expected}; check the role");
            assert_eq!(error.message, message);
            assert_eq!(error.remedy, Remedy::Retry);
        }
    }

    #[test]
    fn a_long_explanation_is_cut() {
        let body = format!(r#"{{"error":"{}"}}"#, "x".repeat(5000));
        let message = exchange().refused(400, body.as_bytes()).message;
        assert!(message.len() < 400, "{}", message.len());
    }

    #[test]
    fn a_form_is_encoded_and_not_shown() {
        let exchange = exchange();
        let (_, body) = exchange.body.as_ref().unwrap();
        assert_eq!(body.expose_text(), Some("Token=canary+5f1c%26"));
        assert!(!format!("{exchange:?}").contains("5f1c"));
    }
}
