//! The archive and retention: what was there is there, wherever it is.

use std::time::Duration;

use futures::TryStreamExt as _;
use synap_proto::{
    event::{
        ApplyRetentionRequest, ApplyRetentionResponse, ArchiveEventsRequest, ArchiveEventsResponse,
        CountEventsRequest, Event, GetArchiveStatusRequest, GetArchiveStatusResponse, PageEnd,
        ReadCorrelatedRequest, ReadStreamRequest, ReadUserEventsRequest, RebuildRollupsRequest,
        event_admin_service_client::EventAdminServiceClient,
    },
    reason,
};
use synap_rpc::{Channel, RpcError, deadline};
use synap_testkit::postgres::TestDatabase;
use tonic::Code;
use uuid::Uuid;

use crate::{
    content::Content,
    harness::{
        Running, age, count, database, dies_at, expire_lease, read, send_one, service, stream_of,
        until,
    },
    partitions::{days_from_now, make, now},
    validation::assert_invalid,
};

/// Events of the history; `SYNAP_TEST_ARCHIVE_EVENTS=1000000` is the size that a year has.
fn size() -> i64 {
    let size = std::env::var("SYNAP_TEST_ARCHIVE_EVENTS").ok();
    size.map_or(20_000, |size| size.parse().unwrap())
}

pub(crate) fn admin(running: &Running) -> EventAdminServiceClient<Channel> {
    EventAdminServiceClient::new(running.channel.clone())
}

pub(crate) async fn archive(
    running: &Running,
    dry_run: bool,
) -> Result<Vec<ArchiveEventsResponse>, RpcError> {
    archive_older(running, dry_run, None).await
}

pub(crate) async fn archive_older(
    running: &Running,
    dry_run: bool,
    older_than_days: Option<i32>,
) -> Result<Vec<ArchiveEventsResponse>, RpcError> {
    let request = ArchiveEventsRequest { dry_run, older_than_days };
    // A million events take longer than a call has by default.
    let archiving = async {
        let answers = admin(running).archive_events(request).await;
        let answers = answers.map_err(|status| RpcError::from_status(&status))?.into_inner();
        answers.map_err(|status| RpcError::from_status(&status)).try_collect().await
    };
    deadline::within(Duration::from_mins(10), archiving).await?
}

pub(crate) async fn retain(running: &Running, dry_run: bool) -> ApplyRetentionResponse {
    let request = ApplyRetentionRequest { dry_run, older_than_days: None };
    admin(running).apply_retention(request).await.unwrap().into_inner()
}

pub(crate) async fn status(running: &Running) -> GetArchiveStatusResponse {
    admin(running).get_archive_status(GetArchiveStatusRequest {}).await.unwrap().into_inner()
}

/// The history, in weekly partitions.
async fn history(running: &Running, database: &TestDatabase) {
    let now = now(database).await;
    for week in 0..10 {
        let append = days_from_now(now, 900_000 + week, -i64::try_from(week * 7).unwrap());
        send_one(&running.client, append).await.unwrap();
    }
    until("partitions", async || make(running).await.is_ok()).await;
    age(database, 30).await;
    sqlx::query("SELECT setval('event_store.event_pos', 1)").execute(&database.pool).await.unwrap();
    let mut connection = database.pool.acquire().await.unwrap();
    for statement in ["SET statement_timeout = 0", "SET work_mem = '256MB'"] {
        sqlx::query(statement).execute(&mut *connection).await.unwrap();
    }
    sqlx::query(include_str!("history.sql")).bind(size()).execute(&mut *connection).await.unwrap();
}

/// Streams from all over the history, the longest among them.
async fn sample(database: &TestDatabase) -> Vec<ReadStreamRequest> {
    let streams: Vec<(Uuid, String)> = sqlx::query_as(
        "(SELECT aggregate_id, user_id FROM event_store.streams ORDER BY version DESC LIMIT 10)
         UNION (SELECT aggregate_id, user_id FROM event_store.streams
                ORDER BY md5(aggregate_id::text) LIMIT 40)",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let request = |(id, user): &(Uuid, String)| ReadStreamRequest {
        aggregate_id: id.to_string(),
        ..stream_of(user, 0)
    };
    streams.iter().map(request).collect()
}

