//! The blobs: memory, the local file system, or S3/R2, behind one struct. `object_store` is the
//! interface; the differences that it leaves are in here.

mod failure;
mod local;
mod s3;
mod throttle;

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{
    Attribute, Attributes, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, memory::InMemory, path::Path,
};
use synap_rpc::CHUNK_BYTES;
use synap_types::{BlobKey, Hasher};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

pub(crate) use self::failure::StoreError;
use crate::{
    config::Place,
    domain::{Body, Promise},
};

/// Blobs up to this size are read in one go: for a note that saves most of the work.
const ONE_READ: u64 = 1024 * 1024;

/// Never written, and outside of where blobs are: what readiness asks for.
const PROBE: &str = "synap-readiness-probe";

/// Where the blobs are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BlobStore {
    objects: Arc<dyn ObjectStore>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Memory,
    /// The directory.
    Local(Arc<PathBuf>),
    S3,
}

/// What the store knows about a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlobMeta {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) updated: DateTime<Utc>,
}

/// A blob that is being read.
pub(crate) struct OpenBlob {
    pub(crate) meta: BlobMeta,
    /// At least one chunk, each of at most [`CHUNK_BYTES`].
    pub(crate) chunks: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl BlobStore {
    /// Makes the store; of the local one the directory, too. Nothing is asked of S3.
    pub(crate) fn open(place: &Place) -> io::Result<Self> {
        let (objects, kind): (Arc<dyn ObjectStore>, _) = match place {
            Place::Memory => (Arc::new(InMemory::new()), Kind::Memory),
            Place::Local(directory) => {
                let (objects, root) = local::open(directory)?;
                (Arc::new(objects), Kind::Local(Arc::new(root)))
            }
            Place::S3(bucket) => (Arc::new(s3::open(bucket)?), Kind::S3),
        };
        Ok(Self { objects, kind })
    }

    /// Writes a blob, durably, unless the key is taken: then succeeds if it is by these very bytes.
    ///
    /// That is no corner case. Where the reply to a conditional PUT is lost, the repeat is told
    /// that the key is taken, and it is taken by us.
    #[tracing::instrument(name = "store.put", skip_all, fields(size_bytes = body.is.size, otel.kind = "client"))]
    pub(crate) async fn put(&self, key: &BlobKey, body: Body) -> Result<(), StoreError> {
        let path = path(key)?;
        let promised = body.is;
        let mut options = PutOptions::from(PutMode::Create);
        // The local file system refuses attributes, and memory has nobody to show them to.
        if matches!(self.kind, Kind::S3) {
            let content_type = (Attribute::ContentType, key.content_type());
            options.attributes = Attributes::from_iter([content_type]);
        }
        let payload = body.chunks.into_iter().collect();
        match self.objects.put_opts(&path, payload, options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => self.accept(&path, promised).await,
            // A server may refuse without reading the body, and hang up: the refusal is lost. And
            // one that took the body may not come to say so. Either way the key tells.
            Err(error) if failure::broke_off(&error) => match self.accept(&path, promised).await {
                Err(StoreError::Unavailable { .. }) => Err(StoreError::of_write(error)),
                outcome => outcome,
            },
            Err(error) => Err(StoreError::of_write(error)),
        }
    }

    /// Decides what a taken key means.
    async fn accept(&self, path: &Path, promised: Promise) -> Result<(), StoreError> {
        let found = match self.objects.get(path).await {
            Ok(found) => found,
            // S3 answers 409 while another write of the key is under way; that one may yet fail.
            Err(error) => return Err(StoreError::of_write(error)),
        };
        if found.meta.size != promised.size {
            return Err(StoreError::Taken);
        }
        let mut hasher = Hasher::default();
        let mut chunks = chunks(found).await?;
        while let Some(chunk) = chunks.try_next().await? {
            hasher.update(&chunk);
        }
        if hasher.finish() != promised.sha256 {
            return Err(StoreError::Taken);
        }
        match &self.kind {
            // Whoever wrote it may have died before its directory was on disk.
            Kind::Local(root) => local::settle(Arc::clone(root), path).await,
            Kind::Memory | Kind::S3 => Ok(()),
        }
    }

    /// Opens a blob.
    #[tracing::instrument(name = "store.get", skip_all, fields(otel.kind = "client"))]
    pub(crate) async fn get(&self, key: &BlobKey) -> Result<OpenBlob, StoreError> {
        let found = self.objects.get(&path(key)?).await?;
        let meta = BlobMeta { size: found.meta.size, updated: found.meta.last_modified };
        let chunks = chunks(found).await?;
        Ok(OpenBlob { meta, chunks })
    }

    /// Opens a range of a blob: at least one byte, and none past its end.
    pub(crate) async fn get_range(
        &self,
        key: &BlobKey,
        range: std::ops::Range<u64>,
    ) -> Result<OpenBlob, StoreError> {
        let options = object_store::GetOptions {
            range: Some(range.into()),
            ..object_store::GetOptions::default()
        };
        let found = self.objects.get_opts(&path(key)?, options).await?;
        let meta = BlobMeta { size: found.meta.size, updated: found.meta.last_modified };
        Ok(OpenBlob { meta, chunks: in_pieces(found.into_stream()).boxed() })
    }

    /// Looks at a blob.
    #[tracing::instrument(name = "store.head", skip_all, fields(otel.kind = "client"))]
    pub(crate) async fn head(&self, key: &BlobKey) -> Result<BlobMeta, StoreError> {
        let meta = self.objects.head(&path(key)?).await?;
        Ok(BlobMeta { size: meta.size, updated: meta.last_modified })
    }

    /// Deletes blobs; those that do not exist count as deleted. All are tried; the first failure is
    /// the answer.
    #[tracing::instrument(name = "store.delete", skip_all, fields(count = keys.len(), otel.kind = "client"))]
    pub(crate) async fn delete(&self, keys: &[BlobKey]) -> Result<(), StoreError> {
        let paths = keys.iter().map(path).collect::<Result<Vec<_>, _>>()?;
        let paths = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut outcomes = self.objects.delete_stream(paths);
        let mut first = Ok(());
        while let Some(outcome) = outcomes.next().await {
            match outcome.map_err(StoreError::from) {
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Whether a look at the store goes over the network.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.kind, Kind::S3)
    }

    /// Looks whether the store can be used. Of S3 this shows that it answers, that it accepts our
    /// key and that it has our bucket; that we may write only a write would show.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Memory => Ok(()),
            Kind::Local(root) => local::probe(Arc::clone(root)).await,
            // GET and not HEAD: the answer to HEAD has no body, and only the body tells a missing
            // object from a missing bucket.
            Kind::S3 => match self.objects.get(&Path::from(PROBE)).await {
                Ok(_) => Ok(()),
                Err(error) => match StoreError::from(error) {
                    StoreError::NotFound => Ok(()),
                    error => Err(error),
                },
            },
        }
    }

