//! A blob that is written part by part. Dropped before it is finished, it leaves nothing.

use bytes::Bytes;

use super::{StoreError, local::LocalDraft, multipart::MultipartUpload};

/// How much of a blob is held while it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Bytes of each part but the last.
    pub(crate) part: u64,
    /// Parts that are held at one time: one that fills, the others on their way.
    pub(crate) parts: u64,
}

impl Plan {
    /// Bytes that are held at most.
    pub(crate) fn held(self) -> u64 {
        self.part * self.parts
    }

    /// The same parts, but as few at one time as fit into so many bytes; one at least.
    pub(crate) fn within(self, bytes: u64) -> Self {
        Self { parts: (bytes / self.part).clamp(1, self.parts), ..self }
    }
}

/// A blob that is being written.
pub(crate) enum LargeBlob {
    /// Held as a whole: there is no other place.
    Memory(Vec<Bytes>),
    Local(LocalDraft),
    S3(MultipartUpload),
}

impl LargeBlob {
    /// Takes the next bytes; waits while the store has enough to do with those before.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Memory(chunks) => {
                chunks.push(chunk);
                Ok(())
            }
            Self::Local(draft) => draft.write(chunk).await,
            Self::S3(upload) => upload.write(chunk).await,
        }
    }
}
