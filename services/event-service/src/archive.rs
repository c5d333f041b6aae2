//! The archive: partitions that are over, as files in the object store, through content-service.
//!
//! 1. The manifest gets a row: a file is being written, under a key that was never used.
//! 2. The events go into it in the order of user and stream, group by group: no more than one is in
//!    memory.
//! 3. The file is read back as any reader would, and must have as many events with the same hash.
//! 4. One transaction makes the file readable and drops the partition, unless that got other events
//!    meanwhile: then the file is thrown away, and the next run begins anew.
//!
//! Whatever dies before the commit of step 4 leaves the events in the database, and a file that the
//! next worker throws away. What comes late into a week that is archived goes to DEFAULT, gets a
//! partition of its own and then a file of its own.

mod blobs;
mod file;
mod read;

use futures::{Stream, TryStreamExt as _};
use parquet::errors::ParquetError;
use synap_rpc::RpcError;
use synap_types::{BlobKey, Hasher, IdGenerator as _, InvalidKey, SystemIds};

pub(crate) use blobs::Blobs;
pub(crate) use file::{Row, SCHEMA_VERSION};
pub(crate) use read::Archive;

use self::file::{FileWriter, GROUP_BYTES, GROUP_ROWS};
use crate::store::{
    Admin, ArchiveFile, DatabaseError, Engine, Exported, Lease, Look, Segment, Staying,
    UpkeepError, Why,
};

/// Why the archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// There are archived events, and nobody has said where content-service is.
    #[error("events are archived, and CONTENT_ENDPOINT is not set: they cannot be read")]
    NotConfigured,
    /// content-service failed.
    #[error("content-service: {0:?}")]
    Content(Box<RpcError>),
    /// A file is not what the manifest says.
    #[error("the archive's file {key} is damaged: {why}")]
    Damaged { key: String, why: String },
    /// The file could not be made.
    #[error("writing a file of the archive: {0}")]
    Format(#[from] ParquetError),
    /// A name that cannot be a key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// A file could not be decoded or encoded to its end.
    #[error("the work was broken off: {0}")]
    BrokenOff(#[from] tokio::task::JoinError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<RpcError> for ArchiveError {
    fn from(error: RpcError) -> Self {
        Self::Content(Box::new(error))
    }
}

/// What became of a segment.
#[derive(Debug)]
pub(crate) struct Archived {
    pub(crate) segment: Segment,
    pub(crate) events: i64,
    /// What it takes in the database, with indexes.
    pub(crate) table_bytes: i64,
    /// The file; absent in a dry run, and where there were no events.
    pub(crate) file: Option<(String, i64)>,
    /// Whether its events are in the file and no longer in the database.
    pub(crate) is_done: bool,
    /// Why they stay in the database.
    pub(crate) why_kept: Option<Why>,
}

impl Archived {
    /// A segment to which nothing was done.
    pub(crate) fn left(segment: Segment, look: Look) -> Self {
        let Look { events, table_bytes, why_kept } = look;
        Self { segment, events, table_bytes, file: None, is_done: false, why_kept }
    }

    /// What stays in the database for now.
    pub(crate) fn kept(&self) -> Option<Staying> {
        let why = self.why_kept.clone()?;
        Some(Staying { table: self.segment.table.clone(), events: self.events, why })
    }
}

impl Archive {
    /// Archives one segment, if everybody can have read it so many days after it was recorded.
    pub(crate) async fn put(
        &self,
        admin: &Admin,
        lease: &Lease,
        engine: &Engine,
        segment: Segment,
        recorded_days: u32,
    ) -> Result<Archived, UpkeepError> {
        let look = admin.look(&segment, recorded_days).await?;
        if look.why_kept.is_some() {
            return Ok(Archived::left(segment, look));
        }
        let finish = async |archive| {
            admin.finish_archive(lease, engine, &segment, recorded_days, archive).await
        };
        if look.events == 0 {
            let why_kept = finish(None).await?;
            let is_done = why_kept.is_none();
            return Ok(Archived { is_done, why_kept, ..Archived::left(segment, look) });
        }
        let archive_id = SystemIds.next_id();
        let name = segment.table.rsplit('.').next().unwrap_or(&segment.table).replace('"', "");
        let key = BlobKey::archive(&name, archive_id).map_err(ArchiveError::from)?;
        admin.begin_archive(lease, &segment, archive_id, &key).await?;
        synap_failpoint::hit("archive.begun").await;
        let exported = self.export(admin, &segment, &key).await?;
        synap_failpoint::hit("archive.written").await;
        let written = ArchiveFile {
            archive_id,
            key: key.to_string(),
            bytes: exported.bytes,
            begins_at: segment.begins_at,
            ends_at: segment.ends_at,
        };
        self.verify(&written, &exported).await?;
        synap_failpoint::hit("archive.verified").await;
        let why_kept = finish(Some((archive_id, &exported))).await?;
        synap_failpoint::hit("archive.dropped").await;
        Ok(Archived {
            events: exported.events,
            table_bytes: look.table_bytes,
            file: Some((key.to_string(), exported.bytes)),
            is_done: why_kept.is_none(),
            why_kept,
            segment,
        })
    }

    /// Step 2.
    async fn export(
        &self,
        admin: &Admin,
        segment: &Segment,
        key: &BlobKey,
    ) -> Result<Exported, UpkeepError> {
        let upload = self.blobs()?.upload(key).await;
        let mut rows = admin.export(segment);
        let mut writer = FileWriter::new().map_err(ArchiveError::from)?;
        let mut hasher = Hasher::default();
        let mut exported: Option<Exported> = None;
        loop {
            let rows = next_group(&mut rows).await?;
            if rows.is_empty() {
                break;
            }
            // Compressing is work for a thread that nobody waits on.
            let encode = move || {
                let bytes = writer.group(&rows)?;
                for row in &rows {
                    file::hash(row, &mut hasher);
                }
                let sums = rows.iter().map(sums_of).reduce(|all, more| all.and(&more));
                Ok::<_, ParquetError>((writer, hasher, bytes, sums))
            };
            let encoded = tokio::task::spawn_blocking(encode).await.map_err(ArchiveError::from)?;
            let (bytes, sums);
            (writer, hasher, bytes, sums) = encoded.map_err(ArchiveError::from)?;
            exported = exported.into_iter().chain(sums).reduce(|all, more| all.and(&more));
            if !upload.send(bytes).await {
                break;
            }
            synap_failpoint::hit("archive.writing").await;
        }
        upload.send(writer.finish().map_err(ArchiveError::from)?).await;
        let bytes = upload.finish().await.map_err(ArchiveError::from)?;
        let exported = exported.ok_or_else(|| ArchiveError::Damaged {
            key: key.to_string(),
            why: "the partition has become empty".to_owned(),
        })?;
        Ok(Exported { sha256: hasher.finish(), bytes, ..exported })
    }

    /// Step 3.
    async fn verify(&self, written: &ArchiveFile, expected: &Exported) -> Result<(), UpkeepError> {
        let (mut hasher, mut events) = (Hasher::default(), 0);
        let mut groups = std::pin::pin!(self.groups(written));
        while let Some(rows) = groups.try_next().await? {
            for row in &rows {
                file::hash(row, &mut hasher);
                events += 1;
            }
        }
        if events == expected.events && hasher.finish() == expected.sha256 {
            return Ok(());
        }
        let why = format!("it has {events} of {} events, or others", expected.events);
        Err(ArchiveError::Damaged { key: written.key.clone(), why }.into())
    }
}

impl Exported {
    /// Both together; hash and size come later.
    fn and(self, other: &Self) -> Self {
        Self {
            events: self.events + other.events,
            min_occurred_at: self.min_occurred_at.min(other.min_occurred_at),
            max_occurred_at: self.max_occurred_at.max(other.max_occurred_at),
            max_place: self.max_place.max(other.max_place),
            ..self
        }
    }
}

/// The next rows of a segment that are one group of its file.
async fn next_group(
    rows: &mut (impl Stream<Item = Result<Row, DatabaseError>> + Unpin),
) -> Result<Vec<Row>, DatabaseError> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    while group.len() < GROUP_ROWS
        && bytes < GROUP_BYTES
        && let Some(row) = rows.try_next().await?
    {
        bytes += row.event.body_bytes();
        group.push(row);
    }
    Ok(group)
}

