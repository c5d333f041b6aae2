//! How much of what is stored where: what a cost is made of.

use sqlx::{PgConnection, Row as _};

use super::{
    Adoption,
    sample::{self, Sample},
};
use crate::{
    domain::{Amount, Statistics},
    error::Error,
};

const BYTES: &str = "
    SELECT pg_database_size(current_database()) AS database,
           coalesce(pg_total_relation_size(to_regclass('content_blocks')), 0) AS blocks,
           coalesce(pg_total_relation_size(to_regclass('entity_vectors')), 0) AS vectors,
           EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('entities')
                   AND attname = 'file_path' AND NOT attisdropped) AS has_files";

const OF_ENTITIES: &str = "
    SELECT count(*),
           count(*) FILTER (WHERE greatest(created_at, updated_at) > now() - interval '30 days')
    FROM entities TABLESAMPLE SYSTEM ($1)";

/// `octet_length` knows the size of a text that is stored out of line without reading it.
const OF_BLOCKS: &str = "
    SELECT count(content) FILTER (WHERE content <> ''), sum(octet_length(content))::bigint,
           count(embedding)
    FROM content_blocks TABLESAMPLE SYSTEM ($1)";

const UNMIGRATED: &str = "
    SELECT count(*), sum(octet_length(b.content))::bigint
    FROM content_blocks AS b TABLESAMPLE SYSTEM ($1)
    JOIN entities AS e ON e.id = b.entity_id
    WHERE b.content <> '' AND e.file_path IS NULL";

const OF_OBJECTS: &str = "
    SELECT count(*), sum(file_size)::bigint
    FROM entities TABLESAMPLE SYSTEM ($1) WHERE file_path IS NOT NULL";

/// Bodies of older versions: a version that only has another title names the same object.
const OF_REVISIONS: &str = "
    SELECT count(*), sum(r.file_size)::bigint
    FROM entity_revisions AS r TABLESAMPLE SYSTEM ($1)
    WHERE r.file_path IS NOT NULL
      AND NOT EXISTS (SELECT FROM entities AS e
                      WHERE e.id = r.entity_id AND e.file_path = r.file_path)
      AND NOT EXISTS (SELECT FROM entity_revisions AS o
                      WHERE o.entity_id = r.entity_id AND o.version = r.version - 1
                        AND o.file_path = r.file_path)";

const OF_VECTORS: &str = "SELECT count(*) FROM entity_vectors TABLESAMPLE SYSTEM ($1)";

impl Adoption {
    /// Counts and adds up, in any state of the database.
    ///
    /// # Errors
    /// The database's.
    #[tracing::instrument(name = "db.adoption.statistics", skip_all, err(level = "debug"))]
    pub async fn statistics(&self) -> Result<Statistics, Error> {
        let mut connection = self.connect().await?;
        let connection = &mut connection;
        sqlx::raw_sql(sample::LIMIT).execute(&mut *connection).await?;
        let bytes = sqlx::query(BYTES).fetch_one(&mut *connection).await?;
        let has_files: bool = bytes.try_get("has_files")?;
        let [entities, recent_entities] = amounts(connection, "entities", OF_ENTITIES).await?;
        let [block_bodies, block_body_bytes, block_embeddings] =
            amounts(connection, "content_blocks", OF_BLOCKS).await?;
        let [unmigrated, unmigrated_bytes] = if has_files {
            amounts(connection, "content_blocks", UNMIGRATED).await?
        } else {
            [block_bodies, block_body_bytes]
        };
        let current =
            if has_files { amounts(connection, "entities", OF_OBJECTS).await? } else { [NONE; 2] };
        let older: [_; 2] = amounts(connection, "entity_revisions", OF_REVISIONS).await?;
        let [vectors] = amounts(connection, "entity_vectors", OF_VECTORS).await?;
        Ok(Statistics {
            database_bytes: bytes.try_get("database")?,
            content_blocks_bytes: bytes.try_get("blocks")?,
            vectors_bytes: bytes.try_get("vectors")?,
            entities,
            recent_entities,
            block_bodies,
            block_body_bytes,
            block_embeddings,
            objects: sum(current[0], older[0]),
            object_bytes: sum(current[1], older[1]),
            unmigrated,
            unmigrated_bytes,
            vectors,
        })
    }
}

const NONE: Amount = Amount { value: Some(0), about: false };

/// The numbers of a query over a table; none of what is not there.
async fn amounts<const N: usize>(
    connection: &mut PgConnection,
    table: &str,
    query: &str,
) -> Result<[Amount; N], Error> {
    let Some(sample) = Sample::of(connection, table).await? else { return Ok([NONE; N]) };
    let found = sample.amounts(connection, query, N).await?;
    Ok(std::array::from_fn(|at| found[at]))
}

fn sum(one: Amount, other: Amount) -> Amount {
    let value = one.value.zip(other.value).map(|(one, other)| one + other);
    Amount { value, about: one.about || other.about }
}
