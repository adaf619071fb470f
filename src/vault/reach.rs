//! Pure: which addresses may be spoken to.
//!
//! An administrator can name them by patterns. Whatever the patterns say, link-local addresses and the
//! metadata services of clouds are never spoken to: they hand out credentials of the node.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

use super::path::VaultAddress;

/// Names that clouds give their metadata services. Their addresses are refused as well.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];
/// Metadata services outside the link-local networks: Alibaba Cloud, Azure's `WireServer`.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// Google Cloud's metadata service.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// The addresses that may be spoken to. By default all but those that never may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// `None`: no pattern was given, so that none has to match.
    patterns: Option<Vec<Pattern>>,
}

/// `scheme://host[:port]`, where `*` stands for one label of the host, or for all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    https: bool,
    /// Lower case, without a dot at the end.
    host: String,
    /// `None`: any port.
    port: Option<u16>,
}

/// Why an address is not spoken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// It is link-local, or the metadata service of a cloud.
    #[error("{0} is link-local or the metadata service of a cloud, which is never spoken to")]
    Metadata(String),
    /// The administrator gave patterns, and none matches.
    #[error(
        "the operator's --allowed-vault-addresses do not allow {0}; use an address they allow, or have it added there"
    )]
    NotListed(String),
}

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPattern;

impl Reach {
    /// Only what one of `patterns` matches. Fails when one of them is no pattern.
    ///
    /// A pattern without a port means the usual port of its scheme, and `:*` means any port.
    pub fn only(patterns: &[impl AsRef<str>]) -> Result<Self, NoPattern> {
        let patterns = patterns
            .iter()
            .map(|text| Pattern::parse(text.as_ref()).ok_or(NoPattern))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            patterns: Some(patterns),
        })
    }

    /// Whether `address` may be spoken to, as far as that can be told without looking up its name.
    pub fn check(&self, address: &VaultAddress) -> Result<(), NotAllowed> {
        let host = plain(&address.host().to_string());
        let forbidden = match address.host() {
            Host::Domain(_) => METADATA_NAMES.contains(&host.as_str()),
            Host::Ipv4(ip) => is_forbidden(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => is_forbidden(IpAddr::V6(*ip)),
        };
        if forbidden {
            return Err(NotAllowed::Metadata(host));
        }
        let Some(patterns) = &self.patterns else {
            return Ok(());
        };
        let listed = patterns.iter().any(|pattern| {
            pattern.https == address.is_https()
                && pattern.port.is_none_or(|port| port == address.port())
                && pattern.matches(&host)
        });
        if listed {
            Ok(())
        } else {
            Err(NotAllowed::NotListed(address.to_string()))
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let (https, usual) = match scheme {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            None => Some(usual),
            Some("*") => None,
            Some(port) => Some(port.parse().ok()?),
        };
        let host = plain(host);
        let host = match host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')) {
            // In the one form that addresses are compared in.
            Some(ip) => Some(format!("[{}]", ip.parse::<Ipv6Addr>().ok()?)),
            None => host.split('.').all(is_label).then_some(host),
        };
        host.map(|host| Self { https, host, port })
    }

    fn matches(&self, host: &str) -> bool {
        if self.host == "*" {
            return true;
        }
        let (mut wanted, mut labels) = (self.host.split('.'), host.split('.'));
        loop {
            match (wanted.next(), labels.next()) {
                (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(label)) if wanted == label => {}
                _ => return false,
            }
        }
    }
}

/// A host as it is compared: case and a dot at its end make no difference to a resolver.
fn plain(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text == "*" || (!text.is_empty() && text.chars().all(allowed))
}

/// Whether an address is link-local or the metadata service of a cloud, in whatever form it is written.
pub fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_forbidden_v4(ip),
        IpAddr::V6(ip) => {
            let segments = ip.segments();
            // AWS keeps its local services in fd00:ec2::/32.
            ip.is_unicast_link_local()
                || matches!(segments, [0xfd00, 0x0ec2, ..])
                || ip == METADATA_V6
                || embedded(ip).is_some_and(is_forbidden_v4)
        }
    }
}

fn is_forbidden_v4(ip: Ipv4Addr) -> bool {
    ip.is_link_local() || METADATA_V4.contains(&ip)
}

