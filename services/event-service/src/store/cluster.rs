//! Which cluster the database is in: transaction ids, and with them the order of the feed, are good
//! in one cluster only (`migrations/event/0003_feed.sql`).

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::PgConnection;

use super::DatabaseError;

/// Whether the epoch of the cluster has been entered since its connections last failed.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    entered: AtomicBool,
}

impl Cluster {
    /// Begins the next epoch if the database was moved to another cluster. Before anything is read
    /// or appended; costs nothing once it is done.
    pub(super) async fn enter(&self, connection: &mut PgConnection) -> Result<(), DatabaseError> {
        if self.entered.load(Ordering::Acquire) {
            return Ok(());
        }
        let (epoch, is_new): (i64, bool) =
            sqlx::query_as("SELECT current_epoch, is_new FROM event_store.enter_epoch()")
                .fetch_one(connection)
                .await?;
        if is_new {
            tracing::warn!(
                epoch,
                "the database is in another cluster than its events were: new events have a new \
                 epoch, after all that are there"
            );
        }
        self.entered.store(true, Ordering::Release);
        Ok(())
    }

    /// A connection failed: what is there when there are connections again may be another cluster.
    pub(super) fn forget(&self) {
        self.entered.store(false, Ordering::Release);
    }
}
