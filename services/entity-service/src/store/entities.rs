//! Reading entities.

use sqlx::Row as _;
use synap_types::UserId;
use uuid::Uuid;

use super::{Store, rows};
use crate::{domain::Entity, error::Error};

/// While the phase is `legacy`, content_blocks holds every body: a file that early V0.3 wrote may
/// be missing or older. But not where a block is ours (it says whose it is) and of another body: the
/// note was changed in a phase that writes no blocks, before somebody went back. In `dual_write` it
/// holds the body beside the blob, for a blob that cannot be read; in later phases nobody relies on
/// it. A text of V0.2 whose row names an object of early V0.3 (its key has no folder of the entity's, as
/// those have that are migrated) may have been changed since: in `dual_write` it is not migrated yet.
///
/// IS TRUE, here and wherever one entity is named: while the table is small the planner finds every
/// index as good as the primary key, and keeps the plan when the table has grown.
const GET: &str = "
    SELECT e.id, e.user_id, e.type, e.title, e.preview, e.tags, e.file_url, e.file_path,
           e.file_size, e.file_type, e.checksum, e.file_name, e.version, e.created_at,
           e.updated_at, e.deleted_at,
           CASE WHEN NOT $3 THEN NULL
                WHEN e.file_path IS NULL
                     OR (SELECT phase = 'legacy' OR phase = 'dual_write' AND $4
                         FROM storage_phase WHERE only_row)
                THEN synap_content_block(e.id, e.checksum, e.file_path IS NULL)
                WHEN strpos(e.file_path, format('/%s/', e.id)) = 0
                     AND (SELECT phase = 'dual_write' FROM storage_phase WHERE only_row)
                THEN synap_text_of_v02(e.id)
           END AS content_block
    FROM entities e
    WHERE e.id = $1 AND (e.user_id = $2 AND e.deleted_at IS NULL) IS TRUE";

impl Store {
    /// Reads one entity of one user, and its body from content_blocks if that is asked for and
    /// the entity has no file, or the phase is `legacy`, or its blob is unreadable and the phase is
    /// `dual_write`. `None` if there is none, it is deleted, or it is another user's.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.get", skip_all, err(level = "debug"))]
    pub async fn entity(
        &self,
        user: &UserId,
        id: Uuid,
        with_content_block: bool,
        blob_unreadable: bool,
    ) -> Result<Option<(Entity, Option<String>)>, Error> {
        let mut transaction = self.database.for_user(user).await?;
        let row = sqlx::query(GET)
            .bind(id)
            .bind(user.as_str())
            .bind(with_content_block)
            .bind(blob_unreadable)
            .fetch_optional(&mut *transaction)
            .await?;
        row.map(|row| Ok((rows::entity(&row)?, row.try_get("content_block")?))).transpose()
    }
}
