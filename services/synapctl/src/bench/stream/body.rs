//! A large body that is never in memory as a whole, and that can be recognised.

use bytes::Bytes;
use synap_rpc::CHUNK_BYTES;
use synap_types::{Checksum, Hasher};

/// Different chunks, so that bytes in the wrong place show.
const CHUNKS: usize = 17;
/// What the gateway expects of the media type below.
const MAGIC: &[u8] = b"%PDF-1.7\n";
/// The type that the body is declared as.
pub(super) const CONTENT_TYPE: &str = "application/pdf";

/// Noise of a size, the same every time.
#[derive(Clone)]
pub(super) struct Body {
    chunks: Vec<Bytes>,
    size: u64,
    checksum: Checksum,
}

impl Body {
    pub(super) fn new(size: u64) -> Self {
        // xorshift: noise that no file system and no proxy makes smaller.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let chunk = |_| -> Bytes { (0..CHUNK_BYTES / 8).flat_map(|_| noise()).collect() };
        let mut chunks: Vec<Bytes> = (0..=CHUNKS).map(chunk).collect();
        // The first has what says of which type the file is, and comes once.
        if let Some(first) = chunks.first_mut() {
            *first = [MAGIC, &first[MAGIC.len()..]].concat().into();
        }
        let mut body = Self { chunks, size, checksum: Checksum::of(b"") };
        let mut hasher = Hasher::default();
        for chunk in body.iter() {
            hasher.update(&chunk);
        }
        body.checksum = hasher.finish();
        body
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// The chunk that begins at a multiple of [`CHUNK_BYTES`].
    fn chunk_at(&self, at: u64) -> Bytes {
        let number = usize::try_from(at / CHUNK_BYTES as u64).unwrap_or_default();
        let chunk = &self.chunks[if number == 0 { 0 } else { 1 + number % CHUNKS }];
        let left = usize::try_from(self.size - at).unwrap_or(usize::MAX);
        chunk.slice(..chunk.len().min(left))
    }

    /// The body, chunk by chunk.
    pub(super) fn iter(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let body = self.clone();
        (0..self.size).step_by(CHUNK_BYTES).map(move |at| body.chunk_at(at))
    }

    /// Compares what is read with what was written.
    pub(super) fn comparison(&self) -> Comparison<'_> {
        Comparison { body: self, at: 0 }
    }
}

pub(super) struct Comparison<'a> {
    body: &'a Body,
    at: u64,
}

impl Comparison<'_> {
    /// The next bytes that were read.
    pub(super) fn next(&mut self, mut read: &[u8]) -> anyhow::Result<()> {
        while !read.is_empty() {
            anyhow::ensure!(self.at < self.body.size, "more was read than written");
            let into = usize::try_from(self.at % CHUNK_BYTES as u64)?;
            let expected = self.body.chunk_at(self.at - into as u64);
            let expected = expected.get(into..).unwrap_or_default();
            let length = read.len().min(expected.len());
            let (now, rest) = read.split_at(length);
            anyhow::ensure!(now == &expected[..length], "other bytes after byte {}", self.at);
            self.at += length as u64;
            read = rest;
        }
        Ok(())
    }

    /// That was all.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let Self { body, at } = self;
        anyhow::ensure!(at == body.size, "{at} of {} bytes were read", body.size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_recognised_in_any_pieces_and_nothing_else_is() {
        let size = 3 * CHUNK_BYTES + 11;
        let body = Body::new(size as u64);
        let whole: Vec<u8> = body.iter().flatten().collect();
        assert_eq!(whole.len(), size);
        assert!(whole.starts_with(MAGIC));
        assert_eq!(Checksum::of(&whole), body.checksum());
        let compare = |bytes: &[u8], piece| {
            let mut comparison = body.comparison();
            bytes.chunks(piece).try_for_each(|piece| comparison.next(piece))?;
            comparison.end()
        };
        for piece in [1000, CHUNK_BYTES, CHUNK_BYTES + 1, size] {
            assert!(compare(&whole, piece).is_ok());
        }
        assert!(compare(&whole[..size - 1], 1000).is_err());
        assert!(compare(&[&whole[..], b"x"].concat(), 1000).is_err());
        let mut swapped = whole.clone();
        swapped[..2 * CHUNK_BYTES].rotate_left(CHUNK_BYTES);
        assert!(compare(&swapped, 1000).is_err());
    }
}
