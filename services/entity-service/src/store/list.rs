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

impl Store {
    /// Lists entities of one user, the newest first.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.list", skip_all, err(level = "debug"))]
    pub async fn list(&self, listing: &Listing) -> Result<Vec<Entity>, Error> {
        let mut transaction = self.database.for_user(&listing.user).await?;
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
