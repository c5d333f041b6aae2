//! What TimescaleDB's community edition does in place of the archive.

use super::{Admin, Lease, Segment, UpkeepError};

impl Admin {
    /// Compresses a chunk where it is, if it is not compressed. Rows of one user lie together, in the
    /// order of their streams, as they do in a file of the archive.
    pub(crate) async fn compress(
        &self,
        lease: &Lease,
        segment: &Segment,
    ) -> Result<(), UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        sqlx::query(
            "ALTER TABLE event_store.events SET (
                 timescaledb.compress, timescaledb.compress_segmentby = 'user_id',
                 timescaledb.compress_orderby = 'aggregate_type, aggregate_id, version')",
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query("SELECT compress_chunk($1::regclass, if_not_compressed => true)")
            .bind(&segment.table)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}
