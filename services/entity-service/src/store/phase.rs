//! The storage phase: one row, which every replica reads in every begin and every pivot, and which
//! only an operator's command changes.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};

use super::{Store, database::PHASE_LOCK, rows};
use crate::{
    domain::{Phase, PhaseChange},
    error::Error,
};

/// Waits for the pivots under way. Those that come after it wait in turn, so it gives up before
/// anybody takes that for an outage.
const LOCK: &str = "SELECT set_config('lock_timeout', '5s', true), pg_advisory_xact_lock($1)";

const FIND: &str = "SELECT phase, changed_at FROM storage_phase WHERE only_row";

const TABLE_IS_THERE: &str = "SELECT to_regclass('content_blocks') IS NOT NULL";

const CHANGE: &str = "
    UPDATE storage_phase SET phase = $1, changed_at = clock_timestamp()
    WHERE only_row
    RETURNING phase, changed_at";

/// Keeps pivots out, and the phase as it is, until the transaction's end.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), Error> {
    sqlx::query(LOCK).bind(PHASE_LOCK).execute(connection).await?;
    Ok(())
}

/// As a pivot does: keeps changes of the phase out, and no other pivot, until the transaction's end.
pub(super) async fn hold(connection: &mut PgConnection) -> Result<(), Error> {
    let hold = "SELECT pg_advisory_xact_lock_shared($1)";
    sqlx::query(hold).bind(PHASE_LOCK).execute(connection).await?;
    Ok(())
}

/// The phase. Without the lock it may be another by now.
pub(super) async fn find(connection: &mut PgConnection) -> Result<Phase, Error> {
    rows::phase(&sqlx::query(FIND).fetch_one(connection).await?)
}

/// Phases that write content_blocks need such a table.
pub(super) async fn table_is_there(connection: &mut PgConnection) -> Result<(), Error> {
    if sqlx::query_scalar(TABLE_IS_THERE).fetch_one(connection).await? {
        return Ok(());
    }
    let why = "content_blocks is renamed or dropped: `synapctl restore-legacy` brings it back";
    Err(Error::LegacyNotReady(why.to_owned()))
}

/// To another phase, inside of the lock.
pub(super) async fn enter(connection: &mut PgConnection, phase: Phase) -> Result<(), Error> {
    sqlx::query(CHANGE).bind(phase.name()).execute(connection).await?;
    tracing::info!(phase = phase.name(), "storage phase changed");
    Ok(())
}

impl Store {
    /// Moves the installation to a phase next to the one it is in. When this returns, no write that
    /// was begun in the old phase can commit any more. Repeating a change that went through
    /// succeeds.
    ///
    /// # Errors
    /// [`Error::OtherPhase`] if the installation is in another phase than expected;
    /// [`Error::LegacyNotReady`] if the next phase writes content_blocks, and that has another name
    /// or is gone.
    #[tracing::instrument(name = "db.storage_phase.change", skip_all, err(level = "debug"))]
    pub async fn change_phase(&self, change: PhaseChange) -> Result<DateTime<Utc>, Error> {
        let mut transaction = self.database.begin_across_users().await?;
        lock(&mut transaction).await?;
        let row = sqlx::query(FIND).fetch_one(&mut *transaction).await?;
        let current = rows::phase(&row)?;
        if current == change.next {
            return row.try_get("changed_at").map_err(Error::from);
        }
        if current != change.expected {
            return Err(Error::OtherPhase { current });
        }
        if change.next.writes_content_block() {
            table_is_there(&mut transaction).await?;
        }
        let row = sqlx::query(CHANGE).bind(change.next.name()).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        tracing::info!(phase = change.next.name(), "storage phase changed");
        Ok(row.try_get("changed_at")?)
    }
}
