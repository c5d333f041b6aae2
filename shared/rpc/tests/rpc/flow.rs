//! A call that stops holds up nobody else on its connection.

use std::time::Duration;

use bytes::Bytes;
use synap_proto::content::{
    GetBlobRequest, GetBlobResponse, HeadBlobResponse, PutBlobRequest, PutBlobSpec,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::{
    content::UNREAD,
    running::{Running, args, head},
};

const CHUNK: usize = 512 * 1024;
/// More than would fill a window of 8 MiB.
const STOPPED: usize = 12;
/// Who cannot hand on a chunk for so long waits for a reader.
const STUCK: Duration = Duration::from_millis(300);

/// Those who stop are there for longer than the one who does not.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(5);

/// Writes until nothing more is taken.
async fn fill<T>(writer: &mpsc::Sender<T>, chunk: impl Fn() -> T) {
    while let Ok(taken) = tokio::time::timeout(STUCK, writer.send(chunk())).await {
        assert!(taken.is_ok(), "whoever takes the chunks has left");
    }
}

fn chunk() -> GetBlobResponse {
    GetBlobResponse { data: Bytes::from(vec![7; CHUNK]), ..GetBlobResponse::default() }
}

#[tokio::test]
async fn readers_who_stop_do_not_hold_up_others() {
    let (server, mut stage) = Running::scripted(&args()).await;
    let client = server.client();
    let open = |limit| {
        let mut client = client.clone();
        let mut request = Request::new(GetBlobRequest::default());
        request.set_timeout(limit);
        tokio::spawn(async move { client.get_blob(request).await })
    };
    let mut stopped = Vec::new();
    for _ in 0..STOPPED {
        let opening = open(LONG);
        let writer = stage.streams.recv().await.unwrap();
        let stream = opening.await.unwrap().unwrap();
        stopped.push((writer, stream));
    }
    futures::future::join_all(stopped.iter().map(|(writer, _)| fill(writer, || Ok(chunk())))).await;

    let opening = open(SHORT);
    let writer = stage.streams.recv().await.unwrap();
    let mut live = opening.await.unwrap().unwrap().into_inner();
    let writing = tokio::spawn(async move {
        for _ in 0..8 {
            writer.send(Ok(chunk())).await.unwrap();
        }
    });
    let mut bytes = 0;
    while let Some(message) = live.message().await.unwrap() {
        bytes += message.data.len();
    }
    assert_eq!(bytes, 8 * CHUNK);
    writing.await.unwrap();
    let unary = head(&client, "k");
    stage.heads.recv().await.unwrap().answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert!(unary.await.unwrap().is_ok());
}

#[tokio::test]
async fn bodies_that_are_not_read_do_not_hold_up_others() {
    let (server, _stage) = Running::scripted(&args()).await;
    let client = server.client();
    let send = |key: &str, limit| {
        let (writer, reader) = mpsc::channel(1);
        let spec = PutBlobSpec { key: key.to_owned(), ..PutBlobSpec::default() };
        writer.try_send(PutBlobRequest { spec: Some(spec), data: Bytes::new() }).unwrap();
        let mut client = client.clone();
        let mut request = Request::new(ReceiverStream::new(reader));
        request.set_timeout(limit);
        let call = tokio::spawn(async move { client.put_blob(request).await });
        (writer, call)
    };
    let chunk = || PutBlobRequest { spec: None, data: Bytes::from(vec![7; CHUNK]) };
    let stopped: Vec<_> = (0..STOPPED).map(|_| send(UNREAD, LONG)).collect();
    futures::future::join_all(stopped.iter().map(|(writer, _)| fill(writer, chunk))).await;

    let (writer, call) = send("read", SHORT);
    for _ in 0..8 {
        writer.send(chunk()).await.unwrap();
    }
    drop(writer);
    assert!(call.await.unwrap().is_ok());
    for (_, call) in stopped {
        call.abort();
    }
}
