//! What is to be known of an entity, to say what it needs.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use synap_types::{BlobKey, EntityType, IdGenerator, UserId};
use uuid::Uuid;

use crate::{
    domain::{Claim, MAX_MIGRATED_BYTES, Notable},
    error::Error,
};

const NEXT: &str = "SELECT id FROM entities WHERE id > $1 ORDER BY id LIMIT $2";

/// Materialized: else a user who owns little has the whole table walked in the order of ids.
const NEXT_OF_USER: &str = "
    WITH own AS MATERIALIZED (SELECT id FROM entities WHERE user_id = $3 AND id > $1)
    SELECT id FROM own ORDER BY id LIMIT $2";

/// What an entity needs. A path that has the entity's id as a folder is of this release, which puts a
/// path into a row only when its object is there; any other is vouched for by whoever has looked, unless
/// what was looked at is older than the text: that is sound as well. The length of a text is known
/// without reading it.
const FACTS: &str = "
    SELECT e.id, e.user_id, e.type, e.version, e.file_path, b.xmin::text AS block_xmin,
           octet_length(b.content)::int8 AS size, b.content_type, m.state, m.failure, m.detail,
           CASE
               WHEN e.file_path IS NOT NULL
                    AND (octet_length(b.content) > 0 IS NOT TRUE
                         OR strpos(e.file_path, format('/%s/', e.id)) > 0
                         OR (SELECT count(*) FROM file_checks c
                             WHERE c.entity_id = e.id AND c.key = e.file_path
                               AND c.outcome = 'sound') > 0
                            AND (b.user_id IS NOT NULL
                                 OR synap_is_checksum(sha256(convert_to(b.content, 'UTF8')),
                                                      e.checksum)) IS TRUE)
                   THEN 'already_migrated'
               WHEN b.entity_id IS NULL THEN 'skipped_missing_row'
               WHEN octet_length(b.content) > 0 THEN NULL
               WHEN b.storage_provider <> 'db' THEN 'skipped_elsewhere'
               ELSE 'skipped_empty'
           END AS outcome
    FROM entities e
    LEFT JOIN content_blocks b ON b.entity_id = e.id
    LEFT JOIN content_migrations m ON m.entity_id = e.id
    WHERE e.id = ANY ($1) AND ($2::timestamptz IS NULL OR e.updated_at >= $2)
    ORDER BY e.id";

/// An entity and its content block, as far as it matters here.
pub(super) struct Facts {
    pub(super) id: Uuid,
    pub(super) user_id: String,
    pub(super) entity_type: String,
    pub(super) was: Was,
    pub(super) size: i64,
    pub(super) content_type: String,
    /// `claimed` or `failed`.
    pub(super) state: Option<String>,
    pub(super) failure: String,
    pub(super) detail: String,
    /// Why there is nothing to do.
    pub(super) outcome: Option<String>,
}

/// What a key was made for.
#[derive(PartialEq)]
pub(super) struct Was {
    pub(super) version: i32,
    pub(super) file_path: Option<String>,
    pub(super) block_xmin: Option<String>,
}

/// The next entities after one.
pub(super) async fn next(
    connection: &mut PgConnection,
    after: Uuid,
    size: i64,
    user: Option<&str>,
) -> Result<Vec<Uuid>, Error> {
    let query = match user {
        Some(user) => sqlx::query_scalar(NEXT_OF_USER).bind(after).bind(size).bind(user),
        None => sqlx::query_scalar(NEXT).bind(after).bind(size),
    };
    Ok(query.fetch_all(connection).await?)
}

/// What there is to know of entities, in the order of their ids.
pub(super) async fn facts(
    connection: &mut PgConnection,
    ids: &[Uuid],
    since: Option<DateTime<Utc>>,
) -> Result<Vec<Facts>, Error> {
    let rows = sqlx::query(FACTS).bind(ids).bind(since).fetch_all(connection).await?;
    rows.iter().map(Facts::of).collect()
}

/// What a row of entities, or of claims, says that the entity is or was.
pub(super) fn was(row: &PgRow) -> Result<Was, Error> {
    Ok(Was {
        version: row.try_get("version")?,
        file_path: row.try_get("file_path")?,
        block_xmin: row.try_get("block_xmin")?,
    })
}

impl Facts {
    fn of(row: &PgRow) -> Result<Self, Error> {
        let text = |column: &str| {
            Ok::<_, Error>(row.try_get::<Option<String>, _>(column)?.unwrap_or_default())
        };
        Ok(Self {
            id: row.try_get("id")?,
            user_id: row.try_get("user_id")?,
            entity_type: row.try_get("type")?,
            was: was(row)?,
            size: row.try_get::<Option<i64>, _>("size")?.unwrap_or_default(),
            content_type: text("content_type")?,
            state: row.try_get("state")?,
            failure: text("failure")?,
            detail: text("detail")?,
            outcome: row.try_get("outcome")?,
        })
    }

    /// A key that nobody has used; or why there can be none, in a word.
    pub(super) fn fresh_key(&self, ids: &dyn IdGenerator) -> Result<BlobKey, &'static str> {
        if self.size > MAX_MIGRATED_BYTES {
            return Err("too_large");
        }
        let user = UserId::parse(&*self.user_id).map_err(|_| "user_id")?;
        let entity_type = EntityType::parse(&*self.entity_type).map_err(|_| "entity_type")?;
        BlobKey::revision(&user, &entity_type, self.id, ids.next_id(), "md").map_err(|_| "key")
    }

    /// The body to upload.
    pub(super) fn claim(self, key: BlobKey, resumed: bool) -> Claim {
        Claim {
            entity_id: self.id,
            user_id: self.user_id,
            key,
            size: self.size,
            resumed,
            existing: self.was.file_path.and_then(|path| BlobKey::parse(path).ok()),
            content_type: Some(self.content_type).filter(|named| named != "markdown"),
        }
    }

    pub(super) fn notable(&self, outcome: String) -> Notable {
        let (entity_id, user_id) = (self.id, self.user_id.clone());
        Notable { entity_id, user_id, outcome, detail: self.detail.clone() }
    }
}
