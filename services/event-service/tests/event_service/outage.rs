//! The database goes away and comes back.

use std::time::{Duration, Instant};

use synap_proto::reason;
use synap_rpc::{RpcError, deadline};
use synap_testkit::postgres::TestServer;
use tonic::Code;

use crate::harness::{Running, append, read, send_one, stream_of, until};

/// Most of it passes before the answer: a suspended database is waited for.
const LIMIT: Duration = Duration::from_secs(4);

fn assert_unavailable(error: &RpcError, started: Instant) {
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert_eq!(error.reason, reason::DATABASE_UNAVAILABLE, "{error:?}");
    assert!(error.retry_after.is_some(), "{error:?}");
    assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_is_missed_in_time_and_used_again_when_it_is_back() {
    let server = TestServer::start_private().await;
    let database =
        server.database("outage", async |url| synap_event_service::migrate(&url).await).await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    let client = &running.client;
    send_one(client, append(900, 1)).await.unwrap();
    read(client, stream_of("ada", 900)).await.unwrap();

    server.provided().kill().await;
    let started = Instant::now();
    let append_one =
        async |number| deadline::within(LIMIT, send_one(client, append(900, number))).await;
    let (first, second, read_one) = tokio::join!(
        append_one(2),
        append_one(3),
        deadline::within(LIMIT, read(client, stream_of("ada", 900)))
    );
    for append in [first, second] {
        assert_unavailable(&append.unwrap().unwrap_err(), started);
    }
    assert_unavailable(&read_one.unwrap().unwrap_err(), started);
    until("NOT_SERVING", async || !running.channel.is_ready().await).await;

    server.provided().restart().await.unwrap();
    let running = running.ready().await;
    // A repeat of what was refused is safe, and what was answered is there.
    until("an append", async || send_one(&running.client, append(900, 2)).await.is_ok()).await;
    let events = read(&running.client, stream_of("ada", 900)).await.unwrap();
    let ids: Vec<_> = events.iter().map(|event| event.event_id.as_str()).collect();
    let expected = |number| append(900, number).events[0].event_id.clone();
    assert!(ids.contains(&expected(2).as_str()), "{ids:?}");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_its_database_and_is_ready_once_that_is_there() {
    let server = TestServer::start_private().await;
    let database = server.database("late", async |_| Ok::<_, String>(())).await;
    server.provided().kill().await;
    let running = Running::start(&database.url, &[]).await;
    let started = Instant::now();
    let call = deadline::within(LIMIT, send_one(&running.client, append(900, 1))).await;
    assert_unavailable(&call.unwrap().unwrap_err(), started);
    server.provided().restart().await.unwrap();
    let running = running.ready().await;
    until("an append", async || send_one(&running.client, append(900, 1)).await.is_ok()).await;
}
