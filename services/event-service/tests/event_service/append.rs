//! Versions and expectations.

use futures::future::join_all;
use prost_types::Timestamp;
use synap_proto::{
    event::{NewEvent, StreamAppend, expected_version::Expectation},
    reason,
};
use tonic::Code;

use crate::harness::{
    Running, append, appended, count, database, event, exactly, expecting, id, read, repeated,
    send, send_one, service, stream_of,
};

#[tokio::test]
async fn an_event_is_read_as_it_was_appended() {
    let (_database, running) = service().await;
    let sent = NewEvent {
        event_id: id(1).to_string(),
        r#type: "note.body_2.replaced".to_owned(),
        occur_time: Some(Timestamp { seconds: -62_135_596_800, nanos: 1_999 }),
        data: r#"{"key":"users/ada/notes/ü.md","size":18446744073709551615,"list":[1,null]}"#
            .into(),
        metadata: r#"{"trace":"\u00e4"}"#.to_owned(),
        causation_id: id(2).to_string(),
        correlation_id: id(3).to_string().to_uppercase(),
        source: "automation".to_owned(),
    };
    let first = StreamAppend { events: vec![sent.clone()], ..append(9, 1) };
    assert_eq!(send_one(&running.client, first).await.unwrap(), appended(1, 1));
    assert_eq!(send_one(&running.client, append(9, 4)).await.unwrap(), appended(2, 2));

    let events = read(&running.client, stream_of("ada", 9)).await.unwrap();
    let [full, plain] = &events[..] else { panic!("{events:?}") };
    assert_eq!(full.event_id, sent.event_id);
    assert_eq!((full.aggregate_type.as_str(), &full.aggregate_id), ("note", &id(9).to_string()));
    assert_eq!((full.version, full.user_id.as_str()), (1, "ada"));
    assert_eq!(full.r#type, sent.r#type);
    // Microseconds are kept, what is finer is cut.
    assert_eq!(full.occur_time, Some(Timestamp { seconds: -62_135_596_800, nanos: 1_000 }));
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(json(&full.data), json(&sent.data));
    assert_eq!(json(&full.metadata), json(&sent.metadata));
    assert_eq!(full.causation_id, sent.causation_id);
    assert_eq!(full.correlation_id, id(3).to_string());
    assert_eq!(full.source, "automation");

    assert_eq!((plain.version, plain.metadata.as_str(), plain.source.as_str()), (2, "{}", "api"));
    assert_eq!((plain.causation_id.as_str(), plain.correlation_id.as_str()), ("", ""));
    let (one, two) = (full.position.unwrap(), plain.position.unwrap());
    assert!(one.xid > 0 && (one.xid, one.pos) < (two.xid, two.pos));
}

#[tokio::test]
async fn an_append_happens_only_at_the_version_that_is_expected() {
    let (database, running) = service().await;
    let client = &running.client;
    let mut number = 0;
    let mut attempt = async |stream, expected| {
        number += 1;
        send_one(client, StreamAppend { expected_version: expected, ..append(stream, number) })
            .await
    };
    let no_stream = || expecting(Expectation::NoStream(()));
    let any = || expecting(Expectation::Any(()));
    let exists = || expecting(Expectation::Exists(()));

    // Stream 901 does not exist yet.
    for (expected, name) in [(exists(), "exists"), (exactly(1), "1"), (exactly(i64::MAX), "")] {
        let error = attempt(901, expected).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, reason::VERSION_CONFLICT));
        assert_eq!(error.metadata["current_version"], "0");
        assert!(name.is_empty() || error.metadata["expected_version"] == name, "{error:?}");
    }
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.streams").await, 0);

    assert_eq!(attempt(901, exactly(0)).await.unwrap(), appended(1, 1));
    assert_eq!(attempt(902, no_stream()).await.unwrap(), appended(1, 1));
    assert_eq!(attempt(903, any()).await.unwrap(), appended(1, 1));
    assert_eq!(attempt(904, None).await.unwrap(), appended(1, 1));

    // Stream 901 is at version 1.
    for expected in [no_stream(), exactly(0), exactly(2)] {
        let error = attempt(901, expected).await.unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, reason::VERSION_CONFLICT));
        assert_eq!(error.metadata["current_version"], "1");
        assert_eq!(error.metadata["aggregate_id"], id(901).to_string());
    }
    assert_eq!(attempt(901, exactly(1)).await.unwrap(), appended(2, 2));
    assert_eq!(attempt(901, exists()).await.unwrap(), appended(3, 3));
    assert_eq!(attempt(901, any()).await.unwrap(), appended(4, 4));
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 7);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.event_ids").await, 7);
}

