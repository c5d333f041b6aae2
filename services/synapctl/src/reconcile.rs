//! `synapctl reconcile`: the store against rows, both ways.
//!
//! From the store to the rows: it is listed from one end to the other, and of each page it is asked
//! which keys no row names. A key is written down before its blob is (docs/write-protocol.md), so
//! asking after listing misses none; and what is found is asked for once more, thoroughly, before it
//! is told, and once more right before it is moved. From the rows to the store: each object is asked
//! for by the key of its row. A merge of two sorted lists would need fewer requests, but the database
//! does not sort as the store does, unless by one more index on the table that every write touches.
//! A million objects cost 36 cents so, and what is found is of one moment.

mod audit;
mod quarantine;

use std::time::Duration;

use clap::Args;

pub(crate) use self::audit::unknown;
use crate::{
    age,
    cli::Exit,
    looks::{Looks, ServiceUrls},
    output::ReportArgs,
};

/// DESIGN: no key younger than this is ever touched.
const LEAST_AGE: Duration = Duration::from_hours(24);

/// Compare the object store with the rows, both ways: objects that no row names, and rows whose object
/// is not there or has another size. Only reports, unless told otherwise. Exit code 1 if there is
/// anything of the kind.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl reconcile --report audit.ndjson\n  \
                  synapctl reconcile --quarantine\n  synapctl reconcile --restore --key KEY\n  \
                  synapctl reconcile --purge --older-than 30d --yes")]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct ReconcileArgs {
    /// Move objects that no row names to quarantine, when all of the store was listed without an
    /// error.
    #[arg(long)]
    quarantine: bool,
    /// Objects younger than this are not touched: 24h and more.
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = least_age)]
    min_age: Duration,
    /// Move, restore or purge so many objects at most.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_moves: u32,
    /// Move objects back out of quarantine.
    #[arg(long, conflicts_with = "quarantine")]
    restore: bool,
    /// Only the object of this key, as it was before the quarantine; may be given several times.
    #[arg(long, value_name = "KEY", requires = "restore")]
    key: Vec<String>,
    /// Say what of the quarantine would be deleted for good; with --yes, delete it.
    #[arg(long, conflicts_with_all = ["quarantine", "restore"])]
    purge: bool,
    /// Only what has been in quarantine for so long.
    #[arg(long, value_name = "AGE", default_value = "30d", value_parser = age::parse)]
    older_than: Duration,
    /// Needed to delete.
    #[arg(long, requires = "purge")]
    yes: bool,
    #[command(flatten)]
    urls: ServiceUrls,
    /// Calls under way side by side; each asks for several objects.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    #[command(flatten)]
    report: ReportArgs,
}

fn least_age(text: &str) -> Result<Duration, String> {
    let age = age::parse(text)?;
    if age < LEAST_AGE { Err("must be 24h or more".to_owned()) } else { Ok(age) }
}

/// Runs the command.
pub(crate) async fn reconcile(args: ReconcileArgs) -> anyhow::Result<Exit> {
    let stop = synap_rpc::stop_signal();
    let looks = Looks::connect(&args.urls)?;
    let mut lines = args.report.lines()?;
    let work = async {
        if args.restore {
            quarantine::restore(&args, &looks, &mut lines).await
        } else if args.purge {
            quarantine::purge(&args, &looks, &mut lines).await
        } else {
            audit::audit(&args, &looks, &mut lines).await
        }
    };
    tokio::select! {
        // A move that is under way ends by itself; a repeat finds it done.
        () = stop.cancelled() => anyhow::bail!("stopped before the end"),
        outcome = work => outcome,
    }
}
