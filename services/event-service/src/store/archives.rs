//! The manifest of the archive.

use std::ops::Range;

use chrono::{DateTime, Utc};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use sqlx::{AssertSqlSafe, FromRow as _, Row as _, postgres::PgRow};
use synap_types::{BlobKey, Checksum};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{
    Admin, Database, DatabaseError, Engine, Lease, UpkeepError,
    kept::{self, Look, Why},
    segments::Segment,
};
use crate::{
    archive::{Row, SCHEMA_VERSION},
    domain::StoredEvent,
};

/// A file that events can be read from.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveFile {
    pub(crate) archive_id: Uuid,
    pub(crate) key: String,
    pub(crate) bytes: i64,
    pub(crate) begins_at: DateTime<Utc>,
    pub(crate) ends_at: DateTime<Utc>,
}

synap_postgres::from_row!(ArchiveFile { archive_id, key, bytes, begins_at, ends_at });

/// What an export wrote and read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exported {
    pub(crate) events: i64,
    pub(crate) sha256: Checksum,
    pub(crate) bytes: i64,
    pub(crate) min_occurred_at: DateTime<Utc>,
    pub(crate) max_occurred_at: DateTime<Utc>,
    /// Epoch and xid.
    pub(crate) max_place: (i64, i64),
}

/// All of the archive.
#[derive(Debug)]
pub(crate) struct ArchiveStatus {
    pub(crate) files: i64,
    pub(crate) events: i64,
    pub(crate) bytes: i64,
    pub(crate) table_bytes: i64,
    pub(crate) oldest: Option<DateTime<Utc>>,
    pub(crate) newest: Option<DateTime<Utc>>,
    /// Blobs that wait to be deleted for good.
    pub(crate) discarded: i64,
}

synap_postgres::from_row!(ArchiveStatus {
    files,
    events,
    bytes,
    table_bytes,
    oldest,
    newest,
    discarded,
});

impl Database {
    /// The files that may have events from one time to another, both included, in the order of time.
    pub(super) async fn archive_files_of(
        &self,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
    ) -> Result<Vec<ArchiveFile>, DatabaseError> {
        let mut connection = self.acquire().await?;
        let files = sqlx::query_as(
            "SELECT archive_id, key, bytes, begins_at, ends_at FROM event_store.archives
             WHERE state = 'archived' AND begins_at <= $2 AND ends_at > $1
             ORDER BY begins_at, archive_id",
        );
        Ok(files.bind(from).bind(to).fetch_all(&mut *connection).await?)
    }

    /// The files of these ids.
    pub(super) async fn files_by_id(
        &self,
        ids: &[Uuid],
    ) -> Result<Vec<ArchiveFile>, DatabaseError> {
        let mut connection = self.acquire().await?;
        let files = sqlx::query_as(
            "SELECT archive_id, key, bytes, begins_at, ends_at FROM event_store.archives
             WHERE archive_id = ANY ($1) AND state = 'archived'",
        );
        Ok(files.bind(ids).fetch_all(&mut *connection).await?)
    }
}

impl Admin {
    /// The files that may have events of a span of time.
    pub(crate) async fn archive_files_of(
        &self,
        span: &Range<DateTime<Utc>>,
    ) -> Result<Vec<ArchiveFile>, DatabaseError> {
        let mut files = self.database.archive_files_of((span.start, span.end)).await?;
        files.retain(|file| file.begins_at < span.end);
        Ok(files)
    }

