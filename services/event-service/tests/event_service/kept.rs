//! Nothing leaves the database before everybody who follows the feed can have read it.

use futures::TryStreamExt as _;
use synap_proto::event::{
    ApplyRetentionRequest, DeleteConsumerRequest, KeepReason, KeptEvents, RebuildRollupsRequest,
    SaveCheckpointRequest,
};
use synap_rpc::RpcError;
use synap_testkit::postgres::TestDatabase;

use crate::{
    archive::{admin, archive, archive_older, live, retain, status},
    content::Content,
    harness::{
        Feed, Running, age, count, database, from_the_beginning, pauses_at, send_one, service,
        until,
    },
    partitions::{days_from_now, make, now},
    validation::assert_invalid,
};

/// Appends an event of so many days ago.
async fn append(running: &Running, database: &TestDatabase, number: u128, days: i64) {
    let append = days_from_now(now(database).await, number, -days);
    send_one(&running.client, append).await.unwrap();
}

/// A checkpoint of the consumer `indexer` after so many events.
async fn save_checkpoint(running: &Running, events: usize) {
    let mut feed = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    let cursor = feed.events(events).await.pop().unwrap().cursor;
    let request = SaveCheckpointRequest { consumer: "indexer".into(), cursor, rewind: true };
    running.client.clone().save_checkpoint(request).await.unwrap();
}

async fn delete_consumer(running: &Running) {
    let request = DeleteConsumerRequest { consumer: "indexer".into() };
    running.client.clone().delete_consumer(request).await.unwrap();
}

