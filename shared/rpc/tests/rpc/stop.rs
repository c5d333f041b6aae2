//! A stop that lets calls end, and ends itself.

use std::time::Duration;

use synap_proto::{
    content::{GetBlobRequest, GetBlobResponse, HeadBlobResponse},
    reason,
};
use synap_rpc::ServerArgs;
use tokio::{net::TcpStream, time::Instant};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    assert_error,
    health::{Probe, next},
    running::{Running, args, head},
};

/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn calls_under_way_end_and_then_the_server_does() {
    let (server, mut stage) = Running::scripted(&args()).await;
    let client = server.client();
    let unary = head(&client, "k");
    let arrived = stage.heads.recv().await.unwrap();
    let mut reader = client.clone();
    let opening = tokio::spawn(async move { reader.get_blob(GetBlobRequest::default()).await });
    let writer = stage.streams.recv().await.unwrap();
    let mut stream = opening.await.unwrap().unwrap().into_inner();

    let mut probe = Probe::of(&server).await;
    let mut watch = probe.watch("readiness").await;
    while next(&mut watch).await != ServingStatus::Serving {}
    server.stop.cancel();
    assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
    drop((watch, probe));

    // Well into the stop: the port is closed, what was open goes on.
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.serving.is_finished());
    arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert!(unary.await.unwrap().is_ok());
    writer.send(Ok(GetBlobResponse::default())).await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    drop(writer);
    assert!(stream.message().await.unwrap().is_none());
    let begun = Instant::now();
    server.serving.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(args().shutdown_grace_secs));
}

#[tokio::test]
async fn who_only_keeps_a_connection_open_is_not_waited_for() {
    let args = ServerArgs { shutdown_grace_secs: 1, ..args() };
    let (server, _stage) = Running::scripted(&args).await;
    let mute = TcpStream::connect(server.address).await.unwrap();
    let channel = server.channel();
    channel.is_ready().await;
    let begun = Instant::now();
    server.stopped().await;
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(1) + SLACK, "{elapsed:?}");
    drop((mute, channel));
}

#[tokio::test]
async fn an_idle_client_leaves_when_it_is_asked_to() {
    let (server, _stage) = Running::scripted(&args()).await;
    let channel = server.channel();
    channel.is_ready().await;
    let begun = Instant::now();
    server.stopped().await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    drop(channel);
}

#[tokio::test]
async fn a_call_that_never_ends_is_cut_at_the_grace_period() {
    let (server, mut stage) =
        Running::scripted(&ServerArgs { shutdown_grace_secs: 1, ..args() }).await;
    let client = server.client();
    let unary = head(&client, "k");
    let mut arrived = stage.heads.recv().await.unwrap();
    let mut reader = client.clone();
    let opening = tokio::spawn(async move { reader.get_blob(GetBlobRequest::default()).await });
    let writer = stage.streams.recv().await.unwrap();
    let mut stream = opening.await.unwrap().unwrap().into_inner();

    let begun = Instant::now();
    server.stop.cancel();
    for status in [unary.await.unwrap().unwrap_err(), stream.message().await.unwrap_err()] {
        let error = assert_error(&status, Code::Unavailable, reason::SERVICE_UNAVAILABLE);
        assert!(error.message.contains("stopping"), "{error:?}");
    }
    server.serving.await.unwrap();
    let elapsed = begun.elapsed();
    assert!(elapsed >= Duration::from_secs(1), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(1) + SLACK, "{elapsed:?}");
    arrived.answer.closed().await;
    writer.closed().await;
}

/// For load balancers that take a moment to notice.
#[tokio::test]
async fn new_connections_are_served_until_the_delay_is_over() {
    let (server, _stage) =
        Running::scripted(&ServerArgs { shutdown_delay_secs: 2, ..args() }).await;
    let mut probe = Probe::of(&server).await;
    let mut watch = probe.watch("readiness").await;
    while next(&mut watch).await != ServingStatus::Serving {}
    let begun = Instant::now();
    server.stop.cancel();
    assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
    let mut late = Probe::of(&server).await;
    assert_eq!(late.check("readiness").await, ServingStatus::NotServing);
    assert_eq!(late.check("liveness").await, ServingStatus::Serving);
    let answered = begun.elapsed();
    assert!(answered < Duration::from_secs(2), "{answered:?}");
    drop((watch, probe, late));
    server.serving.await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
}
