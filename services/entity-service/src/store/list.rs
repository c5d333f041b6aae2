//! Lists: a page is a walk along `entities_listing_idx` from where the last one ended.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Store, rows};
use crate::{
    domain::{Entity, Listing},
    error::Error,
};

/// Every bound is always there, so that one plan serves all questions; and each is a plain parameter:
/// under row-level security an index is only asked what cannot leak, which `coalesce` is not known
/// not to.
const LIST: &str = "
    SELECT id, user_id, type, title, preview, tags, file_url, file_path, file_size, file_type,
           checksum, file_name, version, created_at, updated_at, deleted_at
    FROM entities
    WHERE user_id = $1 AND type = $2
      AND (created_at, id) < ($3, $4)
      AND created_at >= $5 AND created_at < $6
      AND updated_at >= $7 AND updated_at < $8
      AND ($9 OR deleted_at IS NULL) AND tags @> $10
    ORDER BY created_at DESC, id DESC
    LIMIT $11";

/// Times before and after all that there are; PostgreSQL's begin in 4714 BC.
const FIRST: DateTime<Utc> = time(-200_000_000_000);
const LAST: DateTime<Utc> = DateTime::<Utc>::MAX_UTC;

const fn time(seconds: i64) -> DateTime<Utc> {
    match DateTime::from_timestamp(seconds, 0) {
        Some(time) => time,
        None => DateTime::<Utc>::UNIX_EPOCH,
    }
}

/// Nobody's bound may be a time that PostgreSQL does not have.
fn bound(time: Option<DateTime<Utc>>, otherwise: DateTime<Utc>) -> DateTime<Utc> {
    time.unwrap_or(otherwise).clamp(FIRST, LAST)
}

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
            .bind(bound(listing.after.map(|after| after.created_at), LAST))
            .bind(listing.after.map_or(Uuid::max(), |after| after.id))
            .bind(bound(listing.created.from, FIRST))
            .bind(bound(listing.created.until, LAST))
            .bind(bound(listing.updated.from, FIRST))
            .bind(bound(listing.updated.until, LAST))
            .bind(listing.include_deleted)
            .bind(&listing.tags)
            .bind(listing.limit)
            .fetch_all(&mut *transaction)
            .await?;
        rows.iter().map(rows::entity).collect()
    }
}
