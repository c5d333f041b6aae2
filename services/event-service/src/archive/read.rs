//! Reads of the archive. Only the groups of a file that may have what is asked for are fetched, and
//! the last ones are kept, up to a number of bytes.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use parquet::{
    errors::ParquetError,
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};
use synap_types::{BlobKey, UserId};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    ArchiveError, Blobs,
    file::{self, Fetched, Row},
};
use crate::{domain::StoredEvent, store::ArchiveFile};

/// Bytes of a file's end that are fetched first: a footer of some hundred groups.
const TAIL_BYTES: u64 = 64 * 1024;

/// Bytes of groups, as they are in memory, that are kept.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// KiB of groups, as they are in memory, that are fetched and decoded at a time: of all reads of this
/// process.
const DECODING_KIB: u32 = 64 * 1024;

/// The archive of events.
#[derive(Clone)]
pub(crate) struct Archive {
    blobs: Option<Blobs>,
    cache: Arc<Mutex<Cache>>,
    decoding: Arc<Semaphore>,
}

impl Archive {
    /// Without content-service, an archive in which nothing can be found.
    pub(crate) fn new(blobs: Option<Blobs>) -> Self {
        let decoding = Arc::new(Semaphore::new(DECODING_KIB as usize));
        Self { blobs, cache: Arc::default(), decoding }
    }

    /// Whether there is a place for files.
    pub(crate) fn is_configured(&self) -> bool {
        self.blobs.is_some()
    }

    pub(super) fn blobs(&self) -> Result<&Blobs, ArchiveError> {
        self.blobs.as_ref().ok_or(ArchiveError::NotConfigured)
    }

