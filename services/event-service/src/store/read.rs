//! Reads of one user's events, page by page: no connection is held while a client takes its time,
//! and a page is of bounded bytes.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use sqlx::{FromRow, Postgres, Row as _, postgres::PgRow, query::QueryAs};
use synap_types::UserId;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{ArchiveFile, Database, DatabaseError, PAGE_BYTES, ReadError, Store, names};
use crate::{
    archive::Archive,
    domain::{Counting, PageEnd, Read, StoredEvent, StreamId, Which},
};

/// Events of a page at most.
const PAGE: u32 = 500;

/// A statement that reads a page of the events for which `$where` holds: at most $2 of them, and
/// none after the first that brings it to $3 bytes. `found` is how many there were before the bytes
/// were counted.
macro_rules! page {
    ($where:literal, $order:literal) => {
        concat!(
            "SELECT * FROM (
                 SELECT e.*, count(*) OVER () AS found,
                        coalesce(sum(octet_length(data) + octet_length(metadata)) OVER (
                            ORDER BY ",
            $order,
            "               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes
                 FROM (SELECT event_id, aggregate_type, aggregate_id, version, event_type, user_id,
                              occurred_at, data::text AS data, metadata::text AS metadata,
                              causation_id, correlation_id, source, epoch,
                              xid::text::bigint AS xid, pos
                       FROM event_store.events
                       WHERE user_id = $1 AND ",
            $where,
            "          ORDER BY ",
            $order,
            "          LIMIT $2) AS e
             ) AS page WHERE bytes < $3 ORDER BY ",
            $order
        )
    };
}

const STREAM: [&str; 2] = [
    page!("aggregate_type = $4 AND aggregate_id = $5 AND version >= $6", "version"),
    page!("aggregate_type = $4 AND aggregate_id = $5 AND version <= $6", "version DESC"),
];
const TIMELINE: [&str; 2] = [
    page!(
        "($4::text[] IS NULL OR event_type = ANY ($4)) AND occurred_at >= $5 AND occurred_at < $6
         AND (occurred_at, pos) > ($7, $8)",
        "occurred_at, pos"
    ),
    page!(
        "($4::text[] IS NULL OR event_type = ANY ($4)) AND occurred_at >= $5 AND occurred_at < $6
         AND (occurred_at, pos) < ($7, $8)",
        "occurred_at DESC, pos DESC"
    ),
];
const CORRELATED: &str =
    page!("correlation_id = $4 AND (occurred_at, pos) > ($5, $6)", "occurred_at, pos");

/// A statement that counts the events of whom `$whose` tells, and names the files that may have more.
macro_rules! count {
    ($whose:literal) => {
        concat!(
            "SELECT count(*), ARRAY(SELECT archive_id FROM event_store.archives
                                    WHERE state = 'archived' AND begins_at < $4 AND ends_at > $3)
             FROM event_store.events
             WHERE ",
            $whose,
            " AND ($2::text[] IS NULL OR event_type = ANY ($2))
               AND occurred_at >= $3 AND occurred_at < $4"
        )
    };
}

/// Around the times that an event can have.
pub(super) const EARLIEST: DateTime<Utc> = match DateTime::from_timestamp(-62_135_596_800, 0) {
    Some(year_one) => year_one,
    None => DateTime::UNIX_EPOCH,
};
pub(super) const LATEST: DateTime<Utc> = DateTime::<Utc>::MAX_UTC;

impl Store {
    /// The events that a read asks for. The first page is fetched before this returns, so that a
    /// database that is down shows at once.
    pub(crate) async fn read(
        &self,
        read: Read,
    ) -> Result<impl Stream<Item = Result<StoredEvent, ReadError>> + Send + use<>, ReadError> {
        let (database, archive) = (self.database.clone(), self.archive.clone());
        let mut pages = Pages { database, archive, read };
        let first = pages.next().await?;
        Ok(stream::try_unfold((pages, first), |(mut pages, mut page)| async {
            if page.is_empty() {
                page = pages.next().await?;
            }
            Ok(page.pop_front().map(|event| (event, (pages, page))))
        }))
    }

    /// The version of a stream's newest event; 0 if there is none, or it is another user's.
    pub(crate) async fn stream_version(
        &self,
        user: &UserId,
        stream: &StreamId,
    ) -> Result<i64, DatabaseError> {
        let mut connection = self.database.acquire().await?;
        let version = sqlx::query_scalar(
            "SELECT version FROM event_store.streams
             WHERE aggregate_type = $1 AND aggregate_id = $2 AND user_id = $3",
        )
        .bind(stream.aggregate_type.as_str())
        .bind(stream.aggregate_id)
        .bind(user.as_str())
        .fetch_optional(&mut *connection)
        .instrument(tracing::info_span!("db.stream.version"))
        .await?;
        Ok(version.unwrap_or(0))
    }

    /// How many events there are.
    pub(crate) async fn count(&self, counting: &Counting) -> Result<i64, ReadError> {
        let (count, files) = self.database.count(counting).await?;
        Ok(count + self.database.count_archived(&self.archive, counting, files).await?)
    }
}

impl Database {
    /// How many there are here, and the files that have the others: of one snapshot.
    async fn count(&self, counting: &Counting) -> Result<(i64, Vec<ArchiveFile>), DatabaseError> {
        let mut connection = self.acquire().await?;
        let sql = match counting.user {
            Some(_) => count!("user_id = $1"),
            // Everybody's, for operators.
            None => count!("$1::text IS NULL"),
        };
        let (count, files): (i64, Vec<Uuid>) = sqlx::query_as(sql)
            .bind(counting.user.as_ref().map(UserId::as_str))
            .bind(names(&counting.types))
            .bind(counting.times.from.unwrap_or(EARLIEST))
            .bind(counting.times.until.unwrap_or(LATEST))
            .fetch_one(&mut *connection)
            .instrument(tracing::info_span!("db.event.count"))
            .await?;
        let files = if files.is_empty() { Vec::new() } else { self.files_by_id(&files).await? };
        Ok((count, files))
    }
}

/// A part of what a read answers.
pub(super) struct Page {
    /// In the order of the read.
    pub(super) events: Vec<StoredEvent>,
    /// Whether there is nothing after it.
    pub(super) is_last: bool,
}

struct Pages {
    database: Database,
    archive: Archive,
    /// What is still wanted: where the next page begins, and how many events.
    read: Read,
}

/// An event, and how many the page could have had.
struct Row {
    event: StoredEvent,
    found: i64,
}

impl FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self { event: StoredEvent::from_row(row)?, found: row.try_get("found")? })
    }
}

