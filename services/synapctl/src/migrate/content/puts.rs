//! PUTs. Small bodies share calls, in which they are read back as well; a larger one has a stream of
//! its own. Each is tried once here.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use synap_postgres::{GroupCommit, GroupCommitOptions};
use synap_proto::{
    content::{
        BatchPutBlobsRequest, BlobPut, BlobPutOutcome, NewBlob, PutBlobRequest, PutBlobSpec,
        content_service_client::ContentServiceClient,
    },
    reason,
};
use synap_rpc::{CHUNK_BYTES, Channel, RpcError};
use synap_types::Checksum;
use tonic::{Code, Request};

use super::services::{Grouped, Trouble, is_of_one_body};
use crate::services::ContentUrl;

/// Connections for streams.
const CONNECTIONS: usize = 4;
/// A PUT may take so long, and a second more for so many bytes.
const PUT_LIMIT: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 256 * 1024;
/// Bodies up to this size share calls, so many a call: content-service takes 3 MiB in one.
const SMALL: usize = 64 * 1024;
const TOGETHER: usize = 32;

/// An object to write, under a key that was never used.
#[derive(Debug, Clone)]
pub(super) struct NewObject {
    pub(super) key: String,
    pub(super) body: Bytes,
    pub(super) checksum: Checksum,
    /// Whether it is read and hashed when it is there.
    pub(super) read_back: bool,
}

/// How a PUT ended.
#[derive(Debug)]
pub(crate) enum Put {
    /// The object is there; its public name, or nothing.
    Done(String),
    /// Other bytes are under the key.
    Taken,
    /// The store will not have it, and why.
    Refused(String),
    /// What was read back is not what was written.
    Different,
}

/// Writes objects.
pub(super) struct Puts {
    streams: Vec<ContentServiceClient<Channel>>,
    turn: AtomicUsize,
    small: Grouped<NewObject, Put>,
}

impl NewObject {
    pub(super) fn is_small(&self) -> bool {
        self.body.len() <= SMALL
    }

    fn spec(&self) -> PutBlobSpec {
        PutBlobSpec {
            key: self.key.clone(),
            size: i64::try_from(self.body.len()).ok(),
            sha256: Bytes::copy_from_slice(self.checksum.as_bytes()),
        }
    }
}

impl Puts {
    /// For so many at once.
    pub(super) fn connect(content: &ContentUrl, at_once: usize) -> anyhow::Result<Self> {
        let stub = || Ok(ContentServiceClient::new(content.connect()?));
        let streams = (0..CONNECTIONS).map(|_| stub()).collect::<anyhow::Result<Vec<_>>>()?;
        let options = GroupCommitOptions {
            queue: 10_000,
            // While one call is under way, the bodies of the next one come together.
            workers: at_once.div_ceil(TOGETHER).max(2),
            max_batch: TOGETHER,
        };
        let batches = stub()?;
        let write = move |batch| write_together(batches.clone(), batch);
        let small = GroupCommit::new(options, |object: &NewObject| object.key.clone(), write);
        Ok(Self { streams, turn: AtomicUsize::new(0), small })
    }

    /// Writes an object. One that is not small is not read back.
    pub(super) async fn put(&self, object: &NewObject) -> Result<Put, RpcError> {
        if object.is_small() {
            return Ok(self.small.submit(object.clone()).await?);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.streams.len();
        let messages = stream::iter(messages(object));
        let request = within_limit(messages, object.body.len());
        match self.streams[turn].clone().put_blob(request).await.map_err(RpcError::from) {
            Ok(answer) => Ok(Put::Done(answer.into_inner().blob.unwrap_or_default().url)),
            Err(error) if error.code == Code::AlreadyExists => Ok(Put::Taken),
            Err(error) => Ok(refused(error)?),
        }
    }
}

fn within_limit<T>(message: T, bytes: usize) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PUT_LIMIT + Duration::from_secs(bytes as u64 / SLOWEST));
    request
}

fn refused(error: RpcError) -> Result<Put, Trouble> {
    match error.code {
        Code::InvalidArgument => Ok(Put::Refused(error.message)),
        _ => Err(error.into()),
    }
}

async fn write_together(
    stub: ContentServiceClient<Channel>,
    objects: Vec<NewObject>,
) -> Vec<Result<Put, Trouble>> {
    match write(stub.clone(), &objects).await {
        Ok(puts) => puts.into_iter().map(ended).collect(),
        Err(error) if is_of_one_body(&error) => {
            // Which one it is shows when each goes alone.
            let alone = stream::iter(objects).then(|object| {
                let stub = stub.clone();
                async move {
                    let puts = write(stub, &[object]).await;
                    let put = puts.map(|puts| puts.into_iter().next().unwrap_or_default());
                    put.map_or_else(refused, ended)
                }
            });
            alone.collect().await
        }
        Err(error) => {
            let trouble = Trouble::from(error);
            objects.iter().map(|_| Err(trouble.clone())).collect()
        }
    }
}

async fn write(
    mut stub: ContentServiceClient<Channel>,
    objects: &[NewObject],
) -> Result<Vec<BlobPut>, RpcError> {
    let blob =
        |object: &NewObject| NewBlob { spec: Some(object.spec()), data: object.body.clone() };
    let message = BatchPutBlobsRequest {
        blobs: objects.iter().map(blob).collect(),
        read_back: objects.iter().any(|object| object.read_back),
    };
    let bytes = objects.iter().map(|object| object.body.len()).sum();
    Ok(stub.batch_put_blobs(within_limit(message, bytes)).await?.into_inner().puts)
}

fn ended(put: BlobPut) -> Result<Put, Trouble> {
    let outcome = put.outcome();
    match outcome {
        BlobPutOutcome::Durable => Ok(Put::Done(put.blob.unwrap_or_default().url)),
        BlobPutOutcome::Taken => Ok(Put::Taken),
        BlobPutOutcome::Refused => Ok(Put::Refused(put.detail)),
        BlobPutOutcome::Different => Ok(Put::Different),
        BlobPutOutcome::Unavailable => {
            Err(RpcError::new(Code::Unavailable, reason::STORE_UNAVAILABLE, put.detail).into())
        }
        BlobPutOutcome::Failed | BlobPutOutcome::Unspecified => {
            Err(RpcError::new(Code::Internal, reason::INTERNAL, put.detail).into())
        }
    }
}

/// A body in messages; the first says what it is.
fn messages(object: &NewObject) -> impl Iterator<Item = PutBlobRequest> + Send + 'static {
    let (mut spec, mut rest) = (Some(object.spec()), object.body.clone());
    std::iter::from_fn(move || {
        if spec.is_none() && rest.is_empty() {
            return None;
        }
        let data = rest.split_to(rest.len().min(CHUNK_BYTES));
        Some(PutBlobRequest { spec: spec.take(), data })
    })
}
