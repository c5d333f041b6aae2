//! Partitions and capabilities: on plain PostgreSQL, and on TimescaleDB where the tests run there.

use std::sync::atomic::{AtomicBool, Ordering};

use prost_types::Timestamp;
use synap_proto::{
    event::{
        Engine, Event, GetCapabilitiesRequest, GetCapabilitiesResponse, MakePartitionsRequest,
        MakePartitionsResponse, Partitioning, StreamAppend,
        event_admin_service_client::EventAdminServiceClient,
    },
    reason,
};
use synap_rpc::RpcError;
use synap_testkit::postgres::TestDatabase;

use crate::harness::{
    Running, append, count, database, dies_at, event, expire_lease, read, send_one, service,
    stream_of, until,
};

const DAY: i64 = 86_400;

/// Whether the tests run on TimescaleDB.
fn is_timescaledb() -> bool {
    std::env::var_os("SYNAP_TEST_TIMESCALEDB").is_some()
}

pub(crate) async fn capabilities(running: &Running) -> GetCapabilitiesResponse {
    let request = GetCapabilitiesRequest {};
    running.client.clone().get_capabilities(request).await.unwrap().into_inner()
}

pub(crate) async fn make(running: &Running) -> Result<MakePartitionsResponse, RpcError> {
    let mut client = EventAdminServiceClient::new(running.channel.clone());
    let answer = client.make_partitions(MakePartitionsRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| RpcError::from_status(&status))
}

/// An append so many days from now.
pub(crate) fn days_from_now(database_now: i64, number: u128, days: i64) -> StreamAppend {
    let seconds = database_now + days * DAY;
    let mut append = append(900 + number % 3, 0);
    append.events = vec![event(number)];
    append.events[0].occur_time = Some(Timestamp { seconds, nanos: 5_000 });
    append
}

pub(crate) async fn now(database: &TestDatabase) -> i64 {
    count(database, "SELECT extract(epoch FROM now())::bigint").await
}

async fn all(running: &Running) -> Vec<Event> {
    let mut events = Vec::new();
    for stream in 900..903 {
        events.extend(read(&running.client, stream_of("ada", stream)).await.unwrap());
    }
    events
}

#[tokio::test]
async fn a_service_says_what_its_database_is_and_makes_partitions_ahead() {
    let database = database().await;
    let arguments = ["--upkeep-interval-secs", "3600", "--partitions-ahead", "3"];
    let running = Running::start(&database.url, &arguments).await.ready().await;
    if is_timescaledb() {
        let found = capabilities(&running).await;
        assert_eq!(found.engine(), Engine::TimescaledbApache);
        assert_eq!(found.partitioning(), Partitioning::Hypertable);
        assert_eq!(found.timescaledb_version.split('.').next(), Some("2"));
        assert_eq!((found.partitions, found.native_compression), (0, false));
        // The service's own round may be under way.
        let made_none = async || make(&running).await.is_ok_and(|made| made.partitions.is_empty());
        until("an answer", made_none).await;
        send_one(&running.client, append(900, 1)).await.unwrap();
        assert_eq!(capabilities(&running).await.partitions, 1);
        return;
    }
    until("partitions", async || capabilities(&running).await.partitions == 4).await;
    let found = capabilities(&running).await;
    assert_eq!(found.engine(), Engine::Plain);
    assert_eq!(found.partitioning(), Partitioning::Partitions);
    assert_eq!(found.timescaledb_version, "");
    assert!(found.postgres_version.starts_with(['1', '2']), "{found:?}");
    assert_eq!((found.partitions_ahead, found.default_partition_rows), (3, 0));
    assert!(found.rollups);
    let names = "SELECT count(*) FROM pg_class
                 WHERE relname = to_char(now() AT TIME ZONE 'UTC', '\"events_\"IYYY\"w\"IW')";
    assert_eq!(count(&database, names).await, 1);
    // What happens now is in this week's.
    let now = now(&database).await;
    send_one(&running.client, days_from_now(now, 1, 0)).await.unwrap();
    assert_eq!(capabilities(&running).await.default_partition_rows, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_default_partition_moves_to_its_weeks_while_others_append() {
    if is_timescaledb() {
        return;
    }
    let (database, running) = service().await;
    let now = now(&database).await;
    // Of two weeks ago, now, of a week ahead, of five years ago and of thousands of years ahead.
    for (number, days) in (1..).zip([-14, -13, 0, 7, -5 * 365, 7_000 * 365]) {
        send_one(&running.client, days_from_now(now, number, days)).await.unwrap();
    }
    let before = all(&running).await;
    let (stop, first) = (AtomicBool::new(false), AtomicBool::new(false));
    let writing = async {
        let mut number = 1_000;
        while !stop.load(Ordering::Relaxed) {
            let days = i64::try_from(number % 5).unwrap() * 7 - 21;
            send_one(&running.client, days_from_now(now, number, days)).await.unwrap();
            first.store(true, Ordering::Relaxed);
            number += 1;
        }
        number - 1_000
    };
    let making = async {
        until("an append", async || first.load(Ordering::Relaxed)).await;
        // Another test's transaction may be in the way, as appends may be.
        until("partitions", async || make(&running).await.is_ok()).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(writing, making);

    let last = make(&running).await.unwrap();
    assert_eq!(last.default_partition_rows, 2, "{last:?}");
    let found = capabilities(&running).await;
    assert_eq!(found.partitions_ahead, 8);
    assert!((12..=14).contains(&found.partitions), "{found:?}");
    let after = all(&running).await;
    assert_eq!(u128::try_from(after.len()), Ok(6 + written));
    for event in before {
        assert!(after.contains(&event), "{event:?} is another one now");
    }
    let stored = "SELECT count(*) FROM event_store.event_ids JOIN event_store.events USING
                  (event_id, aggregate_id, version, occurred_at)";
    assert_eq!(u128::try_from(count(&database, stored).await), Ok(6 + written));
    // A week whose partition is there already takes what comes late.
    send_one(&running.client, days_from_now(now, 900_000, -14)).await.unwrap();
    assert_eq!(capabilities(&running).await.default_partition_rows, 2);
    assert_eq!(make(&running).await.unwrap().partitions, [""; 0]);
}

#[tokio::test]
async fn a_worker_that_dies_leaves_the_events_as_they_were() {
    if is_timescaledb() {
        return;
    }
    let (database, running) = service().await;
    let now = now(&database).await;
    for number in 1..20 {
        let days = -i64::try_from(number % 4).unwrap() * 7;
        send_one(&running.client, days_from_now(now, number, days)).await.unwrap();
    }
    let before = all(&running).await;
    for failpoint in ["partitions.prepared", "partitions.copied", "partitions.swapping"] {
        dies_at(&database.url, &["--upkeep-interval-secs", "1"], failpoint).await;
        assert_eq!(all(&running).await, before, "{failpoint}");
        assert_eq!(capabilities(&running).await.default_partition_rows, 19, "{failpoint}");
        // Who is alive is not disturbed.
        let error = make(&running).await.unwrap_err();
        assert_eq!(error.reason, reason::UPKEEP_UNDER_WAY, "{failpoint}");
        expire_lease(&database).await;
    }
    until("partitions", async || make(&running).await.is_ok()).await;
    assert_eq!(all(&running).await, before);
    assert_eq!(capabilities(&running).await.default_partition_rows, 0);
    assert_eq!(count(&database, "SELECT count(*) FROM event_store.events_default").await, 0);
}
