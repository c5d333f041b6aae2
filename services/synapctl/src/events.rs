//! `synapctl events`: the upkeep of the event store, and the end of V0.2's.

mod quarantine;
mod retire;

use std::time::Duration;

use anyhow::Context as _;
use chrono::{Days, NaiveDate, SecondsFormat};
use clap::{Args, Subcommand};
use synap_proto::{
    event::{
        ApplyRetentionRequest, ArchiveEventsRequest, GetArchiveStatusRequest, KeepReason,
        KeptEvents, MakePartitionsRequest, RebuildRollupsRequest,
        event_admin_service_client::EventAdminServiceClient,
    },
    field,
};
use synap_rpc::{Channel, RpcError, deadline};
use synap_types::{Clock as _, SystemClock};

use crate::{cli::Exit, services::EventUrl};

/// Look after the event store: its partitions, archive and counts, and what is left of V0.2's.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  synapctl events archive --dry-run\n  \
                  synapctl events rollups --from 2026-11-01 --repair")]
pub struct EventsArgs {
    #[command(flatten)]
    event: EventUrl,
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Make the weekly partitions that are missing, and move to them what is in DEFAULT. Exit code 1
    /// if something stays there.
    Partitions,
    /// Move partitions that are over into the object store. What was recorded less than `--older-than`
    /// days ago (one day at least) stays, and what a durable consumer has not read. Exit code 1 if one
    /// stays.
    Archive(AgeArgs),
    /// Delete the events of weeks that are older than their retention, archived or not. What was
    /// recorded or archived in the last 28 days stays, and what a durable consumer has not read. Exit
    /// code 1 if some stay.
    Retention(AgeArgs),
    /// Show what is archived.
    Status,
    /// Compare the counts per user and day with the events. Exit code 1 if some differ.
    Rollups(RollupsArgs),
    /// List the old events that this store cannot hold, whole, each with its reason. Exit code 1 if
    /// there are any.
    Quarantine(quarantine::QuarantineArgs),
    /// Retire the tables of V0.2's events: first their names, later they themselves.
    DropLegacy(retire::DropArgs),
    /// Give renamed tables of V0.2's events their names back, with what was appended since.
    RestoreLegacy(retire::RestoreArgs),
}

#[derive(Debug, Args)]
struct AgeArgs {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Days since the end of a week; what the service is configured to if not given.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<i32>,
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

/// What a service lets a call take at most.
const LIMIT: Duration = Duration::from_hours(1);

type Client = EventAdminServiceClient<Channel>;

/// Runs the command.
pub(crate) async fn events(args: EventsArgs) -> anyhow::Result<Exit> {
    let client = Client::new(args.event.connect()?);
    let work = async {
        match args.command {
            EventsCommand::Partitions => partitions(client).await.map_err(Into::into),
            EventsCommand::Archive(age) => archive(client, &age).await.map_err(Into::into),
            EventsCommand::Retention(age) => retention(client, &age).await.map_err(Into::into),
            EventsCommand::Status => status(client).await.map_err(Into::into),
            EventsCommand::Rollups(rollups) => compare(client, &rollups).await.map_err(Into::into),
            EventsCommand::Quarantine(args) => quarantine::quarantine(client, args).await,
            EventsCommand::DropLegacy(args) => retire::drop_legacy(client, &args).await,
            EventsCommand::RestoreLegacy(args) => retire::restore_legacy(client, &args).await,
        }
    };
    deadline::within(LIMIT, work)
        .await
        .map_err(anyhow::Error::from)
        .flatten()
        .with_context(|| format!("event-service at {}", args.event.event_url))
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

async fn archive(mut client: Client, age: &AgeArgs) -> Result<Exit, RpcError> {
    let request = ArchiveEventsRequest { dry_run: age.dry_run, older_than_days: age.older_than };
    let mut partitions = client.archive_events(request).await?.into_inner();
    let (mut count, mut events, mut left) = (0, 0, 0);
    while let Some(one) = partitions.message().await? {
        count += 1;
        events += one.events;
        let outcome = match &one.kept {
            Some(kept) => {
                left += 1;
                format!("left to another time: {}", why(kept))
            }
            None if age.dry_run => "would be archived".to_owned(),
            None if one.key.is_empty() => "dropped: it was empty".to_owned(),
            None => format!("archived in {} bytes as {}", one.bytes, one.key),
        };
        println!(
            "{}: {} events, {} bytes with indexes; {outcome}",
            one.partition, one.events, one.table_bytes
        );
    }
    println!("{count} partitions, {events} events");
    Ok(if left == 0 { Exit::Well } else { Exit::Findings })
}

async fn retention(mut client: Client, age: &AgeArgs) -> Result<Exit, RpcError> {
    let request = ApplyRetentionRequest { dry_run: age.dry_run, older_than_days: age.older_than };
    let answer = client.apply_retention(request).await?.into_inner();
    println!(
        "before {}: {} {} files with {} events, {} partitions; {} events in partitions and DEFAULT",
        time(answer.before_time).unwrap_or_default(),
        if age.dry_run { "would delete" } else { "deleted" },
        answer.files,
        answer.archived_events,
        answer.partitions,
        answer.live_events
    );
    for kept in &answer.kept {
        println!("{}: {} events stay: {}", kept.partition, kept.events, why(kept));
    }
    Ok(if answer.kept.is_empty() { Exit::Well } else { Exit::Findings })
}

/// Why events stay, and what would help.
fn why(kept: &KeptEvents) -> String {
    match kept.reason() {
        KeepReason::Unspecified => "the service does not say why".to_owned(),
        KeepReason::Awaited => format!(
            "the durable consumer {} has not read them; delete it if nobody needs it any more",
            kept.consumer
        ),
        KeepReason::NotFinal => {
            "a transaction that is still open somewhere in the database server holds back the feed"
                .to_owned()
        }
        KeepReason::Recent => "they are new here: a subscriber may not have read them".to_owned(),
        KeepReason::Changed => "others came meanwhile".to_owned(),
    }
}

async fn status(mut client: Client) -> Result<Exit, RpcError> {
    let status = client.get_archive_status(GetArchiveStatusRequest {}).await?.into_inner();
    println!(
        "{} files, {} events in {} bytes, which took {} in the database",
        status.files, status.events, status.bytes, status.table_bytes
    );
    if let (Some(oldest), Some(newest)) = (time(status.oldest_time), time(status.newest_time)) {
        println!("from {oldest} to {newest}");
    }
    println!("{} blobs wait to be deleted for good", status.discarded);
    match time(status.deleted_before_time) {
        Some(time) => println!("events before {time} are deleted"),
        None => println!("no events are deleted"),
    }
    Ok(Exit::Well)
}

fn time(value: Option<prost_types::Timestamp>) -> Option<String> {
    let time = field::time("time", value).ok()?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
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
