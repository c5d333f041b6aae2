//! What must hold before a phase is entered, decided from the rows as they are.

use sqlx::Row as _;
use uuid::Uuid;

use super::{WALK, WALK_BYTES, estimate};
use crate::{
    domain::{Condition, Finding, Phase, Stretch},
    error::Error,
    service::{MIGRATION_TABLE, MIGRATOR},
    store::{Store, phase},
};

/// A body that our own write brought within so many hours need not be read back: content-service
/// hashed it on its way, and a system in use never stands still. What is older must have been read.
const OWN_WRITE_HOURS: i32 = 24;

/// Entities that a finding names.
const NAMED: usize = 20;

/// Recovery appends what its writer did not within seconds.
const WAITING: &str = "
    SELECT entity_id, count(*) OVER () AS number FROM write_operations
    WHERE state = 'COMMITTED' AND occurred_at < clock_timestamp() - interval '1 minute'
    LIMIT 20";

/// The row of a migration goes when it is done with.
const CLAIMS: &str = "
    SELECT entity_id, count(*) OVER () AS number FROM content_migrations
    WHERE state IN ('claimed', 'failed')
    LIMIT 20";

/// What does not hold of the next entities, by the names of conditions. As many as have bodies of
/// $3 bytes together, or the first alone: each is read and hashed here, and none leaves the database.
///
/// In object_only a block is not written any more. It must still be a body that the entity once had:
/// anything else was written behind our back.
const PAGE: &str = "
    WITH page AS MATERIALIZED (
        SELECT id, type, file_path, checksum FROM entities WHERE id > $1 ORDER BY id LIMIT $2
    ),
    sized AS MATERIALIZED (
        SELECT p.*, nullif(b.content, '') AS content, b.embedding_model,
               b.embedding IS NOT NULL AS has_embedding, octet_length(b.content) AS bytes,
               sum(octet_length(b.content)) OVER (ORDER BY p.id) AS bytes_so_far
        FROM page p LEFT JOIN content_blocks b ON b.entity_id = p.id AND p.type <> 'file'
    ),
    looked AS (
        SELECT s.*, k.outcome, k.file_verified_at,
               CASE WHEN s.content IS NOT NULL AND s.file_path IS NOT NULL
                    THEN sha256(convert_to(s.content, 'UTF8')) END AS hash
        FROM sized s
        LEFT JOIN file_checks k ON k.entity_id = s.id AND k.key = s.file_path
        WHERE coalesce(s.bytes_so_far - s.bytes, 0) < $3
    )
    SELECT id, array_remove(ARRAY[
        CASE WHEN content IS NOT NULL AND file_path IS NULL THEN 'text_without_file' END,
        CASE WHEN outcome <> 'sound' THEN 'file_unsound' END,
        CASE WHEN file_path IS NOT NULL AND file_verified_at IS NULL
                  AND (outcome = 'sound') IS NOT FALSE
                  AND ((SELECT min(r.created_at) FROM entity_revisions r
                        WHERE r.entity_id = l.id AND r.file_path = l.file_path)
                       > clock_timestamp() - make_interval(hours => $4)) IS NOT TRUE
             THEN 'file_unchecked' END,
        CASE WHEN hash IS NOT NULL AND synap_is_checksum(hash, checksum) IS NOT TRUE
                  AND NOT ($5 AND (SELECT count(*) FROM entity_revisions r
                                   WHERE r.entity_id = l.id AND synap_is_checksum(hash, r.checksum)) > 0)
             THEN 'content_differs' END,
        CASE WHEN type <> 'file' AND (SELECT count(*) FROM entity_search f
                                      WHERE f.entity_id = l.id) = 0
             THEN 'search_document_missing' END,
        CASE WHEN has_embedding
                  AND (SELECT count(*) FROM entity_vectors v
                       WHERE v.entity_id = l.id
                         AND v.embedding_model = coalesce(l.embedding_model, 'text-embedding-3-small'))
                      = 0
             THEN 'embedding_missing' END], NULL) AS broken
    FROM looked l ORDER BY id";

impl Store {
    /// What does not hold of the installation.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.takeover.check_installation", skip_all, err(level = "debug"))]
    pub async fn check_installation(&self, to: Phase) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        for &condition in Condition::of_installation(to) {
            let (number, ids) = match condition {
                Condition::MigrationsCurrent => {
                    let pool = self.database.pool();
                    let current =
                        synap_postgres::migrations_current(pool, &MIGRATOR, MIGRATION_TABLE);
                    (i64::from(!current.await?), Vec::new())
                }
                Condition::MigrationClaims => self.named(CLAIMS).await?,
                _ => self.named(WAITING).await?,
            };
            findings.push(Finding { condition, number, ids });
        }
        Ok(findings)
    }

    /// What does not hold of the next entities.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.takeover.check_entities", skip_all, err(level = "debug"))]
    pub async fn check_entities(
        &self,
        to: Phase,
        after: Uuid,
    ) -> Result<Stretch<Vec<Finding>>, Error> {
        let conditions = Condition::of_entities(to);
        let finding = |&condition| Finding { condition, number: 0, ids: Vec::new() };
        let mut findings: Vec<_> = conditions.iter().map(finding).collect();
        let mut connection = self.database.across_users().await?;
        if conditions.is_empty() {
            return Ok(Stretch { found: findings, seen: 0, last: None, total: 0 });
        }
        let total = estimate(&mut connection, "entities").await?;
        let written_no_more = !phase::find(&mut connection).await?.writes_content_block();
        let rows = sqlx::query(PAGE)
            .bind(after)
            .bind(WALK)
            .bind(WALK_BYTES)
            .bind(OWN_WRITE_HOURS)
            .bind(written_no_more)
            .fetch_all(&mut *connection)
            .await?;
        let (mut seen, mut last) = (0, None);
        for row in rows {
            let id = row.try_get("id")?;
            (seen, last) = (seen + 1, Some(id));
            let broken: Vec<String> = row.try_get("broken")?;
            for finding in &mut findings {
                if broken.iter().any(|name| name == finding.condition.name()) {
                    finding.number += 1;
                    if finding.ids.len() < NAMED {
                        finding.ids.push(id);
                    }
                }
            }
        }
        Ok(Stretch { found: findings, seen, last, total })
    }

    /// How many rows a question has in all, and the entities of those that it names.
    async fn named(&self, question: &'static str) -> Result<(i64, Vec<Uuid>), Error> {
        let mut connection = self.database.across_users().await?;
        let rows = sqlx::query(question).fetch_all(&mut *connection).await?;
        let number = rows.first().map_or(Ok(0), |row| row.try_get("number"))?;
        let ids = rows.iter().map(|row| row.try_get("entity_id")).collect::<Result<_, _>>()?;
        Ok((number, ids))
    }
}
