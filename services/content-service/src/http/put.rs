//! PUT of a blob.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use synap_types::BlobKey;

use super::{Blobs, answer::Refusal};
use crate::{
    domain::{Incoming, Promise},
    sign::BoundBody,
    store::StoreError,
};

/// Whether the key has no blob. One of the very same bytes is one, too: so it is with S3.
pub(super) async fn is_free(blobs: &Blobs, key: &BlobKey) -> Result<(), Refusal> {
    match blobs.store.head(key).await {
        Ok(_) => Err(Refusal::Exists),
        Err(StoreError::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the blob, if the body is the one that was signed.
pub(super) async fn put(
    blobs: &Blobs,
    key: &BlobKey,
    promised: BoundBody,
    body: Body,
) -> Result<Response, Refusal> {
    let BoundBody { size, sha256 } = promised;
    let share = blobs.budget.take(size).await;
    let mut incoming = Incoming::new(Promise { size, sha256 }, share);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = next(&mut chunks, blobs.silence).await? {
        incoming.push(chunk)?;
    }
    blobs.store.put(key, incoming.finish()?).await?;
    Ok(StatusCode::OK.into_response())
}

async fn next(chunks: &mut BodyDataStream, silence: Duration) -> Result<Option<Bytes>, Refusal> {
    match tokio::time::timeout(silence, chunks.next()).await {
        Ok(next) => next.transpose().map_err(|_| Refusal::Broken),
        Err(_) => Err(Refusal::Silent),
    }
}
