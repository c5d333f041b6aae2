//! A server that runs for one test.

use std::net::SocketAddr;

use synap_proto::content::{
    HeadBlobRequest, HeadBlobResponse, content_service_client::ContentServiceClient,
    content_service_server::ContentServiceServer,
};
use synap_rpc::{Channel, Server, ServerArgs};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::content::{Content, Stage};

pub(crate) type Client = ContentServiceClient<Channel>;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) serving: JoinHandle<()>,
}

/// As in production, but with limits that a test reaches.
pub(crate) fn args() -> ServerArgs {
    ServerArgs {
        default_deadline_secs: 10,
        max_deadline_secs: 20,
        max_concurrent_calls: 64,
        max_waiting_calls: 64,
        shutdown_grace_secs: 5,
        shutdown_delay_secs: 0,
    }
}

pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

impl Running {
    pub(crate) async fn start(args: &ServerArgs, content: Content) -> Self {
        Self::start_on(ANY_PORT, args, content).await
    }

    pub(crate) async fn start_on(listen: SocketAddr, args: &ServerArgs, content: Content) -> Self {
        let server = Server::bind("content-service", listen, args).await.unwrap();
        Self::serve(server, content)
    }

    /// A server that is told more than its arguments.
    pub(crate) async fn told(
        args: &ServerArgs,
        tell: impl FnOnce(Server) -> Server,
    ) -> (Self, Stage) {
        let server = Server::bind("content-service", ANY_PORT, args).await.unwrap();
        let (content, stage) = Content::new();
        (Self::serve(tell(server), content), stage)
    }

    fn serve(server: Server, content: Content) -> Self {
        let address = server.local_addr().unwrap();
        let server = server.add_service(ContentServiceServer::new(content));
        let stop = CancellationToken::new();
        let ready = watch::Sender::new(true);
        let (token, asked) = (stop.clone(), ready.subscribe());
        let serving = tokio::spawn(async move {
            let ready = move || {
                let ready = *asked.borrow();
                async move { ready }
            };
            server.serve(token, ready).await.unwrap();
        });
        Self { address, stop, ready, serving }
    }

    pub(crate) async fn scripted(args: &ServerArgs) -> (Self, Stage) {
        let (content, stage) = Content::new();
        (Self::start(args, content).await, stage)
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::connect("content-service", &format!("http://{}", self.address)).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        ContentServiceClient::new(self.channel())
    }

    /// A connection that is tonic's alone.
    pub(crate) async fn plain(&self) -> tonic::transport::Channel {
        let url = format!("http://{}", self.address);
        let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// Calls `HeadBlob` in a task of its own.
pub(crate) fn head(
    client: &Client,
    key: &str,
) -> JoinHandle<Result<Response<HeadBlobResponse>, Status>> {
    let (mut client, key) = (client.clone(), key.to_owned());
    tokio::spawn(async move { client.head_blob(HeadBlobRequest { key, with_sha256: false }).await })
}
