//! Durable consumers: how far each has come with the feed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::Instrument as _;

use super::{Database, DatabaseError, Store, feed::CursorError};
use crate::domain::{ConsumerName, Place};

/// A consumer, and how far behind it is.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) updated_at: DateTime<Utc>,
    /// Events after its place; 10,000 stands for more.
    pub(crate) lag_events: i64,
    /// For how long the first of them is there.
    pub(crate) lag: Duration,
}

impl Store {
    /// Keeps a place, unless one behind it is kept already and it is not to rewind. Answers the
    /// place that is kept then.
    pub(crate) async fn save_checkpoint(
        &self,
        name: &ConsumerName,
        place: Place,
        rewind: bool,
    ) -> Result<Place, CursorError> {
        let place = self.checked(place).await?;
        let mut connection = self.database.acquire().await?;
        let saved = sqlx::query(
            "INSERT INTO event_store.consumers AS c (name, epoch, xid, pos)
             VALUES ($1, $2, $3::text::xid8, $4)
             ON CONFLICT (name) DO UPDATE
             SET epoch = excluded.epoch, xid = excluded.xid, pos = excluded.pos, updated_at = now()
             WHERE $5 OR (c.epoch, c.xid, c.pos) < (excluded.epoch, excluded.xid, excluded.pos)",
        )
        .bind(name.as_str())
        .bind(place.epoch)
        .bind(place.xid.to_string())
        .bind(place.pos)
        .bind(rewind)
        .execute(&mut *connection)
        .instrument(tracing::info_span!("db.consumer.save"))
        .await
        .map_err(DatabaseError::from)?;
        drop(connection);
        if saved.rows_affected() == 1 {
            return Ok(place);
        }
        Ok(self.database.checkpoint(name).await?.unwrap_or(place))
    }

    /// Forgets a consumer. Whether there was one.
    pub(crate) async fn delete_consumer(&self, name: &ConsumerName) -> Result<bool, DatabaseError> {
        let mut connection = self.database.acquire().await?;
        let deleted = sqlx::query("DELETE FROM event_store.consumers WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut *connection)
            .instrument(tracing::info_span!("db.consumer.delete"))
            .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// All consumers by name.
    pub(crate) async fn consumers(&self) -> Result<Vec<Consumer>, DatabaseError> {
        let mut connection = self.database.acquire().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT c.name, c.epoch, c.xid::text::bigint AS xid, c.pos, c.updated_at,
                    (SELECT count(*) FROM (
                         SELECT FROM event_store.events AS e
                         WHERE (e.epoch, e.xid, e.pos) > (c.epoch, c.xid, c.pos) LIMIT 10000
                     ) AS behind) AS lag_events,
                    coalesce((SELECT extract(epoch FROM now() - e.recorded_at) * 1000
                              FROM event_store.events AS e
                              WHERE (e.epoch, e.xid, e.pos) > (c.epoch, c.xid, c.pos)
                              ORDER BY e.epoch, e.xid, e.pos LIMIT 1), 0)::bigint AS lag_ms
             FROM event_store.consumers AS c ORDER BY c.name",
        )
        .fetch_all(&mut *connection)
        .instrument(tracing::info_span!("db.consumer.list"))
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}

impl Database {
    /// How far a consumer has come; `None` if it has no checkpoint.
    pub(super) async fn checkpoint(
        &self,
        name: &ConsumerName,
    ) -> Result<Option<Place>, DatabaseError> {
        let mut connection = self.acquire().await?;
        let place: Option<(i64, i64, i64)> = sqlx::query_as(
            "SELECT epoch, xid::text::bigint, pos FROM event_store.consumers WHERE name = $1",
        )
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .instrument(tracing::info_span!("db.consumer.get"))
        .await?;
        Ok(place.map(|(epoch, xid, pos)| Place { epoch, xid, pos }))
    }
}

struct Row {
    name: String,
    epoch: i64,
    xid: i64,
    pos: i64,
    updated_at: DateTime<Utc>,
    lag_events: i64,
    lag_ms: i64,
}

synap_postgres::from_row!(Row { name, epoch, xid, pos, updated_at, lag_events, lag_ms });

impl From<Row> for Consumer {
    fn from(row: Row) -> Self {
        Self {
            name: row.name,
            place: Place { epoch: row.epoch, xid: row.xid, pos: row.pos },
            updated_at: row.updated_at,
            lag_events: row.lag_events,
            lag: Duration::from_millis(u64::try_from(row.lag_ms).unwrap_or(0)),
        }
    }
}
