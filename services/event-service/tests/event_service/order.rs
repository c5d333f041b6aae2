//! The order of all events.

use std::collections::HashMap;

use futures::future::join_all;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::harness::{Running, append, database, send};

/// One event as the feed will show it: xid, pos, stream, version.
type Seen = (i64, i64, uuid::Uuid, i64);

/// Follows the feed by its cursor and horizon, until told to stop and nothing is left. The horizon is
/// that of the whole server: transactions of other tests' databases hold it back as well, so an
/// empty page is no end while there are events above it.
async fn follow(pool: PgPool, stop: CancellationToken) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    loop {
        let last_round = stop.is_cancelled();
        let (xid, pos) = seen.last().map_or((0, 0), |last| (last.0, last.1));
        let page: Vec<Seen> = sqlx::query_as(
            "SELECT xid::text::bigint, pos, aggregate_id, version FROM event_store.events
             WHERE (xid, pos) > ($1::text::xid8, $2)
               AND xid < pg_snapshot_xmin(pg_current_snapshot())
             ORDER BY xid, pos LIMIT 500",
        )
        .bind(xid.to_string())
        .bind(pos)
        .fetch_all(&pool)
        .await
        .unwrap();
        let is_end = page.is_empty() && last_round && !is_anything_after(&pool, (xid, pos)).await;
        if is_end {
            return seen;
        }
        seen.extend(page);
    }
}

/// Whether there are events that the reader has not seen, below the horizon or above it.
async fn is_anything_after(pool: &PgPool, (xid, pos): (i64, i64)) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM event_store.events WHERE (xid, pos) > ($1::text::xid8, $2))",
    )
    .bind(xid.to_string())
    .bind(pos)
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_below_the_horizon_sees_every_event_once_and_every_stream_in_order() {
    let database = database().await;
    // Two replicas: what one groups, the other does not know of.
    let replicas = [
        Running::start(&database.url, &[]).await.ready().await,
        Running::start(&database.url, &[]).await.ready().await,
    ];
    let stop = CancellationToken::new();
    let readers: Vec<_> =
        (0..2).map(|_| tokio::spawn(follow(database.pool.clone(), stop.clone()))).collect();

    // 16 writers; everyone appends to the same ten streams, some to two of them at once.
    let writers = (0..16_u128).map(|writer| {
        let client = replicas[usize::from(writer % 2 == 1)].client.clone();
        async move {
            for n in 0..60_u128 {
                let number = 100_000 + writer * 1_000 + n * 2;
                let stream = 1_000 + (writer * 7 + n) % 10;
                let mut appends = vec![append(stream, number)];
                if n % 5 == 0 {
                    appends.push(append(1_000 + (stream + 3) % 10, number + 1));
                }
                send(&client, appends).await.unwrap();
            }
        }
    });
    join_all(writers).await;
    stop.cancel();

    let all: Vec<Seen> = sqlx::query_as(
        "SELECT xid::text::bigint, pos, aggregate_id, version FROM event_store.events
         ORDER BY xid, pos",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(all.len(), 16 * (60 + 12));
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(seen == all, "a reader saw {} of {} events", seen.len(), all.len());
    }
    let mut heads = HashMap::new();
    for (xid, pos, stream, version) in all {
        let head = heads.entry(stream).or_insert(0);
        assert_eq!(version, *head + 1, "({xid}, {pos}) is out of order in {stream}");
        *head = version;
    }
    assert_eq!(heads.len(), 10);
}
