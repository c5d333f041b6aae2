//! Rows that are not what one would expect, counted.

use std::fmt::Write as _;

use sqlx::{PgConnection, Row as _};

use super::sample::Sample;
use crate::{
    domain::{Amount, Oddity},
    error::Error,
};

/// Name, what it means, and which rows.
type Kind = (&'static str, &'static str, &'static str);

const OF_ENTITIES: [Kind; 3] = [
    (
        "deleted",
        "soft-deleted; migrated too, so that they can be undeleted",
        "deleted_at IS NOT NULL",
    ),
    (
        "odd_user_id",
        "user ids with characters that are percent-encoded in object keys",
        "user_id !~ '^[A-Za-z0-9_~-]+$'",
    ),
    // As UserId has it: an unreserved character takes one byte of a key, any other byte three.
    (
        "unusable_user_id",
        "user ids that are empty, too long, or have control characters: no key can be made of them",
        r"user_id = '' OR user_id ~ '[\u0001-\u001f\u007f-\u009f]'
          OR octet_length(user_id) > 85
             AND 3 * octet_length(user_id)
                 - 2 * length(regexp_replace(user_id, '[^A-Za-z0-9_~-]', '', 'g')) > 255",
    ),
];
const WITHOUT_BLOCKS: [Kind; 1] = [(
    "no_block",
    "entities without a content block",
    "NOT EXISTS (SELECT FROM content_blocks AS b WHERE b.entity_id = t.id)",
)];
const OF_FILES: [Kind; 2] = [
    (
        "early_v03_file",
        "entities that name an object of early V0.3, which may be missing or older than the text",
        "file_path IS NOT NULL",
    ),
    (
        "half_file",
        "of those, without a size or checksum",
        "file_path IS NOT NULL AND (file_size IS NULL OR checksum IS NULL)",
    ),
];
const OF_BLOCKS: [Kind; 5] = [
    (
        "null_content",
        "content blocks without a text",
        "content IS NULL AND storage_provider = 'db'",
    ),
    ("empty_content", "content blocks with the empty text", "content = ''"),
    ("large", "texts of more than 1 MiB", "octet_length(content) > 1048576"),
    ("other_content_type", "content that is not Markdown", "content_type <> 'markdown'"),
    ("other_provider", "content in a store of V0.2's", "storage_provider <> 'db'"),
];

/// What is odd about the tables themselves.
const OF_TABLES: &str = "
    SELECT (SELECT count(*) FROM pg_trigger
            WHERE NOT tgisinternal AND tgname <> 'zz_synap_widen_file_size'
              AND tgrelid IN (to_regclass('entities'), to_regclass('content_blocks'))) AS triggers,
           (SELECT count(*) FROM pg_class
            WHERE oid IN (to_regclass('entities'), to_regclass('content_blocks'),
                          to_regclass('entity_vectors'))
              AND NOT relrowsecurity) AS open_tables";

const HAS_FILES: &str = "
    SELECT count(*) = 3 FROM pg_attribute
    WHERE attrelid = to_regclass('entities') AND NOT attisdropped
      AND attname IN ('file_path', 'file_size', 'checksum')";

/// All of them, also those that there are none of.
pub(super) async fn count(connection: &mut PgConnection) -> Result<Vec<Oddity>, Error> {
    let mut kinds = OF_ENTITIES.to_vec();
    let blocks = Sample::of(connection, "content_blocks").await?;
    if blocks.is_some() {
        kinds.extend(WITHOUT_BLOCKS);
    }
    if sqlx::query_scalar(HAS_FILES).fetch_one(&mut *connection).await? {
        kinds.extend(OF_FILES);
    }
    let mut oddities = Vec::new();
    if let Some(entities) = Sample::of(connection, "entities").await? {
        oddities.extend(of_table(connection, "entities", entities, &kinds).await?);
    }
    if let Some(blocks) = blocks {
        oddities.extend(of_table(connection, "content_blocks", blocks, &OF_BLOCKS).await?);
    }
    let tables = sqlx::query(OF_TABLES).fetch_one(connection).await?;
    for (name, description, column) in [
        (
            "own_trigger",
            "triggers on entities and content_blocks: they see what is migrated",
            "triggers",
        ),
        (
            "no_row_security",
            "tables without row security: it is switched on, and a role that does not own them \
             sees the rows of app.current_user_id only",
            "open_tables",
        ),
    ] {
        let count = Amount { value: Some(tables.try_get(column)?), about: false };
        oddities.push(Oddity { name, description, count });
    }
    Ok(oddities)
}

async fn of_table(
    connection: &mut PgConnection,
    table: &str,
    sample: Sample,
    kinds: &[Kind],
) -> Result<Vec<Oddity>, Error> {
    let mut query = String::from("SELECT ");
    for (at, (_, _, which)) in kinds.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        // Writing into a String cannot fail.
        let _ = write!(query, "{comma}count(*) FILTER (WHERE {which})");
    }
    let _ = write!(query, " FROM {table} AS t TABLESAMPLE SYSTEM ($1)");
    let amounts = sample.amounts(connection, &query, kinds.len()).await?;
    let oddity =
        |((name, description, _), count): (&Kind, Amount)| Oddity { name, description, count };
    Ok(kinds.iter().zip(amounts).map(oddity).collect())
}
