//! Step 3: the pivot of a write on an entity that is there. Every write is a version of its own, with
//! a revision that says what the entity was then; revisions that are too many or too old go with it.

use sqlx::{PgConnection, Row as _, postgres::PgRow};
use synap_proto::field::Violation;
use synap_types::EntityType;

use super::{Store, purge, rows};
use crate::{
    config::ProtocolArgs,
    domain::{Act, Attempt, Edit, Edited, NewBody, OperationId},
    error::Error,
};

/// Both rows are held until the end: of two writes on one entity the later one sees what the earlier
/// one made.
const FIND: &str = "
    WITH operation AS (
        SELECT * FROM write_operations
        WHERE user_id = $1 AND request_id = $2
        FOR UPDATE
    ),
    entity AS (
        SELECT e.version, e.deleted_at
        FROM entities e JOIN operation o
             ON e.id = o.entity_id AND (e.user_id = o.user_id AND e.type = o.entity_type) IS TRUE
        FOR UPDATE OF e
    )
    SELECT o.user_id, o.kind, o.state, o.epoch, o.committed_epoch, o.entity_id, o.entity_version,
           o.entity_type, o.blob_key, o.occurred_at, o.adopts, e.version AS current,
           e.deleted_at IS NOT NULL AS deleted,
           e.deleted_at < clock_timestamp() - make_interval(secs => $3) AS purgeable,
           (SELECT phase FROM storage_phase WHERE only_row) AS phase
    FROM operation o LEFT JOIN entity e ON true";