/// What all kinds of reads answer: each sampled stream first, then their ends, and what their users
/// did.
async fn read_all(running: &Running, sample: &[ReadStreamRequest]) -> Vec<Vec<Event>> {
    let mut all = Vec::new();
    for request in sample {
        all.push(read(&running.client, request.clone()).await.unwrap());
    }
    for request in sample {
        let end = ReadStreamRequest { backwards: true, limit: 3, ..request.clone() };
        all.push(read(&running.client, end).await.unwrap());
    }
    for request in sample.iter().step_by(10) {
        all.extend(timeline(running, &request.user_id).await);
    }
    all
}

/// A user's events forwards in pages, backwards, of a type and a month, and what belongs together.
async fn timeline(running: &Running, user: &str) -> Vec<Vec<Event>> {
    let of = |change: fn(&mut ReadUserEventsRequest)| {
        let mut request =
            ReadUserEventsRequest { user_id: user.to_owned(), ..ReadUserEventsRequest::default() };
        change(&mut request);
        request
    };
    let mut pages: Vec<Event> = Vec::new();
    loop {
        let mut request = of(|request| request.limit = 37);
        request.after = pages
            .last()
            .map(|last| PageEnd { occur_time: last.occur_time, pos: last.position.unwrap().pos });
        let page = user_events(running, request).await;
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    let whole = user_events(running, of(|_| {})).await;
    assert!(pages == whole, "pages are not the whole");
    let mut backwards = user_events(running, of(|request| request.backwards = true)).await;
    let newest = user_events(running, of(|request| (request.backwards, request.limit) = (true, 9)));
    let newest = newest.await;
    assert!(backwards[..9] == newest, "the newest are others");
    backwards.reverse();
    assert!(backwards == whole, "backwards are others");
    let counting = CountEventsRequest { user_id: user.to_owned(), ..CountEventsRequest::default() };
    let counted = running.client.clone().count_events(counting).await.unwrap().into_inner();
    assert_eq!(usize::try_from(counted.count), Ok(whole.len()));

    let mut part = of(|request| request.types = vec!["entity.updated".to_owned()]);
    part.from_time = whole[whole.len() / 4].occur_time;
    part.until_time = whole[whole.len() / 2].occur_time;
    let mut all = vec![whole, user_events(running, part).await];
    if let Some(event) = all[0].iter().find(|event| !event.correlation_id.is_empty()) {
        let request = ReadCorrelatedRequest {
            user_id: user.to_owned(),
            correlation_id: event.correlation_id.clone(),
            ..ReadCorrelatedRequest::default()
        };
        let answers = running.client.clone().read_correlated(request).await.unwrap().into_inner();
        all.push(answers.map_ok(|answer| answer.event.unwrap()).try_collect().await.unwrap());
    }
    all
}

async fn user_events(running: &Running, request: ReadUserEventsRequest) -> Vec<Event> {
    let answers = running.client.clone().read_user_events(request).await.unwrap().into_inner();
    answers.map_ok(|answer| answer.event.unwrap()).try_collect().await.unwrap()
}

pub(crate) async fn live(database: &TestDatabase) -> i64 {
    count(database, "SELECT count(*) FROM event_store.events").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_at_any_step_loses_nothing_and_reads_go_on_in_the_archive() {
    let (database, content) = (database().await, Content::start().await);
    let endpoint = ["--content-endpoint", content.url.as_str()];
    let running = Running::start(&database.url, &endpoint).await.ready().await;
    history(&running, &database).await;
    let all = live(&database).await;
    let sample = sample(&database).await;
    let before = read_all(&running, &sample).await;

    let due = archive(&running, true).await.unwrap();
    assert!(due.len() >= 7, "{due:?}");
    assert_eq!((live(&database).await, content.files().len()), (all, 0), "a dry run did something");

    let upkeep = [&endpoint[..], &["--upkeep-interval-secs", "1", "--auto-archive"]].concat();
    for failpoint in ["begun", "writing", "written", "verified", "dropping", "dropped"] {
        dies_at(&database.url, &upkeep, &format!("archive.{failpoint}")).await;
        let here = status(&running).await;
        assert_eq!(here.events + live(&database).await, all, "{failpoint}: {here:?}");
        assert_eq!(here.files, i64::from(failpoint == "dropped"), "{failpoint}: {here:?}");
        assert!(read_all(&running, &sample).await == before, "{failpoint}: other events");
        expire_lease(&database).await;
    }
    let archived = archive(&running, false).await.unwrap();
    assert_eq!(archived.len() + 1, due.len());
    assert!(archived.iter().all(|one| one.archived), "{archived:?}");
    assert!(archive(&running, false).await.unwrap().is_empty());

    let here = status(&running).await;
    assert_eq!(here.events + live(&database).await, all);
    assert_eq!(here.events, due.iter().map(|one| one.events).sum::<i64>());
    assert_eq!(here.files, i64::try_from(content.files().len()).unwrap(), "an orphan is left");
    assert!(read_all(&running, &sample).await == before, "the archive has other events");
    // A part, across the boundary, and from a version on.
    for (request, events) in sample.iter().zip(&before) {
        for (from, limit) in [(2, 1), (2, 0), (1, 2), (1_000_000, 0)] {
            let request = ReadStreamRequest { from_version: from, limit, ..request.clone() };
            let expected = events.iter().filter(|event| event.version >= from).cloned();
            let limit = if limit == 0 { usize::MAX } else { limit.unsigned_abs() as usize };
            let found = read(&running.client, request).await.unwrap();
            assert_eq!(found, expected.take(limit).collect::<Vec<_>>());
        }
    }
    let everybody = CountEventsRequest::default();
    let counted = running.client.clone().count_events(everybody).await.unwrap().into_inner();
    assert_eq!(counted.count, all);
    // Another user finds nothing there either.
    let foreign = ReadStreamRequest { user_id: "eve".to_owned(), ..sample[0].clone() };
    assert_eq!(read(&running.client, foreign).await.unwrap(), []);
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = here.table_bytes as f64 / here.bytes as f64;
    eprintln!(
        "{} events: {} bytes in tables, {} in files, 1/{ratio:.1}",
        here.events, here.table_bytes, here.bytes
    );
    assert!(ratio > 4.0, "only 1/{ratio:.1}");

    // Without content-service it is told, not passed over.
    let blind = Running::start(&database.url, &[]).await.ready().await;
    let month_ago = now(&database).await - 30 * 86_400;
    let is_old = |event: &Event| event.occur_time.unwrap().seconds < month_ago;
    let oldest = before[..sample.len()].iter().position(|events| is_old(&events[0])).unwrap();
    let error = read(&blind.client, sample[oldest].clone()).await;
    let error = error.expect_err("archived events were passed over");
    assert_eq!(error.reason, reason::ARCHIVE_NOT_CONFIGURED);
    assert_eq!(archive(&blind, false).await.unwrap_err().code, Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_into_an_archived_week_is_archived_too_and_counts_compare() {
    let (database, content) = (database().await, Content::start().await);
    let endpoint = ["--content-endpoint", content.url.as_str()];
    let running = Running::start(&database.url, &endpoint).await.ready().await;
    let now = now(&database).await;
    for round in 0..3_u128 {
        for number in 0..4 {
            let append = days_from_now(now, round * 10 + number * 3 + 1, -30);
            send_one(&running.client, append).await.unwrap();
        }
        until("partitions", async || make(&running).await.is_ok()).await;
        age(&database, 7).await;
        let archived = archive(&running, false).await.unwrap();
        assert_eq!(archived.iter().map(|one| one.events).sum::<i64>(), 4, "{archived:?}");
        let events = read(&running.client, stream_of("ada", 901)).await.unwrap();
        let versions: Vec<_> = events.iter().map(|event| event.version).collect();
        assert!(
            versions.iter().copied().eq(1..=i64::try_from(versions.len()).unwrap()),
            "{versions:?}"
        );
    }
    assert_eq!((live(&database).await, status(&running).await.files), (0, 3));
    // A bound within a microsecond is cut to it, in a file as in the database.
    let mut from = days_from_now(now, 1, -30).events[0].occur_time;
    from.as_mut().unwrap().nanos += 500;
    let request = ReadUserEventsRequest {
        user_id: "ada".to_owned(),
        from_time: from,
        ..ReadUserEventsRequest::default()
    };
    assert_eq!(user_events(&running, request).await.len(), 12);
    // An event that is archived is still known.
    let repeat = send_one(&running.client, days_from_now(now, 1, -30)).await.unwrap();
    assert!(repeat.duplicate);

    let day = chrono::DateTime::from_timestamp(now - 30 * 86_400, 0).unwrap().date_naive();
    sqlx::query("UPDATE event_store.daily_activity SET count = 1")
        .execute(&database.pool)
        .await
        .unwrap();
    for (differences, dry_run) in [(1, true), (1, false), (0, true)] {
        let request = RebuildRollupsRequest {
            start_date: day.to_string(),
            end_date: day.to_string(),
            dry_run,
        };
        let days = admin(&running).rebuild_rollups(request).await.unwrap().into_inner();
        let days: Vec<_> = days.try_collect().await.unwrap();
        assert_eq!((days[0].events, days[0].differences), (12, differences));
    }
    // A file that is damaged is told of.
    for file in content.files() {
        let length = std::fs::metadata(&file).unwrap().len();
        std::fs::write(&file, vec![7; usize::try_from(length).unwrap()]).unwrap();
    }
    let blind = Running::start(&database.url, &endpoint).await.ready().await;
    let error = read(&blind.client, stream_of("ada", 901)).await.unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), (Code::DataLoss, reason::ARCHIVE_CORRUPT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_deletes_what_is_too_old_and_nothing_else() {
    let (database, content) = (database().await, Content::start().await);
    let endpoint = ["--content-endpoint", content.url.as_str(), "--retention-days", "100"];
    let running = Running::start(&database.url, &endpoint).await.ready().await;
    let now = now(&database).await;
    // 100 days ago is in the last week that stays.
    let gone = [-2_000, -900, -500, -120, -115];
    let kept = [-100, -93, -30, 0, 5];
    let mut number = 0;
    let mut append = async |days| {
        number += 3;
        send_one(&running.client, days_from_now(now, number, days)).await.unwrap();
    };
    for days in [-900, -120, -93, -30] {
        append(days).await;
    }
    until("partitions", async || make(&running).await.is_ok()).await;
    age(&database, 7).await;
    archive(&running, false).await.unwrap();
    assert_eq!(content.files().len(), 4);
    // As many again where nothing is archived: in DEFAULT, and in partitions.
    for days in gone.into_iter().chain(kept) {
        append(days).await;
    }
    until("partitions", async || make(&running).await.is_ok()).await;
    append(-1_900).await;
    age(&database, 28).await;
    let counted = "SELECT sum(count)::bigint FROM event_store.daily_activity";
    let before = count(&database, counted).await;

    let told = retain(&running, true).await;
    assert_eq!((told.files, told.archived_events, told.live_events), (2, 2, 6), "{told:?}");
    assert_eq!(content.files().len(), 4, "a dry run did something");
    assert_eq!(retain(&running, false).await, told);
    assert_eq!(content.files().len(), 2);
    assert_eq!(live(&database).await, 5);
    let oldest = "SELECT extract(epoch FROM min(occurred_at))::bigint FROM event_store.events";
    assert_eq!((count(&database, oldest).await - now) / 86_400, -100);
    let events = read(&running.client, stream_of("ada", 900)).await.unwrap();
    assert_eq!(events.len(), 7);
    let nothing = retain(&running, true).await;
    assert_eq!((nothing.files, nothing.partitions, nothing.live_events), (0, 0, 0));
    // Counts stay, and are not compared with what is gone.
    assert_eq!(count(&database, counted).await, before);
    let request = RebuildRollupsRequest {
        start_date: "2020-01-01".to_owned(),
        end_date: "2020-01-01".to_owned(),
        dry_run: false,
    };
    let refused = admin(&running).rebuild_rollups(request).await.unwrap_err();
    assert_invalid(&RpcError::from_status(&refused), "start_date");
    let known = count(&database, "SELECT count(*) FROM event_store.event_ids").await;
    assert_eq!(known, 15);
    assert!(status(&running).await.deleted_before_time.is_some());
}

#[tokio::test]
async fn days_that_cannot_be_are_refused() {
    let (_database, running) = service().await;
    for (least, days) in [(0, -1), (28, 27), (28, 40_000)] {
        let status = if least == 0 {
            let request = ArchiveEventsRequest { dry_run: true, older_than_days: Some(days) };
            admin(&running).archive_events(request).await.err()
        } else {
            let request = ApplyRetentionRequest { dry_run: true, older_than_days: Some(days) };
            admin(&running).apply_retention(request).await.err()
        };
        assert_invalid(&RpcError::from_status(&status.unwrap()), "older_than_days");
    }
}
