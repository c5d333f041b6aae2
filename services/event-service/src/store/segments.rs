//! What the table of events consists of: partitions, or the chunks of a hypertable.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{Admin, DatabaseError};

/// Which engine keeps the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Engine {
    /// PostgreSQL's version: `18.4`.
    pub(crate) postgres: String,
    /// TimescaleDB's version, where the extension is.
    pub(crate) timescaledb: Option<String>,
    /// Whether it has the features of the community licence.
    pub(crate) is_community: bool,
    /// Whether the table is a hypertable. One that was partitioned before TimescaleDB came stays so.
    pub(crate) is_hypertable: bool,
}

/// A partition or a chunk: the events of a range of time, which can be dropped as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The table, quoted where it must be: `event_store.events_2026w48`.
    pub(crate) table: String,
    /// The first moment in it.
    pub(crate) begins_at: DateTime<Utc>,
    /// The first moment after it.
    pub(crate) ends_at: DateTime<Utc>,
    /// Whether it has not begun, by the database's clock.
    pub(crate) is_ahead: bool,
}

synap_postgres::from_row!(Segment { table, begins_at, ends_at, is_ahead });

impl Admin {
    /// Asks what the database is.
    pub(crate) async fn engine(&self) -> Result<Engine, DatabaseError> {
        let mut connection = self.pool().acquire().await?;
        let (postgres, timescaledb, license): (String, Option<String>, Option<String>) =
            sqlx::query_as(
                "SELECT split_part(current_setting('server_version'), ' ', 1),
                        (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
                        current_setting('timescaledb.license', true)",
            )
            .fetch_one(&mut *connection)
            .await?;
        // A partitioned table is of kind `p`; a hypertable looks like any other.
        let is_hypertable: bool = sqlx::query_scalar(
            "SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('event_store.events')",
        )
        .fetch_optional(&mut *connection)
        .await?
        .unwrap_or_default();
        Ok(Engine {
            postgres,
            is_community: timescaledb.is_some() && license.as_deref() == Some("timescale"),
            timescaledb,
            is_hypertable,
        })
    }

    /// The segments in the order of time, without the DEFAULT partition.
    pub(crate) async fn segments(&self, engine: &Engine) -> Result<Vec<Segment>, DatabaseError> {
        let mut connection = self.pool().acquire().await?;
        segments(&mut connection, engine).await
    }
}

pub(super) async fn segments(
    connection: &mut PgConnection,
    engine: &Engine,
) -> Result<Vec<Segment>, DatabaseError> {
    let query = if engine.is_hypertable {
        "SELECT format('%I.%I', chunk_schema, chunk_name) AS table,
                range_start AS begins_at, range_end AS ends_at, range_start > now() AS is_ahead
         FROM timescaledb_information.chunks
         WHERE hypertable_schema = 'event_store' AND hypertable_name = 'events'
         ORDER BY range_start"
    } else {
        // FOR VALUES FROM ('2026-11-23 00:00:00+00') TO ('2026-11-30 00:00:00+00')
        "SELECT *, begins_at > now() AS is_ahead
         FROM (
             SELECT format('%I.%I', n.nspname, p.relname) AS table,
                    (regexp_match(bounds, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz AS begins_at,
                    (regexp_match(bounds, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz AS ends_at
             FROM pg_inherits AS i
             JOIN pg_class AS p ON p.oid = i.inhrelid
             JOIN pg_namespace AS n ON n.oid = p.relnamespace
             CROSS JOIN LATERAL pg_get_expr(p.relpartbound, p.oid) AS bounds
             WHERE i.inhparent = to_regclass('event_store.events')
               AND bounds LIKE 'FOR VALUES FROM (''%'') TO (''%'')'
         ) AS partitions
         ORDER BY begins_at"
    };
    Ok(sqlx::query_as(query).fetch_all(connection).await?)
}

/// Drops a segment with all its events, within a transaction. PostgreSQL refuses to detach
/// CONCURRENTLY beside a DEFAULT partition; the lock that it takes instead is held for milliseconds,
/// and not waited for (see [`Admin::begin`]).
pub(super) async fn drop(
    connection: &mut PgConnection,
    engine: &Engine,
    segment: &Segment,
) -> Result<(), sqlx::Error> {
    if engine.is_hypertable {
        sqlx::query("SELECT drop_chunks('event_store.events', older_than => $1, newer_than => $2)")
            .bind(segment.ends_at)
            .bind(segment.begins_at)
            .execute(connection)
            .await?;
    } else {
        let drop = format!("DROP TABLE {}", segment.table);
        sqlx::query(AssertSqlSafe(drop)).execute(connection).await?;
    }
    Ok(())
}
