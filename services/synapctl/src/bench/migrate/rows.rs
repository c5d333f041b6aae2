//! Entities of V0.2 with text that people wrote.

use sqlx::PgPool;
use synap_postgres::PoolOptions;
use synap_types::{IdGenerator as _, SystemIds};
use uuid::Uuid;

use crate::bench::processes::Processes;

/// Rows of one INSERT.
const BATCH: usize = 1_000;

/// The rows of a round.
pub(super) struct Rows {
    pub(super) pool: PgPool,
    texts: Vec<String>,
}

impl Rows {
    pub(super) fn connect(
        processes: &Processes,
        texts: &[String],
        rows: usize,
    ) -> anyhow::Result<Self> {
        let options = PoolOptions { statement_timeout: None, ..PoolOptions::new("bench") };
        let pool = synap_postgres::connect_pool(processes.database.url(), &options)?;
        Ok(Self { pool, texts: texts.iter().cycle().take(rows).cloned().collect() })
    }

    pub(super) fn mean_bytes(&self) -> u64 {
        let bytes: usize = self.texts.iter().map(String::len).sum();
        (bytes / self.texts.len().max(1)) as u64
    }

    /// In place of all that is there.
    pub(super) async fn fill(&self) -> anyhow::Result<()> {
        sqlx::raw_sql("TRUNCATE entities, content_migrations, blob_gc CASCADE")
            .execute(&self.pool)
            .await?;
        for texts in self.texts.chunks(BATCH) {
            let ids: Vec<Uuid> = texts.iter().map(|_| SystemIds.next_id()).collect();
            sqlx::query(
                "WITH new AS (SELECT * FROM unnest($1::uuid[], $2::text[]) AS n (id, content)),
                 entity AS (INSERT INTO entities (id, user_id, type, title)
                            SELECT id, 'user-' || left(md5(id::text), 2), 'note', 'A note' FROM new)
                 INSERT INTO content_blocks (entity_id, content) SELECT id, content FROM new",
            )
            .bind(ids)
            .bind(texts)
            .execute(&self.pool)
            .await?;
        }
        sqlx::raw_sql("ANALYZE entities, content_blocks; CHECKPOINT").execute(&self.pool).await?;
        Ok(())
    }
}
