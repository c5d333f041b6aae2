//! The pivot of the migration: entities name the objects that their bodies were uploaded to. Nothing
//! has happened to an entity that anybody would be told of: no version, no event, and the content
//! block stays.

use std::collections::HashSet;

use sqlx::{Row as _, postgres::PgArguments, query::Query};
use uuid::Uuid;

use super::{
    super::{Store, phase},
    release,
};
use crate::{
    domain::{Attachment, Phase, Released, Uploaded},
    error::Error,
};

/// Before the pivot, under no lock: the entry of an index takes milliseconds. Where the body is
/// replaced at this moment, whoever indexes it replaces the vector, too. The block keeps its own:
/// there must be a way back.
const COPY_EMBEDDINGS: &str = "
    INSERT INTO entity_vectors (entity_id, user_id, entity_type, embedding_model, embedding)
    SELECT e.id, e.user_id, e.type, model, b.embedding
    FROM unnest($1::uuid[]) AS i (id)
    JOIN entities e ON e.id = i.id
    JOIN content_blocks b ON b.entity_id = e.id,
    LATERAL (SELECT coalesce(b.embedding_model, 'text-embedding-3-small')) AS m (model)
    WHERE b.embedding IS NOT NULL
      AND (SELECT count(*) FROM entity_vectors v
           WHERE v.entity_id = e.id AND v.embedding_model = model) = 0
    ON CONFLICT DO NOTHING";

/// An entity is found only if it is what it was at the claim, and its text what was uploaded; the rows
/// are held until the end, and what changes while one is waited for is looked at anew. A writer's pivot
/// holds the entity first, too.
///
/// The newest revision is of this body. An older one is if it names the same object and checksum. What
/// the entity named before is deleted once whoever has read the row must have read the body, unless
/// another row names it, or it is no key of ours: nothing would delete that.
const PIVOT: &str = "
    WITH found AS (
        SELECT e.id, e.version, e.file_path AS old_path, m.key AS claimed, i.existing, i.level,
               CASE WHEN i.existing THEN e.file_path ELSE m.key END AS key,
               CASE WHEN i.existing THEN coalesce(i.url, e.file_url) ELSE i.url END AS url,
               octet_length(convert_to(b.content, 'UTF8'))::int8 AS size,
               'sha256:' || encode(i.sha256, 'base64') AS checksum
        FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::bool[], $6::text[])
             AS i (entity_id, key, sha256, url, existing, level)
        JOIN content_migrations m ON m.entity_id = i.entity_id AND m.key = i.key
        JOIN entities e ON e.id = m.entity_id AND e.version = m.version
                           AND e.file_path IS NOT DISTINCT FROM m.file_path
        JOIN content_blocks b ON b.entity_id = e.id
                                 AND sha256(convert_to(b.content, 'UTF8')) = i.sha256
        ORDER BY e.id
        FOR NO KEY UPDATE OF m, e, b
    ),
    entity AS (
        UPDATE entities e
        SET file_path = f.key, file_url = f.url, file_size = f.size, file_type = 'markdown',
            checksum = f.checksum
        FROM found f WHERE e.id = f.id
    ),
    revisions AS (
        UPDATE entity_revisions r
        SET file_path = f.key, file_url = f.url, file_size = f.size, file_type = 'markdown',
            checksum = f.checksum
        FROM found f
        WHERE r.entity_id = f.id AND r.file_path IS NOT DISTINCT FROM f.old_path
          AND (r.version = f.version OR r.file_path IS NOT NULL AND r.checksum = f.checksum)
    ),
    checked AS (
        INSERT INTO file_checks (entity_id, key, level, outcome, file_verified_at)
        SELECT id, key, level, 'sound', CASE level WHEN 'checksum' THEN clock_timestamp() END
        FROM found WHERE level IS NOT NULL
        ON CONFLICT (entity_id) DO UPDATE
        SET key = excluded.key, level = excluded.level, outcome = excluded.outcome,
            checked_at = excluded.checked_at, file_verified_at = excluded.file_verified_at
    ),
    ended AS (
        DELETE FROM content_migrations m USING found f WHERE m.entity_id = f.id
    ),
    given_up AS (
        INSERT INTO blob_gc (key, not_before, settled_at)
        SELECT DISTINCT unused, at, at
        FROM found f,
             LATERAL (SELECT CASE WHEN existing THEN claimed ELSE old_path END) AS u (unused),
             LATERAL (SELECT statement_timestamp() + make_interval(secs => $7)) AS grace (at)
        WHERE unused ~ '^users(/[A-Za-z0-9_~.%-]+){2,}$'
          AND (SELECT count(*) FROM entities other
               WHERE other.file_path = unused AND other.id <> f.id) = 0
          AND (SELECT count(*) FROM entity_revisions r
               WHERE r.entity_id = f.id AND r.file_path = unused
                 AND (r.version = f.version OR r.checksum = f.checksum) IS NOT TRUE) = 0
        ON CONFLICT (key) DO NOTHING
    )
    SELECT id FROM found";

