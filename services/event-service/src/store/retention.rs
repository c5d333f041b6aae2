//! Retention: what is too old is deleted, and its counts stay.
//!
//! Not before everybody can have read it: see `kept`. What was archived could be read before it was,
//! and stays for the same time after that.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    Admin, DatabaseError, Engine, Failures, Lease, Look, Segment, Staying, UpkeepError, Why, kept,
    segments,
};
use crate::{config::MIN_RETENTION_DAYS, domain::Week};

/// Rows of the DEFAULT partition that one transaction deletes.
const DELETE_BATCH: i64 = 5_000;

const DEFAULT_PARTITION: &str = "event_store.events_default";

/// The rows of DEFAULT from before $1 that may leave $2 days after they were recorded; `kept` says the
/// same of all rows of a table.
macro_rules! deletable {
    ($what:literal, $more:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM event_store.events_default AS e
             WHERE occurred_at < $1 AND recorded_at <= now() - make_interval(days => $2)
               AND (epoch, xid) < (SELECT max(epoch), pg_snapshot_xmin(pg_current_snapshot())
                                   FROM event_store.epochs)
               AND NOT EXISTS (SELECT FROM event_store.consumers AS c
                               WHERE (c.epoch, c.xid, c.pos) < (e.epoch, e.xid, e.pos)) ",
            $more
        )
    };
}

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
    /// What stays for now.
    pub(crate) kept: Vec<Staying>,
}

impl Expired {
    fn count_partition(&mut self, segment: Segment, look: Look) {
        if let Some(why) = look.why_kept {
            self.kept.push(Staying { table: segment.table, events: look.events, why });
        } else {
            self.partitions += 1;
            self.live_events += look.events;
        }
    }
}