    /// Deletes a blob of the archive.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), ArchiveError> {
        Ok(self.blobs()?.delete(key).await?)
    }

    /// Shows each of one user's events in a file, in the file's order, and keeps none of them: who
    /// sees them takes what it wants.
    pub(crate) async fn show(
        &self,
        file: &ArchiveFile,
        user: &UserId,
        mut see: impl FnMut(&StoredEvent),
    ) -> Result<(), ArchiveError> {
        let metadata = self.metadata(file).await?;
        for (index, group) in metadata.row_groups().iter().enumerate() {
            if file::may_have(group, user.as_str()) {
                let rows = self.group(file, &metadata, index).await?;
                let events = rows.iter().map(|row| &row.event);
                events.filter(|event| event.user_id == user.as_str()).for_each(&mut see);
            }
        }
        Ok(())
    }

    /// How often each thing happened in a span of time: by user, type and aggregate type.
    pub(crate) async fn count(
        &self,
        files: &[ArchiveFile],
        span: Range<DateTime<Utc>>,
    ) -> Result<BTreeMap<[String; 3], i64>, ArchiveError> {
        let mut counts = BTreeMap::new();
        for file in files {
            let mut groups = std::pin::pin!(self.groups(file));
            while let Some(rows) = groups.try_next().await? {
                for Row { event, .. } in rows {
                    if span.contains(&event.occurred_at) {
                        let kind = [event.user_id, event.event_type, event.aggregate_type];
                        *counts.entry(kind).or_default() += 1;
                    }
                }
            }
        }
        Ok(counts)
    }

    /// All groups of a file, one after the other, straight from the store.
    pub(super) fn groups(
        &self,
        file: &ArchiveFile,
    ) -> impl Stream<Item = Result<Vec<Row>, ArchiveError>> {
        let opened = async move {
            let metadata = Arc::new(self.fetch_metadata(file).await?);
            let indexes = stream::iter(0..metadata.num_row_groups());
            Ok::<_, ArchiveError>(indexes.then(move |index| {
                let metadata = Arc::clone(&metadata);
                async move { self.fetch_group(file, metadata, index).await }
            }))
        };
        stream::once(opened).try_flatten()
    }

    async fn metadata(&self, file: &ArchiveFile) -> Result<Arc<ParquetMetaData>, ArchiveError> {
        if let Some(Kept::Metadata(metadata)) = self.cache().get(file.archive_id, None) {
            return Ok(metadata);
        }
        let metadata = Arc::new(self.fetch_metadata(file).await?);
        let bytes = metadata.memory_size();
        self.cache().put(file.archive_id, None, Kept::Metadata(Arc::clone(&metadata)), bytes);
        Ok(metadata)
    }

    async fn group(
        &self,
        file: &ArchiveFile,
        metadata: &Arc<ParquetMetaData>,
        index: usize,
    ) -> Result<Arc<Vec<Row>>, ArchiveError> {
        if let Some(Kept::Rows(rows)) = self.cache().get(file.archive_id, Some(index)) {
            return Ok(rows);
        }
        let rows = Arc::new(self.fetch_group(file, Arc::clone(metadata), index).await?);
        let bytes = rows.iter().map(row_bytes).sum();
        self.cache().put(file.archive_id, Some(index), Kept::Rows(Arc::clone(&rows)), bytes);
        Ok(rows)
    }

    async fn fetch_metadata(&self, file: &ArchiveFile) -> Result<ParquetMetaData, ArchiveError> {
        let size = file.bytes.unsigned_abs();
        let mut wanted = TAIL_BYTES.min(size);
        loop {
            let fetched = self.fetch(file, size - wanted, wanted).await?;
            let mut reader = ParquetMetaDataReader::new();
            match reader.try_parse_sized(&fetched.bytes, size).and_then(|()| reader.finish()) {
                Err(ParquetError::NeedMoreData(needed)) if needed as u64 > wanted => {
                    wanted = needed as u64;
                }
                outcome => return outcome.map_err(|why| damaged(file, &why)),
            }
        }
    }

    async fn fetch_group(
        &self,
        file: &ArchiveFile,
        metadata: Arc<ParquetMetaData>,
        index: usize,
    ) -> Result<Vec<Row>, ArchiveError> {
        let group = metadata.row_group(index);
        let kib = u32::try_from(file::decoded_bytes(group) / 1024).unwrap_or(u32::MAX);
        // One that is larger than all of it comes alone. Nobody closes the semaphore.
        let _memory = self.decoding.acquire_many(kib.clamp(1, DECODING_KIB)).await.ok();
        let (offset, length) = file::place(group);
        let fetched = self.fetch(file, offset, length).await?;
        // Decompressing is work for a thread that nobody waits on.
        let decoding = move || file::read_group(&metadata, index, fetched);
        let rows = tokio::task::spawn_blocking(decoding).await?;
        rows.map_err(|why| damaged(file, &why))
    }

    async fn fetch(
        &self,
        file: &ArchiveFile,
        offset: u64,
        length: u64,
    ) -> Result<Fetched, ArchiveError> {
        let key = BlobKey::parse(&*file.key)?;
        let bytes = self.blobs()?.read(&key, offset, length).await?;
        Ok(Fetched { offset, bytes })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn damaged(file: &ArchiveFile, why: &ParquetError) -> ArchiveError {
    ArchiveError::Damaged { key: file.key.clone(), why: why.to_string() }
}

/// About what a row takes in memory.
fn row_bytes(row: &Row) -> usize {
    let event = &row.event;
    size_of::<Row>()
        + event.body_bytes()
        + event.user_id.len()
        + event.event_type.len()
        + event.aggregate_type.len()
        + event.source.len()
}

#[derive(Clone)]
enum Kept {
    Metadata(Arc<ParquetMetaData>),
    Rows(Arc<Vec<Row>>),
}

/// What was read last. Files never change, so nothing in it is ever wrong.
#[derive(Default)]
struct Cache {
    kept: HashMap<(Uuid, Option<usize>), Entry>,
    bytes: usize,
    clock: u64,
}

struct Entry {
    kept: Kept,
    bytes: usize,
    used: u64,
}

impl Cache {
    fn get(&mut self, file: Uuid, group: Option<usize>) -> Option<Kept> {
        self.clock += 1;
        let entry = self.kept.get_mut(&(file, group))?;
        entry.used = self.clock;
        Some(entry.kept.clone())
    }

    fn put(&mut self, file: Uuid, group: Option<usize>, kept: Kept, bytes: usize) {
        self.clock += 1;
        let entry = Entry { kept, bytes, used: self.clock };
        self.bytes += bytes;
        if let Some(before) = self.kept.insert((file, group), entry) {
            self.bytes -= before.bytes;
        }
        while self.bytes > CACHE_BYTES {
            let oldest = self.kept.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(place, _)| *place) else { return };
            if let Some(gone) = self.kept.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }
}
