//! The floor: the same work straight to the same stores. One process, no gRPC, no protocol.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use object_store::{
    ObjectStore as _, PutMode, PutOptions, PutPayload, local::LocalFileSystem,
    path::Path as ObjectPath,
};
use sqlx::PgPool;
use synap_postgres::{PoolOptions, Provided};
use synap_types::{Checksum, IdGenerator as _, SystemIds};

use super::{load::Done, system::migrate};

/// As many connections as the entity and event services have together.
const CONNECTIONS: u32 = 16;

/// The stores, opened directly.
#[derive(Clone)]
pub(super) struct Floor {
    pub(super) pool: PgPool,
    pub(super) store: Arc<LocalFileSystem>,
}

impl Floor {
    /// A database of its own on the system's PostgreSQL, with the same tables and indexes, and a
    /// directory of its own beside the system's.
    pub(super) async fn start(database: &Provided, directory: &Path) -> anyhow::Result<Self> {
        let own = PoolOptions { max_connections: 1, ..PoolOptions::new("bench") };
        let admin = synap_postgres::connect_pool(database.url(), &own)?;
        sqlx::query("CREATE DATABASE floor").execute(&admin).await?;
        admin.close().await;
        let url = database.url_of("floor").context("the database is not our own")?;
        migrate(&url).await?;
        let options = PoolOptions { max_connections: CONNECTIONS, ..PoolOptions::new("floor") };
        let pool = synap_postgres::connect_pool(&url, &options)?;
        let directory = directory.join("floor-blobs");
        std::fs::create_dir(&directory)?;
        let store = Arc::new(LocalFileSystem::new_with_prefix(directory)?.with_fsync(true));
        Ok(Self { pool, store })
    }

    /// The work to measure: PUT, one transaction of two rows, one INSERT.
    pub(super) fn create_note(
        &self,
        body: &str,
    ) -> impl Fn(usize) -> Done + Clone + Send + Sync + 'static {
        let (pool, store, body) = (self.pool.clone(), Arc::clone(&self.store), body.to_owned());
        move |_| -> Done { Box::pin(create_note(pool.clone(), Arc::clone(&store), body.clone())) }
    }
}

pub(super) async fn create_note(
    pool: PgPool,
    store: Arc<LocalFileSystem>,
    body: String,
) -> anyhow::Result<()> {
    let (entity, event) = (SystemIds.next_id(), SystemIds.next_id());
    let checksum = Checksum::of(body.as_bytes()).to_string();
    let key = format!("users/bench/notes/{entity}.md");
    let size = i64::try_from(body.len())?;

    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store
        .put_opts(&ObjectPath::parse(&key)?, PutPayload::from(body.clone().into_bytes()), options)
        .await?;

    let mut transaction = pool.begin().await?;
    sqlx::query(
        "INSERT INTO entities (id, user_id, type, title, preview, file_path, file_size, file_type,
                               checksum)
         VALUES ($1, 'bench', 'note', 'A note', 'A note', $2, $3, 'markdown', $4)",
    )
    .bind(entity)
    .bind(&key)
    .bind(size)
    .bind(&checksum)
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "INSERT INTO content_blocks (entity_id, content, mime_type, size_bytes, checksum)
         VALUES ($1, $2, 'text/markdown', $3::int8::int4, $4)",
    )
    .bind(entity)
    .bind(&body)
    .bind(size)
    .bind(&checksum)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;

    sqlx::query(
        "INSERT INTO event_store.events (event_id, aggregate_type, aggregate_id, version,
                                         event_type, user_id, occurred_at, data, metadata, source)
         VALUES ($1, 'note', $2, 1, 'entity.created', 'bench', now(), $3, '{}', 'api')",
    )
    .bind(event)
    .bind(entity)
    .bind(serde_json::json!({ "file": { "path": key, "size": size, "checksum": checksum } }))
    .execute(&pool)
    .await?;
    Ok(())
}
