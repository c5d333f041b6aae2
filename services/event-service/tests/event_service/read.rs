//! ReadStream.

use futures::StreamExt as _;
use synap_proto::event::{GetStreamVersionRequest, ReadStreamRequest, StreamAppend};

use crate::harness::{Running, append, database, event, id, read, send_one, service, stream_of};

#[tokio::test]
async fn ten_thousand_events_come_in_order_whatever_part_is_asked_for() {
    let (_database, running) = service().await;
    let client = &running.client;
    for part in 0..11_u128 {
        let events = (0..1000).map(|n| event(part * 1000 + n)).collect();
        send_one(client, StreamAppend { events, ..append(1 << 40, 0) }).await.unwrap();
    }
    let whole = stream_of("ada", 1 << 40);
    for (from_version, limit, expected) in [
        (0, 0, 1..=10_000),
        (0, 10_000, 1..=10_000),
        (1_001, 10_000, 1_001..=11_000),
        (5_000, 1, 5_000..=5_000),
        (200, 200, 200..=399),
        (10_999, 7, 10_999..=11_000),
    ] {
        let request = ReadStreamRequest { from_version, limit, ..whole.clone() };
        let events = read(client, request).await.unwrap();
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        assert_eq!(versions, expected.collect::<Vec<_>>(), "from {from_version}, {limit}");
    }
    for (from_version, limit, low, high) in
        [(0, 0, 1_001, 11_000), (700, 0, 1, 700), (700, 5, 696, 700)]
    {
        let backwards = ReadStreamRequest { from_version, limit, backwards: true, ..whole.clone() };
        let events = read(client, backwards).await.unwrap();
        let versions: Vec<i64> = events.iter().map(|event| event.version).collect();
        assert_eq!(
            versions,
            (low..=high).rev().collect::<Vec<_>>(),
            "from {from_version}, {limit}"
        );
    }
    let beyond = ReadStreamRequest { from_version: 11_001, ..whole };
    assert_eq!(read(client, beyond).await.unwrap(), []);
}

#[tokio::test]
async fn the_version_of_a_stream_is_told_to_its_owner_only() {
    let (_database, running) = service().await;
    send_one(&running.client, append(900, 1)).await.unwrap();
    send_one(&running.client, append(900, 2)).await.unwrap();
    for (user, stream, version) in [("ada", 900, 2), ("ada", 901, 0), ("eve", 900, 0)] {
        let request = GetStreamVersionRequest {
            user_id: user.to_owned(),
            aggregate_type: "note".to_owned(),
            aggregate_id: id(stream).to_string(),
        };
        let answer = running.client.clone().get_stream_version(request).await.unwrap();
        assert_eq!(answer.into_inner().version, version, "{user} {stream}");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_wrote_is_empty() {
    let (_database, running) = service().await;
    send_one(&running.client, append(900, 1)).await.unwrap();
    assert_eq!(read(&running.client, stream_of("ada", 901)).await.unwrap(), []);
    let other_type = ReadStreamRequest { aggregate_type: "task".into(), ..stream_of("ada", 900) };
    assert_eq!(read(&running.client, other_type).await.unwrap(), []);
}

#[tokio::test]
async fn a_client_that_takes_its_time_holds_no_connection() {
    let database = database().await;
    let arguments = ["--database-connections", "1"];
    let running = Running::start(&database.url, &arguments).await.ready().await;
    let client = &running.client;
    // More than fits into the windows of the connection: the server has to wait for the reader.
    for part in 0..10_u128 {
        let large = |n| {
            let mut event = event(part * 50 + n);
            event.data = format!("{{\"text\": \"{}\"}}", "x".repeat(60_000));
            event
        };
        let events = (0..50).map(large).collect();
        send_one(client, StreamAppend { events, ..append(1 << 40, 0) }).await.unwrap();
    }
    let answer = client.clone().read_stream(stream_of("ada", 1 << 40)).await.unwrap();
    let mut slow = answer.into_inner();
    slow.next().await.unwrap().unwrap();
    // The only connection is free for others.
    send_one(client, append(901, 1_000_000)).await.unwrap();
    assert_eq!(slow.count().await, 499);
}
