//! Effects: environment — from where parts are downloaded; the one file that names hosts.

use std::{env, fs, path::PathBuf};

/// Where Maven artifacts come from when `LOCKSTEP_MAVEN_URL` does not say otherwise.
const MAVEN: &str = "https://repo1.maven.org/maven2";

/// Where Go modules come from when `GOPROXY` does not say otherwise: Go's own default.
const GO_PROXY: &str = "https://proxy.golang.org";

/// The base address of the Maven repository.
pub(crate) fn maven() -> String {
    variable("LOCKSTEP_MAVEN_URL").unwrap_or_else(|| MAVEN.to_owned())
}

/// The base address of the Go module proxy, found as the Go tool finds it: `GOPROXY`, then the user's `go env` file,
/// then the default.
pub(crate) fn go_proxy() -> String {
    variable("GOPROXY")
        .or_else(go_env_file_proxy)
        .and_then(|list| first_address(&list))
        .unwrap_or_else(|| GO_PROXY.to_owned())
}

fn go_env_file_proxy() -> Option<String> {
    let configuration = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    // No file means no setting: the default applies.
    let text = fs::read_to_string(configuration.join("go/env")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("GOPROXY="))
        .map(str::to_owned)
}

fn first_address(list: &str) -> Option<String> {
    list.split([',', '|'])
        .map(str::trim)
        .find(|entry| entry.starts_with("http"))
        .map(|entry| entry.trim_end_matches('/').to_owned())
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name)?
        .into_string()
        .ok()
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::first_address;

    #[test]
    fn the_first_address_of_a_proxy_list_is_taken() {
        assert_eq!(
            first_address("https://a.test/,direct"),
            Some("https://a.test".to_owned())
        );
        assert_eq!(
            first_address("direct|https://b.test"),
            Some("https://b.test".to_owned())
        );
        assert_eq!(first_address("off"), None);
    }
}
