//! Pure: addresses, mounts, paths and namespaces, parsed once.
//!
//! Below these types nothing checks a path again: every segment is known to be whole, and
//! [`encoded`](MountPath::encoded) is what goes into a URL.

use std::fmt;

use url::{Host, Url};

/// Longest path we accept. Vault's own storage keys end far below.
const MAX_CHARS: usize = 1024;

/// Why a text is not a path or an address. Says what is wrong with the shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {wrong}")]
pub struct PathError {
    what: &'static str,
    wrong: &'static str,
}

/// Defines a newtype over a checked path.
macro_rules! path_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and keeps it; the error names what is wrong.
            pub fn parse(text: &str) -> Result<Self, PathError> {
                let text = $name::trimmed(text);
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }

            /// As the user wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Each segment percent-encoded, joined by `/`.
            pub fn encoded(&self) -> String {
                encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

path_type!(
    /// Where an engine or an auth method is mounted: `secret`, `team/kv`. One slash at the end is dropped.
    MountPath,
    "mount"
);
path_type!(
    /// A path below a mount: `shop/checkout`.
    SecretPath,
    "path"
);
path_type!(
    /// A whole path below `/v1/`: `database/creds/checkout`.
    ApiPath,
    "path"
);
path_type!(
    /// A namespace of Vault Enterprise or OpenBao: `admin/team-a`. One slash at the end is dropped.
    VaultNamespace,
    "namespace"
);

path_type!(
    /// Who logs in with a password: `deploy`.
    UserName,
    "user name"
);

impl UserName {
    fn trimmed(text: &str) -> &str {
        text
    }
}

impl MountPath {
    fn trimmed(text: &str) -> &str {
        text.strip_suffix('/').unwrap_or(text)
    }
}

impl SecretPath {
    /// A path that ends in a slash is a folder in Vault: it stays, and is refused.
    fn trimmed(text: &str) -> &str {
        text
    }
}

impl ApiPath {
    fn trimmed(text: &str) -> &str {
        text
    }
}

impl VaultNamespace {
    /// The namespace `inner` below `outer`; either may be missing.
    pub fn below(outer: Option<&Self>, inner: Option<&Self>) -> Option<Self> {
        match (outer, inner) {
            (Some(Self(outer)), Some(Self(inner))) => Some(Self(format!("{outer}/{inner}"))),
            (one, other) => one.or(other).cloned(),
        }
    }

    fn trimmed(text: &str) -> &str {
        text.strip_suffix('/').unwrap_or(text)
    }
}

fn check(what: &'static str, text: &str) -> Result<(), PathError> {
    let wrong = if text.is_empty() {
        "is empty"
    } else if text.chars().count() > MAX_CHARS {
        "is longer than 1024 characters"
    } else if text.starts_with('/') {
        "starts with a slash"
    } else if text.ends_with('/') {
        "ends with a slash"
    } else if text.chars().any(char::is_control) {
        "contains a control character"
    } else if text.split('/').any(str::is_empty) {
        "contains an empty segment (two slashes in a row)"
    } else if text
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        "contains the segment '.' or '..'"
    } else {
        return Ok(());
    };
    Err(PathError { what, wrong })
}

/// Percent-encodes all but the unreserved characters of RFC 3986, segment by segment.
fn encode(path: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The address of a Vault, with an optional path prefix: `https://host:8200/prefix`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultAddress {
    /// Without a slash at the end.
    base: String,
    https: bool,
    host: Host,
    port: u16,
}

impl VaultAddress {
    /// Checks `text`; the error names the part that is wrong and never repeats the text,
    /// which may hold a password.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let error = |wrong| PathError {
            what: "address",
            wrong,
        };
        let url = Url::parse(text)
            .map_err(|_| error("is not a URL such as https://vault.example.com:8200"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(error("must start with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error("must not contain a user name or a password"));
        }
        if url.query().is_some() {
            return Err(error("must not contain a query ('?')"));
        }
        if url.fragment().is_some() {
            return Err(error("must not contain a fragment ('#')"));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(error("has no host"));
        };
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            https: url.scheme() == "https",
            host: host.to_owned(),
            port,
        })
    }

    /// The same place called by another host name. Fails when `name` is no host name.
    pub fn called(&self, name: &str) -> Result<Self, PathError> {
        let wrong = |_| PathError {
            what: "name",
            wrong: "is not a host name",
        };
        let mut url = Url::parse(&self.base).map_err(wrong)?;
        url.set_host(Some(name)).map_err(wrong)?;
        Self::parse(url.as_str())
    }

    /// Whether TLS is spoken there.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Name or IP address of the host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, also when it is the usual one and was not written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of an API path that is already encoded.
    pub(super) fn api_url(&self, encoded_path: &str) -> String {
        format!("{}/v1/{encoded_path}", self.base)
    }
}

