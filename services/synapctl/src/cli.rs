//! The command line, and the exit codes.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use synap_telemetry::TelemetryArgs;

use crate::{
    adopt, bench, cost, events, migrate, monitor, reconcile, run as service, status,
    takeover::{cutover, drop_legacy, restore_legacy, rollback},
    token, up, verify,
};

/// Operates Synap storage.
#[derive(Debug, Parser)]
#[command(
    name = "synapctl",
    version,
    after_help = "Exit codes: 0 all well, 1 findings, 2 wrong usage, 3 could not run.\n\
                  Start with `synapctl up`: it needs nothing installed and nothing configured."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all of Synap storage on this machine until Ctrl-C.
    Up(up::UpArgs),
    /// Run one service in the foreground.
    Run(service::RunArgs),
    /// Print a development token for a user.
    Token(token::TokenArgs),
    /// Show what each service says of itself.
    Status(status::StatusArgs),
    Adopt(adopt::AdoptArgs),
    /// Bring what V0.2 has into the stores of this installation.
    Migrate(migrate::MigrateArgs),
    /// Compare what one store says with what the others say.
    Verify(verify::VerifyArgs),
    /// Watch how far the object store and the database agree.
    Monitor(monitor::MonitorArgs),
    /// Compare the object store with the rows, both ways; quarantine what no row names.
    Reconcile(reconcile::ReconcileArgs),
    /// Look after the event store: its partitions, archive and counts, and what is left of V0.2's.
    Events(events::EventsArgs),
    /// Enter the next storage phase, if everything is where it looks for it.
    Cutover(cutover::CutoverArgs),
    /// Go one storage phase back.
    Rollback(rollback::RollbackArgs),
    /// Back up content_blocks, and retire it: first its name, later the table.
    DropLegacy(drop_legacy::DropArgs),
    /// Bring content_blocks back.
    RestoreLegacy(restore_legacy::RestoreArgs),
    /// What is stored, in dollars: before V0.3, now, and after.
    Cost(cost::CostArgs),
    /// Measure the system beside its floor: the same work straight to the stores.
    Bench(bench::BenchArgs),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Well,
    /// The command ran, and found something that needs a person.
    Findings,
    /// The command could not run.
    CouldNotRun,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // 2 is wrong usage: clap's.
        Self::from(match exit {
            Exit::Well => 0,
            Exit::Findings => 1,
            Exit::CouldNotRun => 3,
        })
    }
}

/// Runs a command to its end.
///
/// # Errors
/// Whatever kept it from running, in words that say what to do.
pub async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let mut options = cli.telemetry.options(cli.command.service_name());
    if !cli.command.is_server() {
        // A server's log is its purpose; a command that answers a question should only answer it.
        options.default_filter = "warn";
    }
    let telemetry = synap_telemetry::init(&options)?;
    let outcome = match cli.command {
        Command::Up(args) => Box::pin(up::up(args)).await,
        Command::Run(args) => Box::pin(service::run(args)).await,
        Command::Token(args) => token::token(&args),
        Command::Status(args) => status::status(args).await,
        Command::Adopt(args) => Box::pin(adopt::adopt(args)).await,
        Command::Cost(args) => cost::cost(args).await,
        Command::Migrate(args) => Box::pin(migrate::migrate(args)).await,
        Command::Verify(args) => Box::pin(verify::verify(args)).await,
        Command::Monitor(args) => Box::pin(monitor::monitor(args)).await,
        Command::Reconcile(args) => Box::pin(reconcile::reconcile(args)).await,
        Command::Events(args) => events::events(args).await,
        Command::Cutover(args) => Box::pin(cutover::cutover(args)).await,
        Command::Rollback(args) => Box::pin(rollback::rollback(args)).await,
        Command::DropLegacy(args) => Box::pin(drop_legacy::drop_legacy(args)).await,
        Command::RestoreLegacy(args) => Box::pin(restore_legacy::restore_legacy(args)).await,
        Command::Bench(args) => Box::pin(bench::bench(args)).await,
    };
    telemetry.shutdown().await;
    outcome
}

impl Command {
    fn service_name(&self) -> &'static str {
        match self {
            Self::Run(args) => args.service.name(),
            _ => "synapctl",
        }
    }

    fn is_server(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Run(_) | Self::Monitor(_))
    }
}
