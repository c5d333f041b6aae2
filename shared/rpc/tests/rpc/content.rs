//! A content service whose calls wait for the test.

use std::time::Duration;

use synap_proto::content::{
    BuildKeyRequest, BuildKeyResponse, DeleteBlobsRequest, DeleteBlobsResponse, GetBlobRequest,
    GetBlobResponse, HeadBlobRequest, HeadBlobResponse, PutBlobRequest, PutBlobResponse,
    content_service_client::ContentServiceClient, content_service_server::ContentService,
};
use synap_rpc::{Channel, RpcError, deadline};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

/// A call of `HeadBlob` that has reached its handler. The handler waits for `answer`; that it was
/// stopped shows as `answer.closed()`.
pub(crate) struct Arrived {
    pub(crate) key: String,
    pub(crate) remaining: Duration,
    pub(crate) answer: oneshot::Sender<Result<HeadBlobResponse, Status>>,
}

/// A call of `GetBlob` whose answer the test writes.
pub(crate) type Opened = mpsc::Sender<Result<GetBlobResponse, Status>>;

/// What the test sees of the service.
pub(crate) struct Stage {
    pub(crate) heads: mpsc::UnboundedReceiver<Arrived>,
    pub(crate) streams: mpsc::UnboundedReceiver<Opened>,
}

pub(crate) struct Content {
    heads: mpsc::UnboundedSender<Arrived>,
    streams: mpsc::UnboundedSender<Opened>,
    next: Option<Channel>,
}

impl Content {
    pub(crate) fn new() -> (Self, Stage) {
        let (heads, heads_seen) = mpsc::unbounded_channel();
        let (streams, streams_seen) = mpsc::unbounded_channel();
        let content = Self { heads, streams, next: None };
        let stage = Stage { heads: heads_seen, streams: streams_seen };
        (content, stage)
    }

    /// A service whose `BuildKey` asks `HeadBlob` of the next one.
    pub(crate) fn before(next: Channel) -> Self {
        Self { next: Some(next), ..Self::new().0 }
    }
}

#[async_trait]
impl ContentService for Content {
    async fn put_blob(
        &self,
        request: Request<Streaming<PutBlobRequest>>,
    ) -> Result<Response<PutBlobResponse>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        Ok(Response::new(PutBlobResponse::default()))
    }

    type GetBlobStream = ReceiverStream<Result<GetBlobResponse, Status>>;

    async fn get_blob(
        &self,
        _: Request<GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let (writer, reader) = mpsc::channel(1);
        self.streams.send(writer).unwrap();
        Ok(Response::new(ReceiverStream::new(reader)))
    }

    async fn head_blob(
        &self,
        request: Request<HeadBlobRequest>,
    ) -> Result<Response<HeadBlobResponse>, Status> {
        let (answer, said) = oneshot::channel();
        let arrived = Arrived {
            key: request.into_inner().key,
            remaining: deadline::remaining().unwrap(),
            answer,
        };
        self.heads.send(arrived).unwrap();
        match said.await {
            Ok(answer) => answer.map(Response::new),
            Err(_) => Err(Status::aborted("the test has ended")),
        }
    }

    async fn delete_blobs(
        &self,
        _: Request<DeleteBlobsRequest>,
    ) -> Result<Response<DeleteBlobsResponse>, Status> {
        Ok(Response::new(DeleteBlobsResponse::default()))
    }

    /// Answers with the milliseconds that were left.
    async fn build_key(
        &self,
        request: Request<BuildKeyRequest>,
    ) -> Result<Response<BuildKeyResponse>, Status> {
        let remaining = deadline::remaining().unwrap();
        let key = request.into_inner().user_id;
        let next = self.next.clone().unwrap();
        let asked = ContentServiceClient::new(next).head_blob(HeadBlobRequest { key }).await;
        asked.map_err(|status| RpcError::from_status(&status))?;
        Ok(Response::new(BuildKeyResponse {
            key: remaining.as_millis().to_string(),
            url: String::new(),
        }))
    }
}
