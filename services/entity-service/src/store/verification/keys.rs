//! Which object keys no row names.

use uuid::Uuid;

use super::Store;
use crate::error::Error;

/// A revision is looked for where its key says that it is: below the id of its entity. A scalar
/// subquery is asked for each key by its index, and never becomes a join that reads a whole table; of
/// operations only those under way are few, and are read once.
const QUICK: &str = "
    SELECT k.key FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS k (key, entity_id, n)
    WHERE coalesce(
        (SELECT true FROM entities e WHERE e.file_path = k.key LIMIT 1),
        (SELECT true FROM entity_revisions r
         WHERE r.entity_id = k.entity_id AND r.file_path = k.key LIMIT 1),
        (SELECT true FROM content_migrations m
         WHERE m.entity_id = k.entity_id AND m.key = k.key LIMIT 1),
        (SELECT true FROM blob_gc g WHERE g.key = k.key LIMIT 1),
        k.key IN (SELECT o.blob_key FROM write_operations o
                  WHERE o.state IN ('PENDING', 'COMMITTED') AND o.blob_key IS NOT NULL)
    ) IS NOT TRUE
    ORDER BY k.n";

/// Each table is read once for all keys.
const THOROUGH: &str = "
    SELECT k.key FROM unnest($1::text[]) WITH ORDINALITY AS k (key, n)
    WHERE NOT EXISTS (SELECT FROM entities e WHERE e.file_path = k.key)
      AND NOT EXISTS (SELECT FROM entity_revisions r WHERE r.file_path = k.key)
      AND NOT EXISTS (SELECT FROM content_migrations m WHERE m.key = k.key)
      AND NOT EXISTS (SELECT FROM blob_gc g WHERE g.key = k.key)
      AND NOT EXISTS (SELECT FROM write_operations o WHERE o.blob_key = k.key)
    ORDER BY k.n";

impl Store {
    /// Those of the keys that no row names. `thorough` looks through whole tables: a row of V0.2 may
    /// name a key that is not of its form, and an operation that was given up is remembered for a
    /// while.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.object_key.find_unknown", skip_all, err(level = "debug"))]
    pub async fn unknown_keys(
        &self,
        keys: &[String],
        thorough: bool,
    ) -> Result<Vec<String>, Error> {
        if thorough {
            let query = sqlx::query_scalar(THOROUGH).persistent(false).bind(keys);
            return Ok(query.fetch_all(&mut *self.long_across_users().await?).await?);
        }
        let entities: Vec<Option<Uuid>> = keys.iter().map(|key| entity_of(key)).collect();
        let query = sqlx::query_scalar(QUICK).persistent(false).bind(keys).bind(entities);
        Ok(query.fetch_all(&mut *self.database.across_users().await?).await?)
    }
}

/// The entity that a key of ours says it is of: `users/{user}/{type}s/{entity_id}.{ext}`, or
/// `users/{user}/{type}s/{entity_id}/{revision_id}.{ext}`.
fn entity_of(key: &str) -> Option<Uuid> {
    let segment = key.split('/').nth(3)?;
    Uuid::try_parse(segment.split('.').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whose_it_is() {
        let id = Uuid::from_u128(7);
        for key in [format!("users/u/notes/{id}.md"), format!("users/u/notes/{id}/{id}.md")] {
            assert_eq!(entity_of(&key), Some(id), "{key}");
        }
        for key in ["", "users/u/notes/x.md", "quarantine", "users/u/7.md"] {
            assert_eq!(entity_of(key), None, "{key}");
        }
    }
}
