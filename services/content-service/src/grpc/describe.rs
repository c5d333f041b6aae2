//! A blob, as it is told to callers.

use std::sync::Arc;

use bytes::Bytes;
use synap_proto::{content::Blob, field};
use synap_types::{BlobKey, Checksum};

use crate::store::{BlobMeta, BlobStore, StoreError};

/// Names blobs by the public URL of their store, if it has one. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Urls(Option<Arc<str>>);

impl Urls {
    /// `public_url` has no slash at its end.
    pub(crate) fn below(public_url: Option<String>) -> Self {
        Self(public_url.map(Arc::from))
    }

    /// The blob's URL, or nothing.
    pub(super) fn of(&self, key: &BlobKey) -> String {
        self.0.as_ref().map_or_else(String::new, |base| format!("{base}/{key}"))
    }

    pub(super) fn describe(&self, key: &BlobKey, size: u64) -> Blob {
        Blob {
            key: key.as_str().to_owned(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            content_type: key.content_type().to_owned(),
            url: self.of(key),
            update_time: None,
            sha256: Bytes::new(),
        }
    }

    pub(super) fn describe_found(&self, key: &BlobKey, meta: BlobMeta) -> Blob {
        Blob { update_time: Some(field::timestamp(meta.updated)), ..self.describe(key, meta.size) }
    }

    /// Looks at a blob; reads and hashes it where that is asked for.
    pub(super) async fn look(
        &self,
        store: &BlobStore,
        key: &BlobKey,
        with_sha256: bool,
    ) -> Result<Blob, StoreError> {
        if !with_sha256 {
            return Ok(self.describe_found(key, store.head(key).await?));
        }
        let (meta, sha256) = store.digest(key).await?;
        Ok(Blob { sha256: raw(sha256), ..self.describe_found(key, meta) })
    }
}

/// A checksum as it travels.
pub(super) fn raw(checksum: Checksum) -> Bytes {
    Bytes::copy_from_slice(checksum.as_bytes())
}