    /// Sums over the files.
    pub(crate) async fn archive_status(&self) -> Result<ArchiveStatus, DatabaseError> {
        let status = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE is_here) AS files,
                    coalesce(sum(events) FILTER (WHERE is_here), 0)::bigint AS events,
                    coalesce(sum(bytes) FILTER (WHERE is_here), 0)::bigint AS bytes,
                    coalesce(sum(table_bytes) FILTER (WHERE is_here), 0)::bigint AS table_bytes,
                    min(begins_at) FILTER (WHERE is_here) AS oldest,
                    max(ends_at) FILTER (WHERE is_here) AS newest,
                    count(*) FILTER (WHERE state = 'discarded') AS discarded
             FROM event_store.archives CROSS JOIN LATERAL (SELECT state = 'archived' AS is_here) AS h",
        );
        Ok(status.fetch_one(self.pool()).await?)
    }

    /// The segments that ended so long ago, by the database's clock.
    pub(crate) async fn segments_older_than(
        &self,
        engine: &Engine,
        days: u32,
    ) -> Result<Vec<Segment>, DatabaseError> {
        let limit: DateTime<Utc> = sqlx::query_scalar("SELECT now() - make_interval(days => $1)")
            .bind(i32::try_from(days).unwrap_or(i32::MAX))
            .fetch_one(self.pool())
            .await?;
        let mut segments = self.segments(engine).await?;
        segments.retain(|segment| segment.ends_at <= limit);
        Ok(segments)
    }

    /// All events of a segment in the order of a file, one by one: nothing is held.
    pub(crate) fn export(
        &self,
        segment: &Segment,
    ) -> BoxStream<'static, Result<Row, DatabaseError>> {
        let query = format!(
            "SELECT event_id, aggregate_type, aggregate_id, version, event_type, user_id,
                    occurred_at, data::text AS data, metadata::text AS metadata, causation_id,
                    correlation_id, source, epoch, xid::text::bigint AS xid, pos, recorded_at
             FROM {}
             ORDER BY user_id COLLATE \"C\", aggregate_type COLLATE \"C\", aggregate_id, version",
            segment.table
        );
        rows_of(self.pool().clone(), query)
    }

    /// Writes down that a file is going to be written.
    pub(crate) async fn begin_archive(
        &self,
        lease: &Lease,
        segment: &Segment,
        archive_id: Uuid,
        key: &BlobKey,
    ) -> Result<(), UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        sqlx::query(
            "INSERT INTO event_store.archives
                 (archive_id, segment, begins_at, ends_at, key, schema_version)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(archive_id)
        .bind(&segment.table)
        .bind(segment.begins_at)
        .bind(segment.ends_at)
        .bind(key.as_str())
        .bind(SCHEMA_VERSION)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Makes a file readable and drops its segment, in one transaction. `exported` is absent where
    /// the segment has no events. Answers why nothing happened, if nothing did: it has other events by
    /// now than those of the file, or they may not leave yet (again).
    pub(crate) async fn finish_archive(
        &self,
        lease: &Lease,
        engine: &Engine,
        segment: &Segment,
        recorded_days: u32,
        archive: Option<(Uuid, &Exported)>,
    ) -> Result<Option<Why>, UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        // Nobody appends to it from here on: that it has as many events as the file says that it has
        // the same, for an event never changes.
        let look = kept::look_alone(&mut transaction, segment, recorded_days);
        let Look { events, table_bytes, why_kept } = look.await?;
        if events != archive.map_or(0, |(_, exported)| exported.events) {
            return Ok(Some(Why::Changed));
        }
        if why_kept.is_some() {
            return Ok(why_kept);
        }
        if let Some((archive_id, exported)) = archive {
            let archived = sqlx::query(
                "UPDATE event_store.archives
                 SET state = 'archived', changed_at = now(), events = $2, sha256 = $3, bytes = $4,
                     table_bytes = $5, min_occurred_at = $6, max_occurred_at = $7,
                     max_epoch = $8, max_xid = $9::text::xid8
                 WHERE archive_id = $1 AND state = 'exporting'",
            )
            .bind(archive_id)
            .bind(exported.events)
            .bind(exported.sha256.as_bytes().as_slice())
            .bind(exported.bytes)
            .bind(table_bytes)
            .bind(exported.min_occurred_at)
            .bind(exported.max_occurred_at)
            .bind(exported.max_place.0)
            .bind(exported.max_place.1.to_string())
            .execute(&mut *transaction)
            .await?;
            if archived.rows_affected() != 1 {
                return Err(UpkeepError::LeaseLost);
            }
        }
        super::segments::drop(&mut transaction, engine, segment).await?;
        synap_failpoint::hit("archive.dropping").await;
        transaction.commit().await?;
        Ok(None)
    }

    /// Gives up what a worker has left behind, and a file that is not wanted.
    pub(crate) async fn discard_exports(&self, lease: &Lease) -> Result<(), UpkeepError> {
        let mut transaction = self.begin(lease).await?;
        sqlx::query(
            "UPDATE event_store.archives SET state = 'discarded', changed_at = now()
             WHERE state = 'exporting'",
        )
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// The keys of blobs to delete.
    pub(crate) async fn discarded(&self) -> Result<Vec<String>, DatabaseError> {
        let keys = sqlx::query_scalar(
            "SELECT key FROM event_store.archives WHERE state = 'discarded' ORDER BY key",
        );
        Ok(keys.fetch_all(self.pool()).await?)
    }

    /// Forgets blobs that were deleted again after a day.
    pub(crate) async fn forget_discarded(&self, keys: &[String]) -> Result<(), DatabaseError> {
        sqlx::query(
            "DELETE FROM event_store.archives
             WHERE state = 'discarded' AND key = ANY ($1)
               AND changed_at < now() - interval '1 day'",
        )
        .bind(keys)
        .execute(self.pool())
        .await?;
        Ok(())
    }
}

/// The rows of a query. The stream owns the query's text, which sqlx only borrows: so a task of its
/// own runs it, no faster than somebody takes the rows.
fn rows_of(pool: sqlx::PgPool, query: String) -> BoxStream<'static, Result<Row, DatabaseError>> {
    let (sender, receiver) = mpsc::channel(256);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let sending = async {
            let mut transaction = pool.begin().await?;
            // It waits for the upload, and so takes as long as that may.
            let limit = "SET LOCAL statement_timeout = '30min'";
            sqlx::query(limit).execute(&mut *transaction).await?;
            let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut *transaction);
            while let Some(row) = rows.try_next().await? {
                if sender.send(Ok(read_row(&row)?)).await.is_err() {
                    break;
                }
            }
            Ok::<_, sqlx::Error>(())
        };
        if let Err(error) = sending.await {
            // An error is that nobody takes the rows any more.
            let _ = sender.send(Err(error.into())).await;
        }
    }));
    stream::unfold((receiver, task), |(mut receiver, task)| async move {
        receiver.recv().await.map(|row| (row, (receiver, task)))
    })
    .fuse()
    .boxed()
}

fn read_row(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row { event: StoredEvent::from_row(row)?, recorded_at: row.try_get("recorded_at")? })
}
