//! The same notes straight from the stores: what a program does that has no services.

use std::sync::Arc;

use object_store::{ObjectStoreExt as _, PutPayload, local::LocalFileSystem, path::Path};
use sqlx::PgPool;
use synap_postgres::PoolOptions;
use synap_types::{Checksum, IdGenerator as _, SystemIds};
use uuid::Uuid;

use super::{
    Kind, Side,
    system::{Gateway, user},
};
use crate::bench::{
    floor::{Floor, create_note},
    processes::Processes,
    search::words::directly,
};

/// Reads and searches what the system has written, and writes to tables and a directory of its own.
#[derive(Clone)]
pub(super) struct Straight {
    pool: PgPool,
    store: Arc<LocalFileSystem>,
    own: Floor,
    ids: Arc<Vec<Uuid>>,
    users: usize,
    texts: Arc<Vec<String>>,
    searches: Arc<Vec<String>>,
}

impl Straight {
    pub(super) async fn open(
        processes: &Processes,
        gateway: &Gateway,
        ids: Vec<String>,
    ) -> anyhow::Result<Self> {
        let options = PoolOptions { by_key: true, ..PoolOptions::new("floor") };
        let pool = synap_postgres::connect_pool(processes.database.url(), &options)?;
        // As autovacuum would have done by the time that so many notes are there.
        sqlx::raw_sql("VACUUM (ANALYZE)").execute(&pool).await?;
        let blobs = processes.directory.path().join("blobs");
        let store = Arc::new(LocalFileSystem::new_with_prefix(blobs)?.with_fsync(true));
        let own = Floor::start(&processes.database, processes.directory.path()).await?;
        let ids = ids.iter().map(|id| id.parse()).collect::<Result<Vec<Uuid>, _>>()?;
        fill(&own.pool, &ids, &gateway.texts).await?;
        Ok(Self {
            pool,
            store,
            own,
            ids: Arc::new(ids),
            users: gateway.users(),
            texts: Arc::clone(&gateway.texts),
            searches: Arc::clone(&gateway.searches),
        })
    }

    async fn get(&self, place: usize) -> anyhow::Result<()> {
        let path: String =
            sqlx::query_scalar("SELECT file_path FROM entities WHERE id = $1 AND user_id = $2")
                .bind(self.ids[place])
                .bind(user(place, self.users))
                .fetch_one(&self.pool)
                .await?;
        let body = self.store.get(&Path::parse(path)?).await?.bytes().await?;
        anyhow::ensure!(!body.is_empty(), "a note without content");
        Ok(())
    }

    async fn update(&self, place: usize, body: &str) -> anyhow::Result<()> {
        let (id, event) = (self.ids[place], SystemIds.next_id());
        let checksum = Checksum::of(body.as_bytes()).to_string();
        let key = format!("users/bench/notes/{id}/{event}.md");
        let size = i64::try_from(body.len())?;
        let payload = PutPayload::from(body.to_owned().into_bytes());
        self.own.store.put(&Path::parse(&key)?, payload).await?;

        let mut transaction = self.own.pool.begin().await?;
        sqlx::query(
            "UPDATE entities SET file_path = $2, file_size = $3, checksum = $4,
                    version = version + 1, updated_at = now()
             WHERE id = $1",
        )
        .bind(id)
        .bind(&key)
        .bind(size)
        .bind(&checksum)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE content_blocks SET content = $2, size_bytes = $3::int8::int4, checksum = $4,
                    last_modified_at = now()
             WHERE entity_id = $1",
        )
        .bind(id)
        .bind(body)
        .bind(size)
        .bind(&checksum)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;

        sqlx::query(
            "INSERT INTO event_store.events (event_id, aggregate_type, aggregate_id, version,
                                             event_type, user_id, occurred_at, data, metadata, source)
             SELECT $1, 'note', id, version, 'entity.updated', 'bench', now(), $3, '{}', 'api'
             FROM entities WHERE id = $2",
        )
        .bind(event)
        .bind(id)
        .bind(serde_json::json!({ "file": { "path": key, "size": size, "checksum": checksum } }))
        .execute(&self.own.pool)
        .await?;
        Ok(())
    }
}

impl Side for Straight {
    async fn call(&self, kind: Kind, number: usize) -> anyhow::Result<()> {
        let place = number % self.ids.len();
        let text = &self.texts[number % self.texts.len()];
        match kind {
            Kind::Get => self.get(place).await,
            Kind::Create => {
                let Floor { pool, store } = self.own.clone();
                create_note(pool, store, text.clone()).await
            }
            Kind::Update => self.update(place, text).await,
            Kind::Search => {
                let query = self.searches[number % self.searches.len()].clone();
                directly(self.pool.clone(), &user(place, self.users), query).await
            }
        }
    }
}

/// As many rows to write to as the system has.
async fn fill(pool: &PgPool, ids: &[Uuid], texts: &[String]) -> anyhow::Result<()> {
    for (ids, texts) in ids.chunks(1_000).zip(texts.chunks(1_000).cycle()) {
        sqlx::query(
            "INSERT INTO entities (id, user_id, type, title, preview)
             SELECT id, 'bench', 'note', 'A note', 'A note' FROM unnest($1) AS id",
        )
        .bind(ids)
        .execute(pool)
        .await?;
        sqlx::query(
            "INSERT INTO content_blocks (entity_id, content, mime_type)
             SELECT ($1::uuid[])[n], ($2::text[])[1 + n % cardinality($2::text[])], 'text/markdown'
             FROM generate_series(1, cardinality($1::uuid[])) AS n",
        )
        .bind(ids)
        .bind(texts)
        .execute(pool)
        .await?;
    }
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(pool).await?;
    Ok(())
}
