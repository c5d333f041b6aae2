//! One call that installs everything, and the handle that takes it down again.

use std::env::{self, VarError};
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use opentelemetry::global;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::otlp::Exporters;

pub(crate) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// While a collector is away, its exporters report every attempt twice; once is enough. Only a
/// default: a `RUST_LOG` that is set is taken as it is.
const QUIET: &str = "opentelemetry=error";

/// What a service knows about itself and was configured with.
#[derive(Debug, Clone)]
pub struct Options {
    /// `service.name` of everything exported, for example `synap-gateway`.
    pub service_name: &'static str,
    /// `service.version`; a service passes its own `CARGO_PKG_VERSION`.
    pub service_version: &'static str,
    /// How log lines on stderr look.
    pub log_format: LogFormat,
    /// What is logged when `RUST_LOG` is not set, in its syntax; `info` unless there is a reason.
    /// It also chooses the spans that are exported, whatever `RUST_LOG` says: making the log
    /// quieter must not tear holes into traces.
    pub default_filter: &'static str,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, read by the service's own configuration: the collector's
    /// `http://host:port` or `https://host:port`. None or empty exports nothing. The other
    /// standard variables (`OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT`, `OTEL_TRACES_SAMPLER`,
    /// `OTEL_BSP_*`, `OTEL_RESOURCE_ATTRIBUTES`) are read by the OpenTelemetry SDK.
    pub otlp_endpoint: Option<String>,
}

/// How log lines on stderr look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `target`, the event's fields, and `spans`
    /// from the outermost to the innermost with theirs.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// The log format named in the configuration does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a log format: use `text` or `json`")]
pub struct UnknownLogFormat(String);

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(UnknownLogFormat(other.to_owned())),
        }
    }
}

/// Why telemetry could not be set up. Each message names the setting at fault.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A filter does not parse.
    #[error(
        "{setting}=`{value}` is not a log filter, such as `info,synap_gateway=debug`: {source}"
    )]
    Filter {
        /// `RUST_LOG`, or `default_filter` for a mistake in the service itself.
        setting: &'static str,
        /// What it was set to.
        value: String,
        /// What the parser says.
        source: ParseError,
    },
    /// `RUST_LOG` is not UTF-8.
    #[error("RUST_LOG is not UTF-8 text")]
    FilterEncoding,
    /// The endpoint is not an address that gRPC can connect to.
    #[error(
        "OTEL_EXPORTER_OTLP_ENDPOINT=`{0}` is not an address: use http://host:port, or https://host:port for TLS"
    )]
    Endpoint(String),
    /// The SDK refused its configuration: one of its own `OTEL_*` variables, or the endpoint.
    #[error("cannot export to the OTLP collector: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// Exporters connect on a Tokio runtime and there is none.
    #[error("telemetry::init was called outside a Tokio runtime")]
    NoRuntime,
    /// A process has one subscriber, and it has one already.
    #[error("logging is already set up in this process: {0}")]
    AlreadyInitialised(#[from] TryInitError),
}

/// Installs logging, and the exporters if a collector is named. Once per process: a process that
/// runs several services has one telemetry.
///
/// Nothing is connected yet: a collector that is away is no reason for a service not to start.
///
/// # Errors
/// Any [`InitError`]. Nothing is installed then.
pub fn init(options: &Options) -> Result<Telemetry, InitError> {
    let log_filter = log_directives(options.default_filter)?;
    let endpoint = options.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    let exporters = endpoint
        .map(|endpoint| Exporters::connect(endpoint, options.service_name, options.service_version))
        .transpose()?;

    let mut layers = vec![stderr_layer(options.log_format, log_filter.parse()?)];
    if let Some(exporters) = &exporters {
        let spans = Directives::default_of(options.default_filter);
        layers.push(exporters.span_layer(spans.parse()?));
        layers.push(exporters.log_layer(log_filter.parse()?));
    }
    Registry::default().with(layers).try_init()?;

    // Even without a collector: a context that was extracted can be passed on.
    global::set_text_map_propagator(TraceContextPropagator::new());
    if let Some(exporters) = &exporters {
        exporters.install();
    }
    Ok(Telemetry { exporters })
}

