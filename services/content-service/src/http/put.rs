//! PUT of a blob.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures::{Stream, StreamExt as _, stream};
use synap_types::BlobKey;
use tonic::Status;

use super::{Blobs, answer::Refusal};
use crate::{domain::Promise, error::ContentError, sign::BoundBody, store::StoreError};

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
    let promised = Promise { size: Some(size), sha256: Some(sha256) };
    blobs.uploads.put(key, promised, chunks(body, blobs.silence)).await?;
    Ok(StatusCode::OK.into_response())
}

/// The bytes of a body; ends with an error where no more come.
fn chunks(
    body: Body,
    silence: Duration,
) -> impl Stream<Item = Result<Bytes, ContentError>> + Unpin {
    let chunks = stream::unfold(body.into_data_stream(), move |mut chunks| async move {
        let next = match tokio::time::timeout(silence, chunks.next()).await {
            Ok(next) => next?.map_err(|_| Status::cancelled("the client went away")),
            Err(_) => Err(Status::deadline_exceeded("the client stopped sending")),
        };
        Some((next.map_err(ContentError::Stream), chunks))
    });
    Box::pin(chunks)
}
