//! What an operator asks of the entities of all users.

use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, rows};
use crate::{
    domain::{Entity, Head},
    error::Error,
};

/// An entity's first event may be on its way: committed and not known to be appended. History ends
/// below it, or it would find its version taken for ever.
const HEADS: &str = "
    SELECT id, user_id, type,
           coalesce((SELECT min(o.entity_version) - 1 FROM write_operations o
                     WHERE o.entity_id = e.id AND o.state = 'COMMITTED' AND o.adopts),
                    version) AS version
    FROM entities e WHERE id = ANY ($1)";

impl Store {
    /// What the entities are, whose, and at which version their events begin, if they have none in
    /// the event store; those that there are not are left out.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.heads", skip_all, err(level = "debug"))]
    pub async fn heads(&self, ids: &[Uuid]) -> Result<Vec<Head>, Error> {
        let rows = sqlx::query(HEADS).bind(ids);
        let rows = rows.fetch_all(&mut *self.database.across_users().await?).await?;
        let head = |row: &sqlx::postgres::PgRow| {
            Ok(Head {
                id: row.try_get("id")?,
                user_id: row.try_get("user_id")?,
                entity_type: row.try_get("type")?,
                version: row.try_get("version")?,
            })
        };
        rows.iter().map(head).collect()
    }

    /// The entities of all users in the order of ids, deleted ones too.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.entity.list_all", skip_all, err(level = "debug"))]
    pub async fn list_all(&self, after: Uuid, limit: i64) -> Result<Vec<Entity>, Error> {
        let rows = sqlx::query(
            "SELECT id, user_id, type, title, preview, tags, file_url, file_path, file_size,
                    file_type, checksum, file_name, version, created_at, updated_at, deleted_at
             FROM entities WHERE id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&mut *self.database.across_users().await?)
        .await?;
        rows.iter().map(rows::entity).collect()
    }
}
