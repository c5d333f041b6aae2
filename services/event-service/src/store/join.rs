//! Reads that go on in the archive.
//!
//! The files are asked for after the page was read from the database: what was archived between is
//! in both, and taken once; what was archived before is in a file that is found.

mod head;

use std::{collections::HashSet, pin::pin};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::{
    ArchiveFile, Database, DatabaseError,
    read::{EARLIEST, LATEST, Page},
};
use crate::{
    archive::{Archive, ArchiveError},
    domain::{Counting, Read, StoredEvent, StreamId, Which},
};

use head::Head;

/// Files that one read looks at, at a time.
const FILES_AT_ONCE: usize = 4;

/// Why events could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Where an event stands in the order of a read: a version, or a time and what tells events of one
/// moment apart.
type Rank = (i64, i64);

impl Read {
    fn rank(&self, event: &StoredEvent) -> Rank {
        match self.which {
            Which::Stream { .. } => (event.version, 0),
            Which::Timeline { .. } | Which::Correlated { .. } => {
                (event.occurred_at.timestamp_micros(), event.pos)
            }
        }
    }

    fn is_after(&self, one: Rank, other: Rank) -> bool {
        if self.backwards { one < other } else { one > other }
    }

    fn sort(&self, events: &mut [StoredEvent]) {
        events.sort_by_key(|event| self.rank(event));
        if self.backwards {
            events.reverse();
        }
    }

    /// Whether the statement of a page would find the event.
    fn wants(&self, event: &StoredEvent) -> bool {
        match &self.which {
            Which::Stream { stream, from } => {
                stream.aggregate_id == event.aggregate_id
                    && stream.aggregate_type.as_str() == event.aggregate_type
                    && (event.version == *from || self.is_after((event.version, 0), (*from, 0)))
            }
            Which::Timeline { types, times, after } => {
                (types.is_empty() || types.iter().any(|it| it.as_str() == event.event_type))
                    && times.from.is_none_or(|from| event.occurred_at >= from)
                    && times.until.is_none_or(|until| event.occurred_at < until)
                    && after.is_none_or(|end| self.is_after(self.rank(event), end.into()))
            }
            Which::Correlated { correlation_id, after } => {
                event.correlation_id == Some(*correlation_id)
                    && after.is_none_or(|end| self.is_after(self.rank(event), end.into()))
            }
        }
    }

    /// The span of time that the page which ends with `last` is of, and may have files.
    fn span(&self, last: Option<&StoredEvent>) -> (DateTime<Utc>, DateTime<Utc>) {
        let (times, after) = match &self.which {
            Which::Stream { .. } => return (EARLIEST, LATEST),
            Which::Timeline { times, after, .. } => (Some(*times), *after),
            Which::Correlated { after, .. } => (None, *after),
        };
        let from = times.and_then(|times| times.from).unwrap_or(EARLIEST);
        let until = times.and_then(|times| times.until).unwrap_or(LATEST);
        let begin = after.map(|after| after.occurred_at);
        let end = last.map(|event| event.occurred_at);
        let (begin, end) = if self.backwards { (end, begin) } else { (begin, end) };
        (from.max(begin.unwrap_or(EARLIEST)), until.min(end.unwrap_or(LATEST)))
    }
}

impl Database {
    /// Completes a page, of at most `wanted` events, with what is archived.
    pub(super) async fn join_archive(
        &self,
        archive: &Archive,
        read: &Read,
        wanted: usize,
        page: Page,
    ) -> Result<Page, ReadError> {
        if let Which::Stream { stream, from } = &read.which
            && self.is_whole(read, stream, *from, &page).await?
        {
            return Ok(page);
        }
        let end = page.events.last().filter(|_| !page.is_last);
        let mut files = self.archive_files_of(read.span(end)).await?;
        if files.is_empty() {
            return Ok(page);
        }
        if read.backwards {
            files.sort_by_key(|file| std::cmp::Reverse(file.ends_at));
        }
        let known: HashSet<Uuid> = page.events.iter().map(|event| event.event_id).collect();
        let end = end.map(|event| read.rank(event));
        let is_wanted = |event: &StoredEvent| {
            read.wants(event)
                && end.is_none_or(|end| !read.is_after(read.rank(event), end))
                && !known.contains(&event.event_id)
        };
        let is_wanted = &is_wanted;
        let found = files.into_iter().map(|file| async move {
            let mut head = Head::new(read, wanted);
            let see = |event: &StoredEvent| {
                if is_wanted(event) {
                    head.push(event.clone());
                }
            };
            archive.show(&file, &read.user, see).await?;
            head.cut();
            Ok::<_, ArchiveError>((file, head))
        });
        let mut found = pin!(stream::iter(found).buffered(FILES_AT_ONCE));
        let mut head = Head::new(read, wanted);
        page.events.into_iter().for_each(|event| head.push(event));
        head.cut();
        while let Some((file, more)) = found.try_next().await? {
            // In the order of time, nothing of this file or a later one comes before the page's end.
            let is_beyond = |last: &StoredEvent| match read.which {
                Which::Stream { .. } => false,
                _ if read.backwards => last.occurred_at >= file.ends_at,
                _ => last.occurred_at < file.begins_at,
            };
            if head.is_full() && head.events.last().is_some_and(is_beyond) {
                head.is_cut = true;
                break;
            }
            head.is_cut |= more.is_cut;
            more.events.into_iter().for_each(|event| head.push(event));
            head.cut();
        }
        Ok(Page { is_last: page.is_last && !head.is_cut, events: head.events })
    }

