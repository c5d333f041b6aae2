//! `synapctl events`: the upkeep of the event store.

use anyhow::Context as _;
use chrono::{Days, NaiveDate};
use clap::{Args, Subcommand};
use synap_proto::event::{
    MakePartitionsRequest, RebuildRollupsRequest,
    event_admin_service_client::EventAdminServiceClient,
};
use synap_rpc::{Channel, RpcError};
use synap_types::{Clock as _, SystemClock};

use crate::cli::Exit;

/// Look after the event store: its partitions and its counts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl events partitions\n  \
                  synapctl events rollups --from 2026-11-01 --repair")]
pub struct EventsArgs {
    /// Where event-service is.
    #[arg(long, global = true, env = "EVENT_URL", default_value = "http://127.0.0.1:50054")]
    event_url: String,
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Make the weekly partitions that are missing, and move to them what is in DEFAULT. Exit code 1
    /// if something stays there.
    Partitions,
    /// Compare the counts per user and day with the events. Exit code 1 if some differ.
    Rollups(RollupsArgs),
}

#[derive(Debug, Args)]
struct RollupsArgs {
    /// The first day (UTC), as 2026-11-28; a week ago if not given.
    #[arg(long)]
    from: Option<NaiveDate>,
    /// The last day (UTC); today if not given.
    #[arg(long)]
    to: Option<NaiveDate>,
    /// Put right what differs.
    #[arg(long)]
    repair: bool,
}

type Client = EventAdminServiceClient<Channel>;

/// Runs the command.
pub(crate) async fn events(args: EventsArgs) -> anyhow::Result<Exit> {
    let client = Client::new(Channel::connect("event-service", &args.event_url)?);
    let outcome = match args.command {
        EventsCommand::Partitions => partitions(client).await,
        EventsCommand::Rollups(rollups) => compare(client, &rollups).await,
    };
    outcome.with_context(|| format!("event-service at {}", args.event_url))
}

async fn partitions(mut client: Client) -> Result<Exit, RpcError> {
    let answer = client.make_partitions(MakePartitionsRequest {}).await?.into_inner();
    match &answer.partitions[..] {
        [] => println!("no partition is missing"),
        made => println!("made {}", made.join(", ")),
    }
    if answer.default_partition_rows == 0 {
        return Ok(Exit::Well);
    }
    println!("{} events stay in no weekly partition", answer.default_partition_rows);
    Ok(Exit::Findings)
}

async fn compare(mut client: Client, args: &RollupsArgs) -> Result<Exit, RpcError> {
    let end = args.to.unwrap_or_else(|| SystemClock.now().date_naive());
    let start = args.from.unwrap_or_else(|| end.checked_sub_days(Days::new(7)).unwrap_or(end));
    let request = RebuildRollupsRequest {
        start_date: start.to_string(),
        end_date: end.to_string(),
        dry_run: !args.repair,
    };
    let mut days = client.rebuild_rollups(request).await?.into_inner();
    let (mut events, mut differences) = (0, 0);
    while let Some(day) = days.message().await? {
        events += day.events;
        differences += day.differences;
        if day.differences > 0 {
            println!(
                "{}: {} events, {} counted, {} rows differ",
                day.date, day.events, day.counted, day.differences
            );
        }
    }
    let what = if args.repair { "repaired" } else { "differ" };
    println!("{start} to {end}: {events} events, {differences} rows {what}");
    Ok(if differences == 0 || args.repair { Exit::Well } else { Exit::Findings })
}