impl fmt::Display for VaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wrong_path_is_named() {
        for (text, expected) in [
            ("", "path is empty"),
            ("/a", "path starts with a slash"),
            ("a/", "path ends with a slash"),
            (
                "a//b",
                "path contains an empty segment (two slashes in a row)",
            ),
            ("a/../b", "path contains the segment '.' or '..'"),
            (".", "path contains the segment '.' or '..'"),
            ("a\nb", "path contains a control character"),
        ] {
            let error = SecretPath::parse(text).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text:?}");
        }
        let long = "a".repeat(MAX_CHARS + 1);
        assert_eq!(
            MountPath::parse(&long).unwrap_err().to_string(),
            "mount is longer than 1024 characters"
        );
    }

    #[test]
    fn segments_are_encoded_one_by_one() {
        for (text, expected) in [
            ("shop/checkout", "shop/checkout"),
            ("a b/c?d#e%2e", "a%20b/c%3Fd%23e%252e"),
            ("grüße/..a", "gr%C3%BC%C3%9Fe/..a"),
            ("a\\b+c;d", "a%5Cb%2Bc%3Bd"),
        ] {
            assert_eq!(SecretPath::parse(text).unwrap().encoded(), expected);
        }
    }

    #[test]
    fn a_mount_may_end_in_one_slash() {
        assert_eq!(MountPath::parse("team/kv/").unwrap().as_str(), "team/kv");
        assert!(MountPath::parse("kv//").is_err());
        assert!(MountPath::parse("/").is_err());
    }

    #[test]
    fn addresses_keep_their_prefix() {
        for (text, url) in [
            ("https://vault:8200", "https://vault:8200/v1/sys/health"),
            ("https://host/prefix/", "https://host/prefix/v1/sys/health"),
            ("http://[::1]:8200/", "http://[::1]:8200/v1/sys/health"),
            ("HTTPS://Host:443", "https://host/v1/sys/health"),
        ] {
            let address = VaultAddress::parse(text).unwrap();
            assert_eq!(address.api_url("sys/health"), url);
        }
    }

    #[test]
    fn namespaces_are_nested() {
        let namespace = |text: &str| VaultNamespace::parse(text).unwrap();
        let (outer, inner) = (namespace("admin/"), namespace("team/a"));
        for (one, other, expected) in [
            (Some(&outer), Some(&inner), Some("admin/team/a")),
            (Some(&outer), None, Some("admin")),
            (None, Some(&inner), Some("team/a")),
            (None, None, None),
        ] {
            let nested = VaultNamespace::below(one, other);
            assert_eq!(nested.as_ref().map(VaultNamespace::as_str), expected);
        }
    }

    #[test]
    fn an_address_can_be_called_by_another_name() {
        let address = VaultAddress::parse("https://10.0.0.1:8200/prefix").unwrap();
        let called = address.called("vault.internal").unwrap();
        assert_eq!(called.to_string(), "https://vault.internal:8200/prefix");
        assert!(address.called("a/b").is_err());
    }

    #[test]
    fn a_wrong_address_is_named_without_its_text() {
        for (text, expected) in [
            (
                "vault",
                "address is not a URL such as https://vault.example.com:8200",
            ),
            ("vault:8200", "address must start with https:// or http://"),
            (
                "https://user:canary@host",
                "address must not contain a user name or a password",
            ),
            (
                "https://host?token=canary",
                "address must not contain a query ('?')",
            ),
            (
                "https://host#canary",
                "address must not contain a fragment ('#')",
            ),
            (
                "https://",
                "address is not a URL such as https://vault.example.com:8200",
            ),
        ] {
            assert_eq!(VaultAddress::parse(text).unwrap_err().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_survives_a_url_parser(text in "\\PC{1,40}") {
            if let Ok(path) = SecretPath::parse(&text) {
                let address = VaultAddress::parse("https://host/prefix").unwrap();
                let url = address.api_url(&path.encoded());
                let parsed = Url::parse(&url).unwrap();
                prop_assert_eq!(parsed.as_str(), url);
            }
        }
    }
}
