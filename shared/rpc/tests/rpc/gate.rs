//! Who is let in, and how often.

use std::time::Duration;

use synap_proto::{
    content::{GetBlobRequest, GetBlobResponse, HeadBlobRequest, HeadBlobResponse, PutBlobRequest},
    reason,
};
use synap_rpc::{CallerLimits, Callers, Rate, RpcError, ServerArgs};
use synap_types::UserId;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::{
    assert_error,
    content::Stage,
    health::Probe,
    running::{Client, Running, args},
};

/// Everybody is who they say they are.
fn callers(max_calls: usize) -> Callers {
    let rate = Rate { per_second: 1000.0, burst: 1000.0 };
    Callers::new(CallerLimits { at_once: max_calls, rate }, |header| async move {
        UserId::parse(header.unwrap_or_default())
            .map_err(|_| RpcError::new(Code::Unauthenticated, reason::UNAUTHENTICATED, "who?"))
    })
}

async fn gated(max_calls: usize, args: &ServerArgs) -> (Running, Stage) {
    Running::told(args, |server| server.only_for(callers(max_calls))).await
}

fn of<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", user.parse().unwrap());
    request
}

fn head(client: &Client, user: &str) -> JoinHandle<Result<Response<HeadBlobResponse>, Status>> {
    let request = of(user, HeadBlobRequest { key: user.to_owned(), with_sha256: false });
    let mut client = client.clone();
    tokio::spawn(async move { client.head_blob(request).await })
}

#[tokio::test]
async fn strangers_take_no_place() {
    let args = ServerArgs { max_concurrent_calls: 1, max_waiting_calls: 0, ..args() };
    let (server, mut stage) = gated(8, &args).await;
    let client = server.client();
    for _ in 0..3 {
        // Headers, and then nothing for an hour.
        let body = tokio_stream::pending::<PutBlobRequest>();
        let mut request = Request::new(body);
        request.set_timeout(Duration::from_hours(1));
        let status = client.clone().put_blob(request).await.unwrap_err();
        assert_error(&status, Code::Unauthenticated, reason::UNAUTHENTICATED);
    }
    let call = head(&client, "ada");
    let arrived = stage.heads.recv().await.unwrap();
    // While the only place is taken a stranger still hears what is wrong with it.
    let status = client.clone().head_blob(HeadBlobRequest::default()).await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, reason::UNAUTHENTICATED);
    arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test]
async fn one_user_leaves_places_to_others() {
    let (server, mut stage) = gated(2, &args()).await;
    let client = server.client();
    let first = head(&client, "ada");
    let arrived = stage.heads.recv().await.unwrap();
    // A stream counts until it has been read: its user has it open.
    let mut reader = client.clone();
    let opening =
        tokio::spawn(async move { reader.get_blob(of("ada", GetBlobRequest::default())).await });
    let writer = stage.streams.recv().await.unwrap();
    let mut stream = opening.await.unwrap().unwrap().into_inner();

    let status = head(&client, "ada").await.unwrap().unwrap_err();
    let error = assert_error(&status, Code::ResourceExhausted, reason::OVERLOADED);
    assert!(error.retry_after > Some(Duration::ZERO), "{error:?}");
    let other = head(&client, "eve");
    let of_eve = stage.heads.recv().await.unwrap();
    of_eve.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert!(other.await.unwrap().is_ok());

    // Each that ends makes room for one, at once.
    writer.send(Ok(GetBlobResponse::default())).await.unwrap();
    drop(writer);
    while stream.message().await.unwrap().is_some() {}
    for _ in 0..100 {
        let next = head(&client, "ada");
        let arrived = stage.heads.recv().await.unwrap();
        arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
        assert!(next.await.unwrap().is_ok());
    }
    arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert!(first.await.unwrap().is_ok());
}

#[tokio::test]
async fn those_who_watch_keep_nobody_from_asking() {
    let (server, _stage) = gated(1, &args()).await;
    let mut probe = Probe::of(&server).await;
    let mut watches = Vec::new();
    let refused = loop {
        let request = HealthCheckRequest { service: "liveness".to_owned() };
        match probe.0.watch(request).await {
            Ok(watch) => watches.push(watch),
            Err(status) => break status,
        }
        assert!(watches.len() < 1000, "any number of strangers may watch");
    };
    assert_error(&refused, Code::ResourceExhausted, reason::OVERLOADED);
    assert_eq!(probe.check("liveness").await, ServingStatus::Serving);
    watches.pop();
    // The server sees the reader leave a moment later.
    let request = HealthCheckRequest { service: "liveness".to_owned() };
    while probe.0.watch(request.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
}
