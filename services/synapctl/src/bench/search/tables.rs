//! What it is worth that vectors have a table of their own: the same entities in two tables that
//! differ only in that one holds the vectors, too, with their index. Here the "system" is the table
//! without.

use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::{Bench, Turns};
use crate::bench::{load::Done, report};

/// Users of the tables.
const USERS: usize = 20;

/// A query, with the table's name to be put in; it is given an id and its user.
const QUERIES: [(&str, &str); 4] = [
    ("get", "SELECT title, preview, version FROM {} WHERE id = $1 AND user_id = $2"),
    (
        "list",
        "SELECT id, title, preview, created_at FROM {}
         WHERE $1 IS NOT NULL AND user_id = $2 AND type = 'note'
         ORDER BY created_at DESC, id DESC LIMIT 50",
    ),
    ("count", "SELECT count(*), max(updated_at) FROM {} WHERE $1 IS NOT NULL AND user_id = $2"),
    (
        "update",
        "UPDATE {} SET title = title || 'x', version = version + 1, updated_at = now()
         WHERE id = $1 AND user_id = $2",
    ),
];

pub(super) async fn bench(bench: &Bench) -> anyhow::Result<()> {
    let rows = bench.args.rows;
    let ids = make(&bench.pool, rows).await?;
    let asked = Turns::new(ids);
    for (operation, query) in QUERIES {
        let title = format!("{operation}: {rows} entities without vectors against with them");
        report::print_title(bench.args.json, &title);
        let on = |table: &str| {
            let (pool, asked) = (bench.pool.clone(), asked.clone());
            let query = query.replace("{}", table);
            move |_| -> Done {
                let (pool, (id, user), query) = (pool.clone(), asked.next(), query.clone());
                Box::pin(async move {
                    let query = sqlx::query(AssertSqlSafe(query)).bind(id).bind(user);
                    query.fetch_all(&pool).await?;
                    Ok(())
                })
            }
        };
        bench.measure(operation, rows, on("bench_narrow"), on("bench_wide")).await?;
    }
    Ok(())
}

async fn make(pool: &PgPool, rows: usize) -> anyhow::Result<Vec<(Uuid, String)>> {
    eprintln!("making two tables of {rows} entities");
    let rows = i32::try_from(rows)?;
    let users = i32::try_from(USERS)?;
    sqlx::raw_sql(
        "CREATE TABLE bench_narrow (LIKE entities INCLUDING ALL);
         CREATE TABLE bench_wide (LIKE entities INCLUDING ALL);
         ALTER TABLE bench_wide ADD COLUMN embedding vector(1536);",
    )
    .execute(pool)
    .await?;
    sqlx::query(
        "INSERT INTO bench_narrow (id, user_id, type, title, preview, created_at)
         SELECT gen_random_uuid(), 'user-' || n % $2, 'note', 'Note number ' || n,
                repeat('The beginning of a note. ', 6), now() - make_interval(secs => n)
         FROM generate_series(1, $1) AS n",
    )
    .bind(rows)
    .bind(users)
    .execute(pool)
    .await?;
    let mut connection = pool.acquire().await?.detach();
    sqlx::raw_sql(
        "INSERT INTO bench_wide
         SELECT n.*, (SELECT array_agg(random() - 0.5)::vector
                      FROM generate_series(1, 1536 + 0 * n.version))
         FROM bench_narrow n;
         SET maintenance_work_mem = '2GB';
         CREATE INDEX ON bench_wide USING hnsw (embedding vector_cosine_ops);",
    )
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("VACUUM (ANALYZE) bench_narrow, bench_wide").execute(&mut connection).await?;
    let asked = "SELECT id, user_id FROM bench_narrow ORDER BY md5(id::text) LIMIT 2000";
    Ok(sqlx::query_as(asked).fetch_all(pool).await?)
}
