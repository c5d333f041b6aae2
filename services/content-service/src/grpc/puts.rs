//! Many small blobs in one call.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{future::join_all, stream};
use synap_proto::{
    content::{BatchPutBlobsRequest, Blob, BlobPut, BlobPutOutcome, NewBlob},
    field::{self, Checked, Violation},
};
use synap_types::{BlobKey, Checksum};

use super::{Content, describe::raw};
use crate::{
    domain::{Digest, Promise},
    error::ContentError,
    store::StoreError,
};

/// Blobs of one call.
const MAX_BLOBS: usize = 100;
/// Bytes of one of them, and of all: with their keys they are less than gRPC takes as one message.
const MAX_BYTES: usize = 1024 * 1024;
const MAX_TOTAL_BYTES: usize = 3 * MAX_BYTES;

/// A small blob, and what its body was promised to be.
pub(super) struct Small {
    key: BlobKey,
    promised: Promise,
    body: Bytes,
}

impl Content {
    /// Writes all of them at a time: how many requests a store gets at once is the store's to say. Those
    /// that are durable are read back together.
    pub(super) async fn put_all(
        &self,
        blobs: Vec<Small>,
        read_back: bool,
    ) -> Result<Vec<BlobPut>, ContentError> {
        let keys: Vec<BlobKey> = blobs.iter().map(|blob| blob.key.clone()).collect();
        let mut puts = join_all(blobs.into_iter().map(|blob| self.put_small(blob))).await;
        if read_back {
            let durable = keys.iter().cloned().zip(&mut puts).filter(|(_, put)| put.is_ok());
            let (keys, puts): (Vec<_>, Vec<_>) = durable.unzip();
            let found = self.store.digest_all(keys).await.map_err(ContentError::Store)?;
            for (put, found) in puts.into_iter().zip(found) {
                if let Ok(written) = put {
                    *put = compared(*written, found);
                }
            }
        }
        Ok(keys.iter().zip(puts).map(|(key, put)| self.told(key, put)).collect())
    }

    async fn put_small(&self, blob: Small) -> Result<Digest, ContentError> {
        synap_failpoint::hit("put.before").await;
        let body = stream::iter([Ok(blob.body)]);
        let is = self.uploads.put(&blob.key, blob.promised, body).await?;
        synap_failpoint::hit("put.effect").await;
        Ok(is)
    }

    fn told(&self, key: &BlobKey, put: Result<Digest, ContentError>) -> BlobPut {
        let (outcome, blob, detail) = match put {
            Ok(is) => {
                let blob = Blob { sha256: raw(is.sha256), ..self.urls.describe(key, is.size) };
                (BlobPutOutcome::Durable, Some(blob), String::new())
            }
            Err(error) => {
                let (outcome, detail) = error.of_one_put();
                (outcome, None, detail)
            }
        };
        BlobPut { key: key.as_str().to_owned(), outcome: outcome.into(), blob, detail }
    }

    /// All of them, or none is written.
    pub(super) fn checked_small(&self, request: BatchPutBlobsRequest) -> Checked<Vec<Small>> {
        field::length("blobs", &request.blobs, 0, MAX_BLOBS)?;
        let bytes: usize = request.blobs.iter().map(|blob| blob.data.len()).sum();
        if bytes > MAX_TOTAL_BYTES {
            let what = format!("must have {MAX_TOTAL_BYTES} bytes together at most, not {bytes}");
            return Err(Violation::new("blobs", what));
        }
        let mut keys = HashSet::new();
        let one = |(at, NewBlob { spec, data })| {
            let within = |why: Violation| why.within(format!("blobs[{at}]"));
            let (key, mut promised) = self.checked_spec(spec).map_err(within)?;
            promised.size.get_or_insert(data.len() as u64);
            if data.len() > MAX_BYTES {
                let what = format!("must have {MAX_BYTES} bytes at most; PutBlob takes more");
                return Err(within(Violation::new("data", what)));
            }
            if !keys.insert(key.clone()) {
                return Err(within(Violation::new("spec.key", "is another blob's of this call")));
            }
            Ok(Small { key, promised, body: data })
        };
        request.blobs.into_iter().enumerate().map(one).collect()
    }
}

fn compared(written: Digest, found: Result<Checksum, StoreError>) -> Result<Digest, ContentError> {
    let (expected, found) = (written.sha256, found.map_err(ContentError::Store)?);
    if found == expected { Ok(written) } else { Err(ContentError::Corrupt { expected, found }) }
}