    /// Removes, in the background, what processes that died left behind.
    pub(crate) fn sweep(&self, now: DateTime<Utc>, stop: CancellationToken) {
        if let Kind::Local(root) = &self.kind {
            let root = Arc::clone(root);
            tokio::task::spawn_blocking(move || local::sweep(&root, now, &stop));
        }
    }
}

fn path(key: &BlobKey) -> Result<Path, StoreError> {
    // Not `Path::from`, which would encode the key's percent signs once more.
    Path::parse(key.as_str()).map_err(|error| object_store::Error::from(error).into())
}

/// The bytes of a blob, from its begin to its end.
async fn chunks(
    found: GetResult,
) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
    if found.meta.size <= ONE_READ {
        let whole = found.bytes().await?;
        return Ok(stream::iter(pieces(whole)).map(Ok).boxed());
    }
    Ok(match found.payload {
        // `GetResult::into_stream` would read 8 KiB at a time, each on another thread.
        GetResultPayload::File(file, _) => {
            let file = tokio::fs::File::from_std(file);
            ReaderStream::with_capacity(file, CHUNK_BYTES).map_err(StoreError::from).boxed()
        }
        GetResultPayload::Stream(chunks) => in_pieces(chunks).boxed(),
    })
}

fn in_pieces(
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
) -> impl Stream<Item = Result<Bytes, StoreError>> {
    chunks
        .map_ok(|chunk| stream::iter(pieces(chunk)).map(Ok))
        .map_err(StoreError::from)
        .try_flatten()
}

/// Cuts a chunk, without copying, into what fits a message; an empty one stays one piece.
fn pieces(mut chunk: Bytes) -> impl Iterator<Item = Bytes> {
    let mut first = true;
    std::iter::from_fn(move || {
        if chunk.is_empty() && !first {
            return None;
        }
        first = false;
        Some(chunk.split_to(chunk.len().min(CHUNK_BYTES)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_into_messages_and_nothing_is_lost() {
        for (size, messages) in
            [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES, 3)]
        {
            let chunk = Bytes::from(vec![5; size]);
            let cut: Vec<Bytes> = pieces(chunk.clone()).collect();
            assert_eq!(cut.len(), messages, "{size} bytes");
            assert_eq!(cut.concat(), chunk);
        }
    }
}
