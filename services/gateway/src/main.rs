//! The binary: reads the configuration, starts telemetry, runs the library until told to stop.

use clap::Parser;
use synap_gateway::{Config, Service};
use synap_telemetry::TelemetryArgs;

/// The public API of Synap storage, over gRPC and HTTP.
#[derive(Parser)]
#[command(name = "gateway", version)]
struct Args {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let telemetry = synap_telemetry::init(&args.telemetry.options("gateway"))?;
    let outcome = run(args.config).await;
    telemetry.shutdown().await;
    outcome
}

async fn run(config: Config) -> anyhow::Result<()> {
    let service = Service::bind(config).await?;
    Box::pin(service.run(synap_rpc::stop_signal())).await
}