impl Admin {
    /// What ended more than so many days ago, in whole weeks, by the database's clock.
    pub(crate) async fn expired(
        &self,
        engine: &Engine,
        days: u32,
    ) -> Result<Expired, DatabaseError> {
        let before = self.retention_limit(days).await?;
        let (files, archived_events) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(events), 0)::bigint FROM event_store.archives
             WHERE state = 'archived' AND ends_at <= $1
               AND changed_at <= now() - make_interval(days => $2)",
        )
        .bind(before)
        .bind(min_days())
        .fetch_one(self.pool())
        .await?;
        let mut expired = self.with_kept_files(before, files, archived_events).await?;
        for segment in self.segments_before(engine, before).await? {
            let look = self.look(&segment, MIN_RETENTION_DAYS).await?;
            expired.count_partition(segment, look);
        }
        if !engine.is_hypertable {
            let deletable: i64 = sqlx::query_scalar(deletable!("count(*)", ""))
                .bind(before)
                .bind(min_days())
                .fetch_one(self.pool())
                .await?;
            expired.live_events += deletable;
            let mut connection = self.acquire().await?;
            expired.kept.extend(kept_in_default(&mut connection, before, deletable).await?);
        }
        Ok(expired)
    }

    /// Deletes it. That it is gone is written down first: nobody compares the counts with what is
    /// half deleted. What fails is left to the next time, and does not keep the rest.
    pub(crate) async fn expire(
        &self,
        lease: &Lease,
        engine: &Engine,
        days: u32,
    ) -> Result<Expired, UpkeepError> {
        let before = self.retention_limit(days).await?;
        let mut transaction = self.begin(lease).await?;
        sqlx::query(
            "INSERT INTO event_store.retention AS r (deleted_before) VALUES ($1)
             ON CONFLICT (one_row) DO UPDATE
             SET deleted_before = greatest(r.deleted_before, excluded.deleted_before)",
        )
        .bind(before)
        .execute(&mut *transaction)
        .await?;
        let (files, archived_events) = sqlx::query_as(
            "WITH discarded AS (
                 UPDATE event_store.archives SET state = 'discarded', changed_at = now()
                 WHERE state = 'archived' AND ends_at <= $1
                   AND changed_at <= now() - make_interval(days => $2)
                 RETURNING events
             )
             SELECT count(*), coalesce(sum(events), 0)::bigint FROM discarded",
        )
        .bind(before)
        .bind(min_days())
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        synap_failpoint::hit("retention.discarded").await;
        let mut expired = self.with_kept_files(before, files, archived_events).await?;
        let mut failures = Failures::default();
        for segment in self.segments_before(engine, before).await? {
            let table = segment.table.clone();
            let dropped = self.drop_expired(lease, engine, segment, &mut expired).await;
            failures.see(&table, dropped)?;
        }
        if !engine.is_hypertable {
            self.empty_default(lease, &mut expired).await?;
        }
        failures.told()?;
        Ok(expired)
    }

    async fn retention_limit(&self, days: u32) -> Result<DateTime<Utc>, DatabaseError> {
        let limit = sqlx::query_scalar("SELECT now() - make_interval(days => $1)")
            .bind(i32::try_from(days).unwrap_or(i32::MAX))
            .fetch_one(self.pool())
            .await?;
        Ok(Week::of(limit).begins_at())
    }

    /// What becomes of the files: these are too old, and those stay that were archived of late.
    async fn with_kept_files(
        &self,
        before: DateTime<Utc>,
        files: i64,
        archived_events: i64,
    ) -> Result<Expired, DatabaseError> {
        let kept: Vec<(String, i64)> = sqlx::query_as(
            "SELECT segment, events FROM event_store.archives
             WHERE state = 'archived' AND ends_at <= $1
               AND changed_at > now() - make_interval(days => $2)
             ORDER BY begins_at, archive_id",
        )
        .bind(before)
        .bind(min_days())
        .fetch_all(self.pool())
        .await?;
        let kept = kept.into_iter();
        let kept =
            kept.map(|(table, events)| Staying { table, events, why: Why::Recent }).collect();
        Ok(Expired { before, files, archived_events, partitions: 0, live_events: 0, kept })
    }

    async fn segments_before(
        &self,
        engine: &Engine,
        before: DateTime<Utc>,
    ) -> Result<Vec<Segment>, DatabaseError> {
        let mut segments = self.segments(engine).await?;
        segments.retain(|segment| segment.ends_at <= before);
        Ok(segments)
    }

    /// Drops a segment, if all of it may leave: nobody appends to it, or begins to wait for it, between
    /// the look and the drop.
    async fn drop_expired(
        &self,
        lease: &Lease,
        engine: &Engine,
        segment: Segment,
        expired: &mut Expired,
    ) -> Result<(), UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        let look = kept::look_alone(&mut transaction, &segment, MIN_RETENTION_DAYS).await?;
        if look.why_kept.is_none() {
            segments::drop(&mut transaction, engine, &segment).await?;
            transaction.commit().await?;
            synap_failpoint::hit("retention.dropped").await;
        }
        expired.count_partition(segment, look);
        Ok(())
    }

    async fn empty_default(&self, lease: &Lease, expired: &mut Expired) -> Result<(), UpkeepError> {
        loop {
            let mut transaction = self.begin(lease).await?;
            kept::lock_consumers(&mut transaction).await?;
            let deleted = sqlx::query(concat!(
                "DELETE FROM event_store.events_default WHERE ctid = ANY (ARRAY(",
                deletable!("ctid", "LIMIT $3"),
                "))"
            ))
            .bind(expired.before)
            .bind(min_days())
            .bind(DELETE_BATCH)
            .execute(&mut *transaction)
            .await?;
            let deleted = i64::try_from(deleted.rows_affected()).unwrap_or(i64::MAX);
            expired.live_events += deleted;
            if deleted < DELETE_BATCH {
                let kept = kept_in_default(&mut transaction, expired.before, 0).await?;
                expired.kept.extend(kept);
                transaction.commit().await?;
                return Ok(());
            }
            transaction.commit().await?;
        }
    }
}

/// What stays in the DEFAULT partition beside so many rows that do not.
async fn kept_in_default(
    connection: &mut PgConnection,
    before: DateTime<Utc>,
    deletable: i64,
) -> Result<Option<Staying>, DatabaseError> {
    let look = kept::look(connection, DEFAULT_PARTITION, before, MIN_RETENTION_DAYS).await?;
    let table = DEFAULT_PARTITION.to_owned();
    Ok(look.why_kept.map(|why| Staying { table, events: look.events - deletable, why }))
}

fn min_days() -> i32 {
    i32::try_from(MIN_RETENTION_DAYS).unwrap_or(i32::MAX)
}
