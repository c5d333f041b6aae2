//! The content-service process.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use synap_content_service::{CheckArgs, Config};
use synap_telemetry::TelemetryArgs;

/// Keeps the bytes of notes and files in R2, any other S3, or the local file system.
#[derive(Debug, Parser)]
#[command(name = "content-service", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Without a command it serves. Try `content-service check` first: it says what \
                        is wrong with a configuration."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(CheckArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another TLS provider is already installed"))?;
    if let Some(Command::Check(args)) = args.command {
        return Ok(synap_content_service::print_check(&args).await);
    }
    let telemetry = synap_telemetry::init(&args.telemetry.options("content-service"))?;
    let outcome = synap_content_service::run(args.config).await;
    telemetry.shutdown().await;
    Ok(outcome.map(|()| ExitCode::SUCCESS)?)
}