fn stderr_layer(format: LogFormat, filter: EnvFilter) -> BoxedLayer {
    let mut layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if !io::stderr().is_terminal() {
        layer = layer.with_ansi(false);
    }
    match format {
        LogFormat::Text => layer.with_filter(filter).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            // The innermost span is the last of `spans`; once is enough.
            .with_current_span(false)
            .with_filter(filter)
            .boxed(),
    }
}

/// A filter as text, and where it came from. An [`EnvFilter`] cannot be cloned, so it is parsed
/// once for each layer that uses it.
struct Directives {
    setting: &'static str,
    value: String,
    text: String,
}

impl Directives {
    fn default_of(filter: &str) -> Self {
        let text = format!("{QUIET},{filter}");
        Self { setting: "default_filter", value: filter.to_owned(), text }
    }

    fn parse(&self) -> Result<EnvFilter, InitError> {
        EnvFilter::builder().parse(&self.text).map_err(|source| InitError::Filter {
            setting: self.setting,
            value: self.value.clone(),
            source,
        })
    }
}

fn log_directives(default_filter: &str) -> Result<Directives, InitError> {
    let setting = EnvFilter::DEFAULT_ENV;
    match env::var(setting) {
        Ok(value) if !value.trim().is_empty() => {
            Ok(Directives { setting, text: value.clone(), value })
        }
        Ok(_) | Err(VarError::NotPresent) => Ok(Directives::default_of(default_filter)),
        Err(VarError::NotUnicode(_)) => Err(InitError::FilterEncoding),
    }
}

/// What [`init`] installed. Dropping it loses what was not yet exported: await
/// [`shutdown`](Self::shutdown) at the end of `main`.
#[derive(Debug)]
#[must_use = "await `shutdown` at the end of main, or the last spans and logs are lost"]
pub struct Telemetry {
    exporters: Option<Exporters>,
}

impl Telemetry {
    /// Whether traces, metrics and logs go to a collector.
    #[must_use]
    pub fn exports(&self) -> bool {
        self.exporters.is_some()
    }

    /// Sends what is still queued and stops the exporters. Returns within
    /// [`SHUTDOWN_LIMIT`](crate::SHUTDOWN_LIMIT) whatever the collector does; what could not be
    /// delivered is said on stderr. Logging to stderr goes on working afterwards.
    pub async fn shutdown(self) {
        if let Some(exporters) = self.exporters {
            exporters.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_formats_are_read_as_they_are_written() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "JSON".parse::<LogFormat>().unwrap_err();
        assert_eq!(error.to_string(), "`JSON` is not a log format: use `text` or `json`");
    }

    fn options(default_filter: &'static str, endpoint: &str) -> Options {
        Options {
            service_name: "synap-test",
            service_version: "0",
            log_format: LogFormat::Text,
            default_filter,
            otlp_endpoint: Some(endpoint.to_owned()),
        }
    }

    #[tokio::test]
    async fn an_address_without_a_scheme_is_refused_by_name() {
        for endpoint in ["localhost:4317", "ftp://collector:21", "http://", "not an address"] {
            let error = init(&options("info", endpoint)).unwrap_err().to_string();
            assert!(error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT=`"), "{error}");
            assert!(error.contains(endpoint), "{error}");
        }
    }

    #[test]
    fn exporters_need_a_runtime() {
        let error = init(&options("info", "http://127.0.0.1:4317")).unwrap_err();
        assert!(matches!(error, InitError::NoRuntime), "{error}");
    }

    #[test]
    fn a_bad_filter_is_refused_with_its_value() {
        let error = Directives::default_of("synap_gateway=loud").parse().unwrap_err().to_string();
        assert!(error.starts_with("default_filter=`synap_gateway=loud`"), "{error}");
    }
}
