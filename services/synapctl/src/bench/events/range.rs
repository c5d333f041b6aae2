//! Reads. Here the "system" is the SQL of the event store on its table, and the floor the same SQL on
//! one table that is not partitioned, with the same rows and the same indexes.

use sqlx::AssertSqlSafe;

use super::{Bench, history::Stream};
use crate::bench::{load::Done, report};

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

/// Reads of some streams and their users.
pub(super) async fn bench(bench: &Bench, streams: &[Stream]) -> anyhow::Result<()> {
    let rows = bench.args.events;
    for (operation, query) in QUERIES {
        let title = format!("{operation}: {rows} events in partitions against one table");
        report::print_title(bench.args.json, &title);
        let on = |table: &str| {
            let (pool, streams) = (bench.pool.clone(), streams.to_vec());
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
