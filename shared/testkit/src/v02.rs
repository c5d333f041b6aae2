//! Databases as Synap V0.2 and early V0.3 left them: tables, indexes and row security as found, and
//! rows with every oddity that real installations have.
//!
//! [`ONE_OF_EACH`] is eleven entities that can be checked one by one; [`V02`] makes any number, and
//! says which of them are odd, and how. The rows are made inside PostgreSQL: 200,000 entities of
//! real text, some 2 GB, take minutes, 500,000 events seconds.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::markdown;

/// The tables of V0.2, empty.
pub const TABLES: &str = include_str!("v02/tables.sql");
/// What early V0.3 added to them.
pub const EARLY_V03_TABLES: &str = include_str!("v02/early_v03_tables.sql");
/// A few rows, one of each oddity.
pub const ONE_OF_EACH: &str = include_str!("v02/one_of_each.sql");
/// What early V0.3 made of those.
pub const EARLY_V03_ONE_OF_EACH: &str = include_str!("v02/early_v03_one_of_each.sql");

/// Steps that make the rows of [`V02`], in order.
const PLAN: &str = include_str!("v02/plan.sql");
const ENTITIES: &str = include_str!("v02/entities.sql");
const EARLY_V03_ENTITIES: &str = include_str!("v02/early_v03_entities.sql");
const EVENTS: &str = include_str!("v02/events.sql");
const EVENTS_V2: &str = include_str!("v02/events_v2.sql");

/// A body is two texts of at most so many bytes and a line of its own; the average is about 10 KiB.
const BODY_BYTES: usize = 24 * 1024;

/// What to make. The same values make the same rows, on one machine.
#[derive(Debug, Clone)]
pub struct V02 {
    /// Another seed makes other ids.
    pub seed: u32,
    /// Rows of `entities`. From 100 on every oddity is there.
    pub entities: u32,
    /// Rows of `events`. From 1,000 on every oddity is there.
    pub events: u32,
    /// Users beside those with odd ids.
    pub users: u32,
    /// How many entities have an embedding: each costs its place in an HNSW index.
    pub embeddings: u32,
    /// With the columns and tables of early V0.3, and a tenth as many rows of `events_v2` as of
    /// `events`.
    pub early_v03: bool,
}

impl Default for V02 {
    fn default() -> Self {
        Self { seed: 1, entities: 200, events: 1_000, users: 20, embeddings: 2, early_v03: false }
    }
}

/// What was made: the ids of the rows of each kind, in the order in which they were made. What the
/// kinds are is said in `v02/plan.sql`.
#[derive(Debug, Default)]
pub struct Generated {
    /// Of `entities`.
    pub entities: BTreeMap<String, Vec<Uuid>>,
    /// Of `events`.
    pub events: BTreeMap<String, Vec<Uuid>>,
    /// Of `events_v2`; an id that is there twice is named twice.
    pub events_v2: BTreeMap<String, Vec<Uuid>>,
}

impl V02 {
    /// Makes tables and rows in an empty database.
    ///
    /// # Panics
    /// If they cannot be made.
    pub async fn generate(&self, pool: &PgPool) -> Generated {
        match self.try_generate(pool).await {
            Ok(generated) => generated,
            Err(error) => panic!("making a database of V0.2: {error}"),
        }
    }

    async fn try_generate(&self, pool: &PgPool) -> Result<Generated, sqlx::Error> {
        // One of its own: the plan is temporary tables, and making many rows takes its time.
        let mut connection = pool.acquire().await?.detach();
        let connection = &mut connection;
        sqlx::raw_sql("SET statement_timeout = 0").execute(&mut *connection).await?;
        sqlx::raw_sql(TABLES).execute(&mut *connection).await?;
        if self.early_v03 {
            sqlx::raw_sql(EARLY_V03_TABLES).execute(&mut *connection).await?;
        }
        self.tell(connection).await?;
        sqlx::raw_sql(PLAN).execute(&mut *connection).await?;
        sqlx::raw_sql(ENTITIES).execute(&mut *connection).await?;
        if self.early_v03 {
            sqlx::raw_sql(EARLY_V03_ENTITIES).execute(&mut *connection).await?;
        }
        sqlx::raw_sql(EVENTS).execute(&mut *connection).await?;
        let mut generated = Generated {
            entities: kinds(connection, "SELECT kind, id FROM entity_plan ORDER BY n").await?,
            events: kinds(connection, "SELECT kind, id FROM event_plan ORDER BY n").await?,
            events_v2: BTreeMap::new(),
        };
        if self.early_v03 {
            sqlx::raw_sql(EVENTS_V2).execute(&mut *connection).await?;
            let made = "SELECT kind, id FROM event_v2_plan ORDER BY n";
            generated.events_v2 = kinds(connection, made).await?;
        }
        sqlx::raw_sql("ANALYZE entities, content_blocks, events").execute(connection).await?;
        Ok(generated)
    }

