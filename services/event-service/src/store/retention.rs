//! Retention: what is too old is deleted, and its counts stay.

use chrono::{DateTime, Utc};

use super::{Admin, DatabaseError, Engine, Lease, UpkeepError, segments};
use crate::domain::Week;

/// Rows of the DEFAULT partition that one transaction deletes.
const DELETE_BATCH: i64 = 5_000;

/// What is too old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expired {
    /// Everything before it: a Monday.
    pub(crate) before: DateTime<Utc>,
    /// Files of the archive, and their events.
    pub(crate) files: i64,
    pub(crate) archived_events: i64,
    /// Partitions, and their events.
    pub(crate) partitions: i64,
    pub(crate) live_events: i64,
}

impl Admin {
    /// What ended more than so many days ago, in whole weeks, by the database's clock.
    pub(crate) async fn expired(
        &self,
        engine: &Engine,
        days: u32,
    ) -> Result<Expired, DatabaseError> {
        let limit: DateTime<Utc> = sqlx::query_scalar("SELECT now() - make_interval(days => $1)")
            .bind(i32::try_from(days).unwrap_or(i32::MAX))
            .fetch_one(self.pool())
            .await?;
        let before = Week::of(limit).begins_at();
        let (files, archived_events): (i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(events), 0)::bigint FROM event_store.archives
             WHERE state = 'archived' AND ends_at <= $1",
        )
        .bind(before)
        .fetch_one(self.pool())
        .await?;
        let mut segments = self.segments(engine).await?;
        segments.retain(|segment| segment.ends_at <= before);
        let mut live_events = self.default_before(engine, before).await?;
        for segment in &segments {
            live_events += self.measure(segment).await?.0;
        }
        let partitions = i64::try_from(segments.len()).unwrap_or(i64::MAX);
        Ok(Expired { before, files, archived_events, partitions, live_events })
    }

    async fn default_before(
        &self,
        engine: &Engine,
        before: DateTime<Utc>,
    ) -> Result<i64, DatabaseError> {
        if engine.is_hypertable {
            return Ok(0);
        }
        let rows = sqlx::query_scalar(
            "SELECT count(*) FROM event_store.events_default WHERE occurred_at < $1",
        );
        Ok(rows.bind(before).fetch_one(self.pool()).await?)
    }

    /// Deletes it. That it is gone is written down first: nobody compares the counts with what is
    /// half deleted.
    pub(crate) async fn expire(
        &self,
        lease: &Lease,
        engine: &Engine,
        expired: &Expired,
    ) -> Result<(), UpkeepError> {
        let before = expired.before;
        let mut transaction = self.begin(lease).await?;
        sqlx::query(
            "INSERT INTO event_store.retention AS r (deleted_before) VALUES ($1)
             ON CONFLICT (one_row) DO UPDATE
             SET deleted_before = greatest(r.deleted_before, excluded.deleted_before)",
        )
        .bind(before)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE event_store.archives SET state = 'discarded', changed_at = now()
             WHERE state = 'archived' AND ends_at <= $1",
        )
        .bind(before)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        synap_failpoint::hit("retention.discarded").await;
        for segment in self.segments(engine).await? {
            if segment.ends_at <= before {
                let mut transaction = self.begin(lease).await?;
                segments::drop(&mut transaction, engine, &segment).await?;
                transaction.commit().await?;
                synap_failpoint::hit("retention.dropped").await;
            }
        }
        if engine.is_hypertable {
            return Ok(());
        }
        loop {
            let mut transaction = self.begin(lease).await?;
            let deleted = sqlx::query(
                "DELETE FROM event_store.events_default WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM event_store.events_default WHERE occurred_at < $1 LIMIT $2))",
            )
            .bind(before)
            .bind(DELETE_BATCH)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            if deleted.rows_affected() < DELETE_BATCH.unsigned_abs() {
                return Ok(());
            }
        }
    }
}
