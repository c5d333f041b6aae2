//! The end of what was deleted longer ago than the retention.

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::Store;
use crate::{
    config::ProtocolArgs,
    domain::{Edit, Purgeable},
    error::Error,
};

/// The rows go by ON DELETE CASCADE: content block, vectors and revisions, with their owner. Every
/// body that they name is deleted once those who have read a row must have read the body. A row of
/// V0.2 may name a body that another row names, too, or a key that is none of ours.
const PIVOT: &str = "
    WITH pivot AS (
        UPDATE write_operations
        SET state = 'COMMITTED', committed_epoch = epoch, entity_version = $3, event_type = $4,
            event_data = $5::json, updated_at = clock_timestamp(),
            lease_until = clock_timestamp() + make_interval(secs => $7)
        WHERE user_id = $1 AND request_id = $2
        RETURNING entity_id
    ),
    named AS (
        SELECT e.file_path AS key FROM entities e JOIN pivot p ON e.id = p.entity_id
        WHERE (e.user_id = $1) IS TRUE
        UNION
        SELECT r.file_path FROM entity_revisions r JOIN pivot p ON r.entity_id = p.entity_id
        WHERE r.user_id = $1
    ),
    given_up AS (
        INSERT INTO blob_gc (key, not_before, settled_at)
        SELECT n.key, at, at
        FROM named n CROSS JOIN pivot p,
             LATERAL (SELECT statement_timestamp() + make_interval(secs => $6)) AS grace (at)
        WHERE n.key ~ '^users(/[A-Za-z0-9_~.%-]+){2,}$'
          AND (SELECT count(*) FROM entities other
               WHERE (other.user_id = $1) IS TRUE AND other.file_path = n.key
                 AND other.id <> p.entity_id) = 0
        ON CONFLICT (key) DO NOTHING
    )
    DELETE FROM entities e
    USING pivot p
    WHERE e.id = p.entity_id AND (e.user_id = $1) IS TRUE
    RETURNING e.id, e.user_id, e.type, NULL::text AS title, NULL::text AS preview,
              '{}'::text[] AS tags, NULL::text AS file_path, $3 AS version, e.created_at,
              e.updated_at, e.deleted_at, false AS adopts";

/// Those that are deleted for longest come first. What V0.2 has deleted has no revision of it, and
/// stays: nobody was told then that it would go.
const LIST: &str = "
    SELECT e.user_id, e.type, e.id
    FROM entity_revisions r JOIN entities e ON e.id = r.entity_id AND e.version = r.version
    WHERE r.deleted_at < statement_timestamp() - make_interval(secs => $1)
    ORDER BY r.deleted_at
    LIMIT $2";

/// Removes an entity, and returns its id, type, times and last version.
pub(super) async fn remove(
    connection: &mut PgConnection,
    edit: &Edit,
    version: i32,
    times: &ProtocolArgs,
) -> Result<PgRow, Error> {
    let row = sqlx::query(PIVOT)
        .bind(edit.attempt.operation.user.as_str())
        .bind(edit.attempt.operation.request)
        .bind(version)
        .bind(&edit.event.event_type)
        .bind(&edit.event.data)
        .bind(times.blob_settle_secs)
        .bind(times.event_lease_secs)
        .fetch_one(connection)
        .await?;
    Ok(row)
}

impl Store {
    /// Entities that were deleted longer ago than the retention.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.purgeable", skip_all, err(level = "debug"))]
    pub async fn purgeable(&self, limit: i64) -> Result<Vec<Purgeable>, Error> {
        let rows = sqlx::query(LIST)
            .bind(self.times.deleted_retention_secs())
            .bind(limit)
            .fetch_all(&mut *self.database.across_users().await?)
            .await?;
        let purgeable = |row: &PgRow| {
            Ok(Purgeable {
                user_id: row.try_get("user_id")?,
                entity_type: row.try_get("type")?,
                entity_id: row.try_get("id")?,
            })
        };
        rows.iter().map(purgeable).collect()
    }
}
