//! Pure: what `keys` names and its source does not have, as after a slip of the pen.

use std::collections::BTreeSet;

use super::resolve::source::Source;
use crate::api::source::KeysSpec;

/// How many keys of a source are told.
const MOST: usize = 12;
/// How much is told of each.
const LONGEST: usize = 64;

/// What `keys` of these sources names and they do not have, in words; each source comes with the names of its keys. A
/// pattern may match nothing: it is no name.
pub(super) fn unmatched<'a>(
    sources: impl IntoIterator<Item = (&'a Source, BTreeSet<String>)>,
) -> Option<String> {
    let told: Vec<_> = sources
        .into_iter()
        .flat_map(|(source, names)| about(source, &names))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

fn about(source: &Source, names: &BTreeSet<String>) -> Vec<String> {
    let KeysSpec {
        include,
        exclude,
        prefix: _,
        rename,
    } = &source.keys;
    let fields: [(&str, Vec<&String>); 3] = [
        ("include", include.iter().collect()),
        ("exclude", exclude.iter().collect()),
        ("rename", rename.keys().collect()),
    ];
    let told = fields.into_iter().filter_map(|(field, named)| {
        let is_pattern = |name: &str| field != "rename" && name.contains('*');
        let missing = named
            .into_iter()
            .filter(|name| !is_pattern(name) && !names.contains(*name));
        let missing = listed(missing.map(String::as_str))?;
        let there = listed(names.iter().map(String::as_str));
        let there = there.unwrap_or_else(|| "none".to_owned());
        Some(format!(
            "keys.{field} of source {} names what is not there: {missing}; its keys are: {there}",
            source.name
        ))
    });
    told.collect()
}

/// The names of keys, cut where there are many; `None` when there are none.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<_> = names.into_iter().collect();
    let shown = names.iter().take(MOST);
    let shown: Vec<String> = shown
        .map(|name| name.escape_debug().take(LONGEST).collect())
        .collect();
    let more = match names.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sync::resolve::source::Ask,
        vault::{
            path::{MountPath, SecretPath},
            place::{KvPlace, Place},
        },
    };

    fn told(keys: &serde_json::Value, names: &[&str]) -> Option<String> {
        let source = Source {
            name: "main".into(),
            keys: serde_json::from_value(keys.clone()).unwrap(),
            ask: Ask::Read(Place::Kv(KvPlace {
                namespace: None,
                mount: MountPath::parse("secret").unwrap(),
                path: SecretPath::parse("a").unwrap(),
                engine: None,
                version: None,
            })),
            every: None,
        };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        unmatched([(&source, names)])
    }

    #[test]
    fn what_is_named_and_not_there_is_told_with_what_is() {
        let names = ["password", "user"];
        let rows = [
            (serde_json::json!({}), None),
            (
                serde_json::json!({"include": ["user"], "exclude": ["password"], "rename": {"user": "U"}, "prefix": "x"}),
                None,
            ),
            (
                serde_json::json!({"rename": {"pasword": "P", "user": "U"}}),
                Some(
                    "keys.rename of source main names what is not there: pasword; its keys are: password, user",
                ),
            ),
            (
                serde_json::json!({"include": ["usr", "user"]}),
                Some(
                    "keys.include of source main names what is not there: usr; its keys are: password, user",
                ),
            ),
            (
                serde_json::json!({"exclude": ["note"]}),
                Some(
                    "keys.exclude of source main names what is not there: note; its keys are: password, user",
                ),
            ),
            (
                serde_json::json!({"include": ["*"], "exclude": ["x*"]}),
                None,
            ),
        ];
        for (keys, expected) in rows {
            assert_eq!(told(&keys, &names).as_deref(), expected, "{keys}");
        }
        let both = serde_json::json!({"exclude": ["a"], "rename": {"b": "c"}});
        let both = told(&both, &[]).unwrap();
        assert!(
            both.contains("exclude") && both.contains("rename"),
            "{both}"
        );
        assert!(both.contains("its keys are: none"), "{both}");
    }

    #[test]
    fn many_names_and_strange_ones_stay_readable() {
        let many: Vec<String> = (10..40).map(|number| format!("key-{number}")).collect();
        let many = listed(many.iter().map(String::as_str)).unwrap();
        assert!(many.starts_with("key-10, key-11"), "{many}");
        assert!(many.ends_with("key-21 and 18 more"), "{many}");
        let strange = format!("a\n{}", "b".repeat(1000));
        assert_eq!(listed([strange.as_str()]).unwrap().len(), LONGEST);
        assert!(!listed(["a\n"]).unwrap().contains('\n'));
    }
}
