//! A body while it arrives: counted, hashed and held, within a budget of memory.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use synap_rpc::CHUNK_BYTES;
use synap_types::{Checksum, Hasher};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Chunks below this are copied together. Otherwise a body sent byte by byte would take a hundred
/// times the memory that it promised.
const SMALL: usize = 16 * 1024;

/// Bounds the bytes of all bodies that are being written.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        // A permit is a KiB: permits are counted in 32 bits.
        Self(Arc::new(Semaphore::new(kibibytes(bytes) as usize)))
    }

    /// Waits until so many bytes are free. Bodies are served in the order in which they came.
    #[expect(clippy::expect_used, reason = "nobody closes the semaphore")]
    pub(crate) async fn take(&self, bytes: u64) -> Share {
        let permits = Arc::clone(&self.0).acquire_many_owned(kibibytes(bytes));
        Share(permits.await.expect("the budget is open"))
    }
}

fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A part of the [`Budget`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// The body is not what was promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyMismatch {
    #[error("the body has more than the promised {promised} bytes")]
    TooLong { promised: u64 },
    #[error("the body ended after {received} of the promised {promised} bytes")]
    TooShort { promised: u64, received: u64 },
    #[error("the body's checksum is {received}, promised was {promised}")]
    Checksum { promised: Checksum, received: Checksum },
}

/// A body that has not arrived in full.
pub(crate) struct Incoming {
    promised: Promise,
    received: u64,
    hasher: Hasher,
    chunks: Vec<Bytes>,
    /// Small chunks since the last large one.
    tail: BytesMut,
    share: Share,
}

/// What a body will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) sha256: Checksum,
}

impl Incoming {
    pub(crate) fn new(promised: Promise, share: Share) -> Self {
        Self {
            promised,
            received: 0,
            hasher: Hasher::default(),
            chunks: Vec::new(),
            tail: BytesMut::new(),
            share,
        }
    }

    /// Takes the next chunk, or refuses it as soon as the body is longer than promised.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Result<(), BodyMismatch> {
        self.received += chunk.len() as u64;
        if self.received > self.promised.size {
            let promised = self.promised.size;
            return Err(BodyMismatch::TooLong { promised });
        }
        self.hasher.update(&chunk);
        if chunk.len() < SMALL {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= CHUNK_BYTES {
                self.end_tail();
            }
        } else {
            self.end_tail();
            self.chunks.push(chunk);
        }
        Ok(())
    }

    /// The body, if it is what was promised.
    pub(crate) fn finish(mut self) -> Result<Body, BodyMismatch> {
        let Promise { size, sha256 } = self.promised;
        if self.received < size {
            return Err(BodyMismatch::TooShort { promised: size, received: self.received });
        }
        self.end_tail();
        let received = self.hasher.finish();
        if received != sha256 {
            return Err(BodyMismatch::Checksum { promised: sha256, received });
        }
        // The share goes where the bytes go: a store that still writes after its caller gave up
        // still counts. All chunks live as long as the last.
        if let Some(last) = self.chunks.pop() {
            self.chunks.push(Bytes::from_owner(Counted { bytes: last, _share: self.share }));
        }
        Ok(Body { is: self.promised, chunks: self.chunks })
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }
}

/// A whole body that is what was promised.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) is: Promise,
    pub(crate) chunks: Vec<Bytes>,
}

/// Bytes that hold their share of the budget.
struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive(body: &[u8], promised: Promise, step: usize) -> Result<Body, BodyMismatch> {
        let share = Budget::new(1 << 20).take(promised.size).await;
        let mut incoming = Incoming::new(promised, share);
        for chunk in body.chunks(step) {
            incoming.push(Bytes::copy_from_slice(chunk))?;
        }
        incoming.finish()
    }

    fn promise(body: &[u8]) -> Promise {
        Promise { size: body.len() as u64, sha256: Checksum::of(body) }
    }

    #[tokio::test]
    async fn a_body_is_the_same_however_it_is_cut() {
        let body: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        for step in [1, 1000, SMALL - 1, SMALL, 70_000, 200_000] {
            let whole = receive(&body, promise(&body), step).await.unwrap();
            assert_eq!(whole.chunks.concat(), body, "in chunks of {step}");
            assert!(whole.chunks.len() <= 8, "in chunks of {step}");
        }
        assert!(receive(b"", promise(b""), 1).await.unwrap().chunks.is_empty());
    }

    #[tokio::test]
    async fn a_body_that_is_not_what_was_promised_is_refused() {
        assert_eq!(
            receive(b"abcd", promise(b"abc"), 2).await.unwrap_err(),
            BodyMismatch::TooLong { promised: 3 }
        );
        assert_eq!(
            receive(b"ab", promise(b"abc"), 2).await.unwrap_err(),
            BodyMismatch::TooShort { promised: 3, received: 2 }
        );
        assert!(matches!(
            receive(b"abd", promise(b"abc"), 2).await.unwrap_err(),
            BodyMismatch::Checksum { .. }
        ));
    }

    #[tokio::test]
    async fn the_budget_is_used_until_the_last_byte_is_gone() {
        let budget = Budget::new(4096);
        let body = vec![7; 4096];
        let mut incoming = Incoming::new(promise(&body), budget.take(4096).await);
        incoming.push(body.into()).unwrap();
        assert_eq!(budget.0.available_permits(), 0);
        let in_the_store = incoming.finish().unwrap().chunks.remove(0);
        assert_eq!(budget.0.available_permits(), 0);
        drop(in_the_store);
        assert_eq!(budget.0.available_permits(), 4);
    }
}
