//! `synapctl status`: what each service says of itself.

use chrono::SecondsFormat;
use clap::Args;
use serde::Serialize;
use synap_proto::{
    entity::{GetStorageStatusRequest, storage_service_client::StorageServiceClient},
    event::{GetCapabilitiesRequest, event_service_client::EventServiceClient},
    field,
};
use synap_rpc::{Channel, RpcError};

use crate::{
    cli::Exit,
    output::Output,
    phase,
    services::{ContentUrl, EntityUrl, EventUrl},
};

/// Show what each service says of itself: whether it is ready, the storage phase, how deep the
/// recovery queues are, and what keeps the events. Exit code 1 if a service is not ready.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  synapctl status --output json | jq .storage.phase")]
pub struct StatusArgs {
    /// Where the gateway is.
    #[arg(long, env = "GATEWAY_URL", default_value = "http://127.0.0.1:50051")]
    gateway_url: String,
    #[command(flatten)]
    content: ContentUrl,
    #[command(flatten)]
    entity: EntityUrl,
    #[command(flatten)]
    event: EventUrl,
    /// For a person or for a program.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Status {
    services: Vec<ServiceStatus>,
    storage: Option<StorageStatus>,
    events: Option<EventsStatus>,
}

#[derive(Debug, Serialize)]
struct ServiceStatus {
    name: &'static str,
    url: String,
    ready: bool,
}

#[derive(Debug, Serialize)]
struct StorageStatus {
    phase: &'static str,
    /// When it was entered, as RFC 3339.
    phase_since: Option<String>,
    pending_operations: i64,
    committed_operations: i64,
    blob_deletions: i64,
}

#[derive(Debug, Serialize)]
struct EventsStatus {
    /// plain, timescaledb_apache or timescaledb_community.
    engine: String,
    /// PostgreSQL's version, and TimescaleDB's where there is one.
    version: String,
    /// partitions or hypertable.
    partitioning: String,
    partitions: i32,
    partitions_ahead: i32,
    /// Events in no weekly partition.
    default_partition_rows: i64,
    archive: bool,
    native_compression: bool,
    /// Seconds for which a transaction has kept readers of the feed back.
    horizon_age_secs: i64,
    /// Its process and database, where they can be seen.
    horizon_holder: Option<String>,
}

/// Runs the command.
pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<Exit> {
    let entity = args.entity.connect()?;
    let mut services = Vec::new();
    for (name, url) in [
        ("gateway", args.gateway_url),
        ("content-service", args.content.content_url),
        ("entity-service", args.entity.entity_url.clone()),
        ("event-service", args.event.event_url.clone()),
    ] {
        let ready = Channel::connect(name, &url)?.is_ready().await;
        services.push(ServiceStatus { name, url, ready });
    }
    let storage = storage(entity).await;
    if let Err(error) = &storage {
        eprintln!("synapctl: {} does not tell the storage phase: {error}", args.entity.entity_url);
    }
    let events = events(args.event.connect()?).await;
    if let Err(error) = &events {
        eprintln!(
            "synapctl: {} does not tell what keeps the events: {error}",
            args.event.event_url
        );
    }
    let status = Status { services, storage: storage.ok(), events: events.ok() };
    match args.output {
        Output::Json => println!("{}", serde_json::to_string(&status)?),
        Output::Text => print(&status),
    }
    let well = status.services.iter().all(|service| service.ready)
        && status.storage.is_some()
        && status.events.is_some();
    Ok(if well { Exit::Well } else { Exit::Findings })
}

async fn storage(entity: Channel) -> Result<StorageStatus, RpcError> {
    let answer =
        StorageServiceClient::new(entity).get_storage_status(GetStorageStatusRequest {}).await;
    let answer = answer.map_err(RpcError::from)?.into_inner();
    let phase = phase::name(answer.phase());
    let since = field::time("change_time", answer.change_time).ok();
    Ok(StorageStatus {
        phase,
        phase_since: since.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        pending_operations: answer.pending_operations,
        committed_operations: answer.committed_operations,
        blob_deletions: answer.blob_deletions,
    })
}

async fn events(event: Channel) -> Result<EventsStatus, RpcError> {
    let answer = EventServiceClient::new(event).get_capabilities(GetCapabilitiesRequest {}).await;
    let answer = answer.map_err(RpcError::from)?.into_inner();
    let word = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    let timescaledb = match answer.timescaledb_version.as_str() {
        "" => String::new(),
        version => format!(", TimescaleDB {version}"),
    };
    Ok(EventsStatus {
        engine: word(answer.engine().as_str_name(), "ENGINE_"),
        version: format!("PostgreSQL {}{timescaledb}", answer.postgres_version),
        partitioning: word(answer.partitioning().as_str_name(), "PARTITIONING_"),
        partitions: answer.partitions,
        partitions_ahead: answer.partitions_ahead,
        default_partition_rows: answer.default_partition_rows,
        archive: answer.archive,
        native_compression: answer.native_compression,
        horizon_age_secs: answer.horizon_age.map_or(0, |age| age.seconds),
        horizon_holder: answer
            .horizon_pid
            .map(|pid| format!("process {pid} in database {}", answer.horizon_database)),
    })
}

fn print(status: &Status) {
    for service in &status.services {
        let ready = if service.ready { "ready" } else { "NOT READY" };
        println!("{:<16} {:<28} {ready}", service.name, service.url);
    }
    if let Some(storage) = &status.storage {
        let since = storage.phase_since.as_deref().unwrap_or("an unknown time");
        println!("storage phase    {} since {since}", storage.phase);
        println!(
            "write protocol   {} pending, {} waiting for their event, {} blobs to delete",
            storage.pending_operations, storage.committed_operations, storage.blob_deletions
        );
    }
    if let Some(events) = &status.events {
        let archive = if events.archive { "archive" } else { "no archive" };
        println!(
            "event store      {}, {}: {} {}, {} ahead, {} rows outside of them; {archive}",
            events.version,
            events.engine,
            events.partitions,
            events.partitioning,
            events.partitions_ahead,
            events.default_partition_rows
        );
        if events.horizon_age_secs > 0 {
            println!(
                "feed             held back for {} s by {}: what was appended since is not told yet",
                events.horizon_age_secs,
                events.horizon_holder.as_deref().unwrap_or("a transaction")
            );
        }
    }
}
