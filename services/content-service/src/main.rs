//! The content-service process.

use anyhow::anyhow;
use clap::Parser;
use synap_content_service::Config;
use synap_telemetry::TelemetryArgs;

/// Keeps the bytes of notes and files in R2, any other S3, or the local file system.
#[derive(Debug, Parser)]
#[command(name = "content-service", version)]
struct Args {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another TLS provider is already installed"))?;
    let telemetry = synap_telemetry::init(&args.telemetry.options("content-service"))?;
    let outcome = synap_content_service::run(args.config).await;
    telemetry.shutdown().await;
    Ok(outcome?)
}
