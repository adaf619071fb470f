//! Effects: listens — `/livez`, `/readyz` and `/metrics` for the kubelet and for Prometheus.
//!
//! Nothing here can change the process, and no answer holds a name of an object.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long open connections may take to finish after the stop; a scrape takes milliseconds.
const DRAIN: Duration = Duration::from_secs(2);

/// What has to happen before this process counts as ready: a set of named gates, all of them closed at first.
///
/// A clone is another handle to the same gates. With no gate at all the process is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

/// One thing to wait for, see [`Readiness::gate`].
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Without gates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate. Add all of them before [`serve`] starts, or the process is ready for a moment.
    pub fn gate(&self, name: &'static str) -> Gate {
        self.gates().insert(name, false);
        Gate {
            name,
            readiness: self.clone(),
        }
    }

    /// Whether every gate is open.
    pub fn is_ready(&self) -> bool {
        self.gates().values().all(|open| *open)
    }

    /// One line per gate: `[+]caches open` or `[-]caches closed`.
    fn report(&self) -> String {
        let mut report = String::new();
        for (name, open) in self.gates().iter() {
            let (sign, state) = if *open {
                ('+', "open")
            } else {
                ('-', "closed")
            };
            // Writing into a String cannot fail.
            _ = writeln!(report, "[{sign}]{name} {state}");
        }
        report
    }

    fn gates(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        // A panic elsewhere cannot leave a map of booleans half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Opens the gate; opening it again changes nothing.
    pub fn open(&self) {
        self.readiness.gates().insert(self.name, true);
    }
}

/// Answers on `listener` until `stop` is cancelled, and for at most two seconds more.
///
/// Fails when the listener does.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stop: CancellationToken,
) -> io::Result<()> {
    let server = axum::serve(listener, router(metrics, readiness))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let cut_off = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = server => result,
        () = cut_off => Ok(()),
    }
}

fn router(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, readiness.report())
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server {
        address: std::net::SocketAddr,
        readiness: Readiness,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, metrics, stop) = (
            Readiness::new(),
            Arc::new(Metrics::new()),
            CancellationToken::new(),
        );
        let task = tokio::spawn(serve(
            listener,
            Arc::clone(&metrics),
            readiness.clone(),
            stop.clone(),
        ));
        Server {
            address,
            readiness,
            metrics,
            stop,
            task,
        }
    }

    impl Server {
        async fn get(&self, path: &str) -> (u16, String, String) {
            let answer = reqwest::get(format!("http://{}{path}", self.address))
                .await
                .unwrap();
            let kind = answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .to_owned();
            (answer.status().as_u16(), kind, answer.text().await.unwrap())
        }
    }

    #[tokio::test]
    async fn readiness_lists_its_gates_and_needs_all_of_them() {
        let server = start().await;
        let (caches, key) = (
            server.readiness.gate("caches"),
            server.readiness.gate("key"),
        );
        caches.open();
        let (status, _, body) = server.get("/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (503, "[+]caches open\n[-]key closed\n")
        );
        key.open();
        assert_eq!(server.get("/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served_as_openmetrics() {
        let server = start().await;
        server.metrics.leader(true);
        let (status, kind, body) = server.get("/metrics").await;
        assert_eq!((status, kind.as_str()), (200, OPENMETRICS));
        assert!(
            body.contains("lockstep_leader 1") && body.ends_with("# EOF\n"),
            "{body}"
        );
    }

    #[tokio::test]
    async fn stopping_ends_the_server() {
        let server = start().await;
        assert_eq!(server.get("/livez").await.0, 200);
        server.stop.cancel();
        server.task.await.unwrap().unwrap();
        assert!(
            reqwest::get(format!("http://{}/livez", server.address))
                .await
                .is_err()
        );
    }
}
