//! What is in the stores, and what must hold of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{System, eventually};

impl System {
    /// The key of every object in the store. What a crash left half-written has none.
    pub fn keys(&self) -> BTreeSet<String> {
        let mut names = self.names();
        names.retain(|name| !name.contains('#'));
        names
    }

    /// Every object in the store: key and bytes.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let with_bytes = |key: String| {
            // What is being deleted may be gone by now.
            let bytes = std::fs::read(self.objects().join(&key)).ok()?;
            Some((key, bytes))
        };
        self.keys().into_iter().filter_map(with_bytes).collect()
    }

    /// What is below `users/`: objects, and what is to become one. Whatever else there is, the probe of
    /// readiness, the secret of URLs, is no object.
    fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let root = self.objects();
        if root.exists() {
            collect(&root, &root, &mut names);
        }
        names.retain(|name| name.starts_with("users/"));
        names
    }

    /// Keys of multipart uploads that nobody has finished.
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let unfinished = self.s3().map(|server| server.unfinished().unwrap()).unwrap_or_default();
        unfinished.into_iter().map(|upload| upload.key).collect()
    }

    /// Files beside the blobs: bodies that were not whole yet.
    pub fn staging_files(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.contains('#')).collect()
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
}

fn collect(root: &Path, folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, names);
        } else {
            names.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}
