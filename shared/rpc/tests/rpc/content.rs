//! A content service whose calls wait for the test.

use std::time::Duration;

use synap_proto::content::{
    BatchHeadBlobsRequest, BatchHeadBlobsResponse, BatchPutBlobsRequest, BatchPutBlobsResponse,
    BuildKeyRequest, BuildKeyResponse, DeleteBlobsRequest, DeleteBlobsResponse, GetBlobRequest,
    GetBlobResponse, HeadBlobRequest, HeadBlobResponse, ListBlobsRequest, ListBlobsResponse,
    PutBlobRequest, PutBlobResponse, QuarantineBlobsRequest, QuarantineBlobsResponse,
    RestoreBlobsRequest, RestoreBlobsResponse, SignUrlRequest, SignUrlResponse,
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

/// A body for this key is not read beyond its first message.
pub(crate) const UNREAD: &str = "unread";

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
        while let Some(message) = messages.message().await? {
            if message.spec.is_some_and(|spec| spec.key == UNREAD) {
                std::future::pending::<()>().await;
            }
        }
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

    async fn batch_put_blobs(
        &self,
        _: Request<BatchPutBlobsRequest>,
    ) -> Result<Response<BatchPutBlobsResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn batch_head_blobs(
        &self,
        _: Request<BatchHeadBlobsRequest>,
    ) -> Result<Response<BatchHeadBlobsResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    type ListBlobsStream = ReceiverStream<Result<ListBlobsResponse, Status>>;

    async fn list_blobs(
        &self,
        _: Request<ListBlobsRequest>,
    ) -> Result<Response<Self::ListBlobsStream>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn sign_url(
        &self,
        _: Request<SignUrlRequest>,
    ) -> Result<Response<SignUrlResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn quarantine_blobs(
        &self,
        _: Request<QuarantineBlobsRequest>,
    ) -> Result<Response<QuarantineBlobsResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn restore_blobs(
        &self,
        _: Request<RestoreBlobsRequest>,
    ) -> Result<Response<RestoreBlobsResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
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
        let asked = ContentServiceClient::new(next)
            .head_blob(HeadBlobRequest { key, with_sha256: false })
            .await;
        asked.map_err(|status| RpcError::from_status(&status))?;
        Ok(Response::new(BuildKeyResponse {
            key: remaining.as_millis().to_string(),
            url: String::new(),
        }))
    }
}
