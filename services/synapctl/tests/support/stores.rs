//! What is in the stores, and what must hold of it.

use std::{collections::BTreeMap, path::Path};

use synap_types::UserId;

use super::{System, eventually};

impl System {
    /// Every object in the store: key and bytes. What a crash left half-written has no key.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let mut blobs = BTreeMap::new();
        let root = self.blob_dir();
        if root.exists() {
            collect(&root, &root, &mut blobs);
        }
        blobs
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

    /// What must hold of a settled system whatever happened to it: every note is wholly there, and
    /// nothing else is. Returns the bodies by note.
    pub async fn check_whole(&self) -> BTreeMap<String, String> {
        let rows: Vec<(String, String, String, String, String)> = sqlx::query_as(
            "SELECT e.id::text, e.user_id, e.file_path, e.checksum, b.content
             FROM entities e JOIN content_blocks b ON b.entity_id = e.id
                  JOIN entity_revisions r ON r.entity_id = e.id AND r.version = e.version
                       AND r.file_path = e.file_path AND r.checksum = e.checksum",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let count = |sql: &'static str| async move {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.database.pool).await.unwrap()
        };
        let notes = i64::try_from(rows.len()).unwrap();
        assert_eq!(count("SELECT count(*) FROM entities").await, notes, "rows without their block");
        assert_eq!(count("SELECT count(*) FROM content_blocks").await, notes);
        assert_eq!(count("SELECT count(*) FROM entity_revisions").await, notes);
        assert_eq!(
            count("SELECT count(*) FROM write_operations WHERE state = 'DONE'").await,
            notes,
            "operations without their note"
        );

        let events: Vec<(String, String, i64, serde_json::Value)> = sqlx::query_as(
            "SELECT aggregate_id::text, event_type, version, data FROM event_store.events",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        assert_eq!(i64::try_from(events.len()).unwrap(), notes, "one event for each note");
        let events: BTreeMap<_, _> =
            events.into_iter().map(|event| (event.0.clone(), event)).collect();

        let mut blobs = self.blobs();
        let mut bodies = BTreeMap::new();
        for (id, user, path, checksum, body) in rows {
            let blob = blobs.remove(&path).unwrap_or_else(|| panic!("no blob at {path}"));
            assert_eq!(String::from_utf8(blob).unwrap(), body, "blob and content block differ");
            assert_eq!(synap_types::Checksum::of(body.as_bytes()).to_string(), checksum);
            let segment = UserId::parse(user).unwrap().segment();
            assert_eq!(path, format!("users/{segment}/notes/{id}.md"));
            let (_, event_type, version, data) = &events[&id];
            assert_eq!((event_type.as_str(), *version), ("entity.created", 1));
            assert_eq!(data["file"]["path"], path.as_str());
            // A title of its own is taken from the first 100 characters.
            let is_its_title = body.chars().count() <= 100;
            assert!(is_its_title || !data.to_string().contains(&body), "the event has the body");
            bodies.insert(id, body);
        }
        assert!(blobs.is_empty(), "blobs that no row names: {:?}", blobs.keys());
        bodies
    }
}

fn collect(root: &Path, folder: &Path, blobs: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, blobs);
        } else {
            let key = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            // Readiness writes and removes `.probe`; what is being deleted may be gone by now.
            if !key.contains('#')
                && key != ".probe"
                && let Ok(bytes) = std::fs::read(&path)
            {
                blobs.insert(key, bytes);
            }
        }
    }
}