/// The operation and what it makes true, in one statement. Time never goes back with versions,
/// whichever of two operations was begun first. An entity from before revisions were kept gets one
/// of what it was. The embedding in content_blocks was of the body that is replaced.
///
/// A count is a question about one row or entity; EXISTS could become a join with all of the table in
/// a plan that was made while it was small.
///
/// Of the revisions from before this statement those go that are not among the newest $6, or whose
/// place was taken longer than $7 seconds ago. A body that no row names any more is deleted when
/// whoever has read the row must have read the body; its writer has long ended. V0.2 may have given
/// keys that are none of ours: nothing would delete those.
macro_rules! pivot {
    ($block:literal) => {
        concat!(
            "    WITH pivot AS (
        UPDATE write_operations
        SET state = 'COMMITTED', committed_epoch = epoch, entity_version = $3, event_type = $4,
            event_data = $5::json, updated_at = clock_timestamp(),
            lease_until = clock_timestamp() + make_interval(secs => $9),
            adopts = (SELECT count(*) FROM entity_revisions r
                      WHERE r.entity_id = write_operations.entity_id AND r.version = $3 - 1) = 0
        WHERE user_id = $1 AND request_id = $2
        RETURNING entity_id, occurred_at, adopts
    ),
    before AS (
        INSERT INTO entity_revisions (entity_id, version, user_id, title, preview, tags, file_url,
                                      file_path, file_size, file_type, checksum, file_name,
                                      created_at, deleted_at)
        SELECT e.id, e.version, e.user_id, e.title, e.preview, e.tags, e.file_url, e.file_path,
               e.file_size, e.file_type, e.checksum, e.file_name, e.updated_at, e.deleted_at
        FROM entities e JOIN pivot p ON e.id = p.entity_id AND p.adopts
        WHERE (e.user_id = $1) IS TRUE
    ),
    entity AS (
        UPDATE entities e
        SET version = $3,
            updated_at = greatest(e.updated_at, p.occurred_at),
            deleted_at = CASE WHEN $10 THEN greatest(e.updated_at, p.occurred_at) END,
            title = CASE WHEN $11::text IS NULL THEN e.title ELSE nullif($11, '') END,
            tags = coalesce($12::text[], e.tags),
            preview = CASE WHEN $13 THEN $14 ELSE e.preview END,
            file_url = CASE WHEN $13 THEN $15 ELSE e.file_url END,
            file_path = CASE WHEN $13 THEN $16 ELSE e.file_path END,
            file_size = CASE WHEN $13 THEN $17 ELSE e.file_size END,
            file_type = CASE WHEN $13 THEN $18 ELSE e.file_type END,
            checksum = CASE WHEN $13 THEN $19 ELSE e.checksum END,
            file_name = CASE WHEN $13 THEN $20 ELSE e.file_name END
        FROM pivot p
        WHERE e.id = p.entity_id AND (e.user_id = $1) IS TRUE
        RETURNING e.*
    ),
    revision AS (
        INSERT INTO entity_revisions (entity_id, version, user_id, title, preview, tags, file_url,
                                      file_path, file_size, file_type, checksum, file_name,
                                      created_at, deleted_at)
        SELECT id, version, user_id, title, preview, tags, file_url, file_path, file_size,
               file_type, checksum, file_name, updated_at, deleted_at
        FROM entity
    ),
    ",
            $block,
            "
    found_by AS (
        INSERT INTO entity_search (entity_id, user_id, document)
        SELECT id, user_id, synap_search_document(user_id, title, $22, tags,
                                                  (SELECT synap_search_language($23)))
        FROM entity WHERE $22::text IS NOT NULL
        ON CONFLICT (entity_id) DO UPDATE SET document = excluded.document
    ),
    retitled AS (
        UPDATE entity_search s
        SET document = synap_search_retitled(s.document, e.user_id, e.title, e.tags,
                                             (SELECT synap_search_language($23)))
        FROM entity e
        WHERE s.entity_id = e.id AND s.user_id = $1 AND $22::text IS NULL
          AND ($11::text IS NOT NULL OR $12::text[] IS NOT NULL)
    ),
    pruned AS (
        DELETE FROM entity_revisions r
        USING pivot p
        WHERE r.entity_id = p.entity_id AND r.user_id = $1
          AND (r.version <= $3 - $6
               OR (SELECT n.created_at FROM entity_revisions n
                   WHERE n.entity_id = r.entity_id AND n.version = r.version + 1)
                  < clock_timestamp() - make_interval(secs => $7))
        RETURNING r.version, r.file_path
    ),
    given_up AS (
        INSERT INTO blob_gc (key, not_before, settled_at)
        SELECT DISTINCT p.file_path, at, at
        FROM pruned p CROSS JOIN entity e,
             LATERAL (SELECT statement_timestamp() + make_interval(secs => $8)) AS grace (at)
        WHERE p.file_path IS DISTINCT FROM e.file_path
          AND p.file_path ~ '^users(/[A-Za-z0-9_~.%-]+){2,}$'
          AND (SELECT count(*) FROM entity_revisions r
               WHERE r.entity_id = e.id AND r.file_path = p.file_path
                 AND r.version NOT IN (SELECT version FROM pruned)) = 0
        ON CONFLICT (key) DO NOTHING
    )
    SELECT e.*, p.adopts FROM entity e CROSS JOIN pivot p"
        )
    };
}
/// A content block is in a statement of its own: where the phase wants none, there may be no such
/// table.
const PIVOT: &str = pivot!("");
const PIVOT_WITH_BLOCK: &str = pivot!(
    "block AS (
        INSERT INTO content_blocks (entity_id, user_id, content, content_type, mime_type,
                                    size_bytes, checksum, uploaded_at, last_modified_at)
        SELECT id, user_id, $21, 'markdown', 'text/markdown', octet_length($21), checksum, updated_at,
               updated_at
        FROM entity WHERE $21::text IS NOT NULL
        ON CONFLICT (entity_id) DO UPDATE
        SET user_id = excluded.user_id, content = excluded.content,
            content_type = excluded.content_type,
            mime_type = excluded.mime_type, size_bytes = excluded.size_bytes,
            checksum = excluded.checksum, last_modified_at = excluded.last_modified_at,
            storage_provider = 'db', storage_path = NULL, storage_url = NULL, embedding = NULL
    ),"
);

impl Store {
    /// Step 3 of a write on an entity that is there. Repeating a commit that went through succeeds.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::PhaseChanged`], [`Error::EntityNotFound`],
    /// [`Error::VersionConflict`], [`Error::NotDeleted`] or [`Error::PurgeNotDue`]; and then nothing
    /// was written.
    #[tracing::instrument(name = "db.operation.commit", skip_all, err(level = "debug"))]
    pub async fn edit(&self, edit: Edit) -> Result<Edited, Error> {
        let Attempt { operation: OperationId { user, request }, epoch } = &edit.attempt;
        let times = &self.times;
        let mut transaction = self.database.pivot_for_user(user).await?;
        let found = sqlx::query(FIND)
            .bind(user.as_str())
            .bind(request)
            .bind(times.deleted_retention_secs())
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(Error::Fenced)?;
        if found.try_get::<Option<i64>, _>("committed_epoch")? == Some(*epoch) {
            // The reply to the first commit was lost.
            let entity = rows::answer(&mut transaction, &found).await?;
            return Ok(Edited { entity, adopts: found.try_get("adopts")? });
        }
        let version = next_version(&edit, &found)?;
        let row = match &edit.act {
            Act::Purge => purge::remove(&mut transaction, &edit, version, times).await?,
            Act::Update(_) | Act::Delete | Act::Undelete => {
                write(&mut transaction, &edit, version, times, &self.committer.language).await?
            }
        };
        let edited = Edited { entity: rows::entity(&row)?, adopts: row.try_get("adopts")? };
        transaction.commit().await?;
        Ok(edited)
    }
}

