//! The pivot of a repair: the same body under another key. Nothing has happened to the entity that
//! anybody would be told of, so there is no version, no event, and the operation is done at once.

use sqlx::Row as _;
use synap_proto::field::Violation;
use synap_types::BlobKey;

use super::{Store, rows};
use crate::{
    domain::{Attempt, Entity, OperationId, Phase, Repair},
    error::Error,
};

/// Held, so that no other attempt begins until this one ends.
const FIND: &str = "
    SELECT user_id, kind, state, epoch, committed_epoch, entity_id, entity_version, blob_key,
           (SELECT phase FROM storage_phase WHERE only_row) AS phase
    FROM write_operations
    WHERE user_id = $1 AND request_id = $2
    FOR UPDATE";

/// Every revision that named the old blob is one of the same body. A key that is none of ours
/// ($6 is null) was given by V0.2, and nothing would delete it.
const PIVOT: &str = "
    WITH entity AS (
        UPDATE entities e
        SET file_path = o.blob_key, file_url = $5
        FROM write_operations o
        WHERE o.user_id = $1 AND o.request_id = $2
          AND e.id = o.entity_id
          AND (e.user_id = o.user_id AND e.type = o.entity_type AND e.version = $3
               AND e.file_path = $4) IS TRUE
        RETURNING e.*
    ),
    revisions AS (
        UPDATE entity_revisions r
        SET file_path = e.file_path, file_url = e.file_url
        FROM entity e
        WHERE r.entity_id = e.id AND r.user_id = $1 AND r.file_path = $4
    ),
    operation AS (
        UPDATE write_operations
        SET state = 'DONE', committed_epoch = epoch, entity_version = $3,
            updated_at = clock_timestamp()
        WHERE user_id = $1 AND request_id = $2 AND EXISTS (SELECT FROM entity)
    ),
    given_up AS (
        INSERT INTO blob_gc (key, not_before, settled_at)
        SELECT $6::text, clock_timestamp(), clock_timestamp() FROM entity WHERE $6 IS NOT NULL
        ON CONFLICT (key) DO NOTHING
    )
    SELECT id, user_id, type, title, preview, tags, file_url, file_path, file_size, file_type,
           checksum, file_name, version, created_at, updated_at, deleted_at
    FROM entity";

const CURRENT: &str = "SELECT version FROM entities WHERE id = $1 AND (user_id = $2) IS TRUE";

impl Store {
    /// The pivot of a repair. Repeating a commit that went through succeeds.
    ///
    /// # Errors
    /// [`Error::Fenced`]; [`Error::PhaseChanged`] in another phase than dual_write;
    /// [`Error::VersionConflict`] or [`Error::EntityNotFound`] where the entity is not what was to
    /// be repaired any more; and then nothing was written.
    #[tracing::instrument(name = "db.operation.commit", skip_all, err(level = "debug"))]
    pub async fn repair(&self, repair: Repair) -> Result<Entity, Error> {
        let Attempt { operation: OperationId { user, request }, epoch } = &repair.attempt;
        let mut transaction = self.database.pivot_for_user(user).await?;
        let found = sqlx::query(FIND)
            .bind(user.as_str())
            .bind(request)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(Error::Fenced)?;
        if found.try_get::<Option<i64>, _>("committed_epoch")? == Some(*epoch) {
            // The reply to the first commit was lost.
            return rows::answer(&mut transaction, &found).await;
        }
        if found.try_get::<&str, _>("state")? != "PENDING"
            || found.try_get::<i64, _>("epoch")? != *epoch
        {
            return Err(Error::Fenced);
        }
        if found.try_get::<&str, _>("kind")? != "repair" {
            return Err(Violation::new("repair", "is not what the operation was begun for").into());
        }
        if rows::phase(&found)? != repair.phase || repair.phase != Phase::DualWrite {
            return Err(Error::PhaseChanged);
        }
        let ours = BlobKey::parse(&*repair.bad_key).is_ok().then_some(repair.bad_key.as_str());
        let repaired = sqlx::query(PIVOT)
            .bind(user.as_str())
            .bind(request)
            .bind(repair.version)
            .bind(&repair.bad_key)
            .bind(&repair.url)
            .bind(ours)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = repaired else {
            let current = sqlx::query_scalar(CURRENT)
                .bind(found.try_get::<uuid::Uuid, _>("entity_id")?)
                .bind(user.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
            return Err(
                current.map_or(Error::EntityNotFound, |current| Error::VersionConflict { current })
            );
        };
        let entity = rows::entity(&row)?;
        transaction.commit().await?;
        Ok(entity)
    }
}
