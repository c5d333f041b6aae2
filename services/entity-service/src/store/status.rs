//! What an operator wants to know.

use sqlx::Row as _;

use super::{Store, rows};
use crate::{domain::StorageStatus, error::Error};

const STATUS: &str = "
    SELECT phase, changed_at,
           (SELECT count(*) FROM write_operations WHERE state = 'PENDING') AS pending,
           (SELECT count(*) FROM write_operations WHERE state = 'COMMITTED') AS committed,
           (SELECT count(*) FROM blob_gc) AS deletions
    FROM storage_phase WHERE only_row";

impl Store {
    /// The storage phase and the depth of the recovery queues.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.storage.status", skip_all, err(level = "debug"))]
    pub async fn status(&self) -> Result<StorageStatus, Error> {
        let row = sqlx::query(STATUS).fetch_one(&mut *self.database.across_users().await?).await?;
        Ok(StorageStatus {
            phase: rows::phase(&row)?,
            phase_since: row.try_get("changed_at")?,
            pending_operations: row.try_get("pending")?,
            committed_operations: row.try_get("committed")?,
            blob_deletions: row.try_get("deletions")?,
        })
    }
}
