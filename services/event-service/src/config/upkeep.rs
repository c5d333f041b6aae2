//! What the upkeep of the event store can be told.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;

/// Partitions, archive and retention.
#[derive(Debug, Clone, Args)]
pub struct UpkeepArgs {
    /// Seconds between two looks at what partitions, archive and retention need; 0 for only when an
    /// operator asks. Of all replicas, one at a time does it.
    #[arg(long, env = "EVENT_UPKEEP_INTERVAL_SECS", default_value_t = 3600)]
    pub upkeep_interval_secs: u64,
    /// Weeks for which there are partitions ahead.
    #[arg(long, env = "EVENT_PARTITIONS_AHEAD", default_value = "8")]
    pub partitions_ahead: NonZeroU32,
}

impl UpkeepArgs {
    /// How often; `None` for never.
    pub(crate) fn interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.upkeep_interval_secs)).filter(|interval| !interval.is_zero())
    }
}
