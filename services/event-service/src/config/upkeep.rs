//! What the upkeep of the event store can be told.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;

/// Days that events are kept at least: after they happened, after they were recorded, and after they
/// were archived. What is appended with an old time is not deleted before it can be read.
pub(crate) const MIN_RETENTION_DAYS: u32 = 28;

/// Partitions, archive and retention.
#[derive(Debug, Clone, Args)]
pub struct UpkeepArgs {
    /// Seconds between two looks at what partitions, archive and retention need; 0 for only when an
    /// operator asks. Of all replicas, one at a time does it.
    #[arg(long, env = "EVENT_UPKEEP_INTERVAL_SECS", default_value_t = 3600)]
    pub upkeep_interval_secs: u64,
    /// Archive what is old and delete what is too old without being asked. Without it `synapctl events
    /// archive` and `retention` do it, both with a dry run.
    #[arg(long, env = "EVENT_AUTO_ARCHIVE")]
    pub auto_archive: bool,
    /// Weeks for which there are partitions ahead.
    #[arg(long, env = "EVENT_PARTITIONS_AHEAD", default_value = "8")]
    pub partitions_ahead: NonZeroU32,
    /// Where content-service is, as http://127.0.0.1:50052, for the archive of events. Without it,
    /// nothing is archived.
    #[arg(long, env = "CONTENT_ENDPOINT")]
    pub content_endpoint: Option<String>,
    /// Days after its end, and after the last of its events was recorded, that a partition is archived:
    /// its events are in the object store then. A subscriber without a checkpoint may be away so long.
    #[arg(long, env = "EVENT_ARCHIVE_AFTER_DAYS", default_value_t = 7)]
    pub archive_after_days: u32,
    /// Days that events are kept, archived or not; 28 at least, and so long after they were recorded.
    /// Their counts per day stay.
    #[arg(long, env = "EVENT_RETENTION_DAYS", default_value_t = 730, value_parser = clap::value_parser!(u32).range(i64::from(MIN_RETENTION_DAYS)..))]
    pub retention_days: u32,
}

impl UpkeepArgs {
    /// How often; `None` for never.
    pub(crate) fn interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.upkeep_interval_secs)).filter(|interval| !interval.is_zero())
    }
}
