//! Content blocks that are not what their entity's row says: edited behind our back.

use sqlx::Row as _;
use uuid::Uuid;

use super::{Store, has_blocks};
use crate::{
    domain::{ContentDifference, Differences},
    error::Error,
    store::phase,
};

/// Blocks of one statement at most.
const BLOCKS: i64 = 2_000;
/// Bytes that one statement hashes, unless the first block alone is larger. The length of a text is
/// known without reading it.
const BYTES: i64 = 64 * 1024 * 1024;

/// The definition of a difference: there is a text, the entity has a file, and the text's SHA-256 is
/// not the checksum of the row, in either of its spellings. One snapshot sees both, and a pivot writes
/// both.
///
/// Rows are asked for by their keys, whatever the planner believes: before a migration no entity has
/// a file, and until the database has looked at its rows again it would begin with those that do.
const DIFFERENCES: &str = "
    WITH page AS MATERIALIZED (
        SELECT entity_id, sum(coalesce(octet_length(content), 0)::int8) OVER (ORDER BY entity_id) AS bytes,
               row_number() OVER (ORDER BY entity_id) AS n
        FROM (SELECT entity_id, content FROM content_blocks
              WHERE entity_id > $1 ORDER BY entity_id LIMIT $2) b
    ),
    step AS MATERIALIZED (SELECT entity_id, n FROM page WHERE n = 1 OR bytes <= $3::int8),
    step_end AS (SELECT entity_id AS id, n FROM step ORDER BY n DESC LIMIT 1)
    SELECT d.*, e.id AS step_end, e.n AS compared FROM step_end e LEFT JOIN (
        SELECT s.entity_id AS id, e.user_id, e.file_path
        FROM step s,
             LATERAL (SELECT user_id, file_path, checksum FROM entities
                      WHERE id = s.entity_id OFFSET 0) e,
             LATERAL (SELECT sha256(convert_to(content, 'UTF8')) AS sha FROM content_blocks
                      WHERE entity_id = s.entity_id AND content <> '' AND e.file_path IS NOT NULL
                      OFFSET 0) h
        WHERE synap_is_checksum(h.sha, e.checksum) IS NOT TRUE
    ) d ON true
    ORDER BY d.id";

impl Store {
    /// Hashes the next content blocks inside the database, as many as one statement should.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.content_block.compare", skip_all, err(level = "debug"))]
    pub async fn content_differences(&self, after: Uuid) -> Result<Differences, Error> {
        let mut transaction = self.long_across_users().await?;
        let phase = phase::find(&mut transaction).await?;
        if !phase.writes_content_block() || !has_blocks(&mut transaction).await? {
            return Ok(Differences::default());
        }
        let query = sqlx::query(DIFFERENCES).persistent(false).bind(after).bind(BLOCKS).bind(BYTES);
        let rows = query.fetch_all(&mut *transaction).await?;
        let mut found = Differences { applies: true, ..Differences::default() };
        for row in &rows {
            found.compared = row.try_get("compared")?;
            found.next = Some(row.try_get("step_end")?);
            if let Some(entity_id) = row.try_get("id")? {
                let (user_id, key) = (row.try_get("user_id")?, row.try_get("file_path")?);
                found.differences.push(ContentDifference { entity_id, user_id, key });
            }
        }
        Ok(found)
    }
}
