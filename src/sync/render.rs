//! Pure: from what was read to what the Secret shall hold.

use std::collections::BTreeMap;

use super::{
    refusal::Refusal,
    resolve::source::{Ask, Source},
    unmatched::listed,
};
use crate::{api::source::KeysSpec, sensitive::Sensitive, vault::place::Place};

/// What a Secret can hold: keys and values together (Kubernetes API, `Secret.data`).
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// Longest key of a Secret.
const MAX_KEY: usize = 253;

/// The data of one Secret.
pub type Data = BTreeMap<String, Sensitive>;

/// Selects, renames and merges the keys of all sources.
pub fn render<'a>(read: impl IntoIterator<Item = (&'a Source, &'a Data)>) -> Result<Data, Refusal> {
    let mut merged = Data::new();
    let mut given_by: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    let mut empty = Vec::new();
    for (source, data) in read {
        let selected = select(source, data)?;
        if selected.is_empty() {
            empty.push(why_empty(source, data));
        }
        for Selected { key, name, value } in selected {
            if let Some((first, first_name)) = given_by.insert(key.clone(), (&source.name, name)) {
                return Err(conflict(key, (first, first_name), (&source.name, name)));
            }
            merged.insert(key, value.clone());
        }
    }
    if merged.is_empty() {
        return Err(Refusal::NoKeys {
            why: empty.join("; "),
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

/// Why a source gives no key, and what to do.
fn why_empty(source: &Source, data: &Data) -> String {
    let name = &source.name;
    if !data.is_empty() {
        let keys: Vec<_> = data.keys().map(|key| source.ask.key_of(key)).collect();
        let keys = listed(keys.iter().map(String::as_str)).unwrap_or_default();
        return format!(
            "no key of {name} is left after keys.include and keys.exclude; its keys are: {keys}"
        );
    }
    match &source.ask {
        Ask::Read(Place::Find(place)) => {
            let mut fields = vec!["find.path"];
            fields.extend(place.pattern.as_ref().map(|_| "find.match"));
            let deeper = if place.depth == 0 {
                ", or set find.recursive: true to look into folders"
            } else {
                ""
            };
            let fields = fields.join(" and ");
            format!("{name} finds no secret with a key; check {fields}{deeper}")
        }
        Ask::Read(_) | Ask::Issue(_) => format!("what {name} reads has no key"),
    }
}

/// The refusal of a key that two values give, each told as source and name in it.
fn conflict(key: String, first: (&str, &str), second: (&str, &str)) -> Refusal {
    if first.0 == second.0 && first.1 != second.1 {
        return Refusal::KeyConflictWithin {
            source_name: first.0.to_owned(),
            key,
            first: first.1.to_owned(),
            second: second.1.to_owned(),
        };
    }
    Refusal::KeyConflict {
        key,
        first: first.0.to_owned(),
        second: second.0.to_owned(),
    }
}

/// One value that goes into the Secret.
struct Selected<'a> {
    /// Its key there.
    key: String,
    /// What it is called where it comes from.
    name: &'a str,
    value: &'a Sensitive,
}

fn select<'a>(source: &Source, data: &'a Data) -> Result<Vec<Selected<'a>>, Refusal> {
    data.iter()
        .map(|(name, value)| (source.ask.key_of(name), name, value))
        .filter(|(key, ..)| takes(&source.keys, key))
        .map(|(key, name, value)| {
            let key = new_name(&source.keys, &key);
            if is_allowed(&key) {
                Ok(Selected { key, name, value })
            } else {
                Err(Refusal::KeyNotAllowed {
                    source_name: source.name.clone(),
                    key: key.chars().take(64).collect(),
                })
            }
        })
        .collect()
}

pub(super) fn takes(keys: &KeysSpec, key: &str) -> bool {
    let included =
        keys.include.is_empty() || keys.include.iter().any(|pattern| matches(pattern, key));
    included && !keys.exclude.iter().any(|pattern| matches(pattern, key))
}

pub(super) fn new_name(keys: &KeysSpec, key: &str) -> String {
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
    use crate::vault::path::{MountPath, SecretPath};
    use crate::vault::place::{FindPlace, KvPlace, Pattern};

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
            every: None,
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

    fn find(keys: KeysSpec) -> Source {
        Source {
            ask: Ask::Read(Place::Find(FindPlace {
                namespace: None,
                mount: MountPath::parse("secret").unwrap(),
                folder: None,
                engine: None,
                pattern: None,
                depth: 9,
                most: 100,
            })),
            ..source("all", keys)
        }
    }

    #[test]
    fn what_was_found_is_called_by_its_path_and_key() {
        let read = data(&[
            ("eu/flag-a/on", "1"),
            ("flag-b/on", "2"),
            ("flag-b/x_y", "3"),
        ]);
        let rendered = render([(&find(KeysSpec::default()), &read)]).unwrap();
        let found: Vec<_> = rendered.keys().collect();
        assert_eq!(found, ["eu-flag-a_on", "flag-b_on", "flag-b_x_y"]);
        let keys = keys(&["*_on"], &["eu-*"], None, &[("flag-b_on", "B")]);
        let rendered = render([(&find(keys), &read)]).unwrap();
        assert_eq!(rendered.keys().collect::<Vec<_>>(), ["B"]);
    }

    #[test]
    fn two_values_of_one_source_with_one_key_are_refused_with_both_paths() {
        let read = data(&[("eu/a/on", "1"), ("eu-a/on", "2")]);
        let refusal = render([(&find(KeysSpec::default()), &read)]).unwrap_err();
        assert_eq!(refusal.reason(), "KeyConflict");
        let told = refusal.to_string();
        assert!(
            told.contains("sources[all]: key eu-a_on comes from both eu-a/on and eu/a/on"),
            "{told}"
        );
        let read = data(&[("eu/a%2Fon", "1")]);
        let refusal = render([(&find(KeysSpec::default()), &read)]).unwrap_err();
        assert_eq!(refusal.reason(), "KeyNotAllowed");
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
        let told = nothing.to_string();
        assert!(told.contains("keys.include"), "{told}");
        assert!(told.contains("its keys are: a"), "{told}");
        let mut flat = find(KeysSpec::default());
        if let Ask::Read(Place::Find(place)) = &mut flat.ask {
            place.depth = 0;
            place.pattern = Pattern::parse("a.*").ok();
        }
        for (source, words) in [
            (
                flat,
                "check find.path and find.match, or set find.recursive: true",
            ),
            (
                find(KeysSpec::default()),
                "all finds no secret with a key; check find.path",
            ),
            (source("s", KeysSpec::default()), "what s reads has no key"),
        ] {
            let told = render([(&source, &data(&[]))]).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
            assert!(!told.contains("keys.include"), "{told}");
        }
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
