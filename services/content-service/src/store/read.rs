//! Reading a blob, or a range of it, from memory or S3. A store that drops the body midway is asked
//! for the rest.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, path::Path};
use synap_rpc::CHUNK_BYTES;

use super::{BlobMeta, StoreError};

/// Blobs up to this size are read in one go: for a note that saves most of the work.
pub(super) const ONE_READ: u64 = 1024 * 1024;

/// How often the rest is asked for without a byte of it coming.
const TRIES: u32 = 4;
/// Pause before the first of the tries; each next is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// Which bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first.
    pub(crate) offset: u64,
    /// How many at most; `None` is all that follow.
    pub(crate) length: Option<u64>,
}

impl Range {
    pub(crate) const WHOLE: Self = Self { offset: 0, length: None };

    /// First byte and end in a blob of this size. An empty blob may be read from its begin.
    pub(super) fn in_blob(self, size: u64) -> Result<(u64, u64), StoreError> {
        if self.offset > 0 && self.offset >= size {
            return Err(StoreError::OutOfRange { size });
        }
        let end = self.length.map_or(size, |length| self.offset.saturating_add(length).min(size));
        Ok((self.offset, end))
    }
}

/// A blob that is being read.
pub(crate) struct OpenBlob {
    /// Of the whole blob, also where a range is read.
    pub(crate) meta: BlobMeta,
    /// At least one chunk, each of at most [`CHUNK_BYTES`].
    pub(crate) chunks: BoxStream<'static, Result<Bytes, StoreError>>,
}

/// Opens an object.
pub(super) async fn open<S: ObjectStore>(
    objects: Arc<S>,
    path: Path,
    range: Range,
) -> Result<OpenBlob, StoreError> {
    let asked = (range != Range::WHOLE).then(|| match range.length {
        Some(length) => GetRange::Bounded(range.offset..range.offset.saturating_add(length)),
        None => GetRange::Offset(range.offset),
    });
    let found =
        match objects.get_opts(&path, GetOptions { range: asked, ..GetOptions::default() }).await {
            Ok(found) => found,
            Err(error) if range == Range::WHOLE => return Err(error.into()),
            Err(error) => return without(&*objects, &path, range, error.into()).await,
        };
    let meta = BlobMeta { size: found.meta.size, updated: found.meta.last_modified };
    let (at, end) = range.in_blob(meta.size)?;
    let tag = found.meta.e_tag.clone();
    let mut rest = Rest { objects, path, tag, at, end, spare: Bytes::new(), idle: 0 };
    let mut body = found.into_stream();
    let chunks = if end - at <= ONE_READ {
        let whole = rest.next(&mut body, ONE_READ).await?.unwrap_or_default();
        stream::iter(pieces(whole)).map(Ok).boxed()
    } else {
        rest.stream(body).boxed()
    };
    Ok(OpenBlob { meta, chunks })
}

/// A range was refused. Servers differ in how they say that there are no such bytes; the size
/// tells.
async fn without(
    objects: &dyn ObjectStore,
    path: &Path,
    range: Range,
    error: StoreError,
) -> Result<OpenBlob, StoreError> {
    if matches!(error, StoreError::NotFound) {
        return Err(error);
    }
    let Ok(found) = objects.head(path).await else {
        return Err(error);
    };
    let meta = BlobMeta { size: found.size, updated: found.last_modified };
    match range.in_blob(meta.size)? {
        (_, 0) => Ok(OpenBlob { meta, chunks: stream::iter([Ok(Bytes::new())]).boxed() }),
        _ => Err(error),
    }
}

/// What is still to be read of an object.
struct Rest<S> {
    objects: Arc<S>,
    path: Path,
    /// Of the object that was opened: what is read on must not be another.
    tag: Option<String>,
    /// The next byte to come from the store.
    at: u64,
    end: u64,
    /// What came, and was more than fitted.
    spare: Bytes,
    /// Times that the rest was asked for since the last byte came.
    idle: u32,
}

type ObjectBody = BoxStream<'static, object_store::Result<Bytes>>;

