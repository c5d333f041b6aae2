//! The blobs: memory, the local file system, or S3/R2, behind one type. `object_store` speaks to S3
//! and keeps the memory; the local file system is ours: it takes half the system calls, and streams.

mod create_only;
mod failure;
mod large;
mod list;
mod local;
mod multipart;
mod read;
mod s3;
mod throttle;
mod unfinished;

use std::{io, sync::Arc};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, memory::InMemory,
    path::Path,
};
use synap_types::{BlobKey, Checksum, Clock as _, Hasher, SystemClock};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    failure::{StoreError, words},
    large::{LargeBlob, Plan},
    list::{Listed, Listing, Pages},
    read::{OpenBlob, Range},
};
use self::{
    local::{Draft, Local},
    s3::S3,
};
use crate::{
    config::Place,
    domain::{Body, Digest, Share},
};

/// Never written, and outside of where blobs are: what readiness asks for.
const PROBE: &str = "synap-readiness-probe";

/// Where the blobs are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum BlobStore {
    Memory(Arc<InMemory>),
    Local(Arc<Local>),
    S3(Arc<S3>),
}

/// A small blob of which nobody sees anything yet.
#[derive(Debug)]
pub(crate) enum Staged {
    /// The store has nothing between nothing and all.
    Held(Body),
    /// On disk, without a name.
    Local { local: Arc<Local>, draft: Draft, is: Digest },
}

/// What the store knows about a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlobMeta {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) updated: DateTime<Utc>,
}

impl BlobStore {
    /// Makes the store; of the local one the directory, too. Nothing is asked of S3.
    pub(crate) fn open(place: &Place) -> io::Result<Self> {
        Ok(match place {
            Place::Memory => Self::Memory(Arc::new(InMemory::new())),
            Place::Local(directory) => Self::Local(Arc::new(Local::open(directory)?)),
            Place::S3(bucket) => Self::S3(Arc::new(S3::open(bucket)?)),
        })
    }

    /// Writes a blob, durably, unless the key is taken: then succeeds if it is by these very bytes.
    ///
    /// That is no corner case. Where the reply to a conditional PUT is lost, the repeat is told
    /// that the key is taken, and it is taken by us.
    #[tracing::instrument(name = "store.put", skip_all, fields(size_bytes = body.is.size, otel.kind = "client"))]
    pub(crate) async fn put(&self, key: &BlobKey, body: Body) -> Result<(), StoreError> {
        let is = body.is;
        let outcome = match self {
            Self::Local(local) => match local.put(key, body.chunks).await {
                Err(StoreError::Taken) => return self.accept(key, is).await,
                outcome => return outcome,
            },
            Self::Memory(objects) => {
                let options = PutOptions::from(PutMode::Create);
                let payload = body.chunks.into_iter().collect();
                objects.put_opts(&path(key)?, payload, options).await
            }
            Self::S3(s3) => {
                let mut options = PutOptions::from(PutMode::Create);
                options.attributes = attributes(key);
                let payload = body.chunks.into_iter().collect();
                s3.objects.put_opts(&path(key)?, payload, options).await
            }
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => self.after(error, key, is).await,
        }
    }

    /// Takes a blob as far as it gets without anybody seeing it. Dropped, it leaves nothing.
    #[tracing::instrument(name = "store.stage", skip_all, fields(size_bytes = body.is.size, otel.kind = "client"))]
    pub(crate) async fn stage(&self, key: &BlobKey, body: Body) -> Result<Staged, StoreError> {
        match self {
            Self::Local(local) => {
                let draft = local.stage(key, body.chunks).await?;
                Ok(Staged::Local { local: Arc::clone(local), draft, is: body.is })
            }
            Self::Memory(_) | Self::S3(_) => Ok(Staged::Held(body)),
        }
    }

    /// Makes a staged blob visible, with the rules of [`BlobStore::put`].
    #[tracing::instrument(name = "store.publish", skip_all, fields(otel.kind = "client"))]
    pub(crate) async fn publish(&self, key: &BlobKey, staged: Staged) -> Result<(), StoreError> {
        match staged {
            Staged::Held(body) => self.put(key, body).await,
            Staged::Local { local, draft, is } => match local.publish(key, draft).await {
                Err(StoreError::Taken) => self.accept(key, is).await,
                outcome => outcome,
            },
        }
    }

