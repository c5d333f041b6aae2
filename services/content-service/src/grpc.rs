//! `synap.content.v1.ContentService`: each call validates, calls the store, maps the answer.

mod describe;
mod moves;
mod puts;

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use synap_proto::{
    content::{
        BatchHeadBlobsRequest, BatchHeadBlobsResponse, BatchPutBlobsRequest, BatchPutBlobsResponse,
        Blob, BlobLookup, BuildKeyRequest, BuildKeyResponse, DeleteBlobsRequest,
        DeleteBlobsResponse, GetBlobRequest, GetBlobResponse, HeadBlobRequest, HeadBlobResponse,
        ListBlobsRequest, ListBlobsResponse, PutBlobRequest, PutBlobResponse, PutBlobSpec,
        QuarantineBlobsRequest, QuarantineBlobsResponse, RestoreBlobsRequest, RestoreBlobsResponse,
        SignUrlRequest, SignUrlResponse, content_service_server::ContentService,
    },
    field::{self, Checked, Violation},
};
use synap_types::{BlobKey, Checksum, Clock as _, Hasher, InvalidKey, SystemClock};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::describe::Urls;
use self::{describe::raw, moves::Direction};
use crate::{
    domain::Promise,
    error::ContentError,
    sign::{Signer, Wish},
    store::{BlobStore, Listed, Listing, Range, StoreError},
    upload::Uploads,
};

/// Keys that one call may name: what S3 deletes in one request.
const MAX_KEYS: usize = 1000;
/// Blobs that one BatchHeadBlobs looks at, at a time.
const HEADS: usize = 16;
/// As [`HEADS`], where each is read and hashed.
const DIGESTS: usize = 2;

/// The service.
pub(crate) struct Content {
    pub(crate) store: BlobStore,
    pub(crate) signer: Signer,
    pub(crate) uploads: Uploads,
    pub(crate) urls: Urls,
}

#[tonic::async_trait]
impl ContentService for Content {
    async fn put_blob(
        &self,
        request: Request<Streaming<PutBlobRequest>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        synap_failpoint::hit("put.before").await;
        let mut messages = request.into_inner();
        let first = messages.message().await?.unwrap_or_default();
        let (key, promised) = self.checked_spec(first.spec).map_err(ContentError::Field)?;
        let body = stream::iter([Ok(first.data)]).chain(messages.map(later_chunk));
        let is = self.uploads.put(&key, promised, body).await?;
        synap_failpoint::hit("put.effect").await;
        // The store does not tell its time in the answer to a PUT.
        let blob = Blob { sha256: raw(is.sha256), ..self.urls.describe(&key, is.size) };
        Ok(Response::new(PutBlobResponse { blob: Some(blob) }))
    }

    async fn batch_put_blobs(
        &self,
        request: Request<BatchPutBlobsRequest>,
    ) -> Result<Response<BatchPutBlobsResponse>, Status> {
        let request = request.into_inner();
        let read_back = request.read_back;
        let blobs = self.checked_small(request).map_err(ContentError::Field)?;
        let puts = self.put_all(blobs, read_back).await?;
        Ok(Response::new(BatchPutBlobsResponse { puts }))
    }

