//! The floor: the same rows, straight from PostgreSQL to the store and back.

use std::{
    path::Path as Directory,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path};
use sqlx::PgPool;
use synap_types::{Checksum, IdGenerator as _, SystemIds};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::rows::Rows;
use crate::bench::stores::StoreKind;

/// Rows of one SELECT, as the command asks for them.
const PAGE: i64 = 100;
/// Rows that V0.2's work is measured with.
const SAMPLE: i64 = 200;

/// PostgreSQL and the store.
pub(super) struct Floor {
    pool: PgPool,
    store: Arc<dyn ObjectStore>,
}

impl Floor {
    pub(super) fn open(
        rows: &Rows,
        store: StoreKind,
        directory: &Directory,
    ) -> anyhow::Result<Self> {
        let store = store.open(&directory.join("floor-blobs"))?;
        Ok(Self { pool: rows.pool.clone(), store })
    }

    /// All rows; the next page is read while the last one is written.
    pub(super) async fn migrate(&self, concurrency: usize) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let (sender, mut pages) = mpsc::channel(1);
        let pool = self.pool.clone();
        let reading = tokio::spawn(async move {
            let mut after = Uuid::nil();
            loop {
                let page = page(&pool, after, PAGE).await?;
                let Some((last, _)) = page.last() else { return anyhow::Ok(()) };
                after = *last;
                if sender.send(page).await.is_err() {
                    return Ok(());
                }
            }
        });
        let pages = stream::poll_fn(move |context| pages.poll_recv(context));
        pages
            .flat_map(stream::iter)
            .map(|(_, body)| Ok(there_and_back(Arc::clone(&self.store), body)))
            .try_buffer_unordered(concurrency)
            .try_for_each(async |()| Ok(()))
            .await?;
        reading.await??;
        Ok(begun.elapsed())
    }

    /// How long V0.2 took for a row without its pauses: one after the other PUT, a look, UPDATE.
    pub(super) async fn one_by_one(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let rows = page(&self.pool, Uuid::nil(), SAMPLE).await?;
        let count = u32::try_from(rows.len())?.max(1);
        for (id, body) in rows {
            there_and_back(Arc::clone(&self.store), body).await?;
            sqlx::query("UPDATE entities SET file_path = $2, checksum = 'sha256:' WHERE id = $1")
                .bind(id)
                .bind(format!("users/floor/notes/{id}.md"))
                .execute(&self.pool)
                .await?;
        }
        Ok(begun.elapsed() / count)
    }
}

async fn page(pool: &PgPool, after: Uuid, limit: i64) -> anyhow::Result<Vec<(Uuid, String)>> {
    let rows = sqlx::query_as(
        "SELECT e.id, b.content FROM entities e JOIN content_blocks b ON b.entity_id = e.id
         WHERE e.id > $1 AND e.file_path IS NULL ORDER BY e.id LIMIT $2",
    );
    Ok(rows.bind(after).bind(limit).fetch_all(pool).await?)
}

async fn there_and_back(store: Arc<dyn ObjectStore>, body: String) -> anyhow::Result<()> {
    // In a bucket of both sides the floor has a user of its own.
    let path = Path::from(format!("users/floor/notes/{}.md", SystemIds.next_id()));
    let body = Bytes::from(body);
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(&path, PutPayload::from(body.clone()), options).await?;
    let read = store.get(&path).await?.bytes().await?;
    anyhow::ensure!(Checksum::of(&read) == Checksum::of(&body), "another body came back");
    Ok(())
}
