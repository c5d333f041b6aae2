//! Subscribe and ReadByType.

use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use synap_proto::{
    event::{EventFilter, ReadByTypeRequest, StreamAppend, SubscribeRequest},
    reason,
};
use synap_rpc::RpcError;
use tonic::Code;

use crate::harness::{
    Feed, Running, after, append, database, event, from_now, from_the_beginning, id, ids, send,
    send_one, service,
};

/// Which events of [`mixed`] a filter lets through.
type Wanted = fn(u128) -> bool;

/// Events of two users, types and aggregate types, in turns.
async fn mixed(running: &Running, numbers: std::ops::Range<u128>) {
    for n in numbers {
        let mut one = append(1_000 + n % 4, n);
        if n % 2 == 1 {
            one.user_id = "eve".into();
        }
        if n % 3 == 0 {
            one.events[0].r#type = "entity.updated".into();
        }
        if n % 4 == 0 {
            one.aggregate_type = "task".into();
        }
        send_one(&running.client, one).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_gets_what_is_there_then_what_comes_and_goes_on_after_any_cursor() {
    let (_database, running) = service().await;
    mixed(&running, 0..20).await;
    let mut feed = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    let mut events = feed.events(20).await;
    let beat = feed.heartbeat(|beat| beat.caught_up).await;
    let mut late = Feed::open(&running.client, after(&beat.cursor)).await.unwrap();
    mixed(&running, 20..40).await;
    events.extend(feed.events(20).await);
    let expected: Vec<_> = (0..40).map(|n| id(n).to_string()).collect();
    assert_eq!(ids(&events), expected);
    assert!(events.is_sorted_by_key(|event| {
        let position = event.position.unwrap();
        (position.epoch, position.xid, position.pos)
    }));
    // A heartbeat stands for everything before it.
    assert_eq!(late.events(20).await, events[20..]);
    for n in [0, 7, 19, 30, 38] {
        let mut rest = Feed::open(&running.client, after(&events[n].cursor)).await.unwrap();
        assert_eq!(rest.events(39 - n).await, events[n + 1..], "after {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_the_same_for_what_is_there_and_for_what_comes() {
    let (_database, running) = service().await;
    mixed(&running, 0..24).await;
    let filter = |types: &[&str], aggregates: &[&str], user: &str| EventFilter {
        types: types.iter().map(ToString::to_string).collect(),
        aggregate_types: aggregates.iter().map(ToString::to_string).collect(),
        user_id: user.to_owned(),
    };
    let cases: [(EventFilter, Wanted); 4] = [
        (filter(&["entity.updated"], &[], ""), |n| n % 3 == 0),
        (filter(&[], &["task"], ""), |n| n % 4 == 0),
        (filter(&[], &[], "eve"), |n| n % 2 == 1),
        (filter(&["entity.updated", "x.y"], &["note", "task"], "ada"), |n| n % 6 == 0),
    ];
    let mut feeds = Vec::new();
    for (filter, is_wanted) in cases {
        let request = SubscribeRequest { filter: Some(filter), ..from_the_beginning() };
        let mut feed = Feed::open(&running.client, request).await.unwrap();
        let wanted = |range: std::ops::Range<u128>| -> Vec<String> {
            range.filter(|n| is_wanted(*n)).map(|n| id(n).to_string()).collect()
        };
        assert_eq!(ids(&feed.events(wanted(0..24).len()).await), wanted(0..24));
        feed.heartbeat(|beat| beat.caught_up).await;
        feeds.push((feed, wanted(24..48)));
    }
    mixed(&running, 24..48).await;
    for (mut feed, wanted) in feeds {
        assert_eq!(ids(&feed.events(wanted.len()).await), wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_nothing_hears_how_far_the_feed_is() {
    let (_database, running) = service().await;
    let nothing = EventFilter { types: vec!["never.happens".to_owned()], ..Default::default() };
    let request = SubscribeRequest { filter: Some(nothing), ..from_the_beginning() };
    let mut feed = Feed::open(&running.client, request).await.unwrap();
    let before = feed.heartbeat(|beat| beat.caught_up).await.cursor;
    mixed(&running, 0..10).await;
    let behind = feed.heartbeat(|beat| beat.caught_up && beat.cursor != before).await.cursor;
    // What has been heard of is not looked at again, and what comes is not missed.
    let mut from_there = Feed::open(&running.client, after(&behind)).await.unwrap();
    let mut from_before = Feed::open(&running.client, after(&before)).await.unwrap();
    let all = from_before.events(10).await;
    mixed(&running, 10..11).await;
    let mut last = from_there.events(1).await;
    while last[0].event_id != id(10).to_string() {
        assert!(all.contains(&last[0]));
        last = from_there.events(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn now_begins_behind_what_is_there() {
    let (_database, running) = service().await;
    mixed(&running, 0..5).await;
    // What others hold back is not behind yet.
    let mut all = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    all.events(5).await;
    let mut feed = Feed::open(&running.client, from_now()).await.unwrap();
    mixed(&running, 5..7).await;
    assert_eq!(ids(&feed.events(2).await), [id(5).to_string(), id(6).to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_who_does_not_read_holds_up_nobody_and_misses_nothing() {
    let database = database().await;
    let arguments = ["--database-connections", "2"];
    let running = Running::start(&database.url, &arguments).await.ready().await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        slow.push(Feed::open(&running.client, from_now()).await.unwrap());
    }
    let mut quick = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    // More than the windows and the ring hold.
    for part in 0..100_u128 {
        let large = |n| {
            let mut event = event(part * 10 + n);
            event.data = format!("{{\"text\": \"{}\"}}", "x".repeat(20_000));
            event
        };
        let events = (0..10).map(large).collect();
        send_one(&running.client, StreamAppend { events, ..append(1 << 40, 0) }).await.unwrap();
        quick.events(10).await;
    }
    let expected: Vec<_> = (0..1_000).map(|n| id(n).to_string()).collect();
    assert_eq!(ids(&slow[9].events(1_000).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_delivered_soon_also_one_of_another_replica() {
    let database = database().await;
    let one = Running::start(&database.url, &[]).await.ready().await;
    let other = Running::start(&database.url, &[]).await.ready().await;
    let mut feed = Feed::open(&one.client, from_now()).await.unwrap();
    feed.heartbeat(|beat| beat.caught_up).await;
    let mut taken = Vec::new();
    for n in 0..200_u128 {
        let client = if n % 2 == 0 { &one.client } else { &other.client };
        let started = Instant::now();
        send_one(client, append(900, n)).await.unwrap();
        feed.events(1).await;
        taken.push(started.elapsed());
    }
    taken.sort();
    println!("append and delivery: median {:?}, p99 {:?}", taken[100], taken[198]);
    // Other tests write to the same server, and their transactions hold this one's events back.
    assert!(taken[100] < Duration::from_millis(100), "{:?}", taken[100]);
}

#[tokio::test]
async fn a_subscription_ends_with_the_service_and_says_so() {
    let (_database, running) = service().await;
    let mut feed = Feed::open(&running.client, from_now()).await.unwrap();
    feed.heartbeat(|_| true).await;
    let stopping = tokio::spawn(running.stop());
    let error = loop {
        if let Err(error) = feed.next().await {
            break error;
        }
    };
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::Unavailable, reason::SERVICE_UNAVAILABLE)
    );
    assert!(error.retry_after.is_some());
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn types_are_read_up_to_the_horizon_and_on_from_there() {
    let (_database, running) = service().await;
    let appends = (0..20_u128).map(|n| {
        let events = (0..100).map(|m| event(n * 100 + m)).collect();
        StreamAppend { events, ..append(1_000 + n, 0) }
    });
    send(&running.client, appends.collect()).await.unwrap();
    let mut rare = append(900, 10_000);
    rare.events[0].r#type = "entity.deleted".to_owned();
    send_one(&running.client, rare).await.unwrap();
    // What other tests hold back comes in time.
    Feed::open(&running.client, from_the_beginning()).await.unwrap().events(2_001).await;

    let read = async |request: ReadByTypeRequest| -> Result<_, RpcError> {
        let answer = running.client.clone().read_by_type(request).await?.into_inner();
        Ok(answer.try_collect::<Vec<_>>().await?)
    };
    let by_type = |types: &[&str]| ReadByTypeRequest {
        types: types.iter().map(ToString::to_string).collect(),
        ..ReadByTypeRequest::default()
    };
    let all = read(by_type(&["entity.created", "entity.deleted"])).await.unwrap();
    assert_eq!(all.iter().filter(|answer| answer.event.is_some()).count(), 2_001);
    let rare = by_type(&["entity.deleted"]);
    let found = read(rare.clone()).await.unwrap();
    let events: Vec<_> = found.iter().filter_map(|answer| answer.event.clone()).collect();
    assert_eq!(ids(&events), [id(10_000).to_string()]);
    assert!(found.len() > 2, "it tells how far it is where there is nothing");
    let cursor = found.last().unwrap().cursor.clone();
    let rest = read(ReadByTypeRequest { cursor, ..rare.clone() }).await.unwrap();
    assert!(rest.iter().all(|answer| answer.event.is_none()));
    let first = ReadByTypeRequest { limit: 7, ..by_type(&["entity.created"]) };
    let some = read(first).await.unwrap();
    assert_eq!(some.iter().filter(|answer| answer.event.is_some()).count(), 7);
    assert_eq!(some.last().unwrap().cursor, all[6].cursor);
    let theirs = read(ReadByTypeRequest { user_id: "eve".to_owned(), ..rare }).await.unwrap();
    assert!(theirs.iter().all(|answer| answer.event.is_none()));
    let error = read(by_type(&[])).await.unwrap_err();
    assert_eq!(error.violations[0].field, "types");
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_with_the_reason() {
    let (_database, running) = service().await;
    let interval = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (field, request) in [
        ("cursor", after("x")),
        ("consumer", SubscribeRequest { consumer: "A b".into(), ..from_now() }),
        ("heartbeat_interval", SubscribeRequest { heartbeat_interval: interval(61), ..from_now() }),
        ("heartbeat_interval", SubscribeRequest { heartbeat_interval: interval(-1), ..from_now() }),
        (
            "filter.types[1]",
            SubscribeRequest {
                filter: Some(EventFilter {
                    types: vec!["a.b".into(), "ab".into()],
                    ..EventFilter::default()
                }),
                ..from_now()
            },
        ),
    ] {
        let error = Feed::open(&running.client, request).await.err().unwrap();
        assert_eq!(error.reason, reason::INVALID_FIELD);
        assert_eq!(error.violations[0].field, field);
    }
}