    type GetBlobStream = Pin<Box<dyn Stream<Item = Result<GetBlobResponse, Status>> + Send>>;

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let (key, range, sha256) =
            checked_read(request.into_inner()).map_err(ContentError::Field)?;
        let found = self.store.read(&key, range).await.map_err(ContentError::Store)?;
        // Taken by the first message.
        let mut blob = Some(self.urls.describe_found(&key, found.meta));
        let messages = compared(found.chunks, sha256)
            .map_ok(move |data| GetBlobResponse { blob: blob.take(), data })
            .map_err(Status::from);
        Ok(Response::new(messages.boxed()))
    }

    async fn head_blob(
        &self,
        request: Request<HeadBlobRequest>,
    ) -> Result<Response<HeadBlobResponse>, Status> {
        let HeadBlobRequest { key, with_sha256 } = request.into_inner();
        let key = field::key("key", key).map_err(ContentError::Field)?;
        let blob = self.urls.look(&self.store, &key, with_sha256).await;
        let blob = blob.map_err(ContentError::Store)?;
        Ok(Response::new(HeadBlobResponse { blob: Some(blob) }))
    }

    async fn batch_head_blobs(
        &self,
        request: Request<BatchHeadBlobsRequest>,
    ) -> Result<Response<BatchHeadBlobsResponse>, Status> {
        let BatchHeadBlobsRequest { keys, with_sha256 } = request.into_inner();
        let keys = checked_keys(keys).map_err(ContentError::Field)?;
        let looks = keys.into_iter().map(|key| {
            let (store, urls) = (self.store.clone(), self.urls.clone());
            async move {
                let blob = match urls.look(&store, &key, with_sha256).await {
                    Ok(blob) => Some(blob),
                    Err(StoreError::NotFound) => None,
                    Err(error) => return Err(ContentError::Store(error)),
                };
                Ok(BlobLookup { key: key.as_str().to_owned(), blob })
            }
        });
        let at_a_time = if with_sha256 { DIGESTS } else { HEADS };
        let lookups: Vec<_> = stream::iter(looks).buffered(at_a_time).try_collect().await?;
        if lookups.iter().any(|lookup: &BlobLookup| lookup.blob.is_none()) {
            // S3 has the same answer to a HEAD for a missing object and for a missing bucket.
            self.store.probe().await.map_err(ContentError::Store)?;
        }
        Ok(Response::new(BatchHeadBlobsResponse { lookups }))
    }

    type ListBlobsStream = Pin<Box<dyn Stream<Item = Result<ListBlobsResponse, Status>> + Send>>;

    async fn list_blobs(
        &self,
        request: Request<ListBlobsRequest>,
    ) -> Result<Response<Self::ListBlobsStream>, Status> {
        let ListBlobsRequest { prefix, start_after: after, with_foreign } = request.into_inner();
        if with_foreign && !prefix.is_empty() {
            let why = Violation::new("with_foreign", "is of the whole store; leave prefix out");
            return Err(ContentError::Field(why).into());
        }
        let urls = self.urls.clone();
        let describe = move |blob: Listed| urls.describe_found(&blob.key, blob.meta);
        let messages = self
            .store
            .list(Listing { prefix, after, with_foreign })
            .map_ok(move |page| ListBlobsResponse {
                blobs: page.blobs.into_iter().map(&describe).collect(),
                foreign: page.foreign,
            })
            .map_err(|error| ContentError::Store(error).into());
        Ok(Response::new(messages.boxed()))
    }

    async fn sign_url(
        &self,
        request: Request<SignUrlRequest>,
    ) -> Result<Response<SignUrlResponse>, Status> {
        let wish = Wish::parse(request.into_inner(), self.uploads.largest());
        let wish = wish.map_err(ContentError::Field)?;
        let signed = self.signer.sign(&wish, SystemClock.now()).await;
        Ok(Response::new(signed.map_err(ContentError::Store)?))
    }

    async fn quarantine_blobs(
        &self,
        request: Request<QuarantineBlobsRequest>,
    ) -> Result<Response<QuarantineBlobsResponse>, Status> {
        let (ways, aside) =
            moves::checked_aside(request.into_inner()).map_err(ContentError::Field)?;
        let moves = self.move_blobs(ways, aside).await?;
        Ok(Response::new(QuarantineBlobsResponse { moves }))
    }

    async fn restore_blobs(
        &self,
        request: Request<RestoreBlobsRequest>,
    ) -> Result<Response<RestoreBlobsResponse>, Status> {
        let ways = moves::checked_ways(request.into_inner().keys).map_err(ContentError::Field)?;
        let moves = self.move_blobs(ways, Direction::Back).await?;
        Ok(Response::new(RestoreBlobsResponse { moves }))
    }

    async fn delete_blobs(
        &self,
        request: Request<DeleteBlobsRequest>,
    ) -> Result<Response<DeleteBlobsResponse>, Status> {
        let keys = checked_keys(request.into_inner().keys).map_err(ContentError::Field)?;
        self.store.delete(&keys).await.map_err(ContentError::Store)?;
        Ok(Response::new(DeleteBlobsResponse {}))
    }

    async fn build_key(
        &self,
        request: Request<BuildKeyRequest>,
    ) -> Result<Response<BuildKeyResponse>, Status> {
        let key = built_key(request.into_inner()).map_err(ContentError::Field)?;
        let url = self.urls.of(&key);
        let key = key.as_str().to_owned();
        Ok(Response::new(BuildKeyResponse { key, url }))
    }
}

