//! Effects: memory — what reaches the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// What `act` logs under `filter`, as JSON lines.
fn logged(filter: &str, act: impl FnOnce()) -> String {
    let lines = Lines::default();
    let subscriber = subscriber(LogFormat::Json, filter, lines.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, act);
    lines.text()
}

/// One line per level in the name of `$target`.
macro_rules! shout {
    ($target:literal) => {
        tracing::error!(target: $target, "at-error");
        tracing::warn!(target: $target, "at-warn");
        tracing::info!(target: $target, "at-info");
        tracing::debug!(target: $target, "at-debug");
        tracing::trace!(target: $target, "at-trace");
    };
}

#[test]
fn no_directive_lifts_the_ceiling_of_a_library() {
    for filter in [
        "trace",
        "kube_client=trace",
        "trace,kube_client::client=trace,h2::proto=trace,hyper=trace",
    ] {
        let text = logged(filter, || {
            shout!("kube_client::client");
            shout!("h2::proto::connection");
            shout!("hyper::proto::h1::io");
            shout!("reqwest::connect::verbose");
            shout!("rustls::client::hs");
        });
        assert!(
            !text.contains("at-info") && !text.contains("at-debug") && !text.contains("at-trace"),
            "{filter}: {text}"
        );
        let from_kube = text
            .lines()
            .filter(|line| line.contains("kube_client") && line.contains("at-warn"))
            .count();
        assert_eq!(from_kube, 0, "{filter}: {text}");
    }
}

#[test]
fn a_library_cannot_pass_for_our_own_code() {
    assert_eq!(ceiling("lockstep::sync"), LevelFilter::TRACE);
    assert_eq!(ceiling("lockstep_other"), LevelFilter::WARN);
    assert_eq!(ceiling("log"), LevelFilter::WARN);
}

#[test]
fn our_own_code_logs_what_was_asked_for() {
    let text = logged("info,lockstep=debug", || {
        shout!("lockstep::sync");
    });
    assert!(
        text.contains("at-debug") && !text.contains("at-trace"),
        "{text}"
    );
}

#[test]
fn a_json_line_holds_the_fields_at_the_top() {
    let text = logged(
        "info",
        || tracing::info!(target: "lockstep", object = "shop/db", "synced"),
    );
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&line["object"], &line["message"], &line["level"]),
        (&"shop/db".into(), &"synced".into(), &"INFO".into())
    );
}

#[test]
fn a_filter_that_does_not_parse_names_its_flag() {
    let error = subscriber(LogFormat::Text, "lockstep=loud", std::io::sink)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .starts_with("--log-filter: \"lockstep=loud\""),
        "{error}"
    );
}

#[test]
fn the_default_filter_parses() {
    assert!(subscriber(LogFormat::Text, DEFAULT_FILTER, std::io::sink).is_ok());
}

#[test]
fn a_panic_is_logged_without_what_was_formatted_into_it() {
    let value = String::from("hunter2");
    let text = logged("info", || {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(report_panic));
        std::panic::catch_unwind(|| panic!("value {value}")).unwrap_err();
        std::panic::catch_unwind(|| panic!("a fixed text")).unwrap_err();
        std::panic::set_hook(before);
    });
    assert!(
        !text.contains("hunter2") && text.contains("(message withheld)"),
        "{text}"
    );
    assert!(
        text.contains("a fixed text") && text.contains("log/tests.rs"),
        "{text}"
    );
}
