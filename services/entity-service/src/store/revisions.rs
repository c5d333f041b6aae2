//! What an entity was at each of its versions, as far as that is kept.

use sqlx::PgConnection;
use synap_types::UserId;
use uuid::Uuid;

use super::{Store, rows};
use crate::{domain::Entity, error::Error};

macro_rules! revisions {
    ($which:literal) => {
        concat!(
            "SELECT r.entity_id AS id, r.user_id, e.type, r.title, r.preview, r.tags, r.file_url,
                    r.file_path, r.file_size, r.file_type, r.checksum, r.file_name, r.version,
                    e.created_at, r.created_at AS updated_at, r.deleted_at
             FROM entity_revisions r JOIN entities e ON e.id = r.entity_id
             WHERE r.entity_id = $1 AND r.user_id = $2 AND ",
            $which
        )
    };
}
const AT: &str = revisions!("r.version = $3");
const LIST: &str = revisions!("r.version < $3 ORDER BY r.version DESC LIMIT $4");

/// An entity as it was at a version; `None` if that is not kept, or it is another user's.
pub(super) async fn at(
    connection: &mut PgConnection,
    user: &str,
    id: Uuid,
    version: i32,
) -> Result<Option<Entity>, Error> {
    let row = sqlx::query(AT).bind(id).bind(user).bind(version).fetch_optional(connection).await?;
    row.as_ref().map(rows::entity).transpose()
}

impl Store {
    /// Reads one entity of one user as it was at a version. `None` if there is none, it is deleted,
    /// it is another user's, or the version is not kept.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.revision.get", skip_all, err(level = "debug"))]
    pub async fn revision(
        &self,
        user: &UserId,
        id: Uuid,
        version: i32,
        with_content_block: bool,
    ) -> Result<Option<(Entity, Option<String>)>, Error> {
        let Some(newest) = self.entity(user, id, with_content_block, false).await? else {
            return Ok(None);
        };
        if newest.0.version == version {
            return Ok(Some(newest));
        }
        let mut transaction = self.database.for_user(user).await?;
        let then = at(&mut transaction, user.as_str(), id, version).await?;
        Ok(then.map(|entity| (entity, None)))
    }

    /// The revisions of one entity of one user below a version, newest first; `None` if there is no
    /// such entity, it is deleted, or it is another user's.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.revision.list", skip_all, err(level = "debug"))]
    pub async fn revisions(
        &self,
        user: &UserId,
        id: Uuid,
        before: i32,
        limit: i64,
    ) -> Result<Option<Vec<Entity>>, Error> {
        let Some((newest, _)) = self.entity(user, id, false, false).await? else { return Ok(None) };
        let mut transaction = self.database.for_user(user).await?;
        let rows = sqlx::query(LIST)
            .bind(id)
            .bind(user.as_str())
            .bind(before)
            .bind(limit)
            .fetch_all(&mut *transaction)
            .await?;
        let mut revisions = rows.iter().map(rows::entity).collect::<Result<Vec<_>, _>>()?;
        // What nobody has written since revisions are kept is its only one.
        if newest.version < before && revisions.first().is_none_or(|r| r.version < newest.version) {
            revisions.insert(0, newest);
            revisions.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(Some(revisions))
    }
}
