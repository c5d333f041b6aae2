//! content-service, for the one thing that event-service asks of it: files of the archive.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use synap_proto::{
    content::{
        DeleteBlobsRequest, GetBlobRequest, PutBlobRequest, PutBlobSpec,
        content_service_client::ContentServiceClient,
    },
    reason,
};
use synap_rpc::{CHUNK_BYTES, Channel, RpcError, deadline, retry};
use synap_types::BlobKey;
use tokio::sync::mpsc;
use tonic::Code;

/// How long the upload of one file may take, and the statement that its events come from.
const UPLOAD_LIMIT: Duration = Duration::from_mins(30);

/// Blobs of the archive.
#[derive(Clone)]
pub(crate) struct Blobs {
    stub: ContentServiceClient<Channel>,
}

/// An upload that takes bytes. Dropped before [`Upload::finish`], it leaves no blob.
pub(super) struct Upload {
    parts: mpsc::Sender<Part>,
    call: tokio_util::task::AbortOnDropHandle<Result<i64, RpcError>>,
}

enum Part {
    Bytes(PutBlobRequest),
    /// A body that merely stops must not look like one that has ended.
    End,
}

impl Blobs {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { stub: ContentServiceClient::new(channel) }
    }

    /// Begins to write a blob under a key that was never used.
    pub(super) async fn upload(&self, key: &BlobKey) -> Upload {
        let (parts, receiver) = mpsc::channel(1);
        let mut stub = self.stub.clone();
        let call = async move {
            let put = async { stub.put_blob(messages(receiver)).await.map_err(RpcError::from) };
            let answer = deadline::within(UPLOAD_LIMIT, put).await??.into_inner();
            Ok(answer.blob.map_or(0, |blob| blob.size))
        };
        let upload =
            Upload { parts, call: tokio_util::task::AbortOnDropHandle::new(tokio::spawn(call)) };
        let spec = PutBlobSpec { key: key.to_string(), ..PutBlobSpec::default() };
        let first = PutBlobRequest { spec: Some(spec), data: Bytes::new() };
        // If nobody takes it, the call has failed, and `finish` says why.
        let _ = upload.parts.send(Part::Bytes(first)).await;
        upload
    }

    /// Reads a range of a blob, and the size of the whole.
    pub(super) async fn read(
        &self,
        key: &BlobKey,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, RpcError> {
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        let (offset, length) = (number(offset), number(length));
        retry(|| async {
            let request =
                GetBlobRequest { key: key.to_string(), offset, length, sha256: Bytes::new() };
            let mut chunks = self.stub.clone().get_blob(request).await?.into_inner();
            let mut bytes = BytesMut::new();
            while let Some(chunk) = chunks.message().await? {
                bytes.extend_from_slice(&chunk.data);
            }
            Ok(bytes.freeze())
        })
        .await
    }

    /// Deletes a blob; one that does not exist is deleted already.
    pub(super) async fn delete(&self, key: &str) -> Result<(), RpcError> {
        retry(|| async {
            let request = DeleteBlobsRequest { keys: vec![key.to_owned()] };
            self.stub.clone().delete_blobs(request).await.map_err(RpcError::from)
        })
        .await?;
        Ok(())
    }
}

impl Upload {
    /// Passes bytes on, at the pace of the store. Whether somebody takes them: if not, the upload has
    /// failed, and [`Upload::finish`] says why.
    pub(super) async fn send(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let data = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            let part = Part::Bytes(PutBlobRequest { spec: None, data });
            if self.parts.send(part).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends the body. Answers the size of the blob, which is durable now.
    pub(super) async fn finish(self) -> Result<i64, RpcError> {
        let _ = self.parts.send(Part::End).await;
        match self.call.await {
            Ok(outcome) => outcome,
            Err(cause) => {
                let message = format!("the upload ended early: {cause}");
                Err(RpcError::new(Code::Unavailable, reason::SERVICE_UNAVAILABLE, message))
            }
        }
    }
}

fn messages(receiver: mpsc::Receiver<Part>) -> impl Stream<Item = PutBlobRequest> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Some(Part::Bytes(message)) => Some((message, receiver)),
            Some(Part::End) => None,
            None => std::future::pending().await,
        }
    })
}