/// The IPv4 address in an IPv6 one: mapped, compatible, translated (RFC 6052) or tunnelled (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

impl fmt::Display for NoPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a pattern such as https://*.example.com:8200")
    }
}

impl std::error::Error for NoPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> VaultAddress {
        VaultAddress::parse(text).unwrap()
    }

    #[test]
    fn metadata_services_are_refused_in_every_form() {
        for host in [
            "169.254.169.254",
            "169.254.0.1",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "100.100.100.200",
            "168.63.129.16",
            "[fe80::1]",
            "[febf::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[::ffff:169.254.169.254]",
            "[::169.254.169.254]",
            "[::ffff:0:169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "%6detadata.google.internal",
        ] {
            let all = Reach::only(&["http://*:*"]).unwrap();
            for reach in [Reach::default(), all] {
                let result = reach.check(&address(&format!("http://{host}:8200")));
                assert!(
                    matches!(result, Err(NotAllowed::Metadata(_))),
                    "{host}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn other_addresses_are_spoken_to() {
        for host in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "10.0.0.1",
            "169.253.1.1",
            "[fd00:ec3::254]",
            "[::ffff:127.0.0.1]",
            "metadata.example.com",
        ] {
            let address = address(&format!("http://{host}:8200"));
            assert_eq!(Reach::default().check(&address), Ok(()), "{host}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "it is one table")]
    fn a_pattern_is_about_scheme_host_and_port() {
        for (pattern, address_text, allowed) in [
            (
                "https://vault.example.com",
                "https://vault.example.com",
                true,
            ),
            (
                "https://vault.example.com",
                "https://vault.example.com:443/x",
                true,
            ),
            (
                "https://vault.example.com",
                "https://vault.example.com:8200",
                false,
            ),
            (
                "https://vault.example.com:8200",
                "https://vault.example.com:8200",
                true,
            ),
            (
                "https://vault.example.com:*",
                "https://vault.example.com:8200",
                true,
            ),
            (
                "https://vault.example.com:*",
                "http://vault.example.com:8200",
                false,
            ),
            (
                "https://Vault.Example.com.:*",
                "https://vault.example.com:1",
                true,
            ),
            (
                "https://vault.example.com:*",
                "https://VAULT.example.com.:1",
                true,
            ),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://a.b.example.com", false),
            (
                "https://*.example.com",
                "https://a.example.com.evil.org",
                false,
            ),
            (
                "https://*.example.com",
                "https://evil.org/.example.com",
                false,
            ),
            (
                "https://vault.*.svc:8200",
                "https://vault.team.svc:8200",
                true,
            ),
            ("https://*", "https://anything.at.all", true),
            ("https://*", "http://anything.at.all", false),
            ("http://10.0.*.*:8200", "http://10.0.3.4:8200", true),
            ("http://10.0.*.*:8200", "http://10.1.3.4:8200", false),
            ("http://[::1]:8200", "http://[::1]:8200", true),
            ("http://[0:0::1]", "http://[::1]", true),
        ] {
            let reach = Reach::only(&[pattern]).unwrap();
            let result = reach.check(&address(address_text));
            assert_eq!(result.is_ok(), allowed, "{pattern} {address_text}");
        }
    }

    #[test]
    fn one_of_several_patterns_is_enough_and_none_matches_nothing() {
        let reach = Reach::only(&["https://a", "https://b"]).unwrap();
        assert_eq!(reach.check(&address("https://b")), Ok(()));
        let told = reach.check(&address("https://c")).unwrap_err().to_string();
        assert!(told.contains("do not allow https://c"), "{told}");
        let none: [&str; 0] = [];
        assert!(
            Reach::only(&none)
                .unwrap()
                .check(&address("https://b"))
                .is_err()
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "vault",
            "vault:8200",
            "ftp://vault",
            "https://",
            "https://a/b",
            "https://a:b",
            "https://a:70000",
            "https://user@a",
            "https://a*b.example.com",
            "https://a..b",
            "https://[zz]",
        ] {
            assert_eq!(Reach::only(&[text]), Err(NoPattern), "{text}");
        }
    }
}
