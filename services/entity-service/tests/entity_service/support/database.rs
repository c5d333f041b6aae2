//! Looks into the database of a service, and changes behind its back.

use sqlx::PgPool;
use synap_proto::entity as pb;

/// How many rows each table has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) entities: i64,
    pub(crate) content_blocks: i64,
    pub(crate) entity_revisions: i64,
    pub(crate) write_operations: i64,
    pub(crate) blob_gc: i64,
}

synap_postgres::from_row!(Rows {
    entities,
    content_blocks,
    entity_revisions,
    write_operations,
    blob_gc,
});

pub(crate) async fn rows(pool: &PgPool) -> Rows {
    let counts = "SELECT (SELECT count(*) FROM entities) AS entities,
                         (SELECT count(*) FROM content_blocks) AS content_blocks,
                         (SELECT count(*) FROM entity_revisions) AS entity_revisions,
                         (SELECT count(*) FROM write_operations) AS write_operations,
                         (SELECT count(*) FROM blob_gc) AS blob_gc";
    sqlx::query_as(counts).fetch_one(pool).await.unwrap()
}

/// A row of write_operations.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OperationRow {
    pub(crate) state: String,
    pub(crate) epoch: i64,
    pub(crate) committed_epoch: Option<i64>,
    pub(crate) attempts: i32,
    pub(crate) event_type: Option<String>,
    pub(crate) event_data: Option<String>,
    /// Seconds between the last change and the end of the lease.
    pub(crate) lease: f64,
}

synap_postgres::from_row!(OperationRow {
    state,
    epoch,
    committed_epoch,
    attempts,
    event_type,
    event_data,
    lease,
});

pub(crate) async fn operation(pool: &PgPool, operation: Option<&pb::OperationRef>) -> OperationRow {
    let operation = operation.unwrap();
    sqlx::query_as(
        "SELECT state, epoch, committed_epoch, attempts, event_type, event_data::text,
                extract(epoch FROM lease_until - updated_at)::float8 AS lease
         FROM write_operations WHERE user_id = $1 AND request_id = $2::uuid",
    )
    .bind(&operation.user_id)
    .bind(&operation.request_id)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// All leases run out now.
pub(crate) async fn expire_leases(pool: &PgPool) {
    execute(pool, "UPDATE write_operations SET lease_until = clock_timestamp() - interval '1 s'")
        .await;
}

pub(crate) async fn set_phase(pool: &PgPool, phase: &str) {
    let set = "UPDATE storage_phase SET phase = $1";
    assert_eq!(sqlx::query(set).bind(phase).execute(pool).await.unwrap().rows_affected(), 1);
}

pub(crate) async fn execute(pool: &PgPool, statements: &'static str) {
    sqlx::raw_sql(statements).execute(pool).await.unwrap();
}

/// The keys whose blobs are to be deleted.
pub(crate) async fn deletions(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("SELECT key FROM blob_gc ORDER BY key").fetch_all(pool).await.unwrap()
}
