//! What recovery asks for: operations whose writer is gone, and blobs that nobody will name.
//! Everything is handed out under a lease of the database's clock and committed before it is acted
//! upon, so that any number of recovery workers can run, and any of them die.

use sqlx::Row as _;

use super::{Store, rows};
use crate::{domain::Claimed, error::Error};

/// Pending operations are given up: a later epoch fences their writer, their key will be deleted.
/// Committed ones are handed out, at longer and longer intervals while the event store is away.
/// What is due is compared with the time of the statement: no index can be asked for a clock that
/// goes on while it is read.
/// The events of one entity come in the order of its versions: a later one waits, under no lease of
/// its own, until the one before it is appended.
const CLAIM: &str = "
    WITH due AS (
        SELECT user_id, request_id FROM write_operations w
        WHERE state IN ('PENDING', 'COMMITTED') AND lease_until < statement_timestamp()
          AND NOT EXISTS (SELECT FROM write_operations earlier
                          WHERE earlier.state = 'COMMITTED' AND earlier.entity_id = w.entity_id
                            AND earlier.entity_version < w.entity_version)
        ORDER BY lease_until
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    ),
    claimed AS (
        UPDATE write_operations o
        SET epoch = epoch + 1, updated_at = clock_timestamp(),
            state = CASE state WHEN 'PENDING' THEN 'ABORTED' ELSE state END,
            attempts = attempts + 1,
            lease_until = clock_timestamp()
                        + make_interval(secs => $2 * power(2, least(attempts, 6)))
        FROM due
        WHERE o.user_id = due.user_id AND o.request_id = due.request_id
        RETURNING o.user_id, o.request_id, o.state, o.epoch, o.entity_type, o.entity_id,
            o.blob_key, o.event_id, o.occurred_at, o.entity_version, o.event_type,
            o.event_data::text, o.adopts
    ),
    given_up AS (
        INSERT INTO blob_gc (key, not_before, settled_at)
        SELECT blob_key, clock_timestamp(), clock_timestamp() + make_interval(secs => $3)
        FROM claimed WHERE state = 'ABORTED' AND blob_key IS NOT NULL
        ON CONFLICT (key) DO NOTHING
    )
    SELECT * FROM claimed";

const CLAIM_DELETIONS: &str = "
    WITH due AS (
        SELECT key FROM blob_gc WHERE not_before <= statement_timestamp()
        ORDER BY not_before
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE blob_gc g
    SET not_before = clock_timestamp() + make_interval(secs => $2),
        final = settled_at <= clock_timestamp()
    FROM due
    WHERE g.key = due.key
    RETURNING g.key";

/// A deletion that was handed out before its writer had settled is not the last.
const COMPLETE_DELETIONS: &str = "
    WITH settled AS (DELETE FROM blob_gc WHERE key = ANY ($1) AND final)
    UPDATE blob_gc SET not_before = settled_at WHERE key = ANY ($1) AND NOT final";

/// Old rows go in small steps, and never before their blob is gone for good.
const FORGET: &str = "
    WITH old AS (
        SELECT user_id, request_id FROM write_operations w
        WHERE state IN ('DONE', 'ABORTED')
          AND updated_at < statement_timestamp() - make_interval(secs => $1)
          AND NOT EXISTS (SELECT FROM blob_gc g WHERE g.key = w.blob_key)
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM write_operations o
    USING old
    WHERE o.user_id = old.user_id AND o.request_id = old.request_id";

impl Store {
    /// Gives up pending operations whose lease ran out, and hands out committed ones.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.operation.claim", skip_all, err(level = "debug"))]
    pub async fn claim(&self, limit: i64) -> Result<Claimed, Error> {
        let rows = sqlx::query(CLAIM)
            .bind(limit)
            .bind(self.times.event_lease_secs)
            .bind(self.times.blob_settle_secs)
            .fetch_all(&mut *self.database.across_users().await?)
            .await?;
        let mut claimed = Claimed::default();
        for row in rows {
            match row.try_get("state")? {
                "ABORTED" => claimed.aborted += 1,
                _ => claimed.pending_events.extend(rows::pending_event(&row)?),
            }
        }
        Ok(claimed)
    }

    /// Hands out keys to delete.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.blob_gc.claim", skip_all, err(level = "debug"))]
    pub async fn claim_deletions(&self, limit: i64) -> Result<Vec<String>, Error> {
        let keys = sqlx::query_scalar(CLAIM_DELETIONS)
            .bind(limit)
            .bind(self.times.deletion_lease_secs)
            .fetch_all(&mut *self.database.across_users().await?)
            .await?;
        Ok(keys)
    }

    /// The keys are deleted: forgets those whose deletion was final.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.blob_gc.complete", skip_all, err(level = "debug"))]
    pub async fn complete_deletions(&self, keys: &[String]) -> Result<(), Error> {
        // In one order for all workers, so that no two wait for each other.
        let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        keys.sort_unstable();
        sqlx::query(COMPLETE_DELETIONS)
            .bind(keys)
            .execute(&mut *self.database.across_users().await?)
            .await?;
        Ok(())
    }

    /// Forgets operations that ended longer ago than the retention; at most `limit` of them.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.operation.forget", skip_all, err(level = "debug"))]
    pub async fn forget_operations(&self, limit: i64) -> Result<u64, Error> {
        let done = sqlx::query(FORGET)
            .bind(self.times.operation_retention_secs())
            .bind(limit)
            .execute(&mut *self.database.across_users().await?)
            .await?;
        Ok(done.rows_affected())
    }
}
