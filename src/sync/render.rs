//! Pure: from what was read to what the Secret shall hold.

use std::collections::BTreeMap;

use super::{refusal::Refusal, resolve::source::Source};
use crate::{api::source::KeysSpec, sensitive::Sensitive};

/// What a Secret can hold: keys and values together (Kubernetes API, `Secret.data`).
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// Longest key of a Secret.
const MAX_KEY: usize = 253;

/// The data of one Secret.
pub type Data = BTreeMap<String, Sensitive>;

/// Selects, renames and merges the keys of all sources.
pub fn render<'a>(read: impl IntoIterator<Item = (&'a Source, &'a Data)>) -> Result<Data, Refusal> {
    let mut merged = Data::new();
    let mut given_by: BTreeMap<String, &str> = BTreeMap::new();
    let mut empty = Vec::new();
    for (source, data) in read {
        let selected = select(source, data)?;
        if selected.is_empty() {
            empty.push(source.name.as_str());
        }
        for (key, value) in selected {
            if let Some(first) = given_by.insert(key.clone(), &source.name) {
                return Err(Refusal::KeyConflict {
                    key,
                    first: first.to_owned(),
                    second: source.name.clone(),
                });
            }
            merged.insert(key, value);
        }
    }
    if merged.is_empty() {
        return Err(Refusal::NoKeys {
            why: format!(
                "no key of {} is left after keys.include and keys.exclude",
                empty.join(", ")
            ),
        });
    }
    let bytes = merged
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > MAX_SECRET_BYTES {
        return Err(Refusal::TooLarge {
            bytes,
            limit: MAX_SECRET_BYTES,
        });
    }
    Ok(merged)
}

fn select(source: &Source, data: &Data) -> Result<Vec<(String, Sensitive)>, Refusal> {
    data.iter()
        .filter(|(key, _)| takes(&source.keys, key))
        .map(|(key, value)| {
            let name = new_name(&source.keys, key);
            if is_allowed(&name) {
                Ok((name, value.clone()))
            } else {
                Err(Refusal::KeyNotAllowed {
                    source_name: source.name.clone(),
                    key: name.chars().take(64).collect(),
                })
            }
        })
        .collect()
}

fn takes(keys: &KeysSpec, key: &str) -> bool {
    let included =
        keys.include.is_empty() || keys.include.iter().any(|pattern| matches(pattern, key));
    included && !keys.exclude.iter().any(|pattern| matches(pattern, key))
}

fn new_name(keys: &KeysSpec, key: &str) -> String {
    match (keys.rename.get(key), &keys.prefix) {
        (Some(name), _) => name.clone(),
        (None, Some(prefix)) => format!("{prefix}{key}"),
        (None, None) => key.to_owned(),
    }
}

/// The keys Kubernetes allows in a Secret.
fn is_allowed(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !key.starts_with("..")
        && key != "."
}

/// Whether `text` has the form of `pattern`, in which `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(head) else {
        return false;
    };
    rest.char_indices()
        .map(|(at, _)| at)
        .chain([rest.len()])
        .any(|at| rest.get(at..).is_some_and(|rest| matches(tail, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::resolve::source::Ask;
    use crate::vault::path::{MountPath, SecretPath};
    use crate::vault::place::{KvPlace, Place};

    fn source(name: &str, keys: KeysSpec) -> Source {
        Source {
            name: name.into(),
            keys,
            ask: Ask::Read(Place::Kv(KvPlace {
                namespace: None,
                mount: MountPath::parse("secret").unwrap(),
                path: SecretPath::parse("a").unwrap(),
                engine: None,
                version: None,
            })),
        }
    }

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value)))
            .collect()
    }

    fn keys(
        include: &[&str],
        exclude: &[&str],
        prefix: Option<&str>,
        rename: &[(&str, &str)],
    ) -> KeysSpec {
        KeysSpec {
            include: include.iter().map(|text| (*text).to_owned()).collect(),
            exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
            prefix: prefix.map(str::to_owned),
            rename: rename
                .iter()
                .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn keys_are_included_excluded_renamed_and_prefixed_in_this_order() {
        let read = data(&[
            ("user", "u"),
            ("password", "p"),
            ("note", "n"),
            ("pass_hint", "h"),
        ]);
        let table = [
            (
                keys(&[], &[], None, &[]),
                vec!["note", "pass_hint", "password", "user"],
            ),
            (
                keys(&["pass*"], &[], None, &[]),
                vec!["pass_hint", "password"],
            ),
            (keys(&["pass*"], &["*hint"], None, &[]), vec!["password"]),
            (
                keys(
                    &["user", "password"],
                    &[],
                    Some("DB_"),
                    &[("user", "LOGIN")],
                ),
                vec!["DB_password", "LOGIN"],
            ),
        ];
        for (keys, expected) in table {
            let rendered = render([(&source("s", keys.clone()), &read)]).unwrap();
            assert_eq!(rendered.keys().collect::<Vec<_>>(), expected, "{keys:?}");
        }
    }

    #[test]
    fn a_key_from_two_sources_is_refused_with_both_names() {
        let (a, b) = (
            source("a", KeysSpec::default()),
            source("b", KeysSpec::default()),
        );
        let read = data(&[("k", "v")]);
        let refusal = render([(&a, &read), (&b, &read)]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "spec.sources: key k comes from both a and b; rename or exclude it in one of them under keys"
        );
    }

    #[test]
    fn keys_kubernetes_does_not_allow_are_refused_unless_renamed_or_excluded() {
        for key in ["a b", "a/b", "ü", "", "..", "..a", ".", &"k".repeat(254)] {
            let read = data(&[(key, "v")]);
            let refused = render([(&source("s", KeysSpec::default()), &read)]).unwrap_err();
            assert_eq!(refused.reason(), "KeyNotAllowed", "{key:?}");
            assert!(
                render([(&source("s", keys(&[], &[], None, &[(key, "ok")])), &read)]).is_ok(),
                "{key:?}"
            );
        }
    }

    #[test]
    fn nothing_left_and_too_much_are_refused() {
        let nothing = render([(
            &source("s", keys(&["x"], &[], None, &[])),
            &data(&[("a", "1")]),
        )])
        .unwrap_err();
        assert_eq!(nothing.reason(), "NoKeys");
        let big = "x".repeat(MAX_SECRET_BYTES);
        let too_large =
            render([(&source("s", KeysSpec::default()), &data(&[("a", &big)]))]).unwrap_err();
        assert!(
            matches!(too_large, Refusal::TooLarge { bytes, .. } if bytes == MAX_SECRET_BYTES + 1)
        );
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*b*", "abc", true),
            ("é*", "éa", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