/// The version that the write brings about; or what stands in its way.
fn next_version(edit: &Edit, found: &PgRow) -> Result<i32, Error> {
    let name = edit.act.name();
    if found.try_get::<&str, _>("state")? != "PENDING"
        || found.try_get::<i64, _>("epoch")? != edit.attempt.epoch
    {
        return Err(Error::Fenced);
    }
    if found.try_get::<&str, _>("kind")? != name {
        return Err(Violation::new(name, "is not what the operation was begun for").into());
    }
    check_body(edit, found)?;
    let current: i32 = found.try_get::<Option<_>, _>("current")?.ok_or(Error::EntityNotFound)?;
    match (&edit.act, found.try_get::<bool, _>("deleted")?) {
        (Act::Update(_) | Act::Delete, true) => return Err(Error::EntityNotFound),
        (Act::Undelete, false) => return Err(Error::NotDeleted),
        (Act::Purge, _) if found.try_get::<Option<_>, _>("purgeable")? != Some(true) => {
            return Err(Error::PurgeNotDue);
        }
        _ => {}
    }
    match edit.expected_version {
        Some(expected) if expected != current => Err(Error::VersionConflict { current }),
        _ => Ok(current + 1),
    }
}

/// A body is where the phase of now wants it, and under the key that the attempt was given: no row
/// ever names another's blob.
fn check_body(edit: &Edit, found: &PgRow) -> Result<(), Error> {
    let key: Option<&str> = found.try_get("blob_key")?;
    let Some(body) = edit.act.body() else {
        return match key {
            Some(_) => {
                Err(Violation::new("update.body", "is what the operation was begun for").into())
            }
            None => Ok(()),
        };
    };
    if key.is_none() || body.file.as_ref().is_some_and(|file| Some(file.path.as_str()) != key) {
        let what = "must be the key of the attempt";
        return Err(Violation::new("update.body.file.path", what).into());
    }
    let entity_type = EntityType::parse(found.try_get::<&str, _>("entity_type")?)
        .map_err(|why| rows::corrupt("write_operations", why))?;
    if rows::phase(found)?.of(&entity_type) == edit.phase {
        Ok(())
    } else {
        Err(Error::PhaseChanged)
    }
}

async fn write(
    connection: &mut PgConnection,
    edit: &Edit,
    version: i32,
    times: &ProtocolArgs,
    language: &str,
) -> Result<PgRow, Error> {
    let update = match &edit.act {
        Act::Update(update) => Some(update),
        _ => None,
    };
    let body = edit.act.body();
    let file = body.and_then(|body| body.file.as_ref());
    let block = body.and_then(|body: &NewBody| body.content_block.as_deref());
    let row = sqlx::query(if block.is_some() { PIVOT_WITH_BLOCK } else { PIVOT })
        .bind(edit.attempt.operation.user.as_str())
        .bind(edit.attempt.operation.request)
        .bind(version)
        .bind(&edit.event.event_type)
        .bind(&edit.event.data)
        .bind(i32::from(times.revision_count.get()))
        .bind(times.revision_secs())
        .bind(times.blob_settle_secs)
        .bind(times.event_lease_secs)
        .bind(matches!(edit.act, Act::Delete))
        .bind(update.and_then(|update| update.title.as_deref()))
        .bind(update.and_then(|update| update.tags.as_deref()))
        .bind(body.is_some())
        .bind(body.map(|body| body.preview.as_str()))
        .bind(file.and_then(|file| file.url.as_deref()))
        .bind(file.map(|file| file.path.as_str()))
        .bind(file.map(|file| file.size))
        .bind(file.map(|file| file.file_type.as_str()))
        .bind(file.map(|file| file.checksum.as_str()))
        .bind(file.and_then(|file| file.name.as_deref()))
        .bind(block)
        .bind(body.and_then(|body| body.search_text.as_deref()))
        .bind(language)
        .fetch_one(connection)
        .await?;
    Ok(row)
}
