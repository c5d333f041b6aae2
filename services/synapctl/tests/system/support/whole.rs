//! What must hold of a settled system whatever happened to it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use synap_types::{Checksum, UserId};

use super::System;

/// A note or a file that is there, with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub body: Vec<u8>,
    pub deleted: bool,
    pub version: i32,
}

struct EntityRow {
    id: String,
    user_id: String,
    kind: String,
    version: i32,
    file_path: String,
    deleted: bool,
    block: Option<String>,
}

synap_postgres::from_row!(EntityRow { id, user_id, kind, version, file_path, deleted, block });

struct RevisionRow {
    id: String,
    version: i32,
    file_path: String,
    checksum: String,
    file_size: i64,
    deleted: bool,
}

synap_postgres::from_row!(RevisionRow { id, version, file_path, checksum, file_size, deleted });

struct EventRow {
    id: String,
    kind: String,
    version: i32,
    data: Value,
}

synap_postgres::from_row!(EventRow { id, kind, version, data });

/// What the events of one entity make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Nothing,
    Live,
    Deleted,
    Purged,
}

impl State {
    fn after(self, event: &str) -> Self {
        match (self, event) {
            (Self::Nothing, "entity.created")
            | (Self::Live, "entity.updated")
            | (Self::Deleted, "entity.restored") => Self::Live,
            (Self::Live, "entity.deleted") => Self::Deleted,
            (Self::Deleted, "entity.purged") => Self::Purged,
            _ => panic!("{event} of what is {self:?}"),
        }
    }
}

fn grouped<T>(rows: Vec<T>, id: fn(&T) -> &String) -> BTreeMap<String, Vec<T>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        groups.entry(id(&row).clone()).or_default().push(row);
    }
    groups
}

/// From the first version on, each once; or from a later one where older ones are not kept.
fn assert_in_order(versions: impl Iterator<Item = i32>, last: i32, from_first: bool) {
    let versions: Vec<_> = versions.collect();
    let first = if from_first { 1 } else { versions[0] };
    assert_eq!(versions, (first..=last).collect::<Vec<_>>());
}

impl System {
    /// Every note and file is wholly there, at each of its versions, and nothing else is: no row
    /// names a body that another key holds, no blob is without a row, every write has its event.
    pub async fn check_everything(&self) -> BTreeMap<String, Kept> {
        let pool = &self.database.pool;
        let entities: Vec<EntityRow> = sqlx::query_as(
            "SELECT e.id::text, e.user_id, e.type AS kind, e.version, e.file_path,
                    e.deleted_at IS NOT NULL AS deleted, b.content AS block
             FROM entities e LEFT JOIN content_blocks b ON b.entity_id = e.id",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let revisions: Vec<RevisionRow> = sqlx::query_as(
            "SELECT entity_id::text AS id, version, file_path, checksum, file_size,
                    deleted_at IS NOT NULL AS deleted
             FROM entity_revisions ORDER BY entity_id, version",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let events: Vec<EventRow> = sqlx::query_as(
            "SELECT aggregate_id::text AS id, event_type AS kind, version::int, data
             FROM event_store.events ORDER BY aggregate_id, version",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let count = |sql: &'static str| async move {
            let count: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
            usize::try_from(count).unwrap()
        };
        let done = count("SELECT count(*) FROM write_operations WHERE state = 'DONE'").await;
        assert_eq!(done, events.len(), "an operation without its event, or the other way round");
        let notes = entities.iter().filter(|row| row.kind == "note").count();
        assert_eq!(count("SELECT count(*) FROM content_blocks").await, notes);

        let blobs = self.blobs();
        let all_kept = !self.environment.iter().any(|(name, _)| *name == "REVISION_COUNT");
        let mut revisions = grouped(revisions, |row| &row.id);
        let mut streams = grouped(events, |row| &row.id);
        let mut named = BTreeSet::new();
        let mut kept = BTreeMap::new();
        for row in entities {
            let stream = streams.remove(&row.id).unwrap_or_default();
            assert_in_order(stream.iter().map(|event| event.version), row.version, true);
            let state = stream.iter().fold(State::Nothing, |state, one| state.after(&one.kind));
            assert_eq!(state, if row.deleted { State::Deleted } else { State::Live });

            let revisions = revisions.remove(&row.id).unwrap_or_default();
            assert_in_order(revisions.iter().map(|one| one.version), row.version, all_kept);
            let newest = revisions.last().unwrap();
            assert_eq!((&newest.file_path, newest.deleted), (&row.file_path, row.deleted));
            let segment = UserId::parse(row.user_id).unwrap().segment();
            let prefix = format!("users/{segment}/{}s/{}", row.kind, row.id);
            for one in &revisions {
                let rest = one.file_path.strip_prefix(&prefix);
                let rest = rest.unwrap_or_else(|| panic!("{} for {prefix}", one.file_path));
                assert!(rest.starts_with(['.', '/']), "{}", one.file_path);
                let blob = blobs.get(&one.file_path);
                let blob = blob.unwrap_or_else(|| panic!("no blob at {}", one.file_path));
                assert_eq!(Checksum::of(blob).to_string(), one.checksum, "{}", one.file_path);
                assert_eq!(i64::try_from(blob.len()).unwrap(), one.file_size);
                named.insert(one.file_path.clone());
                let event = &stream[usize::try_from(one.version).unwrap() - 1];
                if let Some(path) = event.data["file"]["path"].as_str() {
                    assert_eq!(path, one.file_path, "the event names another body");
                }
                // A title of its own is taken from the first 100 characters; what is no text is in
                // no JSON.
                let body = std::str::from_utf8(blob).unwrap_or_default();
                let is_its_title = body.chars().count() <= 100;
                let data = event.data.to_string();
                assert!(is_its_title || !data.contains(body), "the event has the body");
            }
            // What is not kept any more was told of all the same; a body comes with its event only.
            for pair in revisions.windows(2) {
                let event = &stream[usize::try_from(pair[1].version).unwrap() - 1];
                let changed = pair[0].file_path != pair[1].file_path;
                assert_eq!(changed, event.data["file"]["path"].is_string(), "{}", event.kind);
            }
            let body = blobs[&row.file_path].clone();
            if row.kind == "note" {
                let block = row.block.as_deref().map(str::as_bytes);
                assert_eq!(block, Some(&*body), "blob and content block differ");
            }
            kept.insert(row.id, Kept { body, deleted: row.deleted, version: row.version });
        }
        for (id, stream) in streams {
            let last = stream.last().unwrap().version;
            assert_in_order(stream.iter().map(|event| event.version), last, true);
            let state = stream.iter().fold(State::Nothing, |state, one| state.after(&one.kind));
            assert_eq!(state, State::Purged, "{id} is lost");
        }
        assert!(revisions.is_empty(), "revisions of nothing: {:?}", revisions.keys());
        let orphans: Vec<_> = blobs.keys().filter(|key| !named.contains(*key)).collect();
        assert!(orphans.is_empty(), "blobs that no row names: {orphans:?}");
        kept
    }

    /// [`check_everything`](Self::check_everything), where all there is are notes: their texts.
    pub async fn check_whole(&self) -> BTreeMap<String, String> {
        let kept = self.check_everything().await;
        let text = |kept: Kept| String::from_utf8(kept.body).unwrap();
        kept.into_iter().map(|(id, kept)| (id, text(kept))).collect()
    }
}
