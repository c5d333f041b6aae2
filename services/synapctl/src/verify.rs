//! `synapctl verify`: whether what one store says is what the others say.

mod events;
mod replay;

use clap::Args;

use crate::{cli::Exit, output::ReportArgs};

/// Compare every entity with what its events make of it. Exit code 1 if they differ.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  synapctl verify --events --output json --report verify.ndjson")]
pub struct VerifyArgs {
    /// Replay the events of every entity.
    #[arg(long, required = true)]
    events: bool,
    /// Where event-service is.
    #[arg(long, env = "EVENT_URL", default_value = "http://127.0.0.1:50054")]
    event_url: String,
    /// Where entity-service is.
    #[arg(long, env = "ENTITY_URL", default_value = "http://127.0.0.1:50053")]
    entity_url: String,
    /// Entities that are looked at side by side.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
pub(crate) async fn verify(args: VerifyArgs) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    tokio::select! {
        () = stop.cancelled() => anyhow::bail!("stopped before everything was compared"),
        outcome = events::verify(&args) => outcome,
    }
}
