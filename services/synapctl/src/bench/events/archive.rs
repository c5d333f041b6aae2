//! The archive: what the weeks that are over take in the database, and as files.

use serde::Serialize;
use synap_proto::event::{
    ArchiveEventsRequest, event_admin_service_client::EventAdminServiceClient,
};
use tokio::time::Instant;
use tonic::Request;

use super::PATIENCE;
use crate::bench::system::BenchSystem;

/// What was archived.
#[derive(Debug, Default, Serialize)]
struct Archived {
    operation: &'static str,
    events: i64,
    /// With their indexes.
    table_bytes: i64,
    file_bytes: i64,
    /// Table over files.
    ratio: f64,
    /// To write, read back and compare, and drop.
    events_per_second: f64,
}

/// Archives what is older than a week.
pub(super) async fn bench(system: &BenchSystem, json: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut request =
        Request::new(ArchiveEventsRequest { dry_run: false, older_than_days: Some(7) });
    request.set_timeout(PATIENCE);
    let mut client = EventAdminServiceClient::new(system.event()?);
    let mut partitions = client.archive_events(request).await?.into_inner();
    let mut all = Archived { operation: "archive", ..Archived::default() };
    while let Some(partition) = partitions.message().await? {
        let name = &partition.partition;
        anyhow::ensure!(partition.archived, "{name} was not archived: {partition:?}");
        all.events += partition.events;
        all.table_bytes += partition.table_bytes;
        all.file_bytes += partition.bytes;
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    let (events, table, files) = (all.events as f64, all.table_bytes as f64, all.file_bytes as f64);
    all.ratio = table / files;
    all.events_per_second = events / begun.elapsed().as_secs_f64();
    if json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    println!(
        "\narchive of {events} events: {:.1} MiB in tables and indexes, {:.1} MiB in files = {:.1} x \
         smaller; {:.0} events/s",
        table / 1_048_576.0,
        files / 1_048_576.0,
        all.ratio,
        all.events_per_second
    );
    Ok(())
}
