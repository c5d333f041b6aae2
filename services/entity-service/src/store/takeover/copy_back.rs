//! Bodies back into content_blocks, for who goes back to a phase that reads them there.

use sqlx::Row as _;
use uuid::Uuid;

use super::{WALK, WALK_BYTES, estimate};
use crate::{
    domain::{BodyToCopy, ContentBlock, CopyBack, Stretch},
    error::Error,
    store::{Store, phase},
};

/// The next entities, and whether their content block is the body of their blob: by its checksum if
/// it is ours, which the same statement has written; else by what it holds. As many as have blocks of
/// V0.2 of $3 bytes together, or the first alone.
///
/// A block of V0.2 that is another body is older if a write of ours came after it, which then has a
/// revision that names the blob. Without one it was written behind our back.
const PAGE: &str = "
    WITH page AS MATERIALIZED (
        SELECT id, type, file_path, file_size, checksum FROM entities
        WHERE id > $1 ORDER BY id LIMIT $2
    ),
    sized AS MATERIALIZED (
        SELECT p.*, b.user_id AS ours, b.checksum AS block_checksum, b.last_modified_at,
               b.content, CASE WHEN b.user_id IS NULL THEN octet_length(b.content) END AS bytes,
               sum(CASE WHEN b.user_id IS NULL THEN octet_length(b.content) END)
                   OVER (ORDER BY p.id) AS bytes_so_far
        FROM page p LEFT JOIN content_blocks b ON b.entity_id = p.id
    ),
    looked AS (
        SELECT s.*,
               CASE WHEN type = 'file' OR file_path IS NULL THEN true
                    WHEN content IS NULL THEN false
                    WHEN ours IS NOT NULL THEN block_checksum IS NOT DISTINCT FROM checksum
                    ELSE synap_is_checksum(sha256(convert_to(content, 'UTF8')), checksum) IS NOT FALSE
               END AS current
        FROM sized s
        WHERE coalesce(bytes_so_far - bytes, 0) < $3
    )
    SELECT id, current, file_path, coalesce(file_size, 0) AS file_size,
           coalesce(checksum, '') AS checksum,
           (content IS NULL OR ours IS NOT NULL
            OR (SELECT min(r.created_at) FROM entity_revisions r
                WHERE r.entity_id = l.id AND r.file_path = l.file_path) >= last_modified_at)
           IS TRUE AS older
    FROM looked l ORDER BY id";

/// The entity's row is held, so that a write which is under way is seen: its body is another.
const PUT: &str = "
    WITH given AS MATERIALIZED (
        SELECT id, key, content FROM unnest($1::uuid[], $2::text[], $3::text[]) AS g (id, key, content)
    ),
    entity AS MATERIALIZED (
        SELECT e.id, e.user_id, e.checksum, e.updated_at, e.file_path FROM entities e
        WHERE e.id = ANY ($1) AND e.type <> 'file'
        FOR SHARE
    )
    INSERT INTO content_blocks (entity_id, user_id, content, content_type, mime_type, size_bytes,
                                checksum, uploaded_at, last_modified_at)
    SELECT e.id, e.user_id, g.content, 'markdown', 'text/markdown', octet_length(g.content),
           e.checksum, e.updated_at, e.updated_at
    FROM given g JOIN entity e ON e.id = g.id AND e.file_path = g.key
    WHERE synap_is_checksum(sha256(convert_to(g.content, 'UTF8')), e.checksum) IS NOT FALSE
    ON CONFLICT (entity_id) DO UPDATE
    SET user_id = excluded.user_id, content = excluded.content,
        content_type = excluded.content_type, mime_type = excluded.mime_type,
        size_bytes = excluded.size_bytes, checksum = excluded.checksum,
        last_modified_at = excluded.last_modified_at,
        storage_provider = 'db', storage_path = NULL, storage_url = NULL, embedding = NULL";

impl Store {
    /// What content_blocks lacks of the next entities.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.takeover.list_bodies", skip_all, err(level = "debug"))]
    pub async fn bodies_to_copy_back(&self, after: Uuid) -> Result<Stretch<CopyBack>, Error> {
        let mut connection = self.database.across_users().await?;
        let total = estimate(&mut connection, "entities").await?;
        let rows = sqlx::query(PAGE)
            .bind(after)
            .bind(WALK)
            .bind(WALK_BYTES)
            .fetch_all(&mut *connection)
            .await?;
        let mut stretch = Stretch { found: CopyBack::default(), seen: 0, last: None, total };
        for row in rows {
            let id = row.try_get("id")?;
            stretch.seen += 1;
            stretch.last = Some(id);
            if row.try_get("current")? {
                continue;
            }
            if !row.try_get::<bool, _>("older")? {
                stretch.found.unknown.push(id);
                continue;
            }
            stretch.found.bodies.push(BodyToCopy {
                id,
                key: row.try_get("file_path")?,
                size: row.try_get("file_size")?,
                checksum: row.try_get("checksum")?,
            });
        }
        Ok(stretch)
    }

    /// Writes bodies into content_blocks, and tells how many: those of entities that still name the
    /// blob. The phase does not change meanwhile.
    ///
    /// # Errors
    /// [`Error::LegacyNotReady`] if there is no table to write to.
    #[tracing::instrument(name = "db.takeover.put_blocks", skip_all, err(level = "debug"))]
    pub async fn put_content_blocks(&self, blocks: Vec<ContentBlock>) -> Result<u64, Error> {
        let mut transaction = self.database.begin_across_users().await?;
        phase::hold(&mut transaction).await?;
        phase::table_is_there(&mut transaction).await?;
        let mut columns = (Vec::new(), Vec::new(), Vec::new());
        for block in blocks {
            columns.0.push(block.id);
            columns.1.push(block.key);
            columns.2.push(block.content);
        }
        let written = sqlx::query(PUT)
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(written.rows_affected())
    }
}
