//! PUT of a blob.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use synap_types::BlobKey;

use super::{
    Blobs,
    answer::{Refusal, drain},
};
use crate::{
    domain::{Incoming, Promise},
    sign::BoundBody,
    store::StoreError,
};

/// Writes the blob, if the key has none and the body is the one that was signed.
pub(super) async fn put(blobs: &Blobs, key: &BlobKey, promised: BoundBody, body: Body) -> Response {
    let refusal = match blobs.store.head(key).await {
        // By the same bytes, too: so it is with S3.
        Ok(_) => Refusal::Exists,
        Err(StoreError::NotFound) => {
            return match write(blobs, key, promised, body).await {
                Ok(()) => StatusCode::OK.into_response(),
                Err(refusal) => refusal.into(),
            };
        }
        Err(error) => error.into(),
    };
    drain(body, blobs.silence).await;
    refusal.into()
}

async fn write(
    blobs: &Blobs,
    key: &BlobKey,
    promised: BoundBody,
    body: Body,
) -> Result<(), Refusal> {
    let BoundBody { size, sha256 } = promised;
    let share = blobs.budget.take(size).await;
    let mut incoming = Incoming::new(Promise { size, sha256 }, share);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = next(&mut chunks, blobs.silence).await? {
        incoming.push(chunk)?;
    }
    blobs.store.put(key, incoming.finish()?).await?;
    Ok(())
}

async fn next(
    chunks: &mut axum::body::BodyDataStream,
    silence: Duration,
) -> Result<Option<Bytes>, Refusal> {
    match tokio::time::timeout(silence, chunks.next()).await {
        Ok(next) => next.transpose().map_err(|_| Refusal::Broken),
        Err(_) => Err(Refusal::Silent),
    }
}