    /// What the error of a write that may have happened means.
    async fn after(
        &self,
        error: object_store::Error,
        key: &BlobKey,
        is: Digest,
    ) -> Result<(), StoreError> {
        if matches!(error, object_store::Error::AlreadyExists { .. }) {
            return self.accept(key, is).await;
        }
        // A server may refuse without reading the body, and hang up: the refusal is lost. And one
        // that took the body may not come to say so. Either way the key tells.
        if failure::broke_off(&error) {
            return match self.accept(key, is).await {
                Err(StoreError::Unavailable { .. }) => Err(StoreError::of_write(error)),
                outcome => outcome,
            };
        }
        Err(StoreError::of_write(error))
    }

    /// Decides what a taken key means: success if it is taken by these very bytes.
    async fn accept(&self, key: &BlobKey, is: Digest) -> Result<(), StoreError> {
        let found = match self.read(key, Range::WHOLE).await {
            Ok(found) => found,
            // S3 answers 409 while another write of the key is under way; that one may yet fail.
            Err(error) => return Err(error.of_a_write()),
        };
        if found.meta.size != is.size || found.sha256().await? != is.sha256 {
            return Err(StoreError::Taken);
        }
        match self {
            // Whoever wrote it may have died before its directory was on disk.
            Self::Local(local) => local.settle(key).await,
            Self::Memory(_) | Self::S3(_) => Ok(()),
        }
    }

    /// Opens a blob, or a part of it.
    #[tracing::instrument(name = "store.get", skip_all, fields(otel.kind = "client"))]
    pub(crate) async fn read(&self, key: &BlobKey, range: Range) -> Result<OpenBlob, StoreError> {
        match self {
            Self::Memory(objects) => read::open(Arc::clone(objects), path(key)?, range).await,
            Self::Local(local) => local.read(key, range).await,
            Self::S3(s3) => read::open(Arc::clone(&s3.objects), path(key)?, range).await,
        }
    }

    /// Looks at a blob.
    #[tracing::instrument(name = "store.head", skip_all, fields(otel.kind = "client"))]
    pub(crate) async fn head(&self, key: &BlobKey) -> Result<BlobMeta, StoreError> {
        let found = match self {
            Self::Memory(objects) => objects.head(&path(key)?).await?,
            Self::Local(local) => return local.head(key).await,
            Self::S3(s3) => s3.objects.head(&path(key)?).await?,
        };
        Ok(BlobMeta { size: found.size, updated: found.last_modified })
    }

    /// Looks at a blob and hashes it.
    pub(crate) async fn digest(&self, key: &BlobKey) -> Result<(BlobMeta, Checksum), StoreError> {
        let found = self.read(key, Range::WHOLE).await?;
        Ok((found.meta, found.sha256().await?))
    }

    /// Hashes small blobs, all of them at a time; the answers are in their order.
    #[tracing::instrument(name = "store.digest_all", skip_all, fields(count = keys.len(), otel.kind = "client"))]
    pub(crate) async fn digest_all(
        &self,
        keys: Vec<BlobKey>,
    ) -> Result<Vec<Result<Checksum, StoreError>>, StoreError> {
        if let Self::Local(local) = self {
            return local.digest_all(&keys).await;
        }
        let digest = |key| async move { Ok(self.digest(&key).await?.1) };
        Ok(join_all(keys.into_iter().map(digest)).await)
    }

    /// Deletes blobs; those that do not exist count as deleted. All are tried; the first failure is
    /// the answer. What was uploaded of a blob that never got complete goes, too.
    #[tracing::instrument(name = "store.delete", skip_all, fields(count = keys.len(), otel.kind = "client"))]
    pub(crate) async fn delete(&self, keys: &[BlobKey]) -> Result<(), StoreError> {
        let objects: &dyn ObjectStore = match self {
            Self::Local(local) => return local.delete(keys).await,
            Self::Memory(objects) => &**objects,
            Self::S3(s3) => {
                // In this order: an upload that gets complete in between is deleted below.
                s3.abort_uploads_of(keys).await?;
                &*s3.objects
            }
        };
        let paths = keys.iter().map(path).collect::<Result<Vec<_>, _>>()?;
        let mut outcomes = objects.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        let mut first = Ok(());
        while let Some(outcome) = outcomes.next().await {
            match outcome.map_err(StoreError::from) {
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Lists blobs in pages, ascending by key. What is no blob of ours is passed over, unless it is
    /// asked for.
    pub(crate) fn list(&self, listing: Listing) -> Pages {
        match self {
            Self::Memory(objects) => list::memory(objects, listing),
            Self::Local(local) => local.list(listing),
            Self::S3(s3) => list::s3(Arc::clone(s3), listing),
        }
    }

    /// Whether a look at the store goes over the network.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, Self::S3(_))
    }

    /// Looks whether the store can be used. Of S3 this shows that it answers, that it accepts our
    /// key and that it has our bucket; that we may write only a write would show.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Local(local) => local.probe().await,
            // GET and not HEAD: the answer to HEAD has no body, and only the body tells a missing
            // object from a missing bucket.
            Self::S3(s3) => match s3.objects.get(&Path::from(PROBE)).await {
                Ok(_) => Ok(()),
                Err(error) => match StoreError::from(error) {
                    StoreError::NotFound => Ok(()),
                    error => Err(error),
                },
            },
        }
    }

