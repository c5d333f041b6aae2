//! `synapctl verify`: whether what one store says is what the others say.

mod events;
mod files;
mod replay;
mod report;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::{age, cli::Exit, looks::ServiceUrls, output::ReportArgs, services::EventUrl};

/// Compare every entity with its object in the store: it is there, and has its size and its SHA-256.
/// Or, with --events, with what its events make of it. It can be stopped at any moment: what was
/// found sound is recorded, and the same command goes on from there; --all begins anew. Exit code 1
/// if something is not as it should be.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl verify --report verify.ndjson\n  \
                  synapctl verify --level head --all\n  synapctl verify --since 30d\n  \
                  synapctl verify --sample 5%\n  synapctl verify --events --output json")]
pub struct VerifyArgs {
    /// Replay the events of every entity instead.
    #[arg(long, conflicts_with_all = ["level", "sample", "since", "all"])]
    events: bool,
    /// How closely objects are looked at.
    #[arg(long, value_enum, default_value_t = Level::Checksum)]
    level: Level,
    /// Look at so many percent of all files, drawn anew each time, and say what that tells of the
    /// rest.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with_all = ["since", "all"])]
    sample: Option<f64>,
    /// Look again at what was found sound longer ago than this: 30d, 24h, 90m.
    #[arg(long, value_name = "AGE", value_parser = age::parse, conflicts_with = "all")]
    since: Option<Duration>,
    /// Look at everything, whatever was found before.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    event: EventUrl,
    #[command(flatten)]
    urls: ServiceUrls,
    /// Calls under way side by side: each looks at several objects, or at one entity's events.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Ask whether it is there, and how large. Cheap.
    Head,
    /// Read it to its end. content-service does; the bytes go no further.
    Checksum,
}

/// Runs the command.
pub(crate) async fn verify(args: VerifyArgs) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    if args.events {
        return tokio::select! {
            () = stop.cancelled() => anyhow::bail!("stopped before everything was compared"),
            outcome = events::verify(&args) => outcome,
        };
    }
    tokio::select! {
        () = stop.cancelled() => {
            let next = if args.all { "with --all it begins anew" } else { "it goes on from here" };
            eprintln!("\nsynapctl: stopped; the same command may be run again: {next}");
            Ok(Exit::CouldNotRun)
        }
        outcome = files::verify(&args) => outcome,
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').parse::<f64>();
    let inside = |percent: &f64| *percent > 0.0 && *percent <= 100.0;
    number.ok().filter(inside).ok_or_else(|| "must be more than 0 % and at most 100 %".to_owned())
}