impl Content {
    fn checked_spec(&self, spec: Option<PutBlobSpec>) -> Checked<(BlobKey, Promise)> {
        let PutBlobSpec { key, size, sha256 } = field::required("spec", spec)?;
        let key = field::key("spec.key", key)?;
        let sha256 = optional_sha256("spec.sha256", &sha256)?;
        let limit = self.uploads.largest();
        let checked = |size| {
            u64::try_from(size).ok().filter(|size| *size <= limit).ok_or_else(|| {
                Violation::new("spec.size", format!("must be between 0 and {limit} bytes"))
            })
        };
        Ok((key, Promise { size: size.map(checked).transpose()?, sha256 }))
    }
}

/// The next bytes of a body.
fn later_chunk(message: Result<PutBlobRequest, Status>) -> Result<Bytes, ContentError> {
    match message {
        Ok(message) if message.spec.is_some() => {
            let twice = Violation::new("spec", "belongs into the first message only");
            Err(ContentError::Field(twice))
        }
        Ok(message) => Ok(message.data),
        Err(status) => Err(ContentError::Stream(status)),
    }
}

fn checked_read(request: GetBlobRequest) -> Checked<(BlobKey, Range, Option<Checksum>)> {
    let GetBlobRequest { key, offset, length, sha256 } = request;
    let key = field::key("key", key)?;
    let positive = |field, value: i64| {
        u64::try_from(value).map_err(|_| Violation::new(field, "must not be negative"))
    };
    let length = Some(positive("length", length)?).filter(|length| *length > 0);
    let range = Range { offset: positive("offset", offset)?, length };
    let sha256 = optional_sha256("sha256", &sha256)?;
    if sha256.is_some() && range != Range::WHOLE {
        return Err(Violation::new("sha256", "is of the whole blob; leave offset and length out"));
    }
    Ok((key, range, sha256))
}

/// Passes chunks on; at their end an error unless they were what is expected.
fn compared(
    chunks: BoxStream<'static, Result<Bytes, StoreError>>,
    expected: Option<Checksum>,
) -> BoxStream<'static, Result<Bytes, ContentError>> {
    let chunks = chunks.map_err(ContentError::Store);
    let Some(expected) = expected else { return chunks.boxed() };
    stream::try_unfold((chunks, Hasher::default()), move |(mut chunks, mut hasher)| async move {
        if let Some(chunk) = chunks.try_next().await? {
            hasher.update(&chunk);
            return Ok(Some((chunk, (chunks, hasher))));
        }
        let found = hasher.finish();
        if found == expected { Ok(None) } else { Err(ContentError::Corrupt { expected, found }) }
    })
    .boxed()
}

fn optional_sha256(field: &str, bytes: &[u8]) -> Checked<Option<Checksum>> {
    if bytes.is_empty() { Ok(None) } else { field::sha256(field, bytes).map(Some) }
}

fn checked_keys(keys: Vec<String>) -> Checked<Vec<BlobKey>> {
    field::length("keys", &keys, 0, MAX_KEYS)?;
    keys.into_iter().enumerate().map(|(at, key)| field::key(&format!("keys[{at}]"), key)).collect()
}

fn built_key(parts: BuildKeyRequest) -> Checked<BlobKey> {
    let user = field::user_id("user_id", parts.user_id)?;
    let entity_type = field::entity_type("entity_type", parts.entity_type)?;
    BlobKey::build(&user, &entity_type, &parts.entity_id, &parts.extension).map_err(|why| {
        let field = match why {
            InvalidKey::Extension => "extension",
            InvalidKey::Length | InvalidKey::OutsideUsers | InvalidKey::Segment(_) => "entity_id",
        };
        Violation::new(field, why)
    })
}