impl<S: ObjectStore> Rest<S> {
    /// The next `most` bytes, fewer only at the end. A server sends them in small pieces, and each
    /// message costs.
    async fn next(
        &mut self,
        body: &mut ObjectBody,
        most: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut first = std::mem::take(&mut self.spare);
        if first.is_empty() {
            match self.piece(body).await? {
                Some(piece) => first = piece,
                None => return Ok(None),
            }
        }
        if first.len() >= most || self.at == self.end {
            self.spare = first.split_off(first.len().min(most));
            return Ok(Some(first));
        }
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut all = BytesMut::with_capacity(most.min(left.saturating_add(first.len())));
        all.extend_from_slice(&first);
        while all.len() < most {
            let Some(mut piece) = self.piece(body).await? else { break };
            self.spare = piece.split_off(piece.len().min(most - all.len()));
            all.extend_from_slice(&piece);
        }
        Ok(Some(all.freeze()))
    }

    /// What comes next; asks for the rest where the body ends early or fails.
    async fn piece(&mut self, body: &mut ObjectBody) -> Result<Option<Bytes>, StoreError> {
        while self.at < self.end {
            let failed = match body.next().await {
                Some(Ok(mut piece)) => {
                    if piece.is_empty() {
                        continue;
                    }
                    // More than was asked for is not ours to pass on.
                    piece.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
                    self.at += piece.len() as u64;
                    self.idle = 0;
                    return Ok(Some(piece));
                }
                Some(Err(error)) => error.into(),
                None => StoreError::cut_off(),
            };
            *body = self.again(failed).await?;
        }
        Ok(None)
    }

    async fn again(&mut self, mut failed: StoreError) -> Result<ObjectBody, StoreError> {
        while self.idle < TRIES {
            tokio::time::sleep(PAUSE * 2_u32.pow(self.idle)).await;
            self.idle += 1;
            let options = GetOptions {
                range: Some(GetRange::Bounded(self.at..self.end)),
                if_match: self.tag.clone(),
                ..GetOptions::default()
            };
            match self.objects.get_opts(&self.path, options).await {
                // Not every server knows If-Match.
                Ok(found) if found.meta.e_tag != self.tag => return Err(StoreError::changed()),
                Ok(found) => return Ok(found.into_stream()),
                Err(object_store::Error::Precondition { .. }) => return Err(StoreError::changed()),
                Err(error) => failed = error.into(),
            }
            if !matches!(failed, StoreError::Unavailable { .. }) {
                break;
            }
        }
        Err(failed)
    }

    fn stream(self, body: ObjectBody) -> impl Stream<Item = Result<Bytes, StoreError>> {
        stream::try_unfold((self, body), |(mut rest, mut body)| async move {
            let chunk = rest.next(&mut body, CHUNK_BYTES as u64).await?;
            Ok(chunk.map(|chunk| (chunk, (rest, body))))
        })
    }
}

/// Cuts a chunk, without copying, into what fits a message; an empty one stays one piece.
fn pieces(mut chunk: Bytes) -> impl Iterator<Item = Bytes> {
    let mut first = true;
    std::iter::from_fn(move || {
        if chunk.is_empty() && !first {
            return None;
        }
        first = false;
        Some(chunk.split_to(chunk.len().min(CHUNK_BYTES)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_into_messages_and_nothing_is_lost() {
        for (size, messages) in
            [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES, 3)]
        {
            let chunk = Bytes::from(vec![5; size]);
            let cut: Vec<Bytes> = pieces(chunk.clone()).collect();
            assert_eq!(cut.len(), messages, "{size} bytes");
            assert_eq!(cut.concat(), chunk);
        }
    }

    #[test]
    fn a_range_ends_where_the_blob_does() {
        let range = |offset, length| Range { offset, length };
        assert_eq!(range(0, None).in_blob(0).unwrap(), (0, 0));
        assert_eq!(range(0, Some(5)).in_blob(0).unwrap(), (0, 0));
        assert_eq!(range(3, Some(5)).in_blob(10).unwrap(), (3, 8));
        assert_eq!(range(3, Some(u64::MAX)).in_blob(10).unwrap(), (3, 10));
        assert_eq!(range(9, None).in_blob(10).unwrap(), (9, 10));
        for (offset, size) in [(1, 0), (10, 10), (u64::MAX, 10)] {
            let refused = range(offset, None).in_blob(size).unwrap_err();
            assert!(matches!(refused, StoreError::OutOfRange { .. }));
        }
    }
}
