//! Pure: where a redirect of Vault leads, and whether to follow it.
//!
//! A standby that cannot forward answers 307 and names the same request at the active node. Only that is
//! followed: the same scheme, the same path, an address that may be spoken to. The token goes along.

use url::Url;

use super::path::VaultAddress;
use super::reach::Reach;

/// The address that `location` names for the request that went to `from` for `target` (path and query, encoded).
/// The error completes "it is not followed because".
pub fn follow(
    from: &VaultAddress,
    target: &str,
    location: &str,
    reach: &Reach,
) -> Result<VaultAddress, String> {
    let url = Url::parse(location).map_err(|_| "it names no absolute URL".to_owned())?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    // Vault decodes the path and encodes it again, with other characters left as they are.
    let (there, here) = (decoded(url.path()), decoded(&format!("/v1/{path}")));
    let prefix = there
        .strip_suffix(here.as_slice())
        .filter(|_| url.query() == query && url.fragment().is_none())
        .ok_or("it names another path")?;
    let mut base = url.clone();
    base.set_query(None);
    base.set_path(&String::from_utf8_lossy(prefix));
    let address = VaultAddress::parse(base.as_str()).map_err(|error| format!("its {error}"))?;
    if address.is_https() != from.is_https() {
        return Err("it leads from https to http, or back".to_owned());
    }
    reach.check(&address).map_err(|error| error.to_string())?;
    Ok(address)
}

/// The bytes that a percent-encoded path stands for.
fn decoded(path: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*first));
        let used = if escaped.is_some() { 2 } else { 0 };
        rest = tail.get(used..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(target: &str, location: &str) -> Result<String, String> {
        let from = VaultAddress::parse("https://standby:8200/prefix").unwrap();
        let reach = Reach::only(&["https://*:*", "http://*:*"]).unwrap();
        follow(&from, target, location, &reach).map(|address| address.api_url(target))
    }

    #[test]
    fn the_same_request_elsewhere_is_followed() {
        for (target, location, expected) in [
            (
                "secret/data/a",
                "https://active:8200/v1/secret/data/a",
                "https://active:8200/v1/secret/data/a",
            ),
            (
                "secret/data/a%2Bb?version=7",
                "https://active/v1/secret/data/a+b?version=7",
                "https://active/v1/secret/data/a%2Bb?version=7",
            ),
            (
                "secret/data/a",
                "https://active/other/v1/secret/data/a",
                "https://active/other/v1/secret/data/a",
            ),
            (
                "kv/100%25",
                "https://active/v1/kv/100%25",
                "https://active/v1/kv/100%25",
            ),
        ] {
            assert_eq!(followed(target, location).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn anything_else_is_not() {
        for (location, expected) in [
            ("http://active/v1/kv/a", "from https to http"),
            ("https://169.254.169.254/v1/kv/a", "link-local"),
            (
                "https://user:pass@active/v1/kv/a",
                "a user name or a password",
            ),
            ("https://active/v1/kv/b", "another path"),
            ("https://active/kv/a", "another path"),
            ("https://active/v1/kv/a?x=1", "another path"),
            ("https://active/v1/kv/a#x", "another path"),
            ("https://active/v1/kv/../kv/b", "another path"),
            ("ftp://active/v1/kv/a", "must start with https://"),
            ("/v1/kv/a", "no absolute URL"),
            ("//active/v1/kv/a", "no absolute URL"),
            ("", "no absolute URL"),
        ] {
            let why = followed("kv/a", location).unwrap_err();
            assert!(why.contains(expected), "{location}: {why}");
        }
    }

    #[test]
    fn the_allow_list_holds_for_redirects_too() {
        let from = VaultAddress::parse("https://standby").unwrap();
        let reach = Reach::only(&["https://standby"]).unwrap();
        let why = follow(&from, "a", "https://active/v1/a", &reach).unwrap_err();
        assert!(why.contains("--allowed-vault-addresses"), "{why}");
    }
}
