//! What is in the stores, and what must hold of it.

use std::{collections::BTreeMap, path::Path};

use synap_types::{Checksum, UserId};

use super::{System, eventually};

impl System {
    /// Every object in the store: key and bytes. What a crash left half-written has no key.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let mut blobs = BTreeMap::new();
        let root = self.objects();
        if root.exists() {
            collect(&root, &root, false, &mut blobs);
        }
        blobs
    }

    /// Keys of multipart uploads that nobody has finished.
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let unfinished = self.s3().map(|server| server.unfinished().unwrap()).unwrap_or_default();
        unfinished.into_iter().map(|upload| upload.key).collect()
    }

    /// Files beside the blobs: bodies that were not whole yet.
    pub fn staging_files(&self) -> Vec<String> {
        let mut all = BTreeMap::new();
        if self.blob_dir().exists() {
            collect(&self.blob_dir(), &self.blob_dir(), true, &mut all);
        }
        all.into_keys().filter(|name| name.contains('#')).collect()
    }

    /// A deletion that failed is tried again after a minute. A test that made it fail says when
    /// that minute is over.
    pub async fn retry_deletions(&self) {
        sqlx::query("UPDATE blob_gc SET not_before = clock_timestamp()")
            .execute(&self.database.pool)
            .await
            .unwrap();
    }

    /// Nothing was ever written here: not a row, not a blob, and nothing beside the blobs.
    pub async fn check_untouched(&self) {
        for table in [
            "entities",
            "content_blocks",
            "entity_revisions",
            "entity_vectors",
            "write_operations",
            "blob_gc",
            "event_store.events",
            "event_store.event_ids",
            "event_store.streams",
        ] {
            let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let rows: i64 = sqlx::query_scalar(count).fetch_one(&self.database.pool).await.unwrap();
            assert_eq!(rows, 0, "{table}");
        }
        assert_eq!(self.blobs(), BTreeMap::new());
    }

    /// Waits until recovery has nothing left to do.
    pub async fn settled(&self) {
        eventually("recovery has nothing left to do", || self.settled_now()).await;
    }

    pub async fn settled_now(&self) -> bool {
        let open: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM write_operations
                     WHERE state IN ('PENDING', 'COMMITTED'))
                  + (SELECT count(*) FROM blob_gc)",
        )
        .fetch_one(&self.database.pool)
        .await
        .unwrap();
        open == 0
    }

    /// What must hold of a settled system whatever happened to it: every note and file is wholly
    /// there, and nothing else is.
    pub async fn check_everything(&self) -> BTreeMap<String, Kept> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT e.id::text, e.user_id, e.type AS kind, e.version, e.file_path, e.checksum,
                    e.file_size, e.deleted_at IS NOT NULL AS deleted, b.content AS block
             FROM entities e LEFT JOIN content_blocks b ON b.entity_id = e.id
                  JOIN entity_revisions r ON r.entity_id = e.id AND r.version = e.version
                       AND r.file_path = e.file_path AND r.checksum = e.checksum
                       AND (r.deleted_at IS NULL) = (e.deleted_at IS NULL)",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let count = |sql: &'static str| async move {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.database.pool).await.unwrap()
        };
        let entities = i64::try_from(rows.len()).unwrap();
        let notes = i64::try_from(rows.iter().filter(|row| row.kind == "note").count()).unwrap();
        let writes: i64 = rows.iter().map(|row| i64::from(row.version)).sum();
        assert_eq!(count("SELECT count(*) FROM entities").await, entities, "without a revision");
        assert_eq!(count("SELECT count(*) FROM content_blocks").await, notes);
        assert_eq!(count("SELECT count(*) FROM entity_revisions").await, writes);
        assert_eq!(
            count("SELECT count(*) FROM write_operations WHERE state = 'DONE'").await,
            writes,
            "operations without their effect"
        );

        let events: Vec<(String, String, i64, serde_json::Value)> = sqlx::query_as(
            "SELECT aggregate_id::text, event_type, version, data FROM event_store.events
             ORDER BY aggregate_id, version",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        assert_eq!(i64::try_from(events.len()).unwrap(), writes, "one event for each write");
        let mut streams: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in events {
            streams.entry(event.0.clone()).or_default().push(event);
        }

        let mut blobs = self.blobs();
        let mut kept = BTreeMap::new();
        for row in rows {
            let blob = blobs.remove(&row.file_path);
            let blob = blob.unwrap_or_else(|| panic!("no blob at {}", row.file_path));
            assert_eq!(Checksum::of(&blob).to_string(), row.checksum, "{}", row.file_path);
            assert_eq!(i64::try_from(blob.len()).unwrap(), row.file_size);
            let segment = UserId::parse(row.user_id).unwrap().segment();
            let prefix = format!("users/{segment}/{}s/{}.", row.kind, row.id);
            assert!(row.file_path.starts_with(&prefix), "{} for {prefix}", row.file_path);
            if row.kind == "note" {
                let block = row.block.as_deref().map(str::as_bytes);
                assert_eq!(block, Some(&*blob), "blob and content block differ");
            }
            let stream = &streams[&row.id];
            let expected = [("entity.created", 1), ("entity.deleted", 2)];
            let found: Vec<_> = stream.iter().map(|event| (event.1.as_str(), event.2)).collect();
            assert_eq!(found, &expected[..usize::try_from(row.version).unwrap()]);
            assert_eq!(row.deleted, row.version == 2);
            let data = &stream[0].3;
            assert_eq!(data["file"]["path"], row.file_path.as_str());
            // A title of its own is taken from the first 100 characters.
            let body = String::from_utf8_lossy(&blob);
            let is_its_title = body.chars().count() <= 100;
            assert!(is_its_title || !data.to_string().contains(&*body), "the event has the body");
            kept.insert(row.id, Kept { body: blob, deleted: row.deleted });
        }
        assert!(blobs.is_empty(), "blobs that no row names: {:?}", blobs.keys());
        kept
    }

    /// [`check_everything`](Self::check_everything), where all there is are notes: their texts.
    pub async fn check_whole(&self) -> BTreeMap<String, String> {
        let kept = self.check_everything().await;
        let text = |kept: Kept| String::from_utf8(kept.body).unwrap();
        kept.into_iter().map(|(id, kept)| (id, text(kept))).collect()
    }
}

/// A note or a file that is there, with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub body: Vec<u8>,
    pub deleted: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    kind: String,
    version: i32,
    file_path: String,
    checksum: String,
    file_size: i64,
    deleted: bool,
    block: Option<String>,
}

fn collect(root: &Path, folder: &Path, staging: bool, blobs: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, staging, blobs);
        } else {
            let key = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            // What is no key is no object: what a crash left half-written, the probe of readiness,
            // the secret of URLs. What is being deleted may be gone by now.
            if (key.starts_with("users/") && (staging || !key.contains('#')))
                && let Ok(bytes) = std::fs::read(&path)
            {
                blobs.insert(key, bytes);
            }
        }
    }
}
