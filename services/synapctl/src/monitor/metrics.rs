//! The gauges: for Prometheus as text over HTTP, and over OTLP where a collector is named.

use std::{
    fmt::Write as _,
    future::IntoFuture as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use opentelemetry::metrics::ObservableGauge;
use tokio::net::TcpListener;

use super::tick::Tick;

/// What the gauges show.
#[derive(Debug, Default)]
struct Values {
    up: bool,
    tick: Tick,
}

/// Name, what it is, value. `synap_monitor_{name}` for Prometheus, `synap.monitor.{name}` over OTLP.
type Gauge = (&'static str, &'static str, fn(&Values) -> f64);

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
const GAUGES: [Gauge; 8] = [
    ("up", "Whether the last interval could be looked at", |v| f64::from(u8::from(v.up))),
    ("sync_ratio", "Sampled files whose object is there, and as large as it should be", |v| {
        v.tick.sync_rate
    }),
    ("alert", "Whether the sync rate may be below the limit", |v| {
        f64::from(u8::from(v.tick.alert))
    }),
    ("files", "Rows that name an object", |v| v.tick.files as f64),
    ("missing_in_store", "Rows whose object is missing", |v| v.tick.missing as f64),
    ("missing_in_postgresql", "Objects that no row names", |v| v.tick.unknown as f64),
    ("size_differs", "Objects of another size than their row says", |v| v.tick.size_differs as f64),
    ("checksum_mismatches", "Objects of another SHA-256 than their row says", |v| {
        v.tick.checksum_differs as f64
    }),
];

/// The gauges.
pub(super) struct Metrics {
    values: Arc<Mutex<Values>>,
    /// Asked by whoever exports.
    _otlp: Vec<ObservableGauge<f64>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let values = Arc::<Mutex<Values>>::default();
        let meter = synap_telemetry::metrics::meter();
        let otlp = GAUGES.map(|(name, what, read)| {
            let values = Arc::clone(&values);
            meter
                .f64_observable_gauge(format!("synap.monitor.{name}"))
                .with_description(what)
                .with_callback(move |observer| observer.observe(read(&lock(&values)), &[]))
                .build()
        });
        Self { values, _otlp: otlp.into() }
    }

    /// Opens the port; the future serves until it is dropped.
    pub(super) async fn serve(
        &self,
        listen: SocketAddr,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + use<>> {
        let why = || format!("--metrics-listen {listen}");
        let listener = TcpListener::bind(listen).await.with_context(why)?;
        eprintln!("synapctl: metrics on http://{}/metrics", listener.local_addr()?);
        let values = Arc::clone(&self.values);
        let answer = move || async move {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4")], exposition(&lock(&values)))
        };
        let serving = axum::serve(listener, Router::new().route("/metrics", get(answer)));
        Ok(async move { Ok(serving.into_future().await?) })
    }

    pub(super) fn set(&self, tick: &Tick) {
        *lock(&self.values) = Values { up: true, tick: tick.clone() };
    }

    /// The last interval could not be looked at: what is shown is of the one before.
    pub(super) fn set_down(&self) {
        lock(&self.values).up = false;
    }
}

fn lock(values: &Mutex<Values>) -> MutexGuard<'_, Values> {
    values.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prometheus' text format.
fn exposition(values: &Values) -> String {
    let mut text = String::new();
    for (name, what, read) in GAUGES {
        let _infallible = write!(
            text,
            "# HELP synap_monitor_{name} {what}.\n# TYPE synap_monitor_{name} gauge\n\
             synap_monitor_{name} {}\n",
            read(values)
        );
    }
    text
}