    /// Whether a page of a stream has all that it can have: versions have no gaps. A stream may begin
    /// late, with the version that its aggregate had before it had events: then the archive is asked
    /// for what never was. Where V0.2 has written events of it, it may begin below 1.
    async fn is_whole(
        &self,
        read: &Read,
        stream: &StreamId,
        from: i64,
        page: &Page,
    ) -> Result<bool, DatabaseError> {
        let is_run = |first: i64| {
            let versions = page.events.iter().map(|event| event.version);
            if read.backwards {
                versions.eq((i64::MIN..=first).rev().take(page.events.len()))
            } else {
                versions.eq((first..=i64::MAX).take(page.events.len()))
            }
        };
        if !page.is_last && !read.backwards && from > 0 && is_run(from) {
            return Ok(true);
        }
        let Some((head, lowest)) = self.bounds_beside_archive(read, stream).await? else {
            return Ok(true);
        };
        let (first, all) = if read.backwards {
            let first = from.min(head);
            (first, first.saturating_sub(lowest - 1))
        } else {
            let first = from.max(lowest);
            (first, head.saturating_sub(first - 1))
        };
        let has = i64::try_from(page.events.len()).unwrap_or(i64::MAX);
        Ok(is_run(first) && (!page.is_last || has >= all))
    }

    /// The newest version of the user's stream, and the lowest that it may have, if anything at all
    /// is archived.
    async fn bounds_beside_archive(
        &self,
        read: &Read,
        stream: &StreamId,
    ) -> Result<Option<(i64, i64)>, DatabaseError> {
        let mut connection = self.acquire().await?;
        let bounds = sqlx::query_as(
            "SELECT version, least(1, (SELECT l.lowest_version FROM event_store.legacy_streams AS l
                                       WHERE l.aggregate_type = $1 AND l.aggregate_id = $2))
             FROM event_store.streams
             WHERE aggregate_type = $1 AND aggregate_id = $2 AND user_id = $3
               AND EXISTS (SELECT FROM event_store.archives WHERE state = 'archived')",
        )
        .bind(stream.aggregate_type.as_str())
        .bind(stream.aggregate_id)
        .bind(read.user.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(bounds)
    }

    /// How many events of the archive's files are counted.
    pub(super) async fn count_archived(
        &self,
        archive: &Archive,
        counting: &Counting,
        files: Vec<ArchiveFile>,
    ) -> Result<i64, ReadError> {
        let from = counting.times.from.unwrap_or(EARLIEST);
        let until = counting.times.until.unwrap_or(LATEST);
        let is_of_type = |event_type: &str| {
            counting.types.is_empty() || counting.types.iter().any(|it| it.as_str() == event_type)
        };
        let Some(user) = &counting.user else {
            let counts = archive.count(&files, from..until).await?;
            let counts = counts.iter().filter(|([_, event_type, _], _)| is_of_type(event_type));
            return Ok(counts.map(|(_, count)| count).sum());
        };
        let is_wanted = |event: &StoredEvent| {
            (from..until).contains(&event.occurred_at) && is_of_type(&event.event_type)
        };
        let mut count = 0;
        for file in &files {
            archive.show(file, user, |event| count += i64::from(is_wanted(event))).await?;
        }
        Ok(count)
    }
}
