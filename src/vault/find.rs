//! Pure: which folders to list and which secrets to read for one [`FindPlace`].

use super::place::FindPlace;

/// The way through the folders below a place, one level after the other.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    place: &'a FindPlace,
    /// Folders to list next, relative to the place; each but the first ends in a slash.
    level: Vec<String>,
    depth: u32,
    folders: usize,
    secrets: Vec<String>,
}

/// There is more below a place than may be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found} {what} or more, and the limit is {limit}; narrow path or match, or raise maxSecrets (at most 1000)"
)]
pub(super) struct TooMany {
    /// What there are too many of.
    what: &'static str,
    found: usize,
    limit: usize,
}

impl<'a> Walk<'a> {
    /// Before the first listing.
    pub(super) fn new(place: &'a FindPlace) -> Self {
        Self {
            place,
            level: vec![String::new()],
            depth: 0,
            folders: 1,
            secrets: Vec::new(),
        }
    }

    /// The folders to list next; none when all are listed.
    pub(super) fn level(&self) -> &[String] {
        &self.level
    }

    /// Takes the names that were found in each folder of the level.
    pub(super) fn next(
        &mut self,
        listed: impl IntoIterator<Item = (String, Vec<String>)>,
    ) -> Result<(), TooMany> {
        let descend = self.depth < self.place.depth;
        self.level.clear();
        self.depth += 1;
        for (folder, names) in listed {
            for name in names {
                let path = format!("{folder}{name}");
                if !path.ends_with('/') {
                    let pattern = self.place.pattern.as_ref();
                    if pattern.is_none_or(|pattern| pattern.matches(&path)) {
                        self.secrets.push(path);
                    }
                } else if descend {
                    self.level.push(path);
                }
            }
        }
        self.folders += self.level.len();
        let limit = self.place.most;
        for (what, found) in [("secrets", self.secrets.len()), ("folders", self.folders)] {
            if found > limit {
                return Err(TooMany { what, found, limit });
            }
        }
        Ok(())
    }

    /// The secrets to read, relative to the place.
    pub(super) fn secrets(self) -> Vec<String> {
        self.secrets
    }
}

/// What one value is called among all that were found: the path of its secret and its key.
/// The key is encoded so that it has no slash, and two values never have one name.
pub(super) fn entry_name(path: &str, key: &str) -> String {
    let key = key.replace('%', "%25").replace('/', "%2F");
    format!("{path}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::path::MountPath;
    use crate::vault::place::Pattern;

    fn place(pattern: &str, depth: u32, most: usize) -> FindPlace {
        FindPlace {
            namespace: None,
            mount: MountPath::parse("secret").unwrap(),
            folder: None,
            engine: None,
            pattern: Some(Pattern::parse(pattern).unwrap()),
            depth,
            most,
        }
    }

    /// A store: each folder with what is in it.
    const STORE: [(&str, &[&str]); 4] = [
        ("", &["flag-a", "other", "eu/", "us/"]),
        ("eu/", &["flag-b", "deep/"]),
        ("eu/deep/", &["flag-c"]),
        ("us/", &["x"]),
    ];

    /// Walks the store; which folders were listed, and what was found.
    fn walked(place: &FindPlace) -> (Vec<String>, Result<Vec<String>, String>) {
        let mut walk = Walk::new(place);
        let mut seen = Vec::new();
        while !walk.level().is_empty() {
            let level = walk.level().to_vec();
            let listed: Vec<_> = level
                .iter()
                .map(|folder| {
                    let found = STORE.iter().find(|(name, _)| name == folder);
                    let names = found.map_or(&[][..], |(_, names)| names);
                    let names = names.iter().map(|name| (*name).to_owned()).collect();
                    (folder.clone(), names)
                })
                .collect();
            seen.extend(level);
            if let Err(error) = walk.next(listed) {
                return (seen, Err(error.to_string()));
            }
        }
        (seen, Ok(walk.secrets()))
    }

    #[test]
    fn folders_are_looked_into_as_deep_as_wanted_and_names_must_match() {
        let all = ["", "eu/", "us/", "eu/deep/"];
        for (pattern, depth, folders, found) in [
            ("flag-", 0, 1, vec!["flag-a"]),
            ("flag-", 1, 3, vec!["flag-a", "eu/flag-b"]),
            ("flag-", 9, 4, vec!["flag-a", "eu/flag-b", "eu/deep/flag-c"]),
            ("^flag-", 9, 4, vec!["flag-a"]),
            ("^eu/", 9, 4, vec!["eu/flag-b", "eu/deep/flag-c"]),
            ("nothing", 9, 4, vec![]),
        ] {
            let (listed, secrets) = walked(&place(pattern, depth, 100));
            assert_eq!(listed, all[..folders], "{pattern} {depth}");
            assert_eq!(secrets.unwrap(), found, "{pattern} {depth}");
        }
    }

    #[test]
    fn too_much_ends_the_walk_where_it_shows() {
        for (depth, most, folders, expected) in [
            (
                0,
                1,
                1,
                "2 secrets or more, and the limit is 1; narrow path or match",
            ),
            (9, 2, 1, "3 folders or more, and the limit is 2"),
            (9, 3, 3, "4 secrets or more, and the limit is 3"),
        ] {
            let (listed, result) = walked(&place("", depth, most));
            assert_eq!(listed.len(), folders, "{depth} {most}");
            let why = result.unwrap_err();
            assert!(why.starts_with(expected), "{why}");
        }
    }

    #[test]
    fn two_values_never_have_one_name() {
        assert_eq!(entry_name("eu/a", "k"), "eu/a/k");
        assert_ne!(entry_name("eu", "a/k"), entry_name("eu/a", "k"));
        assert_ne!(entry_name("a", "%2F"), entry_name("a", "/"));
    }
}
