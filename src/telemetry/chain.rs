//! Pure: an error and its sources as one line of text.
//!
//! Errors of this crate do not print their source, errors of other crates often do: what a message repeats
//! from its source is printed once. A JSON error quotes the input it stumbled over, which may be a secret,
//! so of that one only the kind and the position are kept.

use std::error::Error;

/// Longest text [`chain`] gives, in bytes.
const MAX_BYTES: usize = 1024;

/// `error` and its sources as `a: b: c`: one line, at most 1024 bytes, without a quote from a JSON document.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts = Vec::new();
    let mut current = Some(error);
    while let Some(link) = current {
        let own = own_text(link);
        if !own.is_empty() {
            parts.push(own);
        }
        current = if is_whole(link) { None } else { link.source() };
    }
    truncate(&one_line(&parts.join(": ")), MAX_BYTES).to_owned()
}

/// The longest beginning of `text` that has at most `max_bytes` bytes and ends between two characters.
pub fn truncate(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes))
        .unwrap_or_default()
}

/// Whether the text of `link` tells everything: the source of an answer of the apiserver is the same answer.
fn is_whole(link: &(dyn Error + 'static)) -> bool {
    matches!(link.downcast_ref(), Some(kube::Error::Api(_)))
}

/// What `link` says itself, without what it repeats from its source.
fn own_text(link: &(dyn Error + 'static)) -> String {
    if let Some(json) = link.downcast_ref::<serde_json::Error>() {
        return format!(
            "JSON {:?} error at line {} column {}",
            json.classify(),
            json.line(),
            json.column()
        );
    }
    if let Some(kube::Error::Api(status)) = link.downcast_ref() {
        return format!(
            "the apiserver answered {} {}: {}",
            status.code, status.reason, status.message
        );
    }
    let text = link.to_string();
    let repeated = link.source().map(ToString::to_string).unwrap_or_default();
    let own = text.strip_suffix(&repeated).unwrap_or(&text);
    own.trim_end_matches([' ', ':']).to_owned()
}

/// `text` with every run of white space and control characters replaced by one space.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Step {
        #[error("apply secret shop/db")]
        Quiet(#[source] std::io::Error),
        #[error("decode: {0}")]
        Loud(#[source] serde_json::Error),
        #[error(transparent)]
        Transparent(#[from] std::fmt::Error),
        #[error("two\nlines\tand {0}")]
        Lines(String),
    }

    fn check(error: &Step, expected: &str) {
        assert_eq!(chain(error), expected);
    }

    #[test]
    fn sources_follow_their_error() {
        check(
            &Step::Quiet(std::io::Error::other("connection reset")),
            "apply secret shop/db: connection reset",
        );
    }

    #[test]
    fn a_repeated_source_is_printed_once() {
        check(
            &Step::Transparent(std::fmt::Error),
            &std::fmt::Error.to_string(),
        );
    }

    #[test]
    fn an_answer_of_the_apiserver_is_printed_once() {
        let status = kube::core::Status::failure("leases \"lockstep\" is forbidden", "Forbidden")
            .with_code(403);
        let error = kube::Error::Api(Box::new(status));
        assert_eq!(
            chain(&error),
            "the apiserver answered 403 Forbidden: leases \"lockstep\" is forbidden"
        );
    }

    #[test]
    fn json_errors_do_not_quote_the_document() {
        let error = serde_json::from_str::<u8>("\"hunter2\"").unwrap_err();
        assert!(
            error.to_string().contains("hunter2"),
            "the reason for this test: {error}"
        );
        check(
            &Step::Loud(error),
            "decode: JSON Data error at line 1 column 9",
        );
    }

    #[test]
    fn the_text_is_one_line_of_bounded_length() {
        check(&Step::Lines("more".to_owned()), "two lines and more");
        let long = chain(&Step::Lines("é".repeat(MAX_BYTES)));
        assert!(
            long.len() <= MAX_BYTES && long.ends_with('é'),
            "{}",
            long.len()
        );
    }

    #[test]
    fn truncation_respects_characters() {
        for (text, max, expected) in [
            ("aé", 2, "a"),
            ("aé", 3, "aé"),
            ("aé", 9, "aé"),
            ("é", 0, ""),
        ] {
            assert_eq!(truncate(text, max), expected);
        }
    }
}