/// Of those that were not found: the reply to an earlier call was lost, or what they are by now.
const LOST: &str = "
    SELECT i.entity_id, e.id IS NULL AS gone,
           (e.file_path = i.key OR i.existing AND e.checksum = i.checksum AND c.key = e.file_path)
               IS TRUE AS attached
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bool[])
         AS i (entity_id, key, checksum, existing)
    LEFT JOIN entities e ON e.id = i.entity_id
    LEFT JOIN file_checks c ON c.entity_id = e.id AND c.outcome = 'sound'";

impl Store {
    /// Has entities name the objects that their bodies were uploaded to; the answers are in the order
    /// of the bodies. May be repeated.
    ///
    /// # Errors
    /// [`Error::PhaseChanged`] in another phase than dual_write; and then nothing was written.
    #[tracing::instrument(name = "db.content_migration.attach", skip_all, err(level = "debug"))]
    pub async fn attach_blobs(&self, bodies: &[Uploaded]) -> Result<Vec<Attachment>, Error> {
        let ids: Vec<Uuid> = bodies.iter().map(|body| body.entity_id).collect();
        sqlx::query(COPY_EMBEDDINGS)
            .bind(&ids)
            .execute(&mut *self.database.across_users().await?)
            .await?;

        let mut transaction = self.database.begin_across_users().await?;
        phase::hold(&mut transaction).await?;
        if phase::find(&mut transaction).await? != Phase::DualWrite {
            return Err(Error::PhaseChanged);
        }
        let attached: HashSet<Uuid> = pivot(bodies)
            .bind(self.times.blob_settle_secs)
            .fetch_all(&mut *transaction)
            .await?
            .iter()
            .map(|row| row.try_get("id"))
            .collect::<Result<_, _>>()?;

        let lost: Vec<&Uploaded> =
            bodies.iter().filter(|body| !attached.contains(&body.entity_id)).collect();
        let mut repeated = HashSet::new();
        let mut gone = HashSet::new();
        if !lost.is_empty() {
            for row in lost_of(&lost).fetch_all(&mut *transaction).await? {
                let id: Uuid = row.try_get("entity_id")?;
                if row.try_get("attached")? {
                    repeated.insert(id);
                } else if row.try_get("gone")? {
                    gone.insert(id);
                }
            }
        }
        let given_up: Vec<Released> = lost
            .iter()
            .filter(|body| !repeated.contains(&body.entity_id))
            .map(|body| released(body))
            .collect();
        release::release(&mut transaction, &given_up, self.times.blob_settle_secs).await?;
        transaction.commit().await?;

        let attachment = |id: &Uuid| match id {
            id if attached.contains(id) || repeated.contains(id) => Attachment::Attached,
            id if gone.contains(id) => Attachment::Gone,
            _ => Attachment::Conflict,
        };
        Ok(ids.iter().map(attachment).collect())
    }
}

fn released(body: &Uploaded) -> Released {
    let (entity_id, key) = (body.entity_id, body.key.as_str().to_owned());
    Released { entity_id, key, failure: None }
}

fn pivot(bodies: &[Uploaded]) -> Query<'_, sqlx::Postgres, PgArguments> {
    sqlx::query(PIVOT)
        .bind(bodies.iter().map(|body| body.entity_id).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.key.as_str()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.checksum.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.url.as_deref()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.existing).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.check.level()).collect::<Vec<_>>())
}

fn lost_of<'a>(bodies: &[&'a Uploaded]) -> Query<'a, sqlx::Postgres, PgArguments> {
    sqlx::query(LOST)
        .bind(bodies.iter().map(|body| body.entity_id).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.key.as_str()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.checksum.to_string()).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.existing).collect::<Vec<_>>())
}
