//! Changes to tables that are in use.
//!
//! A change like ALTER TABLE waits for every transaction that has touched the table, and whoever
//! comes later waits behind it: one forgotten transaction, and nobody reads or writes any more. So a
//! change of ours waits a moment only, gives up all it has got, and tries again.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

/// How long a change waits for each lock. Below a second even where it needs several, and below
/// PostgreSQL's `deadlock_timeout` of one: in a deadlock it is we who give up.
const LOCK_LIMIT: &str = "200ms";

/// How long the others have the tables before the next try.
pub const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Runs statements as one transaction, unless their locks cannot be had at once: then nothing has
/// happened, and the answer is `false`. Whoever asks again waits for [`LOCK_PAUSE`] before.
///
/// # Errors
/// The database's.
pub async fn try_gently(
    connection: &mut PgConnection,
    statements: &str,
) -> Result<bool, sqlx::Error> {
    limit_lock_waits(connection, true).await?;
    // Statements of one message are one transaction.
    let statements = AssertSqlSafe(statements.to_owned());
    match sqlx::raw_sql(statements).execute(&mut *connection).await {
        Ok(_) => Ok(true),
        Err(error) if locks_were_refused(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the session's statements give up when they have waited for a lock for a moment.
///
/// # Errors
/// The database's.
pub async fn limit_lock_waits(
    connection: &mut PgConnection,
    limited: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('lock_timeout', $1, false)")
        .bind(if limited { LOCK_LIMIT } else { "0" })
        .execute(connection)
        .await?;
    Ok(())
}

/// Lock not available in time, or a deadlock.
pub(crate) fn locks_were_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}