    /// Removes, in the background, what processes that died left behind.
    pub(crate) fn sweep(&self, clock: SystemClock, stop: CancellationToken) {
        match self {
            Self::Memory(_) => {}
            Self::Local(local) => local.sweep(clock.now(), stop),
            Self::S3(s3) => s3.sweep(clock, stop),
        }
    }

    /// Waits until no upload is under way, and those that were given up are gone from the store.
    pub(crate) async fn settled(&self) {
        if let Self::S3(s3) = self {
            s3.cleaning.close();
            s3.cleaning.wait().await;
        }
    }
}

/// How many parts S3 takes of one blob.
const MAX_PARTS: u64 = 10_000;
/// Bytes of a part, unless the blob needs larger ones. R2 wants all of a blob's parts equal.
const PART: u64 = 8 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Blobs that flow through.
impl BlobStore {
    /// Bytes of the largest blob of which no more than `held` bytes are held at one time.
    pub(crate) fn largest(&self, held: u64) -> u64 {
        match self {
            Self::S3(_) => (held / MIB * MIB).saturating_mul(MAX_PARTS),
            Self::Memory(_) | Self::Local(_) => u64::MAX,
        }
    }

    /// How a blob of so many bytes is to be written.
    pub(crate) fn plan(&self, size: u64) -> Plan {
        match self {
            Self::S3(_) => {
                let least = size.div_ceil(MAX_PARTS).next_multiple_of(MIB);
                Plan { part: least.max(PART), parts: 4 }.within(4 * PART)
            }
            Self::Memory(_) | Self::Local(_) => Plan { part: PART / 2, parts: 2 },
        }
    }

    /// Begins a blob that is written part by part.
    pub(crate) async fn begin(
        &self,
        key: &BlobKey,
        plan: Plan,
        share: Share,
    ) -> Result<LargeBlob, StoreError> {
        match self {
            Self::Memory(_) => Ok(LargeBlob::Memory(Vec::new())),
            Self::Local(local) => Ok(LargeBlob::Local(local.begin(key, plan, share).await?)),
            Self::S3(s3) => {
                let upload = multipart::begin(s3, path(key)?, attributes(key), plan, share).await?;
                Ok(LargeBlob::S3(upload))
            }
        }
    }

    /// Makes a blob visible that is written in full, with the rules of [`BlobStore::put`].
    #[tracing::instrument(name = "store.finish", skip_all, fields(size_bytes = is.size, otel.kind = "client"))]
    pub(crate) async fn finish(
        &self,
        key: &BlobKey,
        blob: LargeBlob,
        is: Digest,
    ) -> Result<(), StoreError> {
        match blob {
            LargeBlob::Memory(chunks) => self.put(key, Body { is, chunks }).await,
            LargeBlob::Local(draft) => match draft.finish().await {
                Err(StoreError::Taken) => self.accept(key, is).await,
                outcome => outcome,
            },
            LargeBlob::S3(upload) => match upload.finish().await {
                Ok(()) => Ok(()),
                // A repeat of a request that succeeded finds no upload, or the key taken; servers
                // have several words for that. The key tells.
                Err(error) => match self.accept(key, is).await {
                    Err(StoreError::Unavailable { .. }) => Err(StoreError::of_write(error)),
                    outcome => outcome,
                },
            },
        }
    }
}

fn path(key: &BlobKey) -> Result<Path, StoreError> {
    // Not `Path::from`, which would encode the key's percent signs once more.
    Path::parse(key.as_str()).map_err(|error| object_store::Error::from(error).into())
}

/// Whoever opens a signed URL gets the type from the store, not from us.
fn attributes(key: &BlobKey) -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, key.content_type())])
}

impl OpenBlob {
    /// Reads to the end.
    async fn sha256(self) -> Result<Checksum, StoreError> {
        let mut hasher = Hasher::default();
        let mut chunks = self.chunks;
        while let Some(chunk) = chunks.try_next().await? {
            hasher.update(&chunk);
        }
        Ok(hasher.finish())
    }
}
