//! ReadUserEvents, ReadCorrelated, CountEvents.

use futures::TryStreamExt as _;
use prost_types::Timestamp;
use synap_proto::event::{
    CountEventsRequest, Event, PageEnd, ReadCorrelatedRequest, ReadUserEventsRequest, StreamAppend,
};

use crate::harness::{Client, append, event, id, ids, send, service};

const START: i64 = 1_700_000_000;

#[expect(clippy::unnecessary_wraps, reason = "the type of the fields that it fills")]
fn at(second: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: START + second, nanos: 0 })
}

/// 300 events of ada's, three a second, appended from the last to the first; as many of eve's.
async fn settled(client: &Client) {
    for (user, stream, offset) in [("ada", 900, 0), ("eve", 901, 1_000)] {
        let events = (0..300_u128).rev().map(|n| {
            let mut event = event(offset + n);
            event.occur_time = at(i64::try_from(n / 3).unwrap());
            event.r#type = if n % 5 == 0 { "entity.updated" } else { "entity.created" }.into();
            event.correlation_id = id(1 << 50).to_string();
            event
        });
        let events: Vec<_> = events.collect();
        // One event a stream: not two have their order from a version.
        let appends = events.into_iter().zip(0..).map(|(event, n)| StreamAppend {
            user_id: user.to_owned(),
            events: vec![event],
            ..append(stream * 1_000 + n, 0)
        });
        for part in appends.collect::<Vec<_>>().chunks(100) {
            send(client, part.to_vec()).await.unwrap();
        }
    }
}

async fn read(client: &Client, request: ReadUserEventsRequest) -> Vec<Event> {
    let answers = client.clone().read_user_events(request).await.unwrap().into_inner();
    answers.map_ok(|answer| answer.event.unwrap()).try_collect().await.unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "the type of the field that it fills")]
fn end(event: &Event) -> Option<PageEnd> {
    Some(PageEnd { occur_time: event.occur_time, pos: event.position.unwrap().pos })
}

fn of(user: &str) -> ReadUserEventsRequest {
    ReadUserEventsRequest { user_id: user.to_owned(), ..ReadUserEventsRequest::default() }
}

#[tokio::test]
async fn a_users_events_are_read_in_the_order_of_time_in_pages_and_both_ways() {
    let (_database, running) = service().await;
    let client = &running.client;
    settled(client).await;
    let all = read(client, of("ada")).await;
    assert_eq!(all.len(), 300);
    assert!(all.iter().all(|event| event.user_id == "ada"));
    assert!(all.is_sorted_by_key(|event| event.occur_time.unwrap().seconds));

    let mut reversed = read(client, ReadUserEventsRequest { backwards: true, ..of("ada") }).await;
    reversed.reverse();
    assert_eq!(reversed, all);
    // Pages whose ends fall between events of one moment.
    for backwards in [false, true] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page =
                read(client, ReadUserEventsRequest { after, limit: 7, backwards, ..of("ada") })
                    .await;
            let Some(last) = page.last() else { break };
            after = end(last);
            paged.extend(page);
        }
        if backwards {
            paged.reverse();
        }
        assert_eq!(paged, all);
    }
    let part = ReadUserEventsRequest {
        from_time: at(10),
        until_time: at(20),
        types: vec!["entity.updated".to_owned()],
        ..of("ada")
    };
    let expected: Vec<_> =
        (30..60_u128).filter(|n| n % 5 == 0).map(|n| id(n).to_string()).collect();
    assert_eq!(ids(&read(client, part).await), expected);
    assert_eq!(read(client, of("nobody")).await, []);
}

#[tokio::test]
async fn what_belongs_together_is_read_together_and_only_by_its_user() {
    let (_database, running) = service().await;
    let client = &running.client;
    settled(client).await;
    let correlated = async |user: &str, correlation: u128, after, limit| -> Vec<Event> {
        let request = ReadCorrelatedRequest {
            user_id: user.to_owned(),
            correlation_id: id(correlation).to_string(),
            after,
            limit,
        };
        let answers = client.clone().read_correlated(request).await.unwrap().into_inner();
        answers.map_ok(|answer| answer.event.unwrap()).try_collect().await.unwrap()
    };
    let all = correlated("eve", 1 << 50, None, 0).await;
    assert_eq!(all, read(client, of("eve")).await);
    assert_eq!(correlated("eve", 1 << 50, end(&all[100]), 10).await, all[101..111]);
    assert_eq!(correlated("eve", 1 << 51, None, 0).await, []);
    assert_eq!(correlated("nobody", 1 << 50, None, 0).await, []);
}

#[tokio::test]
async fn events_are_counted() {
    let (_database, running) = service().await;
    let client = &running.client;
    settled(client).await;
    let all = CountEventsRequest::default();
    let updated = vec!["entity.updated".to_owned()];
    let ada = CountEventsRequest { user_id: "ada".to_owned(), ..all.clone() };
    for (request, count) in [
        (all.clone(), 600),
        (ada.clone(), 300),
        (CountEventsRequest { types: updated.clone(), ..all.clone() }, 120),
        (CountEventsRequest { types: updated, ..ada.clone() }, 60),
        (CountEventsRequest { from_time: at(10), until_time: at(20), ..ada }, 30),
        (CountEventsRequest { user_id: "nobody".to_owned(), ..all }, 0),
    ] {
        let answer = client.clone().count_events(request.clone()).await.unwrap();
        assert_eq!(answer.into_inner().count, count, "{request:?}");
    }
}