/// An aggregate of V0.2 has its versions, and no events.
#[tokio::test]
async fn a_stream_that_is_adopted_begins_after_the_version_it_had() {
    let (_database, running) = service().await;
    let client = &running.client;
    let adopt = |version| expecting(Expectation::Adopt(version));
    let send = async |number, expected_version| {
        send_one(client, StreamAppend { expected_version, ..append(905, number) }).await
    };
    let first = send(1, adopt(5)).await.unwrap();
    assert_eq!(first, appended(6, 6));
    assert_eq!(send(1, adopt(5)).await.unwrap(), repeated(6, 6));
    // Not once more: it has events by now.
    let error = send(2, adopt(5)).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, reason::VERSION_CONFLICT));
    assert_eq!(error.metadata["current_version"], "6");
    assert_eq!(send(2, exactly(6)).await.unwrap(), appended(7, 7));
    assert_eq!(send(3, adopt(7)).await.unwrap(), appended(8, 8));
    let events = read(client, stream_of("ada", 905)).await.unwrap();
    assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), [6, 7, 8]);
    for never in [0, -1, i64::MIN, i64::MAX] {
        let error = send(4, adopt(never)).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_appends_that_expect_one_version_one_wins() {
    let (database, running) = service().await;
    send_one(&running.client, append(900, 1)).await.unwrap();
    let calls = (0..20).map(|n| {
        let request = StreamAppend { expected_version: exactly(1), ..append(900, 100 + n) };
        send_one(&running.client, request)
    });
    let (won, lost): (Vec<_>, Vec<_>) = join_all(calls).await.into_iter().partition(Result::is_ok);
    assert_eq!(won, [Ok(appended(2, 2))]);
    assert_eq!(lost.len(), 19);
    for error in lost.into_iter().map(Result::unwrap_err) {
        assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, reason::VERSION_CONFLICT));
        assert_eq!(error.metadata["current_version"], "2");
        assert_eq!(error.metadata["expected_version"], "1");
    }
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_share_commits_and_none_is_lost() {
    let (database, running) = service().await;
    // 400 callers, 100 streams: each stream gets four events.
    let calls = (0..400).map(|n| send_one(&running.client, append(1000 + n % 100, n)));
    for result in join_all(calls).await {
        assert!(!result.unwrap().duplicate);
    }
    let holes = "SELECT count(*) FROM event_store.streams AS s
                 WHERE version <> 4 OR ARRAY[1, 2, 3, 4]::bigint[] <> (
                     SELECT array_agg(version ORDER BY version) FROM event_store.events AS e
                     WHERE e.aggregate_id = s.aggregate_id)";
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.streams").await, 100);
    assert_eq!(count(&database, holes).await, 0);
    let commits = count(&database, "SELECT count(DISTINCT xid) FROM event_store.events").await;
    assert!(commits < 300, "400 appends took {commits} commits");
}

#[tokio::test]
async fn a_large_append_is_one_run_of_versions() {
    let (_database, running) = service().await;
    let events: Vec<_> = (1..=1000).map(event).collect();
    let large = StreamAppend { events, expected_version: exactly(0), ..append(9000, 0) };
    assert_eq!(send_one(&running.client, large.clone()).await.unwrap(), appended(1, 1000));
    assert_eq!(send_one(&running.client, large).await.unwrap(), repeated(1, 1000));
    let events = read(&running.client, stream_of("ada", 9000)).await.unwrap();
    let expected: Vec<_> = (1..=1000).zip((1..=1000).map(|n| id(n).to_string())).collect();
    let got: Vec<_> = events.into_iter().map(|event| (event.version, event.event_id)).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn several_streams_are_appended_to_all_or_none() {
    let (database, running) = service().await;
    let client = &running.client;
    send_one(client, append(902, 1)).await.unwrap();
    let together = |expected| {
        let second = StreamAppend { expected_version: exactly(expected), ..append(902, 11) };
        vec![append(901, 10), second, append(903, 12)]
    };
    let error = send(client, together(7)).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::Aborted, reason::VERSION_CONFLICT));
    assert_eq!(error.metadata["aggregate_id"], id(902).to_string());
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.event_ids").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.streams").await, 1);

    let results = send(client, together(1)).await.unwrap();
    assert_eq!(results, [appended(1, 1), appended(2, 2), appended(1, 1)]);
    let results = send(client, together(1)).await.unwrap();
    assert_eq!(results, [repeated(1, 1), repeated(2, 2), repeated(1, 1)]);
    // What is there already may stand beside what is new.
    let results = send(client, vec![append(904, 20), append(901, 10)]).await.unwrap();
    assert_eq!(results, [appended(1, 1), repeated(1, 1)]);
}

#[tokio::test]
async fn a_stream_of_another_user_is_neither_written_nor_read() {
    let (database, running) = service().await;
    let client = &running.client;
    send_one(client, append(900, 1)).await.unwrap();
    let expectations = [
        None,
        exactly(0),
        exactly(1),
        expecting(Expectation::Exists(())),
        expecting(Expectation::NoStream(())),
    ];
    for expected in expectations {
        let foreign = StreamAppend {
            user_id: "eve".to_owned(),
            expected_version: expected,
            ..append(900, 2)
        };
        for appends in [vec![foreign.clone()], vec![append(901, 3), foreign]] {
            let error = send(client, appends).await.unwrap_err();
            assert_eq!((error.code, error.reason.as_str()), (Code::NotFound, reason::NOT_FOUND));
            assert!(!error.metadata.contains_key("current_version"), "{error:?}");
        }
    }
    assert_eq!(read(client, stream_of("eve", 900)).await.unwrap(), []);
    assert_eq!(read(client, stream_of("ada", 900)).await.unwrap().len(), 1);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 1);
}

#[tokio::test]
async fn more_appends_than_may_wait_are_told_to_come_again() {
    let database = database().await;
    let running = Running::start(&database.url, &["--append-queue", "0"]).await.ready().await;
    let error = send_one(&running.client, append(900, 1)).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted, reason::OVERLOADED));
    assert!(error.retry_after.is_some());
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events").await, 0);
}
