//! Why events stay in the database although they are old: the feed does not go into the archive, so
//! nothing leaves it before everybody who follows can have read it.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Admin, DatabaseError, Segment};

/// Why events stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// This durable consumer has not read them.
    Awaited(String),
    /// They are not below the horizon: nobody can have read them.
    NotFinal,
    /// They were recorded too short a time ago for a subscriber without a checkpoint.
    Recent,
    /// Others came beside them while they were written to a file.
    Changed,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Awaited(consumer) => write!(f, "the durable consumer {consumer} has not read it"),
            Self::NotFinal => f.write_str("a transaction that is still open holds back the feed"),
            Self::Recent => f.write_str("some of it was recorded too short a time ago"),
            Self::Changed => f.write_str("it got events meanwhile"),
        }
    }
}

/// Events that stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Staying {
    /// The table that they are in, or were in before it was archived.
    pub(crate) table: String,
    pub(crate) events: i64,
    pub(crate) why: Why,
}

/// What a table has.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) events: i64,
    /// With indexes.
    pub(crate) table_bytes: i64,
    /// Why none of it may leave.
    pub(crate) why_kept: Option<Why>,
}

impl Staying {
    /// Tells the log; what is only recent leaves by itself.
    pub(crate) fn warn(&self) {
        let Self { table, events, why } = self;
        if *why != Why::Recent {
            tracing::warn!(partition = table, count = events, reason = %why, "old events stay");
        }
    }
}

impl Admin {
    /// What a segment has, and whether it may leave so many days after it was recorded.
    pub(crate) async fn look(
        &self,
        segment: &Segment,
        recorded_days: u32,
    ) -> Result<Look, DatabaseError> {
        look(&mut *self.acquire().await?, &segment.table, segment.ends_at, recorded_days).await
    }
}

/// What of a table happened before a moment, and whether all of it may leave.
pub(super) async fn look(
    connection: &mut PgConnection,
    table: &str,
    before: DateTime<Utc>,
    recorded_days: u32,
) -> Result<Look, DatabaseError> {
    let query = format!(
        "WITH last AS MATERIALIZED (
             SELECT epoch, xid, pos FROM {table} WHERE occurred_at < $1
             ORDER BY epoch DESC, xid DESC, pos DESC LIMIT 1
         )
         SELECT count(*), pg_total_relation_size('{table}'::regclass),
                (SELECT c.name FROM event_store.consumers AS c, last
                 WHERE (c.epoch, c.xid, c.pos) < (last.epoch, last.xid, last.pos)
                 ORDER BY c.epoch, c.xid, c.pos LIMIT 1),
                EXISTS (SELECT FROM last WHERE (epoch, xid) >= (
                    SELECT max(epoch), pg_snapshot_xmin(pg_current_snapshot())
                    FROM event_store.epochs)),
                coalesce(max(recorded_at) > now() - make_interval(days => $2), false)
         FROM {table} WHERE occurred_at < $1"
    );
    let (events, table_bytes, awaited_by, is_not_final, is_recent): (i64, i64, _, bool, bool) =
        sqlx::query_as(AssertSqlSafe(query))
            .bind(before)
            .bind(i32::try_from(recorded_days).unwrap_or(i32::MAX))
            .fetch_one(connection)
            .await?;
    let why_kept = match awaited_by {
        Some(consumer) => Some(Why::Awaited(consumer)),
        None if is_not_final => Some(Why::NotFinal),
        None => is_recent.then_some(Why::Recent),
    };
    Ok(Look { events, table_bytes, why_kept })
}

/// The same of a segment to which nobody appends, and for which nobody begins to wait, before the
/// transaction has ended.
pub(super) async fn look_alone(
    transaction: &mut PgConnection,
    segment: &Segment,
    recorded_days: u32,
) -> Result<Look, DatabaseError> {
    let lock = format!("LOCK TABLE {} IN SHARE MODE", segment.table);
    sqlx::query(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
    lock_consumers(transaction).await?;
    look(transaction, &segment.table, segment.ends_at, recorded_days).await
}

/// Keeps every consumer where it is until the transaction has ended: none goes back, none is new.
pub(super) async fn lock_consumers(transaction: &mut PgConnection) -> Result<(), DatabaseError> {
    let lock = "LOCK TABLE event_store.consumers IN SHARE MODE";
    sqlx::query(lock).execute(transaction).await?;
    Ok(())
}
