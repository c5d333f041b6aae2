//! The three exporters: how they are connected, which layers feed them, how they stop.

use std::thread;
use std::time::Duration;

use http::Uri;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::{
    EnvResourceDetector, ResourceDetector, TelemetryResourceDetector,
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};
use opentelemetry_semantic_conventions::attribute::{
    SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tonic::transport::ClientTlsConfig;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, FilterFn};
use tracing_subscriber::{EnvFilter, Layer};

use crate::init::{BoxedLayer, InitError};
use crate::{metrics, propagation};

/// The longest that [`Telemetry::shutdown`](crate::Telemetry::shutdown) takes.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Name of the scope in which spans and metrics of this project are recorded.
pub(crate) const SCOPE: &str = "synap";

/// What an export itself logs. Exporting that would make it export again, without end.
const NEVER_EXPORTED: [&str; 8] =
    ["h2", "hyper", "hyper_util", "tonic", "tower", "reqwest", "rustls", "synap_telemetry"];

#[derive(Debug)]
pub(crate) struct Exporters {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
    logger: SdkLoggerProvider,
}

impl Exporters {
    /// Builds the exporters; each connects when it has something to send. Sampling is the SDK's:
    /// the caller's decision holds, and a trace that begins here is taken unless
    /// `OTEL_TRACES_SAMPLER` says otherwise.
    pub(crate) fn connect(
        endpoint: &str,
        service_name: &'static str,
        service_version: &'static str,
    ) -> Result<Self, InitError> {
        let scheme = scheme(endpoint).ok_or_else(|| InitError::Endpoint(endpoint.to_owned()))?;
        tokio::runtime::Handle::try_current().map_err(|_| InitError::NoRuntime)?;

        let (mut spans, mut metrics, mut logs) = (
            SpanExporter::builder().with_tonic().with_endpoint(endpoint),
            MetricExporter::builder().with_tonic().with_endpoint(endpoint),
            LogExporter::builder().with_tonic().with_endpoint(endpoint),
        );
        if scheme == Scheme::Https {
            // The SDK's own default trusts no authority at all.
            let tls = || ClientTlsConfig::new().with_enabled_roots();
            spans = spans.with_tls_config(tls());
            metrics = metrics.with_tls_config(tls());
            logs = logs.with_tls_config(tls());
        }
        let (spans, metrics, logs) = (spans.build()?, metrics.build()?, logs.build()?);

        let resource = resource(service_name, service_version);
        Ok(Self {
            tracer: SdkTracerProvider::builder()
                .with_batch_exporter(spans)
                .with_resource(resource.clone())
                .build(),
            meter: SdkMeterProvider::builder()
                .with_periodic_exporter(metrics)
                .with_resource(resource.clone())
                .build(),
            logger: SdkLoggerProvider::builder()
                .with_batch_exporter(logs)
                .with_resource(resource)
                .build(),
        })
    }