impl Pages {
    /// The next page; an empty one is the end.
    async fn next(&mut self) -> Result<VecDeque<StoredEvent>, ReadError> {
        let wanted = self.read.limit.min(PAGE);
        if wanted == 0 {
            return Ok(VecDeque::new());
        }
        let page = self.database.page(&self.read, wanted).await?;
        let (archive, wanted) = (&self.archive, wanted as usize);
        let page = self.database.join_archive(archive, &self.read, wanted, page).await?;
        let got = u32::try_from(page.events.len()).unwrap_or(u32::MAX);
        self.read.limit = if page.is_last { 0 } else { self.read.limit.saturating_sub(got) };
        if let Some(last) = page.events.last() {
            self.read.go_on_after(last);
        }
        Ok(page.events.into())
    }
}

impl Database {
    async fn page(&self, read: &Read, wanted: u32) -> Result<Page, DatabaseError> {
        let mut connection = self.acquire().await?;
        let rows = page(read, wanted)
            .fetch_all(&mut *connection)
            .instrument(tracing::info_span!("db.event.read"))
            .await?;
        let found = rows.first().map_or(0, |row| row.found);
        let is_last = found < i64::from(wanted) && i64::try_from(rows.len()) == Ok(found);
        Ok(Page { events: rows.into_iter().map(|row| row.event).collect(), is_last })
    }
}

impl Read {
    fn go_on_after(&mut self, event: &StoredEvent) {
        match &mut self.which {
            Which::Stream { from, .. } => {
                *from = event.version + if self.backwards { -1 } else { 1 };
            }
            Which::Timeline { after, .. } | Which::Correlated { after, .. } => {
                *after = Some(PageEnd { occurred_at: event.occurred_at, pos: event.pos });
            }
        }
    }
}

fn page(read: &Read, wanted: u32) -> QueryAs<'_, Postgres, Row, sqlx::postgres::PgArguments> {
    let (wanted, bytes) = (i64::from(wanted), i64::from(PAGE_BYTES));
    let query = |sql| sqlx::query_as(sql).bind(read.user.as_str()).bind(wanted).bind(bytes);
    let direction = usize::from(read.backwards);
    let edge = if read.backwards {
        PageEnd { occurred_at: LATEST, pos: i64::MAX }
    } else {
        PageEnd { occurred_at: EARLIEST, pos: 0 }
    };
    match &read.which {
        Which::Stream { stream, from } => query(STREAM[direction])
            .bind(stream.aggregate_type.as_str())
            .bind(stream.aggregate_id)
            .bind(from),
        Which::Timeline { types, times, after } => {
            let after = after.unwrap_or(edge);
            query(TIMELINE[direction])
                .bind(names(types))
                .bind(times.from.unwrap_or(EARLIEST))
                .bind(times.until.unwrap_or(LATEST))
                .bind(after.occurred_at)
                .bind(after.pos)
        }
        Which::Correlated { correlation_id, after } => {
            let after = after.unwrap_or(edge);
            query(CORRELATED).bind(correlation_id).bind(after.occurred_at).bind(after.pos)
        }
    }
}
