//! Pure: the names a certificate is asked for.

use std::{collections::BTreeSet, fmt, net::IpAddr};

/// Longest name of a host (RFC 1035), and the longest text we take as a common name.
const MAX_NAME: usize = 253;

/// The names a certificate shall hold, at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// Names of hosts, `*.` in front allowed.
    pub dns: BTreeSet<String>,
    /// Addresses for mail.
    pub emails: BTreeSet<String>,
    /// Addresses of hosts.
    pub ips: BTreeSet<IpAddr>,
    /// URIs, such as those of SPIFFE.
    pub uris: BTreeSet<String>,
}

/// The names as a user wrote them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written<'a> {
    /// The common name of the subject.
    pub common_name: Option<&'a str>,
    /// Names of hosts, and addresses for mail.
    pub alt_names: &'a [String],
    /// Addresses of hosts.
    pub ip_sans: &'a [String],
    /// URIs.
    pub uri_sans: &'a [String],
    /// Leaves the common name out of the names of hosts.
    pub exclude_common_name: bool,
}

/// Why names cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongName {
    /// The field, below the source's kind.
    pub field: String,
    /// What is wrong with it, and what to do.
    pub why: &'static str,
}

impl fmt::Display for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl Names {
    /// Checks what the user wrote.
    ///
    /// A common name that is the name of a host, or an address for mail, is added to those, as Vault does when it
    /// makes the key: clients look nowhere else.
    pub fn parse(written: &Written<'_>) -> Result<Self, WrongName> {
        let mut names = Self::default();
        if let Some(common_name) = written.common_name {
            if !is_plain(common_name) {
                return Err(wrong(
                    "commonName".to_owned(),
                    "it is empty, longer than 253 characters, or holds a control character",
                ));
            }
            names.common_name = Some(common_name.to_owned());
            if !written.exclude_common_name {
                names.add_common_name(common_name);
            }
        }
        for (index, name) in written.alt_names.iter().enumerate() {
            names.add_alt_name(name, index)?;
        }
        for (index, text) in written.ip_sans.iter().enumerate() {
            let ip = text.parse().map_err(|_| {
                wrong(
                    format!("ipSans[{index}]"),
                    "it is not an IP address such as 10.0.0.1 or 2001:db8::1",
                )
            })?;
            names.ips.insert(ip);
        }
        for (index, uri) in written.uri_sans.iter().enumerate() {
            if !uri.is_ascii() || url::Url::parse(uri).is_err() {
                return Err(wrong(
                    format!("uriSans[{index}]"),
                    "it is not a URI such as spiffe://example.com/app",
                ));
            }
            names.uris.insert(uri.clone());
        }
        if names == Self::default() {
            return Err(wrong(
                "commonName".to_owned(),
                "the certificate has no name at all; set commonName, altNames, ipSans or uriSans",
            ));
        }
        Ok(names)
    }

    fn add_common_name(&mut self, name: &str) {
        if is_email(name) {
            self.emails.insert(name.to_owned());
        } else if is_host(name) && name.parse::<IpAddr>().is_err() {
            self.dns.insert(name.to_owned());
        }
    }

    fn add_alt_name(&mut self, name: &str, index: usize) -> Result<(), WrongName> {
        let field = || format!("altNames[{index}]");
        if name.parse::<IpAddr>().is_ok() {
            return Err(wrong(field(), "it is an IP address; put it under ipSans"));
        }
        if is_email(name) {
            self.emails.insert(name.to_owned());
        } else if is_host(name) {
            self.dns.insert(name.to_owned());
        } else {
            return Err(wrong(
                field(),
                "it is neither the name of a host, such as web.example.com or *.example.com (others than ASCII in their xn-- form), nor an address for mail",
            ));
        }
        Ok(())
    }

    /// Names of hosts and addresses for mail, as Vault's `alt_names`.
    pub fn alt_names(&self) -> impl Iterator<Item = &str> {
        self.dns.iter().chain(&self.emails).map(String::as_str)
    }
}

fn wrong(field: String, why: &'static str) -> WrongName {
    WrongName { field, why }
}

fn is_plain(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn is_email(text: &str) -> bool {
    text.is_ascii()
        && is_plain(text)
        && !text.contains([' ', ','])
        && text
            .rsplit_once('@')
            .is_some_and(|(who, host)| !who.is_empty() && !who.contains('@') && is_host(host))
}

fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    text.len() <= MAX_NAME && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_common_name_counts_as_a_name_of_its_sort() {
        for (common_name, dns, emails) in [
            ("web.example.com", &["web.example.com"][..], &[][..]),
            ("*.example.com", &["*.example.com"], &[]),
            ("localhost", &["localhost"], &[]),
            ("me@example.com", &[], &["me@example.com"]),
            ("Some Body", &[], &[]),
            ("10.0.0.1", &[], &[]),
            ("grüße.example.com", &[], &[]),
            ("a_b.example.com", &[], &[]),
        ] {
            let names = Names::parse(&Written {
                common_name: Some(common_name),
                ..Written::default()
            })
            .unwrap();
            assert_eq!(names.common_name.as_deref(), Some(common_name));
            assert_eq!((names.dns, names.emails), (set(dns), set(emails)));
        }
    }

    #[test]
    fn a_common_name_can_be_left_out_of_the_others() {
        let names = Names::parse(&Written {
            common_name: Some("postgres"),
            exclude_common_name: true,
            ..Written::default()
        })
        .unwrap();
        assert!(names.dns.is_empty());
    }

    /// Alternative names, IP addresses, URIs, and how the refusal begins.
    type Row = (
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
        &'static str,
    );

    #[test]
    fn each_wrong_name_is_named() {
        let none = Vec::new();
        let rows: [Row; 7] = [
            (
                &["a b"],
                &[],
                &[],
                "altNames[0]: it is neither the name of a host",
            ),
            (
                &["a.example.com", "-a"],
                &[],
                &[],
                "altNames[1]: it is neither",
            ),
            (&["a,b@example.com"], &[], &[], "altNames[0]: it is neither"),
            (
                &["10.0.0.1"],
                &[],
                &[],
                "altNames[0]: it is an IP address; put it under ipSans",
            ),
            (
                &[],
                &["10.0.0.300"],
                &[],
                "ipSans[0]: it is not an IP address",
            ),
            (&[], &[], &["no uri"], "uriSans[0]: it is not a URI"),
            (
                &[],
                &[],
                &[],
                "commonName: the certificate has no name at all",
            ),
        ];
        for (alt_names, ip_sans, uri_sans, expected) in rows {
            let (alt_names, ip_sans, uri_sans) =
                (owned(alt_names), owned(ip_sans), owned(uri_sans));
            let error = Names::parse(&Written {
                alt_names: &alt_names,
                ip_sans: &ip_sans,
                uri_sans: &uri_sans,
                ..Written::default()
            })
            .unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        let error = Names::parse(&Written {
            common_name: Some("a\nb"),
            alt_names: &none,
            ..Written::default()
        })
        .unwrap_err();
        assert_eq!(error.field, "commonName");
    }
}
