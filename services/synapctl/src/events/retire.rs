//! `synapctl events drop-legacy` and `restore-legacy`.

use std::{fmt, time::Duration};

use clap::Args;
use serde::Serialize;
use synap_proto::event::{GetLegacyMigrationRequest, LegacyStep, RetireLegacyEventsRequest};
use synap_rpc::RpcError;
use tonic::Code;

use super::Client;
use crate::{cli::Exit, output::ReportArgs};

/// Every row of the old tables is looked up first.
const LIMIT: Duration = Duration::from_mins(10);

/// Retire the tables of V0.2's events. The first call renames them, which ends the dual write; a
/// later one drops them, when they have had their other names for long enough. Refused (exit code 1)
/// unless every row is migrated or in quarantine, and the last comparison found no difference.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl events drop-legacy --dry-run\n  \
                  synapctl events drop-legacy --after 30\n  \
                  synapctl events drop-legacy --now --yes-i-have-a-backup")]
pub(super) struct DropArgs {
    /// Days that the renamed tables are kept at least.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=36_500))]
    after: i32,
    /// Drop renamed tables whatever their age.
    #[arg(long, requires = "yes_i_have_a_backup", conflicts_with = "after")]
    now: bool,
    /// Needed for --now.
    #[arg(long, requires = "now")]
    yes_i_have_a_backup: bool,
    /// Only say whether it could be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    report: ReportArgs,
}

/// Give the renamed tables their names back, with what was appended since. Exit code 1 if they are
/// not there.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  synapctl events restore-legacy")]
pub(super) struct RestoreArgs {
    /// Only say whether it could be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    report: ReportArgs,
}

pub(super) async fn drop_legacy(client: Client, args: &DropArgs) -> anyhow::Result<Exit> {
    let asked = client.clone().get_legacy_migration(GetLegacyMigrationRequest {}).await;
    let migration = asked.map_err(RpcError::from)?.into_inner().migration.unwrap_or_default();
    let step = match migration.rename_time {
        None => LegacyStep::Rename,
        Some(_) => LegacyStep::Drop,
    };
    let min_days = if args.now { 0 } else { args.after };
    retire(client, (step, min_days), args.dry_run, &args.report).await
}

pub(super) async fn restore_legacy(client: Client, args: &RestoreArgs) -> anyhow::Result<Exit> {
    retire(client, (LegacyStep::Restore, 0), args.dry_run, &args.report).await
}

#[derive(Debug, Serialize)]
struct Retired {
    step: &'static str,
    dry_run: bool,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl fmt::Display for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, dry_run, refused } = self;
        match refused {
            Some(why) => write!(f, "the old tables are not {step}: {why}"),
            None if *dry_run => write!(f, "the old tables can be {step}; nothing was changed"),
            None => write!(f, "the old tables are {step}"),
        }
    }
}

async fn retire(
    mut client: Client,
    (step, min_days): (LegacyStep, i32),
    dry_run: bool,
    report: &ReportArgs,
) -> anyhow::Result<Exit> {
    let message = RetireLegacyEventsRequest { step: step.into(), min_days, dry_run };
    let mut request = tonic::Request::new(message);
    request.set_timeout(LIMIT);
    let refused = match client.retire_legacy_events(request).await.map_err(RpcError::from) {
        Ok(_) => None,
        Err(error) if error.code == Code::FailedPrecondition => Some(error.message),
        Err(error) => return Err(error.into()),
    };
    let step = match step {
        LegacyStep::Drop => "dropped",
        LegacyStep::Restore => "restored",
        LegacyStep::Unspecified | LegacyStep::Rename => "renamed",
    };
    let exit = if refused.is_some() { Exit::Findings } else { Exit::Well };
    report.lines()?.print(&Retired { step, dry_run, refused })?;
    Ok(exit)
}
