//! A transaction that stays open, and what a reader without the horizon makes of it. In a server of
//! their own: the open transaction holds back everybody in it.

use sqlx::{Connection as _, PgConnection};
use synap_testkit::postgres::{TestDatabase, TestServer};

use crate::harness::{Feed, Running, append, from_the_beginning, id, ids, send_one};
use crate::partitions::capabilities;

async fn migrated(server: &TestServer) -> TestDatabase {
    server.database("event", async |url| synap_event_service::migrate(&url).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_in_another_database_delays_all_loses_nothing_and_is_seen() {
    let server = TestServer::start_private().await;
    let database = migrated(&server).await;
    let elsewhere = server.database("empty", async |_| Ok::<_, String>(())).await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    let mut feed = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    feed.heartbeat(|beat| beat.caught_up).await;

    let mut connection = PgConnection::connect(&elsewhere.url).await.unwrap();
    let mut open = connection.begin().await.unwrap();
    sqlx::query("CREATE TABLE anything ()").execute(&mut *open).await.unwrap();
    for n in 0..5 {
        send_one(&running.client, append(900, n)).await.unwrap();
    }
    // Its age grows, and no event comes.
    let held = |seconds: i64| {
        move |beat: &synap_proto::event::Heartbeat| beat.horizon_age.unwrap().seconds >= seconds
    };
    let stuck = feed.heartbeat(held(1)).await;
    let later = feed.heartbeat(held(2)).await;
    assert_eq!(later.cursor, stuck.cursor);
    let told = capabilities(&running).await;
    assert!(told.horizon_age.unwrap().seconds >= 2 && told.horizon_pid.is_some(), "{told:?}");
    let there = sqlx::query_scalar::<_, String>("SELECT current_database()");
    assert_eq!(told.horizon_database, there.fetch_one(&elsewhere.pool).await.unwrap());
    open.commit().await.unwrap();
    assert_eq!(ids(&feed.events(5).await), [0, 1, 2, 3, 4].map(|n| id(n).to_string()));
    feed.heartbeat(|beat| beat.caught_up && beat.horizon_age.unwrap().seconds == 0).await;
}

/// What a reader that goes by the sequence alone sees: everything committed with `pos > last`.
async fn naive(database: &TestDatabase, last: &mut i64) -> Vec<String> {
    let found: Vec<(String, i64)> = sqlx::query_as(
        "SELECT event_id::text, pos FROM event_store.events WHERE pos > $1 ORDER BY pos",
    )
    .bind(*last)
    .fetch_all(&database.pool)
    .await
    .unwrap();
    *last = found.last().map_or(*last, |(_, pos)| *pos);
    found.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_by_position_alone_loses_what_commits_late_and_a_subscriber_does_not() {
    let server = TestServer::start_private().await;
    let database = migrated(&server).await;
    let running = Running::start(&database.url, &[]).await.ready().await;
    let mut feed = Feed::open(&running.client, from_the_beginning()).await.unwrap();
    send_one(&running.client, append(900, 0)).await.unwrap();
    let (mut last, mut seen) = (0, Vec::new());
    seen.extend(naive(&database, &mut last).await);

    // An append that has its position, and is not committed yet.
    let mut slow = database.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO event_store.events (event_id, aggregate_type, aggregate_id, version,
             event_type, user_id, occurred_at, data, metadata, source)
         VALUES ($1, 'note', $1, 1, 'entity.created', 'ada', now(), '{}', '{}', 'api')",
    )
    .bind(id(1))
    .execute(&mut *slow)
    .await
    .unwrap();
    send_one(&running.client, append(901, 2)).await.unwrap();
    seen.extend(naive(&database, &mut last).await);
    slow.commit().await.unwrap();
    send_one(&running.client, append(902, 3)).await.unwrap();
    seen.extend(naive(&database, &mut last).await);

    let all = [0, 1, 2, 3].map(|n| id(n).to_string());
    assert_eq!(ids(&feed.events(4).await), all);
    assert_eq!(seen, [0, 2, 3].map(|n| id(n).to_string()), "the naive reader should have lost one");
}
