//! `synap.content.v1.ContentService`: each call validates, calls the store, maps the answer.

use std::pin::Pin;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use synap_proto::{
    content::{
        BatchHeadBlobsRequest, BatchHeadBlobsResponse, Blob, BuildKeyRequest, BuildKeyResponse,
        DeleteBlobsRequest, DeleteBlobsResponse, GetBlobRequest, GetBlobResponse, HeadBlobRequest,
        HeadBlobResponse, ListBlobsRequest, ListBlobsResponse, PutBlobRequest, PutBlobResponse,
        PutBlobSpec, SignUrlRequest, SignUrlResponse, content_service_server::ContentService,
    },
    field::{self, Checked, Violation},
};
use synap_types::{BlobKey, Clock as _, InvalidKey, SystemClock};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    domain::{Body, Budget, Incoming, Promise},
    error::ContentError,
    sign::{Signer, Wish},
    store::{BlobMeta, BlobStore},
};

/// Keys that one DeleteBlobs may name: what S3 takes in one request.
const MAX_KEYS: usize = 1000;

/// The service.
pub(crate) struct Content {
    pub(crate) store: BlobStore,
    pub(crate) signer: Signer,
    pub(crate) public_url: Option<String>,
    pub(crate) max_blob_bytes: u64,
    pub(crate) budget: Budget,
}

#[tonic::async_trait]
impl ContentService for Content {
    async fn put_blob(
        &self,
        request: Request<Streaming<PutBlobRequest>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        synap_failpoint::hit("put.before").await;
        let (key, body) = self.receive(request.into_inner()).await?;
        let size = body.is.size;
        self.store.put(&key, body).await.map_err(ContentError::Store)?;
        synap_failpoint::hit("put.effect").await;
        // The store does not tell its time in the answer to a PUT.
        let blob = self.describe(&key, size);
        Ok(Response::new(PutBlobResponse { blob: Some(blob) }))
    }

    type GetBlobStream = Pin<Box<dyn Stream<Item = Result<GetBlobResponse, Status>> + Send>>;

    async fn get_blob(
        &self,
        request: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let key = field::key("key", request.into_inner().key).map_err(ContentError::Field)?;
        let found = self.store.get(&key).await.map_err(ContentError::Store)?;
        // Taken by the first message.
        let mut blob = Some(self.describe_found(&key, found.meta));
        let messages = found
            .chunks
            .map_ok(move |data| GetBlobResponse { blob: blob.take(), data })
            .map_err(|error| ContentError::Store(error).into());
        Ok(Response::new(messages.boxed()))
    }

    async fn head_blob(
        &self,
        request: Request<HeadBlobRequest>,
    ) -> Result<Response<HeadBlobResponse>, Status> {
        let key = field::key("key", request.into_inner().key).map_err(ContentError::Field)?;
        let meta = self.store.head(&key).await.map_err(ContentError::Store)?;
        let blob = self.describe_found(&key, meta);
        Ok(Response::new(HeadBlobResponse { blob: Some(blob) }))
    }

    async fn batch_head_blobs(
        &self,
        _: Request<BatchHeadBlobsRequest>,
    ) -> Result<Response<BatchHeadBlobsResponse>, Status> {
        Err(Status::unimplemented("BatchHeadBlobs"))
    }

    type ListBlobsStream = Pin<Box<dyn Stream<Item = Result<ListBlobsResponse, Status>> + Send>>;

    async fn list_blobs(
        &self,
        _: Request<ListBlobsRequest>,
    ) -> Result<Response<Self::ListBlobsStream>, Status> {
        Err(Status::unimplemented("ListBlobs"))
    }

    async fn sign_url(
        &self,
        request: Request<SignUrlRequest>,
    ) -> Result<Response<SignUrlResponse>, Status> {
        let wish = Wish::parse(request.into_inner(), self.max_blob_bytes);
        let wish = wish.map_err(ContentError::Field)?;
        let signed = self.signer.sign(&wish, SystemClock.now()).await;
        Ok(Response::new(signed.map_err(ContentError::Store)?))
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
        let url = self.url(&key);
        let key = key.as_str().to_owned();
        Ok(Response::new(BuildKeyResponse { key, url }))
    }
}

impl Content {
    /// Reads a body to its end. Nothing is written before it turned out to be as promised.
    async fn receive(
        &self,
        mut messages: Streaming<PutBlobRequest>,
    ) -> Result<(BlobKey, Body), ContentError> {
        let first = messages.message().await.map_err(ContentError::Stream)?;
        let first = first.unwrap_or_default();
        let (key, promised) = self.checked_spec(first.spec).map_err(ContentError::Field)?;
        let share = self.budget.take(promised.size).await;
        let mut body = Incoming::new(promised, share);
        body.push(first.data).map_err(ContentError::Body)?;
        while let Some(message) = messages.message().await.map_err(ContentError::Stream)? {
            if message.spec.is_some() {
                let twice = Violation::new("spec", "belongs into the first message only");
                return Err(ContentError::Field(twice));
            }
            body.push(message.data).map_err(ContentError::Body)?;
        }
        Ok((key, body.finish().map_err(ContentError::Body)?))
    }

    fn checked_spec(&self, spec: Option<PutBlobSpec>) -> Checked<(BlobKey, Promise)> {
        let PutBlobSpec { key, size, sha256 } = field::required("spec", spec)?;
        let key = field::key("spec.key", key)?;
        let sha256 = field::sha256("spec.sha256", &sha256)?;
        let size = size
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size <= self.max_blob_bytes)
            .ok_or_else(|| {
                let limit = self.max_blob_bytes;
                Violation::new("spec.size", format!("must be between 0 and {limit} bytes"))
            })?;
        Ok((key, Promise { size, sha256 }))
    }

    fn describe_found(&self, key: &BlobKey, meta: BlobMeta) -> Blob {
        Blob { update_time: Some(field::timestamp(meta.updated)), ..self.describe(key, meta.size) }
    }

    fn describe(&self, key: &BlobKey, size: u64) -> Blob {
        Blob {
            key: key.as_str().to_owned(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            content_type: key.content_type().to_owned(),
            url: self.url(key),
            update_time: None,
            sha256: bytes::Bytes::new(),
        }
    }

    fn url(&self, key: &BlobKey) -> String {
        let base = self.public_url.as_ref();
        base.map_or_else(String::new, |base| format!("{base}/{key}"))
    }
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
