//! What every service can be told about its telemetry, by flag or environment.

use clap::Args;

use crate::{LogFormat, Options};

/// Where logs, traces and metrics go.
#[derive(Debug, Clone, Args)]
pub struct TelemetryArgs {
    /// How log lines on stderr look: text or json. RUST_LOG says how many there are.
    #[arg(long, env = "LOG_FORMAT", default_value_t)]
    pub log_format: LogFormat,
    /// An OTLP/gRPC collector, like http://127.0.0.1:4317: traces, metrics and logs go there too.
    #[arg(long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

impl TelemetryArgs {
    /// The options of a service of that name, at this workspace's version.
    #[must_use]
    pub fn options(&self, service_name: &'static str) -> Options {
        Options {
            service_name,
            service_version: env!("CARGO_PKG_VERSION"),
            log_format: self.log_format,
            // sqlx reports what PostgreSQL notices: that a table exists already.
            default_filter: "info,sqlx=warn",
            otlp_endpoint: self.otlp_endpoint.clone(),
        }
    }
}
