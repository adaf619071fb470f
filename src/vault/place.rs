//! Pure: the places in Vault that can be read again and again.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use regex::{Regex, RegexBuilder};

use super::path::{MountPath, SecretPath, VaultNamespace};
use super::request::KvVersion;

/// Where values are. Whoever means the same place shares its readings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// One secret of a KV engine.
    Kv(KvPlace),
    /// Every secret of a KV engine below a path.
    Find(FindPlace),
    /// The login of a static role.
    StaticRole(StaticRolePlace),
}

/// One secret of a KV engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvPlace {
    /// The namespace; that of the identity when `None`.
    pub namespace: Option<VaultNamespace>,
    /// Where the KV engine is mounted.
    pub mount: MountPath,
    /// The path below the mount.
    pub path: SecretPath,
    /// The version of the engine; looked up when `None`.
    pub engine: Option<KvVersion>,
    /// The version of the secret; the latest when `None`. Refused where the engine is of version 1.
    pub version: Option<u64>,
}

/// Every secret of a KV engine below a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindPlace {
    /// The namespace; that of the identity when `None`.
    pub namespace: Option<VaultNamespace>,
    /// Where the KV engine is mounted.
    pub mount: MountPath,
    /// The folder to look in; the whole mount when `None`.
    pub folder: Option<SecretPath>,
    /// The version of the engine; looked up when `None`.
    pub engine: Option<KvVersion>,
    /// What the path relative to the folder must match.
    pub pattern: Option<Pattern>,
    /// How many folders deep to look: none at 0.
    pub depth: u32,
    /// The most secrets to read, and the most folders to list.
    pub most: usize,
}

/// The login of a static role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StaticRolePlace {
    /// The namespace; that of the identity when `None`.
    pub namespace: Option<VaultNamespace>,
    /// Where the engine is mounted.
    pub mount: MountPath,
    /// Name of the role.
    pub role: SecretPath,
    /// The engine; looked up when `None`.
    pub engine: Option<StaticEngine>,
}

/// The engines that have static roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StaticEngine {
    /// Databases.
    Database,
    /// LDAP directories.
    Ldap,
}

impl StaticEngine {
    /// What Vault calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Ldap => "ldap",
        }
    }

    /// The engine that Vault calls so; `openldap` is what `ldap` was called before Vault 1.12.
    pub fn named(engine: &str) -> Option<Self> {
        match engine {
            "database" => Some(Self::Database),
            "ldap" | "openldap" => Some(Self::Ldap),
            _ => None,
        }
    }
}

/// Memory that a pattern may take when compiled. Ten times what the longest sensible one needs.
const PATTERN_BYTES: usize = 1 << 20;

/// A regular expression; equal to another with the same text.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Checks `text`; the error says what is wrong with it, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(PATTERN_BYTES);
        builder.build().map(Self).map_err(|error| {
            if let regex::Error::CompiledTooBig(_) = error {
                return "it is too large when compiled; use smaller repetitions".to_owned();
            }
            // The last line names the mistake; those before it draw an arrow.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let why = last.trim_start_matches("error: ");
            format!("it is not a regular expression: {why}")
        })
    }

    /// Whether it matches somewhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_cannot_be_used_is_told_in_one_line() {
        for (text, expected) in [
            ("^flag-(", "it is not a regular expression: unclosed group"),
            (
                "a{3,1}",
                "it is not a regular expression: invalid repetition count range",
            ),
            ("(?=x)", "it is not a regular expression: look-around"),
            (r"(\w{100}){100}", "it is too large when compiled"),
        ] {
            let why = Pattern::parse(text).unwrap_err();
            assert!(why.starts_with(expected), "{text}: {why}");
            assert!(!why.contains('\n'), "{text}: {why}");
        }
        assert!(Pattern::parse("^flag-").unwrap().matches("flag-a"));
        assert!(!Pattern::parse("^flag-").unwrap().matches("eu/flag-a"));
    }
}
