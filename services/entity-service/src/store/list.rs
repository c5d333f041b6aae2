//! Lists: a page is a walk along `entities_listing_idx` from where the last one ended.

use super::{Store, rows};
use crate::{
    domain::{Entity, Listing},
    error::Error,
};

/// Every bound is always there, so that one plan serves all questions.
const LIST: &str = "
    SELECT id, user_id, type, title, preview, tags, file_url, file_path, file_size, file_type,
           checksum, file_name, version, created_at, updated_at, deleted_at
    FROM entities
    WHERE user_id = $1 AND type = $2
      AND (created_at, id) < (coalesce($3, 'infinity'),
                              coalesce($4, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
      AND created_at >= coalesce($5, '-infinity') AND created_at < coalesce($6, 'infinity')
      AND updated_at >= coalesce($7, '-infinity') AND updated_at < coalesce($8, 'infinity')
      AND ($9 OR deleted_at IS NULL) AND tags @> $10
    ORDER BY created_at DESC, id DESC
    LIMIT $11";

/// So many bounds look to the planner as if hardly a row were left: it would read all rows of the
/// user, or of all users, and sort them. In this order they come out of one index only.
const IN_ORDER: &str = "
    SELECT set_config('enable_sort', 'off', true),
           set_config('enable_incremental_sort', 'off', true)";

impl Store {
    /// Lists entities of one user, the newest first.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.list", skip_all, err(level = "debug"))]
    pub async fn list(&self, listing: &Listing) -> Result<Vec<Entity>, Error> {
        let mut transaction = self.database.for_user(&listing.user).await?;
        sqlx::query(IN_ORDER).execute(&mut *transaction).await?;
        let rows = sqlx::query(LIST)
            .bind(listing.user.as_str())
            .bind(listing.entity_type.as_str())
            .bind(listing.after.map(|after| after.created_at))
            .bind(listing.after.map(|after| after.id))
            .bind(listing.created.from)
            .bind(listing.created.until)
            .bind(listing.updated.from)
            .bind(listing.updated.until)
            .bind(listing.include_deleted)
            .bind(&listing.tags)
            .bind(listing.limit)
            .fetch_all(&mut *transaction)
            .await?;
        rows.iter().map(rows::entity).collect()
    }
}
