//! A service that goes away and comes back, seen from its callers.

use std::time::Duration;

use synap_proto::{
    content::{
        DeleteBlobsRequest, GetBlobRequest, GetBlobResponse,
        content_service_client::ContentServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError, retry};
use tokio::runtime;
use tonic::Code;

use crate::{
    assert_error,
    content::Content,
    running::{ANY_PORT, Client, Running, args},
};

async fn call(client: &Client) -> Result<(), tonic::Status> {
    let mut client = client.clone();
    client.delete_blobs(DeleteBlobsRequest::default()).await.map(drop)
}

#[tokio::test]
async fn a_channel_survives_its_service() {
    let (mut server, _stage) = Running::scripted(&args()).await;
    let (address, client) = (server.address, server.client());
    for _ in 0..3 {
        assert!(call(&client).await.is_ok(), "the same channel finds it again");
        server.stopped().await;
        for _ in 0..3 {
            let status = call(&client).await.unwrap_err();
            let error = assert_error(&status, Code::Unavailable, reason::SERVICE_UNAVAILABLE);
            assert_eq!(error.metadata["service"], "content-service");
            assert!(error.retry_after.is_some());
        }
        server = Running::start_on(address, &args(), Content::new().0).await;
    }
}

#[tokio::test]
async fn a_retry_bridges_a_restart() {
    let (server, _stage) = Running::scripted(&args()).await;
    let (address, client) = (server.address, server.client());
    server.stopped().await;
    let mut tries = 0;
    let mut again = None;
    let outcome = retry(|| {
        tries += 1;
        // It is back for the third try.
        let start = (tries == 3).then(|| Content::new().0);
        if let Some(content) = start {
            again =
                Some(tokio::spawn(
                    async move { Running::start_on(address, &args(), content).await },
                ));
        }
        let back = again.take();
        let client = client.clone();
        async move {
            if let Some(back) = back {
                drop(back.await);
            }
            call(&client).await.map_err(|status| RpcError::from_status(&status))
        }
    })
    .await;
    assert_eq!((outcome, tries), (Ok(()), 3));
}

/// The server's runtime is dropped: its sockets close as those of a killed process do.
#[test]
fn a_stream_that_breaks_off_is_unavailable() {
    let theirs =
        runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ours = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (content, mut stage) = Content::new();
    let server = theirs.block_on(Running::start_on(ANY_PORT, &args(), content));
    let url = format!("http://{}", server.address);
    let (mut stream, _writer) = ours.block_on(async {
        let channel = Channel::connect("content-service", &url).unwrap();
        let mut client = ContentServiceClient::new(channel);
        let call = tokio::spawn(async move { client.get_blob(GetBlobRequest::default()).await });
        let writer = stage.streams.recv().await.unwrap();
        writer.send(Ok(GetBlobResponse::default())).await.unwrap();
        let mut stream = call.await.unwrap().unwrap().into_inner();
        assert!(stream.message().await.unwrap().is_some());
        (stream, writer)
    });
    theirs.shutdown_timeout(Duration::from_secs(5));
    let status = ours.block_on(stream.message()).unwrap_err();
    assert_error(&status, Code::Unavailable, reason::SERVICE_UNAVAILABLE);
}
