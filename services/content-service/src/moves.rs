//! The way of a blob from one key to another: into quarantine, and out of it.
//!
//! 1. It is read and written under its new key by the way of every body ([`Uploads`]): so it works
//!    alike over every store, for blobs of any size, and nothing is ever written over.
//! 2. What is there is read back and compared with what was read.
//! 3. Only then the blob is deleted.
//!
//! Whatever fails, the blob is in one of the two places as a whole, or in both; a repeat goes on.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use synap_types::BlobKey;

use crate::{
    domain::{Digest, Promise},
    error::ContentError,
    store::{BlobStore, Range, StoreError},
    upload::Uploads,
};

/// What became of a blob that was to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By this call or by one before it.
    Moved,
    /// It is in neither place.
    Missing,
    /// The store took it after the time that was given.
    TooYoung,
    /// Other bytes are where it was to be.
    Taken,
}

/// Moves a blob, if the store took it before `before`.
pub(crate) async fn relocate(
    store: &BlobStore,
    uploads: &Uploads,
    (from, to): (&BlobKey, &BlobKey),
    before: Option<DateTime<Utc>>,
) -> Result<Fate, ContentError> {
    let found = match store.read(from, Range::WHOLE).await {
        Ok(found) => found,
        Err(StoreError::NotFound) => {
            return match store.head(to).await {
                Ok(_) => Ok(Fate::Moved),
                Err(StoreError::NotFound) => Ok(Fate::Missing),
                Err(error) => Err(ContentError::Store(error)),
            };
        }
        Err(error) => return Err(ContentError::Store(error)),
    };
    if before.is_some_and(|before| found.meta.updated > before) {
        return Ok(Fate::TooYoung);
    }
    let promised = Promise { size: Some(found.meta.size), sha256: None };
    let chunks = found.chunks.map_err(ContentError::Store);
    let is = match uploads.put(to, promised, chunks).await {
        Err(ContentError::Store(StoreError::Taken)) => return Ok(Fate::Taken),
        outcome => outcome?,
    };
    let (meta, sha256) = store.digest(to).await.map_err(ContentError::Store)?;
    if (Digest { size: meta.size, sha256 }) != is {
        return Err(ContentError::Corrupt { expected: is.sha256, found: sha256 });
    }
    store.delete(std::slice::from_ref(from)).await.map_err(ContentError::Store)?;
    Ok(Fate::Moved)
}
