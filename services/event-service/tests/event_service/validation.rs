//! What is wrong is named by its path, and nothing of it is stored.

use prost_types::Timestamp;
use synap_proto::{
    event::{AppendEventsRequest, ExpectedVersion, NewEvent, ReadStreamRequest, StreamAppend},
    reason,
};
use synap_rpc::RpcError;
use tonic::Code;

use crate::harness::{append, count, event, exactly, read, send, send_one, service, stream_of};

pub(crate) fn assert_invalid(error: &RpcError, field: &str) {
    assert_eq!(error.code, Code::InvalidArgument, "{field}: {error:?}");
    assert_eq!(error.reason, reason::INVALID_FIELD, "{field}");
    let fields: Vec<_> = error.violations.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(fields, [field], "{error:?}");
    assert!(!error.violations[0].description.is_empty());
}

#[tokio::test]
async fn a_bad_append_is_refused_with_the_path_of_its_field() {
    let (database, running) = service().await;
    let of_stream = |change: fn(&mut StreamAppend)| {
        let mut bad = append(900, 1);
        change(&mut bad);
        vec![append(901, 2), bad]
    };
    let of_event = |change: fn(&mut NewEvent)| {
        let mut bad = append(900, 1);
        bad.events = vec![event(2), event(3), event(1)];
        change(&mut bad.events[2]);
        vec![bad]
    };
    let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let cases = [
        ("appends", vec![]),
        ("appends", (0..101).map(|n| append(1000 + n, n)).collect()),
        ("appends[1].aggregate_type", of_stream(|a| a.aggregate_type = "Note".into())),
        ("appends[1].aggregate_type", of_stream(|a| a.aggregate_type = String::new())),
        ("appends[1].aggregate_id", of_stream(|a| a.aggregate_id = "900".into())),
        ("appends[1].aggregate_id", vec![append(900, 1), append(900, 2)]),
        ("appends[1].user_id", of_stream(|a| a.user_id = String::new())),
        ("appends[1].user_id", of_stream(|a| a.user_id = "a\0b".into())),
        ("appends[1].expected_version.exact", of_stream(|a| a.expected_version = exactly(-1))),
        (
            "appends[1].expected_version.expectation",
            of_stream(|a| a.expected_version = Some(ExpectedVersion { expectation: None })),
        ),
        ("appends[1].events", of_stream(|a| a.events = vec![])),
        ("appends[1].events", of_stream(|a| a.events = (0..1001).map(event).collect())),
        ("appends[1].events[0].event_id", vec![append(900, 1), append(901, 1)]),
        ("appends[0].events[2].event_id", of_event(|e| e.event_id = event(3).event_id)),
        ("appends[0].events[2].event_id", of_event(|e| e.event_id = String::new())),
        ("appends[0].events[2].type", of_event(|e| e.r#type = "created".into())),
        ("appends[0].events[2].type", of_event(|e| e.r#type = format!("a.{}", "b".repeat(99)))),
        ("appends[0].events[2].occur_time", of_event(|e| e.occur_time = None)),
        (
            "appends[0].events[2].occur_time",
            of_event(|e| e.occur_time = Some(Timestamp { seconds: 0, nanos: -1 })),
        ),
        ("appends[0].events[2].data", of_event(|e| e.data = String::new())),
        ("appends[0].events[2].data", of_event(|e| e.data = "[]".into())),
        ("appends[0].events[2].data", of_event(|e| e.data = "{\"a\":".into())),
        ("appends[0].events[2].data", of_event(|e| e.data = r#"{"a":["\u0000"]}"#.into())),
        (
            "appends[0].events[2].data",
            of_event(|e| e.data = format!("{{\"a\":\"{}\"}}", "x".repeat(65_530))),
        ),
        ("appends[0].events[2].metadata", of_event(|e| e.metadata = "7".into())),
        (
            "appends[0].events[2].metadata",
            of_event(|e| e.metadata = format!("{{\"a\":\"{}\"}}", "x".repeat(8_185))),
        ),
        ("appends[0].events[2].causation_id", of_event(|e| e.causation_id = "x".into())),
        ("appends[0].events[2].correlation_id", of_event(|e| e.correlation_id = "x".into())),
        ("appends[0].events[2].source", of_event(|e| e.source = "API".into())),
    ];
    for (field, appends) in cases {
        assert_invalid(&send(&running.client, appends).await.unwrap_err(), field);
    }
    // google.protobuf.Timestamp ends with the year 9999.
    for time in [at(253_402_300_800, 0), at(-62_135_596_801, 0), at(i64::MAX, 0)] {
        let mut bad = append(900, 1);
        bad.events[0].occur_time = time;
        let error = send_one(&running.client, bad).await.unwrap_err();
        assert_invalid(&error, "appends[0].events[0].occur_time");
    }
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.event_ids").await, 0);
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_stored() {
    let (_database, running) = service().await;
    let mut fits = append(900, 1);
    fits.aggregate_type = "x".repeat(32);
    fits.user_id = "auth0|ä/../".to_owned();
    fits.events[0] = NewEvent {
        r#type: format!("a.{}", "b".repeat(98)),
        data: format!("{{\"a\":\"{}\"}}", "x".repeat(65_528)),
        metadata: format!("{{\"a\":\"{}\"}}", "x".repeat(8_184)),
        occur_time: Some(Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }),
        ..event(1)
    };
    assert_eq!(fits.events[0].data.len(), 65_536);
    assert_eq!(fits.events[0].metadata.len(), 8_192);
    send_one(&running.client, fits).await.unwrap();
    let escaped = NewEvent { data: r#"{"a":"\\u0000"}"#.to_owned(), ..event(2) };
    let escaped = StreamAppend { events: vec![escaped], ..append(901, 2) };
    send_one(&running.client, escaped).await.unwrap();
    send(&running.client, (0..100).map(|n| append(1000 + n, 2000 + n)).collect()).await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let (_database, running) = service().await;
    let mut large = append(900, 0);
    let data = format!("{{\"a\":\"{}\"}}", "x".repeat(60_000));
    large.events = (0..100).map(|n| NewEvent { data: data.clone(), ..event(n) }).collect();
    let request = AppendEventsRequest { appends: vec![large] };
    let status = running.client.clone().append_events(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test]
async fn a_bad_read_is_refused_with_the_path_of_its_field() {
    let (_database, running) = service().await;
    let good = || stream_of("ada", 900);
    for (field, request) in [
        ("user_id", ReadStreamRequest { user_id: String::new(), ..good() }),
        ("aggregate_type", ReadStreamRequest { aggregate_type: "a-b".into(), ..good() }),
        ("aggregate_id", ReadStreamRequest { aggregate_id: String::new(), ..good() }),
        ("limit", ReadStreamRequest { limit: -1, ..good() }),
        ("limit", ReadStreamRequest { limit: 10_001, ..good() }),
    ] {
        assert_invalid(&read(&running.client, request).await.unwrap_err(), field);
    }
}
