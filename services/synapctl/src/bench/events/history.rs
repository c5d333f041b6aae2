//! Events of 60 days, as the gateway writes them, in weekly partitions and in one table.

use sqlx::PgPool;
use synap_proto::event::{
    MakePartitionsRequest, event_admin_service_client::EventAdminServiceClient,
};
use tonic::Request;
use uuid::Uuid;

use super::PATIENCE;
use crate::bench::system::BenchSystem;

/// Users whose events they are.
const USERS: i64 = 100;
/// Events of a stream: a note, its id a UUID of its time, and what became of it.
const OF_A_STREAM: i64 = 10;

/// A user, and the note of a stream.
pub(super) type Stream = (String, Uuid);

const FLAT: &str = "
    CREATE TABLE bench_flat (LIKE event_store.events INCLUDING DEFAULTS);
    ALTER TABLE bench_flat ADD PRIMARY KEY (aggregate_type, aggregate_id, version);
    CREATE INDEX ON bench_flat (user_id, occurred_at, pos);
    CREATE INDEX ON bench_flat (epoch, xid, pos)";

const INSERT: &str = "
    WITH numbered AS (
        SELECT n, n / $2 AS note, n % $2 AS version,
               now() - interval '60 days' * (1 - n::float8 / $1) AS at,
               lpad(to_hex((extract(epoch FROM now() - interval '60 days'
                            * (1 - (n - n % $2)::float8 / $1)) * 1000)::bigint), 12, '0') AS begun
        FROM generate_series(0::bigint, $1 - 1) AS n
    ),
    named AS (
        SELECT *, format('user-%s', note % $3) AS user_id,
               (begun || '7' || substr(md5('a' || note), 1, 3) || '8' || substr(md5('b' || note), 1, 15))::uuid
                   AS note_id,
               (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
                || '7' || substr(md5('c' || n), 1, 3) || '9' || substr(md5('d' || n), 1, 15))::uuid
                   AS event_id
        FROM numbered
    ),
    with_file AS (
        SELECT *, jsonb_build_object(
                      'path', format('users/%s/notes/%s/%s.md', user_id, note_id, event_id),
                      'size', 200 + n * 7919 % 9000,
                      'checksum', 'sha256:' || encode(sha256(convert_to(n::text, 'UTF8')), 'base64'))
                      AS file
        FROM named
    )
    INSERT INTO event_store.events
        (event_id, aggregate_type, aggregate_id, version, event_type, user_id, occurred_at, data,
         metadata, source, recorded_at)
    SELECT event_id, 'note', note_id, 1 + version,
           CASE version WHEN 0 THEN 'entity.created' ELSE 'entity.updated' END, user_id, at,
           CASE version WHEN 0
               THEN jsonb_build_object('entityType', 'note', 'title', 'What was said about ' || md5(note::text),
                                       'tags', jsonb_build_array('work', 'q' || note % 4), 'file', file,
                                       'inputType', 'text', 'audioUrl', NULL, 'autoEnrich', false)
               ELSE jsonb_build_object('entityType', 'note', 'file', file) END,
           '{}', 'api', at + interval '4 ms'
    FROM with_file ORDER BY n";

const STREAMS: &str = "
    SELECT user_id, aggregate_id FROM bench_flat
    WHERE version = 1 AND user_id LIKE 'user-%' ORDER BY md5(aggregate_id::text) LIMIT 1000";

/// Fills both tables; returns some streams.
pub(super) async fn make(
    pool: &PgPool,
    system: &BenchSystem,
    rows: usize,
) -> anyhow::Result<Vec<Stream>> {
    eprintln!("making two tables of {rows} events");
    let mut connection = pool.acquire().await?.detach();
    sqlx::raw_sql(FLAT).execute(&mut connection).await?;
    sqlx::query(INSERT)
        .bind(i64::try_from(rows)?)
        .bind(OF_A_STREAM)
        .bind(USERS)
        .execute(&mut connection)
        .await?;
    let mut request = Request::new(MakePartitionsRequest {});
    request.set_timeout(PATIENCE);
    let made = EventAdminServiceClient::new(system.event()?).make_partitions(request).await?;
    let left = made.into_inner().default_partition_rows;
    anyhow::ensure!(left == 0, "{left} events have no partition of their week");
    for statement in [
        "INSERT INTO bench_flat SELECT * FROM event_store.events",
        "VACUUM (ANALYZE) event_store.events",
        "VACUUM (ANALYZE) bench_flat",
    ] {
        sqlx::raw_sql(statement).execute(&mut connection).await?;
    }
    Ok(sqlx::query_as(STREAMS).fetch_all(&mut connection).await?)
}
