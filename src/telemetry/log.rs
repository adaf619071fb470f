//! Effects: stderr — sets up the log of the process and the panic hook.
//!
//! The user's filter decides what he wants to see, the ceiling what he may see: libraries below us print
//! request and response bodies when asked for enough detail (`kube_client` even at WARN, when an answer
//! does not decode), and those hold secrets. A directive cannot lift the ceiling, however specific it is.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// What is logged when the user says nothing.
pub const DEFAULT_FILTER: &str =
    "info,kube_client=error,kube_runtime=warn,hyper=warn,h2=warn,rustls=warn";

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For reading in a terminal.
    Text,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("--log-filter: {filter:?} is not a list of directives such as `info,lockstep=debug`")]
    ParseFilter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something has set up a log before.
    #[error("install the logger")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Logs to stderr from now on, and reports panics there too. Call it once, before the first task starts.
///
/// Fails when `filter` does not parse or when the process has a logger already.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LogError> {
    subscriber(format, filter, std::io::stderr)?
        .try_init()
        .map_err(LogError::Install)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// A subscriber that writes to `writer`.
fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::ParseFilter {
            filter: filter.to_owned(),
            source,
        })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    Ok(tracing_subscriber::registry().with(lines.with_filter(wanted.and(below_ceiling()))))
}

/// Lets through what is not more detailed than the ceiling of its crate.
fn below_ceiling() -> FilterFn<impl Fn(&Metadata<'_>) -> bool + Clone> {
    filter_fn(|metadata| *metadata.level() <= ceiling(metadata.target()))
}

/// The most detailed level at which code under `target` may log, whatever the user asked for.
///
/// Read in the sources of the crates: `kube_client` prints answers that do not decode at WARN, and headers at
/// TRACE; `kube_runtime` errors that quote them at DEBUG; `h2` prints header values at TRACE; `reqwest` every
/// byte of a connection at TRACE when made verbose; `rustls` certificates and handshake messages at TRACE.
/// Below WARN none of them has to tell an administrator anything that our own lines do not.
fn ceiling(target: &str) -> LevelFilter {
    match target.split("::").next().unwrap_or_default() {
        "lockstep" => LevelFilter::TRACE,
        "kube_client" => LevelFilter::ERROR,
        _ => LevelFilter::WARN,
    }
}

/// Logs where a task panicked. The message is logged only when it is a literal in the source: one that was
/// put together at run time may hold a value.
fn report_panic(info: &PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(message withheld)");
    let location = info
        .location()
        .map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        location,
        thread = thread.name().unwrap_or("unnamed"),
        message,
        "panic"
    );
}

#[cfg(test)]
mod tests;
