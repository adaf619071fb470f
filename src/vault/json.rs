//! Pure: the members of a JSON object as they stand in the text.
//!
//! KV version 1 hands a number on exactly as it was written (`1.10`, 25 digits); version 2 rounds it
//! already when it is stored. A tree of parsed values would round and rewrite it once more, and would
//! leave unwiped copies of every string behind, so the values of a secret are cut out of the body.

use serde::de::IgnoredAny;
use serde_json::Deserializer;
use zeroize::Zeroizing;

use crate::sensitive::Sensitive;

/// The text is not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAnObject;

/// Key and raw text of each member of the object in `text`, in its order.
pub(super) fn members(text: &str) -> Result<Vec<(String, &str)>, NotAnObject> {
    let mut rest = text.trim_start().strip_prefix('{').ok_or(NotAnObject)?;
    let mut found = Vec::new();
    if let Some(after) = rest.trim_start().strip_prefix('}') {
        return end(after).map(|()| found);
    }
    loop {
        let (key, after) = key(rest)?;
        let after = after.trim_start().strip_prefix(':').ok_or(NotAnObject)?;
        let (value, after) = value(after)?;
        found.push((key, value));
        let after = after.trim_start();
        if let Some(next) = after.strip_prefix(',') {
            rest = next;
            continue;
        }
        let after = after.strip_prefix('}').ok_or(NotAnObject)?;
        return end(after).map(|()| found);
    }
}

/// The raw text of the last member called `name`, `None` when there is none or it is `null`.
pub(super) fn member<'a>(text: &'a str, name: &str) -> Result<Option<&'a str>, NotAnObject> {
    let found = members(text)?.into_iter().rfind(|(key, _)| key == name);
    Ok(found
        .map(|(_, value)| value)
        .filter(|value| *value != "null"))
}

/// What a raw JSON value becomes in a Secret: the bytes of a string, nothing for `null`, otherwise
/// compact JSON with the numbers as they stand.
pub(super) fn secret_bytes(raw: &str) -> Sensitive {
    if raw == "null" {
        return Sensitive::new(Vec::new());
    }
    if raw.starts_with('"')
        && let Ok(text) = serde_json::from_str::<String>(raw)
    {
        return Sensitive::new(text);
    }
    Sensitive::new(compact(raw))
}

/// Drops spaces between tokens, and undoes the escapes of `<`, `>` and `&` that Go adds for browsers.
fn compact(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut in_string = false;
    let mut rest = raw.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                in_string = !in_string;
                out.push(c);
            }
            '\\' => {
                if let Some((plain, after)) = browser_escape(rest.as_str()) {
                    out.push(plain);
                    rest = after.chars();
                } else {
                    out.push(c);
                    out.extend(rest.next());
                }
            }
            ' ' | '\t' | '\r' | '\n' if !in_string => {}
            _ => out.push(c),
        }
    }
    out
}

fn browser_escape(after_backslash: &str) -> Option<(char, &str)> {
    [("u003c", '<'), ("u003e", '>'), ("u0026", '&')]
        .into_iter()
        .find_map(|(code, plain)| Some((plain, after_backslash.strip_prefix(code)?)))
}

fn key(text: &str) -> Result<(String, &str), NotAnObject> {
    let mut keys = Deserializer::from_str(text).into_iter::<String>();
    let key = keys.next().ok_or(NotAnObject)?.map_err(|_| NotAnObject)?;
    let after = text.get(keys.byte_offset()..).ok_or(NotAnObject)?;
    Ok((key, after))
}

fn value(text: &str) -> Result<(&str, &str), NotAnObject> {
    let mut values = Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next().ok_or(NotAnObject)?.map_err(|_| NotAnObject)?;
    let (value, after) = text
        .split_at_checked(values.byte_offset())
        .ok_or(NotAnObject)?;
    Ok((value.trim(), after))
}

fn end(rest: &str) -> Result<(), NotAnObject> {
    rest.trim_start()
        .is_empty()
        .then_some(())
        .ok_or(NotAnObject)
}

/// `bytes` as text, when it is UTF-8.
pub(super) fn text(bytes: &Zeroizing<Vec<u8>>) -> Result<&str, NotAnObject> {
    std::str::from_utf8(bytes).map_err(|_| NotAnObject)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<(String, String)> {
        let found = members(text).unwrap();
        found
            .into_iter()
            .map(|(key, raw)| {
                let bytes = secret_bytes(raw);
                (key, bytes.expose_text().unwrap().to_owned())
            })
            .collect()
    }

    #[test]
    fn each_kind_of_value_becomes_bytes() {
        for (raw, expected) in [
            (r#""plain""#, "plain"),
            (r#""q\"\\\u00e9\n""#, "q\"\\é\n"),
            ("null", ""),
            ("true", "true"),
            ("1.10", "1.10"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1e400", "1e400"),
            (r#"{ "a" : [1, 2.50, " x "] }"#, r#"{"a":[1,2.50," x "]}"#),
            (r#"["\u003ca\u0026b\u003e"]"#, r#"["<a&b>"]"#),
            (r#"["\\u003c","\"  "]"#, r#"["\\u003c","\"  "]"#),
            ("{}", "{}"),
        ] {
            let text = format!(r#" {{ "k" : {raw} }} "#);
            let expected = vec![("k".to_owned(), expected.to_owned())];
            assert_eq!(shown(&text), expected, "{raw}");
        }
    }

    #[test]
    fn members_keep_their_order_and_escaped_keys() {
        let text = r#"{"b":1,"\u0061":"x","":null}"#;
        let keys: Vec<String> = shown(text).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["b", "a", ""]);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in [
            "",
            "[]",
            "1",
            "{",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            r"{a:1}",
            r#"{"a":01}"#,
            "{,}",
        ] {
            assert_eq!(members(text), Err(NotAnObject), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}", more in "[{}\\[\\]\",:a0\\\\ eu.-]{0,60}") {
            for text in [text, more] {
                let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
                prop_assert_eq!(members(&text).is_ok(), parsed.is_ok(), "{}", text);
                _ = secret_bytes(&text);
            }
        }
    }
}
