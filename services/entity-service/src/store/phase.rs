//! The storage phase: one row, which every replica reads in every begin and every pivot, and which
//! only an operator's command changes.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Store, database::PHASE_LOCK, rows};
use crate::{domain::PhaseChange, error::Error};

/// Waits for the pivots under way. Those that come after it wait in turn, so it gives up before
/// anybody takes that for an outage.
const LOCK: &str = "SELECT set_config('lock_timeout', '5s', true), pg_advisory_xact_lock($1)";

const FIND: &str = "SELECT phase, changed_at FROM storage_phase WHERE only_row";

const CHANGE: &str = "
    UPDATE storage_phase SET phase = $1, changed_at = clock_timestamp()
    WHERE only_row
    RETURNING phase, changed_at";

impl Store {
    /// Moves the installation to a phase next to the one it is in. When this returns, no write that
    /// was begun in the old phase can commit any more. Repeating a change that went through
    /// succeeds.
    ///
    /// # Errors
    /// [`Error::OtherPhase`] if the installation is in another phase than expected.
    #[tracing::instrument(name = "db.storage_phase.change", skip_all, err(level = "debug"))]
    pub async fn change_phase(&self, change: PhaseChange) -> Result<DateTime<Utc>, Error> {
        let mut transaction = self.database.begin_across_users().await?;
        sqlx::query(LOCK).bind(PHASE_LOCK).execute(&mut *transaction).await?;
        let row = sqlx::query(FIND).fetch_one(&mut *transaction).await?;
        let current = rows::phase(&row)?;
        if current == change.next {
            return row.try_get("changed_at").map_err(Error::from);
        }
        if current != change.expected {
            return Err(Error::OtherPhase { current });
        }
        let row = sqlx::query(CHANGE).bind(change.next.name()).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        tracing::info!(phase = change.next.name(), "storage phase changed");
        Ok(row.try_get("changed_at")?)
    }
}
