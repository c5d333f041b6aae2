//! The indexes that migration 0001 makes where none serves the same queries, made before it while
//! writers go on.

use sqlx::{AssertSqlSafe, PgConnection};
use synap_postgres::limit_lock_waits;

use crate::{domain::Step, error::Error};

/// An index as migration 0001 asks for it: a test compares the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) table: &'static str,
    pub(super) definition: &'static str,
}

const fn index(name: &'static str, table: &'static str, definition: &'static str) -> Wanted {
    Wanted { name, table, definition }
}

pub(super) const WANTED: [Wanted; 12] = [
    index("entities_user_id_idx", "entities", "USING btree (user_id)"),
    index("entities_type_idx", "entities", "USING btree (type)"),
    index("entities_created_at_idx", "entities", "USING btree (created_at DESC)"),
    index("entities_live_idx", "entities", "USING btree (deleted_at) WHERE (deleted_at IS NULL)"),
    index(
        "entities_checksum_idx",
        "entities",
        "USING btree (checksum) WHERE (checksum IS NOT NULL)",
    ),
    index(
        "entities_file_path_idx",
        "entities",
        "USING btree (file_path) WHERE (file_path IS NOT NULL)",
    ),
    index(
        "content_blocks_storage_provider_idx",
        "content_blocks",
        "USING btree (storage_provider)",
    ),
    index(
        "content_blocks_embedding_idx",
        "content_blocks",
        "USING hnsw (embedding vector_cosine_ops)",
    ),
    index("entity_vectors_user_id_idx", "entity_vectors", "USING btree (user_id)"),
    index("entity_vectors_entity_type_idx", "entity_vectors", "USING btree (entity_type)"),
    index(
        "entity_vectors_user_id_entity_type_idx",
        "entity_vectors",
        "USING btree (user_id, entity_type)",
    ),
    index(
        "entity_vectors_embedding_idx",
        "entity_vectors",
        "USING hnsw (embedding vector_cosine_ops) WITH (m='16', ef_construction='64')",
    ),
];

/// Whether an index serves the same queries is asked as migration 0001 asks it.
const MISSING: &str = "
    SELECT name FROM unnest($1::text[], $2::text[], $3::text[]) AS w (name, target, definition)
    WHERE to_regclass(target) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = to_regclass(target) AND i.indisvalid
          AND regexp_replace(pg_get_indexdef(i.indexrelid), $4, '', 'g')
            = regexp_replace(definition, $4, '', 'g'))";
const INCIDENTAL: &str = r"^.* ON (ONLY )?\S+ (?=USING)| WITH \([^)]*\)| NULLS (FIRST|LAST)";

/// What a build that was cut off has left.
const IS_LEFTOVER: &str = "
    SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid)";

/// Those that no index stands for.
pub(super) async fn missing(connection: &mut PgConnection) -> Result<Vec<Wanted>, Error> {
    let names = WANTED.map(|wanted| wanted.name);
    let missing: Vec<String> = sqlx::query_scalar(MISSING)
        .bind(&names[..])
        .bind(&WANTED.map(|wanted| wanted.table)[..])
        .bind(&WANTED.map(|wanted| wanted.definition)[..])
        .bind(INCIDENTAL)
        .fetch_all(connection)
        .await?;
    Ok(WANTED.into_iter().filter(|wanted| missing.iter().any(|name| name == wanted.name)).collect())
}

impl Wanted {
    pub(super) fn step(&self) -> Step {
        let Self { name, table, definition } = self;
        Step { name: "index", description: format!("build {name} on {table} {definition}") }
    }

    /// Builds it. Waits for the transactions that are older, and nobody waits for it.
    pub(super) async fn build(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Self { name, table, definition } = self;
        limit_lock_waits(connection, false).await?;
        if sqlx::query_scalar(IS_LEFTOVER).bind(name).fetch_one(&mut *connection).await? {
            let drop = format!("DROP INDEX CONCURRENTLY {name}");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *connection).await?;
        }
        let build =
            format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} {definition}");
        sqlx::raw_sql(AssertSqlSafe(build)).execute(connection).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_migration_0001() {
        let first = crate::MIGRATOR.iter().next().unwrap();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let sql = words(first.sql.as_str()).replace("$$", "'");
        assert_eq!(sql.matches("pg_temp.ensure_index('").count(), WANTED.len());
        for Wanted { name, table, definition } in WANTED {
            let asked = |quote: &str| {
                format!("ensure_index('{name}', '{table}', {quote}{definition}{quote})")
            };
            // Quotes within are doubled, or the text is in dollar quotes, which are quotes here.
            assert!(sql.contains(&asked("'")), "{name}");
        }
    }
}
