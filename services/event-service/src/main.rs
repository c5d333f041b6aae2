//! The binary: reads the configuration, starts telemetry, runs the library until told to stop.

use clap::Parser;
use synap_event_service::{Config, Service};
use synap_telemetry::TelemetryArgs;

/// Stores what happened to each aggregate, once and in order.
#[derive(Debug, Parser)]
#[command(name = "event-service", version)]
struct Args {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // The one TLS provider; only a second call could fail.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let telemetry = synap_telemetry::init(&args.telemetry.options("event-service"))?;
    let outcome = run(args.config).await;
    telemetry.shutdown().await;
    outcome
}

async fn run(config: Config) -> anyhow::Result<()> {
    let service = Service::bind(config).await?;
    Ok(service.run(synap_rpc::stop_signal()).await?)
}