fn sums_of(row: &Row) -> Exported {
    Exported {
        events: 1,
        sha256: Hasher::default().finish(),
        bytes: 0,
        min_occurred_at: row.event.occurred_at,
        max_occurred_at: row.event.occurred_at,
        max_place: (row.event.epoch, row.event.xid),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use chrono::{DateTime, Utc};
    use futures::stream;
    use parquet::file::metadata::ParquetMetaDataReader;

    use super::*;
    use crate::domain::StoredEvent;

    #[tokio::test]
    async fn a_group_ends_by_its_bytes_and_its_footer_says_what_it_takes_in_memory() {
        let rows = (0..300).map(|number| {
            let event = StoredEvent::example(number, 60_000);
            Ok(Row { event, recorded_at: DateTime::<Utc>::UNIX_EPOCH })
        });
        let (mut rows, mut writer) = (stream::iter(rows), FileWriter::new().unwrap());
        let (mut file, mut sizes) = (BytesMut::new(), Vec::new());
        loop {
            let group = next_group(&mut rows).await.unwrap();
            if group.is_empty() {
                break;
            }
            file.extend(writer.group(&group).unwrap());
            sizes.push(group.len());
        }
        file.extend(writer.finish().unwrap());
        assert_eq!(sizes, [140, 140, 20]);
        // All the same: encoded it is next to nothing.
        assert!(file.len() < 100_000, "{}", file.len());
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file.freeze()).unwrap();
        for (group, rows) in metadata.row_groups().iter().zip(sizes) {
            let decoded = file::decoded_bytes(group);
            assert!((rows * 60_000..rows * 61_000).contains(&decoded), "{decoded} of {rows}");
        }
    }
}
