//! A body while it arrives: counted and hashed, held within a budget of memory.

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

    /// Makes a share larger if so many bytes are free right now. Never waits: who waits for more
    /// while holding some can wait for another who does the same.
    pub(crate) fn grow(&self, share: &mut Share, bytes: u64) -> bool {
        match Arc::clone(&self.0).try_acquire_many_owned(kibibytes(bytes)) {
            Ok(more) => {
                share.0.merge(more);
                true
            }
            Err(_) => false,
        }
    }
}

fn kibibytes(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// A part of the [`Budget`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share(OwnedSemaphorePermit);

/// The body is not what was promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyMismatch {
    #[error("the body has more than the promised {promised} bytes")]
    TooLong { promised: u64 },
    #[error("the body ended after {received} of the promised {promised} bytes")]
    TooShort { promised: u64, received: u64 },
    #[error("the body's checksum is {received}, promised was {promised}")]
    Checksum { promised: Checksum, received: Checksum },
    /// Nothing was promised, and it became too much.
    #[error("without a promised size a body may have {limit} bytes")]
    TooLarge { limit: u64 },
}

/// What a caller says of a body before it comes; nothing of what it does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Bytes.
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<Checksum>,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) sha256: Checksum,
}

/// Counts and hashes a body on its way, and compares it with what was promised.
pub(crate) struct Tally {
    promised: Promise,
    limit: u64,
    received: u64,
    hasher: Hasher,
}

impl Tally {
    /// `limit` is what a body of unknown size may have.
    pub(crate) fn new(promised: Promise, limit: u64) -> Self {
        Self { promised, limit, received: 0, hasher: Hasher::default() }
    }

    /// Takes the next chunk, or refuses it as soon as the body is too long.
    pub(crate) fn add(&mut self, chunk: &[u8]) -> Result<(), BodyMismatch> {
        self.received += chunk.len() as u64;
        match self.promised.size {
            Some(promised) if self.received > promised => {
                return Err(BodyMismatch::TooLong { promised });
            }
            None if self.received > self.limit => {
                return Err(BodyMismatch::TooLarge { limit: self.limit });
            }
            _ => {}
        }
        self.hasher.update(chunk);
        Ok(())
    }

    /// What the body is, if that is what was promised.
    pub(crate) fn finish(self) -> Result<Digest, BodyMismatch> {
        let received = self.received;
        if let Some(promised) = self.promised.size
            && received < promised
        {
            return Err(BodyMismatch::TooShort { promised, received });
        }
        let sha256 = self.hasher.finish();
        if let Some(promised) = self.promised.sha256
            && sha256 != promised
        {
            return Err(BodyMismatch::Checksum { promised, received: sha256 });
        }
        Ok(Digest { size: received, sha256 })
    }
}

/// Chunks that are held until there are enough of them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    chunks: Vec<Bytes>,
    /// Small chunks since the last large one.
    tail: BytesMut,
    bytes: u64,
}

impl Held {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len() as u64;
        if chunk.len() < SMALL {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= CHUNK_BYTES {
                self.end_tail();
            }
        } else {
            self.end_tail();
            self.chunks.push(chunk);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All that is held, in order; nothing is held afterwards.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.end_tail();
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
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
    pub(crate) is: Digest,
    pub(crate) chunks: Vec<Bytes>,
}

impl Body {
    /// The share goes where the bytes go: a store that still writes after its caller gave up still
    /// counts. All chunks live as long as the last.
    pub(crate) fn new(is: Digest, mut held: Held, share: Share) -> Self {
        let mut chunks = held.take();
        if let Some(last) = chunks.pop() {
            chunks.push(Bytes::from_owner(Counted { bytes: last, _share: share }));
        }
        Self { is, chunks }
    }
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

    fn receive(body: &[u8], promised: Promise, step: usize) -> Result<Vec<Bytes>, BodyMismatch> {
        let mut tally = Tally::new(promised, 1 << 20);
        let mut held = Held::default();
        for chunk in body.chunks(step) {
            tally.add(chunk)?;
            held.push(Bytes::copy_from_slice(chunk));
        }
        let is = tally.finish()?;
        assert_eq!(is, Digest { size: held.bytes(), sha256: Checksum::of(body) });
        Ok(held.take())
    }

    fn promise(body: &[u8]) -> Promise {
        Promise { size: Some(body.len() as u64), sha256: Some(Checksum::of(body)) }
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let body: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        for step in [1, 1000, SMALL - 1, SMALL, 70_000, 200_000] {
            for promised in [promise(&body), Promise::default()] {
                let whole = receive(&body, promised, step).unwrap();
                assert_eq!(whole.concat(), body, "in chunks of {step}");
                assert!(whole.len() <= 8, "in chunks of {step}");
            }
        }
        assert!(receive(b"", promise(b""), 1).unwrap().is_empty());
    }

    #[test]
    fn a_body_that_is_not_what_was_promised_is_refused() {
        let refused = |body, promised| receive(body, promised, 2).unwrap_err();
        assert_eq!(refused(b"abcd", promise(b"abc")), BodyMismatch::TooLong { promised: 3 });
        assert_eq!(
            refused(b"ab", promise(b"abc")),
            BodyMismatch::TooShort { promised: 3, received: 2 }
        );
        assert!(matches!(refused(b"abd", promise(b"abc")), BodyMismatch::Checksum { .. }));
        let only_hash = Promise { size: None, ..promise(b"abc") };
        assert!(matches!(refused(b"ab", only_hash), BodyMismatch::Checksum { .. }));
        let much = vec![0; (1 << 20) + 1];
        assert_eq!(
            receive(&much, Promise::default(), 4096).unwrap_err(),
            BodyMismatch::TooLarge { limit: 1 << 20 }
        );
    }

    #[tokio::test]
    async fn the_budget_is_used_until_the_last_byte_is_gone() {
        let budget = Budget::new(4096);
        let mut share = budget.take(2048).await;
        assert!(!budget.grow(&mut share, 4096));
        assert!(budget.grow(&mut share, 2048));
        let mut held = Held::default();
        held.push(vec![7; 4096].into());
        let is = Digest { size: 4096, sha256: Checksum::of(&[7; 4096]) };
        let in_the_store = Body::new(is, held, share).chunks.remove(0);
        assert_eq!(budget.0.available_permits(), 0);
        drop(in_the_store);
        assert_eq!(budget.0.available_permits(), 4);
    }
}
