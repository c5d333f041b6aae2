//! The search documents of what is older than they are: V0.2 had none.

use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, phase};
use crate::{domain::Walked, error::Error};

/// Looks at the next entities by id, and writes the documents that are missing. A file has none.
///
/// A row that somebody holds is left to the next walk, and none is written while this is under way: a
/// change of its title finds the document, or this finds the change. Who looks at the same rows at
/// the same time does no harm.
///
/// As much of a body is taken as in a pivot, 64 KiB at most; and of a title, which V0.2 did not limit,
/// more than anybody reads. Rows are asked for by their keys, so that no plan joins whole tables.
const FILL: &str = "
    WITH seen AS (
        SELECT id FROM entities WHERE id > $1 ORDER BY id LIMIT $2
    ),
    missing AS (
        SELECT id FROM entities e
        WHERE id = ANY (ARRAY(SELECT id FROM seen)) AND type <> 'file'
          AND (SELECT count(*) FROM entity_search s WHERE s.entity_id = e.id) = 0
    ),
    held AS (
        SELECT id, user_id, title, tags FROM entities
        WHERE id = ANY (ARRAY(SELECT id FROM missing))
        FOR UPDATE SKIP LOCKED
    ),
    filled AS (
        INSERT INTO entity_search (entity_id, user_id, document)
        SELECT h.id, h.user_id,
               synap_search_document(
                   h.user_id, left(h.title, 1000),
                   (SELECT left(content, CASE WHEN octet_length(left(content, 65536)) <= 65536
                                              THEN 65536 ELSE 16384 END)
                    FROM content_blocks b WHERE b.entity_id = h.id),
                   h.tags, (SELECT synap_search_language($3)))
        FROM held h
        ON CONFLICT (entity_id) DO NOTHING
        RETURNING entity_id
    )
    SELECT (SELECT id FROM seen ORDER BY id DESC LIMIT 1) AS last,
           (SELECT count(*) FROM missing) AS missing, (SELECT count(*) FROM filled) AS filled";

impl Store {
    /// Writes the search documents that are missing among the first `limit` entities after one.
    /// Where bodies are not in content_blocks there is no way to go.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.search.fill", skip_all, err(level = "debug"))]
    pub async fn fill_documents(&self, after: Uuid, limit: i64) -> Result<Walked, Error> {
        let mut connection = self.database.across_users().await?;
        if !phase::find(&mut connection).await?.writes_content_block() {
            return Ok(Walked::default());
        }
        let row = sqlx::query(FILL)
            .bind(after)
            .bind(limit)
            .bind(&self.search.language)
            .fetch_one(&mut *connection)
            .await?;
        let (missing, filled): (i64, i64) = (row.try_get("missing")?, row.try_get("filled")?);
        Ok(Walked {
            last: row.try_get("last")?,
            filled: filled.unsigned_abs(),
            left: (missing - filled).unsigned_abs(),
        })
    }
}
