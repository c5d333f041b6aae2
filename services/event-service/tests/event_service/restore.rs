//! A dump restored into a cluster whose transaction ids are younger.

use futures::TryStreamExt as _;
use sqlx::{Row as _, postgres::PgPoolCopyExt as _};
use synap_proto::reason;
use synap_testkit::postgres::{TestDatabase, TestServer};

use crate::harness::{
    Feed, Running, after, append, count, database, from_the_beginning, id, ids, send_one,
};

async fn migrated(server: &TestServer) -> TestDatabase {
    server.database("event", async |url| synap_event_service::migrate(&url).await).await
}

/// What pg_dump and a restore of the data do: rows as they are, sequences where they were.
async fn copy(from: &TestDatabase, to: &TestDatabase) {
    let mut target = to.pool.begin().await.unwrap();
    sqlx::raw_sql("TRUNCATE event_store.epochs").execute(&mut *target).await.unwrap();
    for table in ["epochs", "streams", "event_ids", "events", "consumers"] {
        let out = format!("COPY (SELECT * FROM event_store.{table}) TO STDOUT");
        let rows = from.pool.copy_out_raw(&out).await.unwrap();
        let rows: Vec<_> = rows.try_collect().await.unwrap();
        // Columns in the order of the table, which is the same in both.
        let into = format!("COPY event_store.{table} FROM STDIN");
        let mut sink = target.copy_in_raw(&into).await.unwrap();
        for chunk in rows {
            sink.send(chunk).await.unwrap();
        }
        sink.finish().await.unwrap();
    }
    let last = sqlx::query("SELECT last_value FROM event_store.event_pos");
    let last: i64 = last.fetch_one(&from.pool).await.unwrap().get(0);
    sqlx::query("SELECT setval('event_store.event_pos', $1)")
        .bind(last)
        .execute(&mut *target)
        .await
        .unwrap();
    target.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_into_a_younger_cluster_readers_stay_right() {
    let (old, new) = tokio::join!(TestServer::start_private(), TestServer::start_private());
    let (source, target) = tokio::join!(migrated(&old), migrated(&new));
    // The old cluster is far ahead.
    sqlx::raw_sql(
        "DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    )
    .execute(&source.pool)
    .await
    .unwrap();
    let before = Running::start(&source.url, &[]).await.ready().await;
    for n in 0..5 {
        send_one(&before.client, append(900, n)).await.unwrap();
    }
    let mut feed = Feed::open(&before.client, from_the_beginning()).await.unwrap();
    let old_events = feed.events(5).await;
    copy(&source, &target).await;
    // Not in the dump.
    send_one(&before.client, append(900, 5)).await.unwrap();
    let lost = feed.events(1).await;
    before.stop().await.unwrap();

    let running = Running::start(&target.url, &[]).await.ready().await;
    for n in 10..15 {
        send_one(&running.client, append(900, n)).await.unwrap();
    }
    let mut feed = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    let events = feed.events(10).await;
    assert_eq!(events[..5], old_events);
    let (before, since) = (events[4].position.unwrap(), events[5].position.unwrap());
    assert!(since.xid < before.xid, "the new cluster is younger: {since:?} {before:?}");
    assert!(since.epoch > before.epoch);
    let new_ids: Vec<_> = (10..15).map(|n| id(n).to_string()).collect();
    assert_eq!(ids(&events[5..]), new_ids);
    assert!(events.iter().map(|event| event.version).eq(1..=10));
    // Cursors of before go on with what is new, that of an event which is lost as well.
    for cursor in [&old_events[4].cursor, &lost[0].cursor] {
        let mut rest = Feed::open(&running.client, after(cursor)).await.unwrap();
        assert_eq!(ids(&rest.events(5).await), new_ids);
    }
    // A second start finds the cluster that it knows.
    running.stop().await.unwrap();
    let again = Running::start(&target.url, &[]).await.ready().await;
    send_one(&again.client, append(900, 20)).await.unwrap();
    let mut rest = Feed::open(&again.client, after(&events[9].cursor)).await.unwrap();
    assert_eq!(rest.events(1).await[0].position.unwrap().epoch, since.epoch);

    // And the other way round: the old store does not know the new one's epoch.
    let back = Running::start(&source.url, &[]).await.ready().await;
    let error = Feed::open(&back.client, after(&events[9].cursor)).await.err().unwrap();
    assert_eq!(error.reason, reason::CURSOR_AHEAD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_archived_and_where_consumers_are_count_where_a_cluster_does_not_say_who_it_is() {
    // Ids that this cluster will not reach.
    for place in [
        "INSERT INTO event_store.consumers (name, epoch, xid, pos) VALUES ('i', 1, '900000000', 0)",
        "INSERT INTO event_store.archives (archive_id, segment, begins_at, ends_at, key, schema_version,
             state, events, sha256, bytes, max_epoch, max_xid)
         VALUES (gen_random_uuid(), 's', now() - interval '9 days', now() - interval '8 days', 'k', 1,
             'archived', 1, '', 1, 1, '900000000')",
    ] {
        let database = database().await;
        for statement in ["UPDATE event_store.epochs SET cluster = NULL", place] {
            sqlx::raw_sql(statement).execute(&database.pool).await.unwrap();
        }
        let running = Running::start(&database.url, &[]).await.ready().await;
        send_one(&running.client, append(900, 1)).await.unwrap();
        let above = "SELECT count(*) FROM event_store.events WHERE epoch > 1";
        assert_eq!(count(&database, above).await, 1, "{place}");
    }
}
