//! Reads. Here the "system" is the SQL of the event store on its table, and the floor the same SQL on
//! one table that is not partitioned, with the same rows and the same indexes.

use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::Bench;
use crate::bench::{load::Done, report};

/// Users whose events are read.
const USERS: usize = 100;
/// Events of a stream.
const OF_A_STREAM: usize = 10;

/// A query, with the table's name to be put in; it is given a user and one of its streams.
const QUERIES: [(&str, &str); 4] = [
    (
        "stream",
        "SELECT event_id, version, event_type, occurred_at, data::text FROM {}
         WHERE aggregate_type = 'note' AND aggregate_id = $2 AND user_id = $1 AND version >= 1
         ORDER BY version LIMIT 200",
    ),
    (
        "week",
        "SELECT event_id, version, event_type, occurred_at, data::text FROM {}
         WHERE user_id = $1 AND $2 IS NOT NULL AND occurred_at >= now() - interval '30 days'
           AND occurred_at < now() - interval '23 days'
         ORDER BY occurred_at LIMIT 1000",
    ),
    (
        "newest",
        "SELECT event_id, version, event_type, occurred_at, data::text FROM {}
         WHERE user_id = $1 AND $2 IS NOT NULL ORDER BY occurred_at DESC LIMIT 50",
    ),
    (
        "days",
        "SELECT occurred_at::date, event_type, count(*) FROM {}
         WHERE user_id = $1 AND $2 IS NOT NULL AND occurred_at >= now() - interval '30 days'
         GROUP BY 1, 2",
    ),
];

pub(super) async fn bench(bench: &Bench) -> anyhow::Result<()> {
    let rows = bench.args.events;
    let streams = make(&bench.pool, rows).await?;
    for (operation, query) in QUERIES {
        let title = format!("{operation}: {rows} events in partitions against one table");
        report::print_title(bench.args.json, &title);
        let on = |table: &str| {
            let (pool, streams) = (bench.pool.clone(), streams.clone());
            let query = query.replace("{}", table);
            move |_| -> Done {
                let (user, stream) = streams[fastrand::usize(..streams.len())].clone();
                let (pool, query) = (pool.clone(), query.clone());
                Box::pin(async move {
                    let query = sqlx::query(AssertSqlSafe(query)).bind(user).bind(stream);
                    query.fetch_all(&pool).await?;
                    Ok(())
                })
            }
        };
        let measured = (operation, 1);
        let (system, floor) = (on("event_store.events"), on("bench_flat"));
        bench.measure(measured, Some(rows), system, floor).await?;
    }
    Ok(())
}

/// Fills both tables; returns streams with their users.
async fn make(pool: &PgPool, rows: usize) -> anyhow::Result<Vec<(String, Uuid)>> {
    eprintln!("making two tables of {rows} events");
    let mut connection = pool.acquire().await?.detach();
    sqlx::raw_sql(
        "CREATE TABLE bench_flat (LIKE event_store.events INCLUDING DEFAULTS);
         ALTER TABLE bench_flat ADD PRIMARY KEY (aggregate_type, aggregate_id, version);
         CREATE INDEX ON bench_flat (user_id, occurred_at, pos);
         CREATE INDEX ON bench_flat (epoch, xid, pos)",
    )
    .execute(&mut connection)
    .await?;
    sqlx::query(
        "INSERT INTO event_store.events
             (event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at,
              data, metadata, source)
         SELECT gen_random_uuid(), 'note', md5('stream ' || n / $2)::uuid, 1 + n % $2,
                CASE n % $2 WHEN 0 THEN 'entity.created' ELSE 'entity.updated' END,
                'user-' || n / $2 % $3, now() - interval '60 days' * (1 - n::float8 / $1),
                jsonb_build_object('entityType', 'note', 'title', 'Note number ' || n, 'file',
                    jsonb_build_object('path', format('users/user/notes/%s.md', n), 'size', n,
                                       'checksum', 'sha256:' || md5(n::text))), '{}', 'api'
         FROM generate_series(0::bigint, $1 - 1) AS n",
    )
    .bind(i64::try_from(rows)?)
    .bind(i64::try_from(OF_A_STREAM)?)
    .bind(i64::try_from(USERS)?)
    .execute(&mut connection)
    .await?;
    for statement in [
        "INSERT INTO bench_flat SELECT * FROM event_store.events",
        "VACUUM (ANALYZE) event_store.events",
        "VACUUM (ANALYZE) bench_flat",
    ] {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    let streams = "SELECT user_id, aggregate_id FROM bench_flat
                   WHERE version = 1 AND user_id LIKE 'user-%' ORDER BY event_id LIMIT 1000";
    Ok(sqlx::query_as(streams).fetch_all(&mut connection).await?)
}
