//! The binary: reads the configuration, starts telemetry, runs the library until told to stop.

use clap::Parser;
use synap_entity_service::{Config, Service};
use synap_telemetry::TelemetryArgs;

/// Owns PostgreSQL's metadata: entities, content blocks, revisions, and the write protocol's log.
#[derive(Parser)]
#[command(name = "entity-service", version)]
struct Args {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let telemetry = synap_telemetry::init(&args.telemetry.options("entity-service"))?;
    let outcome = run(args.config).await;
    telemetry.shutdown().await;
    outcome
}

async fn run(config: Config) -> anyhow::Result<()> {
    let service = Service::bind(config).await?;
    Box::pin(service.run(synap_rpc::stop_signal())).await
}
