//! Every call ends in time, and says why.

use std::time::Duration;

use synap_proto::{
    content::{
        BuildKeyRequest, GetBlobRequest, GetBlobResponse, HeadBlobRequest, HeadBlobResponse,
    },
    reason,
};
use synap_rpc::{Channel, ServerArgs, deadline};
use tokio::{net::TcpListener, time::Instant};
use tonic::{Code, Request};

use crate::{
    assert_error,
    content::Content,
    raw,
    running::{Client, Running, args},
};

#[tokio::test]
async fn a_call_without_a_deadline_gets_the_servers() {
    let (server, mut stage) =
        Running::scripted(&ServerArgs { default_deadline_secs: 1, ..args() }).await;
    let call = tokio::spawn(raw::call(server.address, "HeadBlob", None, &[]));
    let mut arrived = stage.heads.recv().await.unwrap();
    assert!(arrived.remaining <= Duration::from_secs(1));
    assert_error(&call.await.unwrap(), Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
    // The handler was not left behind.
    arrived.answer.closed().await;
}

#[tokio::test]
async fn what_is_left_travels_on_every_hop() {
    let (second, mut stage) = Running::scripted(&args()).await;
    let first = Running::start(&args(), Content::before(second.channel())).await;
    let mut client = first.client();
    let budget = Duration::from_secs(5);
    // Who asks for more than there is gets what there is.
    let mut request = Request::new(BuildKeyRequest::default());
    request.set_timeout(Duration::from_secs(15));
    let call =
        tokio::spawn(async move { deadline::within(budget, client.build_key(request)).await });
    let arrived = stage.heads.recv().await.unwrap();
    arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    let answer = call.await.unwrap().unwrap().unwrap().into_inner();
    let on_first = Duration::from_millis(answer.key.parse().unwrap());
    let on_second = arrived.remaining;
    assert!(on_first < budget, "{on_first:?}");
    assert!(on_second <= on_first + Duration::from_millis(1), "{on_second:?} of {on_first:?}");
    // Far less than the server's own default.
    assert!(on_second > Duration::from_secs(1), "{on_second:?}");
}

#[tokio::test]
async fn time_runs_out_on_all_hops_at_once() {
    let (second, mut stage) = Running::scripted(&args()).await;
    let first = Running::start(&args(), Content::before(second.channel())).await;
    let mut request = Request::new(BuildKeyRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut client = first.client();
    let call = tokio::spawn(async move { client.build_key(request).await });
    let mut arrived = stage.heads.recv().await.unwrap();
    assert!(arrived.remaining <= Duration::from_millis(300));
    let status = call.await.unwrap().unwrap_err();
    assert_error(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
    arrived.answer.closed().await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_place_is_timed_too() {
    let (server, mut stage) =
        Running::scripted(&ServerArgs { max_concurrent_calls: 1, max_waiting_calls: 1, ..args() })
            .await;
    let running = tokio::spawn(raw::call(server.address, "HeadBlob", None, &[]));
    let arrived = stage.heads.recv().await.unwrap();
    for _ in 0..3 {
        // Each frees the one place to wait in when its time is up.
        let status = raw::call(server.address, "HeadBlob", Some(b"100m"), &[]).await;
        assert_error(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
    }
    arrived.answer.send(Ok(HeadBlobResponse::default())).unwrap();
    assert_eq!(running.await.unwrap().code(), Code::Ok);
}

#[tokio::test]
async fn a_stream_ends_in_time() {
    let (server, mut stage) = Running::scripted(&args()).await;
    let mut request = Request::new(GetBlobRequest::default());
    request.set_timeout(Duration::from_millis(500));
    let mut client = server.client();
    let call = tokio::spawn(async move { client.get_blob(request).await });
    let writer = stage.streams.recv().await.unwrap();
    let mut stream = call.await.unwrap().unwrap().into_inner();
    writer.send(Ok(GetBlobResponse::default())).await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_error(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
    writer.closed().await;
}

/// The other end takes the connection and says nothing, ever.
#[tokio::test]
async fn a_channel_does_not_rely_on_the_server() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let channel = Channel::connect("content-service", &url).unwrap();
    let mut client = Client::new(channel);
    for _ in 0..5 {
        let mut request = Request::new(HeadBlobRequest::default());
        request.set_timeout(Duration::from_millis(50));
        let status = client.head_blob(request).await.unwrap_err();
        assert_error(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
    }
}

#[tokio::test]
async fn the_header_decides_where_it_makes_sense() {
    const DEFAULT: Duration = Duration::from_secs(10);
    const MAX: Duration = Duration::from_secs(20);
    let (server, mut stage) = Running::scripted(&args()).await;
    let second = Duration::from_secs(1);
    for (header, granted) in [
        (b"15S".as_slice(), Duration::from_secs(15)),
        (b"15000m", Duration::from_secs(15)),
        (b"15000000u", Duration::from_secs(15)),
        (b"99999999n", Duration::from_nanos(99_999_999)),
        // More than is granted, up to the largest that can be written.
        (b"1M", MAX),
        (b"99999999H", MAX),
        // Nothing that the specification knows: as if it were not there.
        (b"", DEFAULT),
        (b"S", DEFAULT),
        (b"15", DEFAULT),
        (b"15s", DEFAULT),
        (b"-1S", DEFAULT),
        (b"1.5S", DEFAULT),
        (b"123456789S", DEFAULT),
        (b"\xff\xfeS", DEFAULT),
    ] {
        let call = tokio::spawn(raw::call(server.address, "HeadBlob", Some(header), &[]));
        let arrived = stage.heads.recv().await.unwrap();
        let remaining = arrived.remaining;
        assert!(
            remaining <= granted && remaining + second > granted,
            "{header:?} left {remaining:?}"
        );
        // The shortest may be over by now.
        drop(arrived);
        call.await.unwrap();
    }
    for over in [b"0S".as_slice(), b"0n", b"1n", b"00000000H"] {
        let begun = Instant::now();
        let status = raw::call(server.address, "HeadBlob", Some(over), &[]).await;
        assert_error(&status, Code::DeadlineExceeded, reason::DEADLINE_EXCEEDED);
        assert!(begun.elapsed() < DEFAULT);
    }
}
