//! An event id is stored once, whatever happens.

use futures::future::join_all;
use prost_types::Timestamp;
use synap_proto::{
    event::{NewEvent, StreamAppend},
    reason,
};
use synap_rpc::RpcError;
use tonic::Code;

use crate::harness::{
    append, appended, count, event, exactly, id, read, repeated, send_one, service, stream_of,
};

fn assert_reused(error: &RpcError, event: u128) {
    assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
    assert_eq!(error.reason, reason::EVENT_ID_REUSED);
    assert_eq!(error.metadata["event_id"], id(event).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_sent_two_hundred_times_is_stored_once() {
    let (database, running) = service().await;
    let request = StreamAppend { expected_version: exactly(0), ..append(900, 1) };
    let calls = (0..200).map(|_| send_one(&running.client, request.clone()));
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|a| (a.first_version, a.last_version) == (1, 1)), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.event_ids").await, 1);
    assert_eq!(count(&database, "SELECT version FROM event_store.streams").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_raced_into_twenty_streams_is_in_one_and_harms_no_neighbour() {
    let (database, running) = service().await;
    let racing = (0..20).map(|n| (1000 + n, 1));
    let neighbours = (0..40).map(|n| (2000 + n, 100 + n));
    let calls = racing.chain(neighbours).map(|(stream, event)| {
        let client = &running.client;
        async move { (event, send_one(client, append(stream, event)).await) }
    });
    let mut won = 0;
    for (event, outcome) in join_all(calls).await {
        match outcome {
            Ok(answer) => {
                assert_eq!(answer, appended(1, 1));
                won += u32::from(event == 1);
            }
            Err(error) => assert_reused(&error, 1),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 41);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.event_ids").await, 41);
    // No stream without its event.
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.streams").await, 41);
}

#[tokio::test]
async fn a_repeat_is_answered_from_the_ledger_though_the_stream_has_moved_on() {
    let (_database, running) = service().await;
    let first = StreamAppend { expected_version: exactly(0), ..append(900, 1) };
    assert_eq!(send_one(&running.client, first.clone()).await.unwrap(), appended(1, 1));
    send_one(&running.client, append(900, 2)).await.unwrap();
    assert_eq!(send_one(&running.client, first).await.unwrap(), repeated(1, 1));
    assert_eq!(read(&running.client, stream_of("ada", 900)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn json_spelled_another_way_is_the_same_body() {
    let (_database, running) = service().await;
    let spelled = |data: &str| {
        let event = NewEvent { data: data.to_owned(), ..event(1) };
        StreamAppend { events: vec![event], ..append(900, 1) }
    };
    let first = spelled(r#"{"size": 100, "key": "ä"}"#);
    send_one(&running.client, first).await.unwrap();
    // As it comes back out of a jsonb column.
    let again = spelled(r#"{"key": "\u00e4", "size": 100}"#);
    assert_eq!(send_one(&running.client, again).await.unwrap(), repeated(1, 1));
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused() {
    let (database, running) = service().await;
    let client = &running.client;
    let original = append(900, 1);
    send_one(client, original.clone()).await.unwrap();
    let with = |event| StreamAppend { events: vec![event], ..original.clone() };
    let later = Some(Timestamp { seconds: 1_700_000_000, nanos: 123_457_000 });
    let others = [
        with(NewEvent { r#type: "entity.deleted".to_owned(), ..event(1) }),
        with(NewEvent { occur_time: later, ..event(1) }),
        with(NewEvent { data: "{}".to_owned(), ..event(1) }),
        with(NewEvent { metadata: r#"{"a":1}"#.to_owned(), ..event(1) }),
        with(NewEvent { causation_id: id(2).to_string(), ..event(1) }),
        with(NewEvent { correlation_id: id(2).to_string(), ..event(1) }),
        with(NewEvent { source: "sync".to_owned(), ..event(1) }),
        append(901, 1),
        StreamAppend { aggregate_type: "task".to_owned(), ..original.clone() },
        StreamAppend { user_id: "eve".to_owned(), aggregate_id: id(902).to_string(), ..original },
    ];
    for other in others {
        assert_reused(&send_one(client, other).await.unwrap_err(), 1);
    }
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.streams").await, 1);
}

#[tokio::test]
async fn an_append_is_repeated_as_a_whole_or_not_at_all() {
    let (database, running) = service().await;
    let client = &running.client;
    let of = |numbers: &[u128]| StreamAppend {
        events: numbers.iter().copied().map(event).collect(),
        ..append(900, 0)
    };
    assert_eq!(send_one(client, of(&[1, 2, 3])).await.unwrap(), appended(1, 3));
    assert_eq!(send_one(client, of(&[4])).await.unwrap(), appended(4, 4));
    assert_eq!(send_one(client, of(&[1, 2, 3])).await.unwrap(), repeated(1, 3));
    // Events that are stored, in this order, with nothing between: where they are is well defined.
    assert_eq!(send_one(client, of(&[2, 3, 4])).await.unwrap(), repeated(2, 4));
    for (numbers, named) in [(&[1, 2, 5][..], 1), (&[5, 1], 1), (&[2, 1], 2), (&[1, 3], 1)] {
        assert_reused(&send_one(client, of(numbers)).await.unwrap_err(), named);
    }
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 4);
}