fn why(kept: &[KeptEvents]) -> Vec<(KeepReason, i64, &str)> {
    kept.iter().map(|kept| (kept.reason(), kept.events, kept.consumer.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_not_final_or_awaited_is_not_archived_and_the_answer_says_why() {
    let (database, content) = (database().await, Content::start().await);
    let endpoint = ["--content-endpoint", content.url.as_str()];
    let running = Running::start(&database.url, &endpoint).await.ready().await;
    let left = async |days| {
        let dry = archive_older(&running, true, days).await.unwrap();
        let kept: Vec<_> = dry.into_iter().filter_map(|one| one.kept).collect();
        let told = archive_older(&running, false, days).await.unwrap();
        assert!(told.iter().all(|one| !one.archived && one.key.is_empty()), "{told:?}");
        assert!(told.into_iter().filter_map(|one| one.kept).eq(kept.clone()));
        assert_eq!(kept.len(), 1);
        kept
    };
    // A transaction that began before the event holds back the feed.
    let mut open = database.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *open).await.unwrap();
    append(&running, &database, 3, 30).await;
    append(&running, &database, 6, 30).await;
    until("partitions", async || make(&running).await.is_ok()).await;
    assert_eq!(why(&left(None).await), [(KeepReason::NotFinal, 2, "")]);
    open.rollback().await.unwrap();
    age(&database, 0).await;
    assert_eq!(why(&left(Some(0)).await), [(KeepReason::Recent, 2, "")]);
    age(&database, 2).await;
    assert_eq!(why(&left(None).await), [(KeepReason::Recent, 2, "")]);
    save_checkpoint(&running, 1).await;
    assert_eq!(why(&left(Some(0)).await), [(KeepReason::Awaited, 2, "indexer")]);
    assert_eq!((live(&database).await, content.files().len()), (2, 0));

    save_checkpoint(&running, 2).await;
    let archived = archive_older(&running, false, Some(0)).await.unwrap();
    assert!(archived.len() == 1 && archived[0].archived, "{archived:?}");
    assert_eq!((live(&database).await, content.files().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_goes_back_while_a_file_is_written_finds_its_events() {
    let (database, content) = (database().await, Content::start().await);
    let running = Running::start(&database.url, &[]).await.ready().await;
    append(&running, &database, 3, 30).await;
    append(&running, &database, 6, 30).await;
    until("partitions", async || make(&running).await.is_ok()).await;
    age(&database, 7).await;
    save_checkpoint(&running, 2).await;

    let folder = tempfile::tempdir().unwrap();
    let upkeep = ["--upkeep-interval-secs", "1", "--auto-archive", "--content-endpoint"];
    let upkeep = [&upkeep[..], &[content.url.as_str()]].concat();
    let (_child, mark) = pauses_at(&database.url, &upkeep, "archive.verified", folder.path()).await;
    assert_eq!(content.files().len(), 1);
    save_checkpoint(&running, 1).await;
    std::fs::remove_file(mark).unwrap();
    until("the file to be thrown away", async || content.files().is_empty()).await;
    assert_eq!((live(&database).await, status(&running).await.files), (2, 0));
    let mut feed = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    assert_eq!(feed.events(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_leaves_what_is_new_or_awaited_and_says_so() {
    let (database, content) = (database().await, Content::start().await);
    let endpoint = ["--content-endpoint", content.url.as_str()];
    let running = Running::start(&database.url, &endpoint).await.ready().await;
    // In a file, in a partition, and in DEFAULT, which a hypertable has not.
    append(&running, &database, 3, 900).await;
    until("partitions", async || make(&running).await.is_ok()).await;
    age(&database, 7).await;
    archive(&running, false).await.unwrap();
    append(&running, &database, 6, 800).await;
    until("partitions", async || make(&running).await.is_ok()).await;
    append(&running, &database, 9, 1_900).await;
    age(&database, 0).await;
    let left = async || {
        let dry = retain(&running, true).await;
        let told = retain(&running, false).await;
        assert_eq!(told, dry);
        told
    };
    let told = left().await;
    assert_eq!((told.files, told.live_events), (0, 0), "{told:?}");
    assert_eq!(why(&told.kept), [(KeepReason::Recent, 1, ""); 3]);
    assert_eq!((live(&database).await, content.files().len()), (2, 1));

    age(&database, 28).await;
    save_checkpoint(&running, 1).await;
    let told = left().await;
    assert_eq!((told.files, told.archived_events, content.files().len()), (1, 1, 0), "{told:?}");
    assert_eq!(why(&told.kept), [(KeepReason::Awaited, 1, "indexer")]);
    assert_eq!((told.live_events, live(&database).await), (1, 1));

    delete_consumer(&running).await;
    let told = left().await;
    assert_eq!((told.live_events, why(&told.kept).len(), live(&database).await), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_somebody_holds_keeps_no_other() {
    let (database, content) = (database().await, Content::start().await);
    let endpoint = ["--content-endpoint", content.url.as_str()];
    let running = Running::start(&database.url, &endpoint).await.ready().await;
    for (number, days) in [(3, 60), (6, 50), (9, 40)] {
        append(&running, &database, number, days).await;
    }
    until("partitions", async || make(&running).await.is_ok()).await;
    age(&database, 7).await;
    let oldest =
        "SELECT tableoid::regclass::text FROM event_store.events ORDER BY occurred_at LIMIT 1";
    let oldest: String = sqlx::query_scalar(oldest).fetch_one(&database.pool).await.unwrap();
    let mut holder = database.pool.begin().await.unwrap();
    let hold = sqlx::AssertSqlSafe(format!("LOCK TABLE {oldest} IN ROW EXCLUSIVE MODE"));
    sqlx::query(hold).execute(&mut *holder).await.unwrap();
    archive(&running, false).await.unwrap_err();
    assert_eq!((live(&database).await, status(&running).await.files), (1, 2));

    append(&running, &database, 12, 45).await;
    until("partitions", async || make(&running).await.is_ok()).await;
    age(&database, 28).await;
    let request = ApplyRetentionRequest { older_than_days: Some(28), dry_run: false };
    admin(&running).apply_retention(request).await.unwrap_err();
    assert_eq!((live(&database).await, status(&running).await.files), (1, 0));
    holder.rollback().await.unwrap();
    assert_eq!(admin(&running).apply_retention(request).await.unwrap().into_inner().live_events, 1);
    assert_eq!((live(&database).await, content.files().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_a_day_that_retention_comes_past_meanwhile_stay() {
    let (database, running) = service().await;
    append(&running, &database, 3, 900).await;
    let day = chrono::DateTime::from_timestamp(now(&database).await - 900 * 86_400, 0).unwrap();
    let day = day.date_naive().to_string();
    // Comparisons go one after the other: this one has begun, and waits.
    let mut other = database.pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('synap rollups', 0))";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let rebuilding = async {
        let request =
            RebuildRollupsRequest { start_date: day.clone(), end_date: day, dry_run: false };
        let days = admin(&running).rebuild_rollups(request).await.unwrap().into_inner();
        days.try_collect::<Vec<_>>().await
    };
    let deleting = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        until("the comparison", async || count(&database, waiting).await == 1).await;
        age(&database, 28).await;
        let told = retain(&running, false).await;
        assert_eq!((told.live_events, live(&database).await), (1, 0));
        other.rollback().await.unwrap();
    };
    let (rebuilt, ()) = tokio::join!(rebuilding, deleting);
    assert_invalid(&RpcError::from_status(&rebuilt.unwrap_err()), "start_date");
    let counted = "SELECT sum(count)::bigint FROM event_store.daily_activity";
    assert_eq!(count(&database, counted).await, 1);
}

#[tokio::test]
async fn nothing_is_deleted_while_tables_of_old_events_are_there_whoever_may_read_them() {
    let (database, running) = service().await;
    let refused = async || {
        let request = ApplyRetentionRequest::default();
        admin(&running).apply_retention(request).await.err().map(|status| status.code())
    };
    for (table, is_old) in [
        // Another's: there are many tables of this name.
        ("events (id uuid, name text, data jsonb)", false),
        // Not so that an append could write to them.
        ("events (id uuid, user_id text, timestamp timestamptz, type text, data jsonb)", true),
        ("events_v2 (timestamp timestamptz, data jsonb)", true),
    ] {
        for statement in [
            "DROP TABLE IF EXISTS public.events, public.events_v2".to_owned(),
            format!("CREATE TABLE public.{table}"),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&database.pool).await.unwrap();
        }
        let expected = is_old.then_some(tonic::Code::FailedPrecondition);
        assert_eq!(refused().await, expected, "{table}");
    }
}