    /// Exports the spans that `filter` lets through. Not their events: those are exported once, as
    /// log records that carry the trace's id.
    pub(crate) fn span_layer(&self, filter: EnvFilter) -> BoxedLayer {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracer.tracer(SCOPE))
            // Ten more attributes on each span, none of which says more than its name.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter.and(only(|metadata| !metadata.is_event())))
            .boxed()
    }

    /// Exports the events that `filter` lets through, as log records.
    pub(crate) fn log_layer(&self, filter: EnvFilter) -> BoxedLayer {
        OpenTelemetryTracingBridge::new(&self.logger)
            .with_filter(filter.and(only(|_| true)))
            .boxed()
    }

    /// Makes the providers known to the process and switches on what does nothing without them.
    pub(crate) fn install(&self) {
        global::set_tracer_provider(self.tracer.clone());
        global::set_meter_provider(self.meter.clone());
        metrics::install();
        propagation::install();
    }

    /// Flushes and stops all three side by side.
    ///
    /// The SDK blocks while it flushes and keeps no common limit. It runs on threads of its own and
    /// not on the runtime's blocking ones, because a runtime that is dropped waits for those, and
    /// the process would hang on a collector that never answers.
    pub(crate) async fn shutdown(self) {
        let deadline = Instant::now() + SHUTDOWN_LIMIT;
        let Self { tracer, meter, logger } = self;
        // A span or log processor answers Ok to `shutdown` even if its last export failed;
        // `force_flush` tells. The metric reader's `shutdown` exports and tells.
        let flushes = [
            start("traces", move || tracer.force_flush().and(tracer.shutdown())),
            start("metrics", move || meter.shutdown()),
            start("logs", move || logger.force_flush().and(logger.shutdown())),
        ];
        for (signal, flush) in flushes {
            let problem = match timeout_at(deadline, flush).await {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(error))) => error.to_string(),
                Ok(Err(_)) => "the exporter's thread ended early".to_owned(),
                Err(_) => format!("no answer within {} s", SHUTDOWN_LIMIT.as_secs()),
            };
            // Our own target is kept out of the exporters, so this is for stderr alone.
            tracing::warn!(
                signal,
                reason = problem,
                "telemetry could not be flushed, the last of it is lost: is the collector at OTEL_EXPORTER_OTLP_ENDPOINT up?"
            );
        }
    }
}

type Flush = oneshot::Receiver<OTelSdkResult>;

fn start(
    signal: &'static str,
    flush: impl FnOnce() -> OTelSdkResult + Send + 'static,
) -> (&'static str, Flush) {
    let (done, outcome) = oneshot::channel();
    // A thread that cannot be started drops `done`, which the receiver reports.
    drop(thread::Builder::new().name(format!("flush-{signal}")).spawn(move || done.send(flush())));
    (signal, outcome)
}

/// Lets pass what `wanted` accepts and no export causes.
fn only(wanted: fn(&Metadata<'_>) -> bool) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    FilterFn::new(move |metadata| wanted(metadata) && !is_never_exported(metadata.target()))
        // Leaves the level to the other filter; without a hint every level of every crate would
        // have to be asked about.
        .with_max_level_hint(LevelFilter::TRACE)
}

fn is_never_exported(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    // The SDK's crates name their targets `opentelemetry`, `opentelemetry-otlp`, …
    root.starts_with("opentelemetry") || NEVER_EXPORTED.contains(&root)
}

#[derive(Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

fn scheme(endpoint: &str) -> Option<Scheme> {
    let uri: Uri = endpoint.parse().ok()?;
    match uri.scheme_str()? {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        _ => None,
    }
}

fn resource(service_name: &'static str, service_version: &'static str) -> Resource {
    // Tells replicas and restarts apart. Any unique text will do, so the operator's wins.
    let instance = RandomIdGenerator::default().new_trace_id().to_string();
    let detectors: [Box<dyn ResourceDetector>; 2] =
        [Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())];
    Resource::builder_empty()
        .with_attribute(KeyValue::new(SERVICE_INSTANCE_ID, instance))
        .with_detectors(&detectors)
        .with_attribute(KeyValue::new(SERVICE_NAME, service_name))
        .with_attribute(KeyValue::new(SERVICE_VERSION, service_version))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_export_causes_is_kept_back() {
        for target in ["h2", "h2::proto::streams", "tonic::transport", "opentelemetry-otlp"] {
            assert!(is_never_exported(target), "{target}");
        }
        for target in ["synap_gateway::saga", "tower_http::trace", "sqlx::query", "h2o"] {
            assert!(!is_never_exported(target), "{target}");
        }
    }

    #[tokio::test]
    async fn an_encrypted_collector_can_be_named() {
        let exporters = Exporters::connect("https://collector.example:4317", "synap-test", "0");
        assert!(exporters.is_ok(), "{exporters:?}");
    }
}