    /// Puts what is wanted, and the texts, where the steps find them.
    async fn tell(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(
            "CREATE TEMP TABLE wanted (seed bigint, entities bigint, events bigint, users bigint,
                                       embeddings bigint);
             CREATE TEMP TABLE texts (n bigint PRIMARY KEY, content text NOT NULL)",
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query("INSERT INTO wanted VALUES ($1, $2, $3, $4, $5)")
            .bind(i64::from(self.seed))
            .bind(i64::from(self.entities))
            .bind(i64::from(self.events))
            .bind(i64::from(self.users))
            .bind(i64::from(self.embeddings))
            .execute(&mut *connection)
            .await?;
        let texts: Vec<String> = markdown::files()
            .into_iter()
            .map(|text| text[..text.floor_char_boundary(BODY_BYTES)].to_owned())
            .collect();
        sqlx::query(
            "INSERT INTO texts
             SELECT n - 1, content FROM unnest($1::text[]) WITH ORDINALITY AS t (content, n)",
        )
        .bind(texts)
        .execute(connection)
        .await?;
        Ok(())
    }
}

async fn kinds(
    connection: &mut PgConnection,
    query: &'static str,
) -> Result<BTreeMap<String, Vec<Uuid>>, sqlx::Error> {
    let rows: Vec<(String, Uuid)> = sqlx::query_as(query).fetch_all(connection).await?;
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for (kind, id) in rows {
        kinds.entry(kind).or_default().push(id);
    }
    Ok(kinds)
}

impl Generated {
    /// The entities of a kind.
    #[must_use]
    pub fn entities(&self, kind: &str) -> &[Uuid] {
        self.entities.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The events of a kind.
    #[must_use]
    pub fn events(&self, kind: &str) -> &[Uuid] {
        self.events.get(kind).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::TestServer;

    #[tokio::test]
    async fn every_oddity_is_there_and_known() {
        let nothing = async |_| Ok::<_, String>(());
        let database = TestServer::shared().await.database("empty", nothing).await;
        let wanted = V02 { early_v03: true, ..V02::default() };
        let made = wanted.generate(&database.pool).await;
        let count = async |query: &'static str| {
            let count: i64 = sqlx::query_scalar(query).fetch_one(&database.pool).await.unwrap();
            usize::try_from(count).unwrap()
        };
        assert_eq!(count("SELECT count(*) FROM entities").await, 200);
        assert_eq!(made.entities.values().map(Vec::len).sum::<usize>(), 200);
        assert_eq!(count("SELECT count(*) FROM events").await, 1_000);
        assert_eq!(made.events.values().map(Vec::len).sum::<usize>(), 1_000);
        let v2 = count("SELECT count(*) FROM events_v2").await;
        assert_eq!(made.events_v2.values().map(Vec::len).sum::<usize>(), v2);
        assert_eq!((made.entities.len(), made.events.len(), made.events_v2.len()), (12, 14, 6));

        let no_block = "SELECT count(*) FROM entities e WHERE NOT EXISTS
                        (SELECT FROM content_blocks b WHERE b.entity_id = e.id)";
        assert_eq!(count(no_block).await, made.entities("no_block").len());
        let null = "SELECT count(*) FROM content_blocks
                    WHERE content IS NULL AND storage_provider = 'db'";
        assert_eq!(count(null).await, made.entities("null_content").len());
        let deleted = "SELECT count(*) FROM entities WHERE deleted_at IS NOT NULL";
        assert_eq!(count(deleted).await, made.entities("deleted").len());
        let nowhere = "SELECT count(*) FROM events v WHERE jsonb_typeof(data) = 'object'
                       AND data ->> 'entityId' ~ '^[0-9a-fA-F-]{36}$' AND NOT EXISTS
                       (SELECT FROM entities e WHERE e.id = (v.data ->> 'entityId')::uuid)";
        assert_eq!(count(nowhere).await, made.events("names_nothing").len());
    }
}
