//! Reads of one stream, page by page: no connection is held while a client takes its time.

use std::collections::VecDeque;

use futures::{Stream, stream};
use synap_types::UserId;
use tracing::Instrument as _;

use super::{Database, DatabaseError, Store};
use crate::domain::{StoredEvent, StreamId};

/// Events fetched at once: with events as large as they may be, some 14 MiB.
const PAGE: u32 = 200;

/// What to read.
#[derive(Debug, Clone)]
pub(crate) struct StreamRead {
    /// Another user's stream is empty.
    pub(crate) user: UserId,
    pub(crate) stream: StreamId,
    /// The first version to read.
    pub(crate) from_version: i64,
    /// Events at most.
    pub(crate) limit: u32,
}

impl Store {
    /// The events of a stream in the order of versions. The first page is fetched before this
    /// returns, so that a database that is down shows at once.
    pub(crate) async fn read_stream(
        &self,
        read: StreamRead,
    ) -> Result<impl Stream<Item = Result<StoredEvent, DatabaseError>> + Send + use<>, DatabaseError>
    {
        let mut pages = Pages { database: self.database.clone(), left: read.limit, read };
        let first = pages.next().await?;
        Ok(stream::try_unfold((pages, first), |(mut pages, mut page)| async {
            if page.is_empty() {
                page = pages.next().await?;
            }
            Ok(page.pop_front().map(|event| (event, (pages, page))))
        }))
    }
}

struct Pages {
    database: Database,
    /// Where the next page begins.
    read: StreamRead,
    /// Events still wanted.
    left: u32,
}

impl Pages {
    /// The next page; an empty one is the end.
    async fn next(&mut self) -> Result<VecDeque<StoredEvent>, DatabaseError> {
        let wanted = self.left.min(PAGE);
        if wanted == 0 {
            return Ok(VecDeque::new());
        }
        let span = tracing::info_span!("db.stream.read");
        let page = self.database.page(&self.read, wanted).instrument(span).await?;
        // A page that is not full was the last one.
        let got = u32::try_from(page.len()).unwrap_or(u32::MAX);
        self.left = if got < wanted { 0 } else { self.left - got };
        if let Some(last) = page.back() {
            self.read.from_version = last.version + 1;
        }
        Ok(page)
    }
}

impl Database {
    async fn page(
        &self,
        read: &StreamRead,
        limit: u32,
    ) -> Result<VecDeque<StoredEvent>, DatabaseError> {
        let mut connection = self.acquire().await?;
        let events: Vec<StoredEvent> = sqlx::query_as(
            "SELECT event_id, aggregate_type, aggregate_id, version, event_type, user_id,
                    occurred_at, data::text AS data, metadata::text AS metadata, causation_id,
                    correlation_id, source, xid::text::bigint AS xid, pos
             FROM event_store.events
             WHERE aggregate_type = $1 AND aggregate_id = $2 AND user_id = $3 AND version >= $4
             ORDER BY version
             LIMIT $5",
        )
        .bind(read.stream.aggregate_type.as_str())
        .bind(read.stream.aggregate_id)
        .bind(read.user.as_str())
        .bind(read.from_version)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
        Ok(events.into())
    }
}
