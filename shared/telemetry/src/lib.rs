//! What a service says about itself while it runs.
//!
//! Every `main` calls [`init`] once, after its configuration is read and inside its Tokio runtime,
//! and awaits [`Telemetry::shutdown`] last, on success and on failure alike:
//!
//! 1. Logs always go to stderr, for people or as JSON. `RUST_LOG` decides how much.
//! 2. When a collector is named (`OTEL_EXPORTER_OTLP_ENDPOINT`), traces, metrics and logs also go
//!    there, over OTLP/gRPC. When none is named, nothing of OpenTelemetry is installed and a span
//!    costs what `tracing` costs.
//! 3. [`propagation`] carries the trace from one service to the next in the W3C `traceparent`
//!    header, so that one note is one trace.
//! 4. [`metrics`] holds the instruments that every service has, and says where others go.
//!
//! Code logs with `tracing` and knows nothing of this crate. The words that it uses for fields,
//! levels and span names are in `docs/logging.md`.

mod args;
mod init;
pub mod metrics;
mod otlp;
pub mod propagation;

pub use args::TelemetryArgs;
pub use init::{InitError, LogFormat, Options, Telemetry, UnknownLogFormat, init};
pub use otlp::SHUTDOWN_LIMIT;
