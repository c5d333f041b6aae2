//! A body on its way from a caller into the store.
//!
//! 1. The budget: a body waits until there is memory for what will be held of it.
//! 2. Up to [`HELD`] bytes are held, compared with what was promised, and written by one PUT. Where
//!    a size was promised, a caller that has sent so much may keep the end back: meanwhile a local
//!    store takes the bytes to disk, and only the end makes them visible.
//! 3. More flows through: no more is taken from the caller than the store has taken from us. The
//!    whole is compared with what was promised before it becomes visible.
//!
//! Whatever fails, and whoever leaves: there is the whole blob or none.

use std::pin::pin;

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use synap_types::BlobKey;

use crate::{
    domain::{Body, BodyMismatch, Budget, Digest, Held, Promise, Tally},
    error::ContentError,
    store::{BlobStore, LargeBlob},
};

/// Bodies up to this size are written by one PUT.
pub(crate) const HELD: u64 = 8 * 1024 * 1024;

/// Takes bodies in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    store: BlobStore,
    budget: Budget,
    max_inflight_bytes: u64,
    largest: u64,
    largest_unknown: u64,
}

impl Uploads {
    /// `max_blob_bytes` bounds one body, `max_inflight_bytes` what is held of all. The latter has
    /// room for the largest body that is held as a whole.
    pub(crate) fn new(store: BlobStore, max_blob_bytes: u64, max_inflight_bytes: u64) -> Self {
        Self {
            largest: max_blob_bytes.min(store.largest(max_inflight_bytes)),
            largest_unknown: max_blob_bytes.min(store.largest(HELD)),
            budget: Budget::new(max_inflight_bytes),
            max_inflight_bytes,
            store,
        }
    }

    /// Bytes of the largest body whose size is known beforehand.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// Writes a body under a key that was never used; the same bytes again are no conflict.
    /// `promised.size` is at most [`Uploads::largest`].
    pub(crate) async fn put<B>(
        &self,
        key: &BlobKey,
        promised: Promise,
        body: B,
    ) -> Result<Digest, ContentError>
    where
        B: Stream<Item = Result<Bytes, ContentError>> + Send + Unpin,
    {
        let mut body = body.fuse();
        let mut tally = Tally::new(promised, self.largest_unknown);
        if let Some(size) = promised.size.filter(|size| *size > HELD) {
            let plan = self.store.plan(size).within(self.max_inflight_bytes);
            let share = self.budget.take(plan.held()).await;
            let blob = self.store.begin(key, plan, share).await.map_err(ContentError::Store)?;
            return self.pour(key, blob, tally, body).await;
        }
        let mut share = self.budget.take(promised.size.unwrap_or(HELD.min(self.largest))).await;
        let mut held = Held::default();
        while promised.size != Some(held.bytes()) {
            let Some(chunk) = body.next().await else { break };
            let chunk = chunk?;
            tally.add(&chunk).map_err(ContentError::Body)?;
            held.push(chunk);
            if held.bytes() > HELD {
                // It turned out to be large.
                let mut plan = self.store.plan(HELD);
                if !self.budget.grow(&mut share, plan.held().saturating_sub(HELD)) {
                    plan = plan.within(HELD);
                }
                let blob = self.store.begin(key, plan, share).await;
                let mut blob = blob.map_err(ContentError::Store)?;
                for chunk in held.take() {
                    blob.write(chunk).await.map_err(ContentError::Store)?;
                }
                return self.pour(key, blob, tally, body).await;
            }
        }
        let is = tally.finish().map_err(ContentError::Body)?;
        let whole = Body::new(is, held, share);
        // Both ways have the same outcome. Where the end is there, too, one trip to the store is less;
        // if it was sent with the last bytes, the connection's task may be about to hand it over.
        let mut end = pin!(end_of(body, is.size));
        tokio::task::yield_now().await;
        if let Some(ended) = end.as_mut().now_or_never() {
            ended?;
            self.store.put(key, whole).await.map_err(ContentError::Store)?;
        } else {
            let staged = self.store.stage(key, whole).await.map_err(ContentError::Store)?;
            end.await?;
            self.store.publish(key, staged).await.map_err(ContentError::Store)?;
        }
        Ok(is)
    }

    async fn pour<B>(
        &self,
        key: &BlobKey,
        mut blob: LargeBlob,
        mut tally: Tally,
        mut body: B,
    ) -> Result<Digest, ContentError>
    where
        B: Stream<Item = Result<Bytes, ContentError>> + Send + Unpin,
    {
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            tally.add(&chunk).map_err(ContentError::Body)?;
            blob.write(chunk).await.map_err(ContentError::Store)?;
        }
        let is = tally.finish().map_err(ContentError::Body)?;
        synap_failpoint::hit("put.uploaded").await;
        self.store.finish(key, blob, is).await.map_err(ContentError::Store)?;
        Ok(is)
    }
}

/// Waits for the end of a body of which all that was promised is there.
async fn end_of<B>(mut body: B, promised: u64) -> Result<(), ContentError>
where
    B: Stream<Item = Result<Bytes, ContentError>> + Unpin,
{
    while let Some(chunk) = body.next().await {
        if !chunk?.is_empty() {
            return Err(ContentError::Body(BodyMismatch::TooLong { promised }));
        }
    }
    Ok(())
}
