//! Step 3: the pivot of a deletion. The entity stays, with the time of its deletion and a version of
//! its own; its blob stays until the entity is purged.

use sqlx::Row as _;
use synap_proto::field::Violation;

use super::{Store, rows};
use crate::{
    domain::{Attempt, Deletion, Entity},
    error::Error,
};

const FIND_OPERATION: &str = "
    SELECT user_id, kind, state, epoch, committed_epoch, entity_id, entity_version, entity_type
    FROM write_operations
    WHERE user_id = $1 AND request_id = $2
    FOR UPDATE";

/// Held, so that of two deletions at once one finds nothing to delete.
const FIND_ENTITY: &str = "
    SELECT version FROM entities
    WHERE id = $1 AND user_id = $2 AND type = $3 AND deleted_at IS NULL
    FOR UPDATE";

const PIVOT: &str = "
    WITH pivot AS (
        UPDATE write_operations
        SET state = 'COMMITTED', committed_epoch = epoch, entity_version = $3, event_type = $4,
            event_data = $5::json, updated_at = clock_timestamp(),
            lease_until = clock_timestamp() + make_interval(secs => $6)
        WHERE user_id = $1 AND request_id = $2
        RETURNING entity_id, occurred_at
    ),
    entity AS (
        UPDATE entities e
        SET version = $3, deleted_at = p.occurred_at, updated_at = p.occurred_at
        FROM pivot p
        WHERE e.id = p.entity_id
        RETURNING e.*
    ),
    revision AS (
        INSERT INTO entity_revisions (entity_id, version, user_id, title, preview, tags, file_url,
                                      file_path, file_size, file_type, checksum, file_name,
                                      created_at, deleted_at)
        SELECT id, version, user_id, title, preview, tags, file_url, file_path, file_size,
               file_type, checksum, file_name, deleted_at, deleted_at
        FROM entity
    )
    SELECT * FROM entity";

impl Store {
    /// Step 3 of a deletion. Repeating a commit that went through succeeds.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::EntityNotFound`] or [`Error::VersionConflict`]; and then nothing
    /// was written.
    #[tracing::instrument(name = "db.operation.commit", skip_all, err(level = "debug"))]
    pub async fn delete(&self, deletion: Deletion) -> Result<Entity, Error> {
        let Attempt { operation, epoch } = &deletion.attempt;
        let mut transaction = self.database.for_user(&operation.user).await?;
        let row = sqlx::query(FIND_OPERATION)
            .bind(operation.user.as_str())
            .bind(operation.request)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(Error::Fenced)?;
        if row.try_get::<Option<i64>, _>("committed_epoch")? == Some(*epoch) {
            // The reply to the first commit was lost.
            return rows::answer(&mut transaction, &row).await;
        }
        if row.try_get::<&str, _>("state")? != "PENDING"
            || row.try_get::<i64, _>("epoch")? != *epoch
        {
            return Err(Error::Fenced);
        }
        if row.try_get::<&str, _>("kind")? != "delete" {
            return Err(Violation::new("delete", "is not what the operation was begun for").into());
        }
        let current: i32 = sqlx::query_scalar(FIND_ENTITY)
            .bind(row.try_get::<uuid::Uuid, _>("entity_id")?)
            .bind(operation.user.as_str())
            .bind(row.try_get::<&str, _>("entity_type")?)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(Error::EntityNotFound)?;
        if deletion.expected_version.is_some_and(|expected| expected != current) {
            return Err(Error::VersionConflict { current });
        }
        let row = sqlx::query(PIVOT)
            .bind(operation.user.as_str())
            .bind(operation.request)
            .bind(current + 1)
            .bind(&deletion.event.event_type)
            .bind(&deletion.event.data)
            .bind(self.times.event_lease_secs)
            .fetch_one(&mut *transaction)
            .await?;
        let entity = rows::entity(&row)?;
        transaction.commit().await?;
        Ok(entity)
    }
}
