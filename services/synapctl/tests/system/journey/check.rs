//! What must hold at the end.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt as _, stream};
use synap_proto::reason;
use synap_types::{BlobKey, Checksum};
use tonic::Code;
use uuid::Uuid;

use super::book::{Book, Entry, State};
use crate::support::{System, refusal::assert_status};

/// Notes that are read through the gateway.
const READ: usize = 2_000;

struct Row {
    id: Uuid,
    user_id: String,
    is_note: bool,
    deleted: bool,
    file_path: Option<String>,
    file_size: Option<i64>,
    checksum: Option<String>,
}

synap_postgres::from_row!(Row { id, user_id, is_note, deleted, file_path, file_size, checksum });

/// Nothing but what is there and named may be left.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM write_operations WHERE state IN ('PENDING', 'COMMITTED'))
         + (SELECT count(*) FROM blob_gc) + (SELECT count(*) FROM content_migrations)";

/// Writes that are done and have no event, or the other way round.
const WITHOUT_EVENT: &str = "
    SELECT abs((SELECT count(*) FROM write_operations WHERE state = 'DONE' AND kind <> 'repair')
               - (SELECT count(*) FROM event_store.events WHERE NOT metadata ? 'legacy'))";

const NAMED: &str = "
    SELECT file_path FROM entities WHERE file_path IS NOT NULL
    UNION SELECT file_path FROM entity_revisions WHERE file_path IS NOT NULL";

impl System {
    pub async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.database.pool).await.unwrap()
    }

    /// Every body is what its last acknowledged writer wrote, in the store and to its user; no object
    /// is without a row, and no row without its object.
    pub async fn check_book(&self, book: Book, never_written: &[Uuid]) {
        assert_eq!(self.number(LEFT).await, 0);
        assert_eq!(self.number(WITHOUT_EVENT).await, 0);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, user_id, type = 'note' AS is_note, deleted_at IS NOT NULL AS deleted,
                    file_path, file_size::bigint AS file_size, checksum
             FROM entities",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let Book { mut entries, mut unanswered } = book;
        let mut notes = HashMap::new();
        for row in rows {
            let found = State { body: self.body(&row), deleted: row.deleted };
            match entries.remove(&row.id) {
                Some(entry) => {
                    let right = row.user_id == entry.user && entry.states().any(|s| s == found);
                    assert!(right, "{}: {found:?} instead of {entry:?}", row.id);
                }
                // One that nobody was told of.
                None => assert!(
                    found.body.is_some_and(|body| unanswered.remove(&body)) && !found.deleted,
                    "{} is nobody's: {found:?}",
                    row.id
                ),
            }
            if row.is_note {
                notes.insert(row.id, Entry::new(&row.user_id, found));
            }
        }
        assert!(entries.is_empty(), "lost: {entries:?}");

        let named: Vec<String> =
            sqlx::query_scalar(NAMED).fetch_all(&self.database.pool).await.unwrap();
        let named: BTreeSet<String> = named.into_iter().collect();
        let stored = self.keys();
        // Whoever changed such a note before it was migrated has a revision of what its row said then.
        let never: HashSet<String> = never_written.iter().map(|id| format!("/{id}.md")).collect();
        let was_there = |key: &&String| !never.contains(&key[key.rfind('/').unwrap()..]);
        let dangling: Vec<_> = named.difference(&stored).filter(was_there).collect();
        assert!(dangling.is_empty(), "rows name objects that are not there: {dangling:?}");
        // What early V0.3 put where the store takes no key, nobody deletes.
        let is_ours = |key: &&String| BlobKey::parse(key.as_str()).is_ok();
        let orphans: Vec<_> = stored.difference(&named).filter(is_ours).collect();
        assert!(orphans.is_empty(), "objects that no row names: {orphans:?}");
        self.check_reads(notes).await;
    }

    /// The hash of the object that a row names, which must be the row's.
    fn body(&self, row: &Row) -> Option<Checksum> {
        let path = row.file_path.as_ref()?;
        let bytes = std::fs::read(self.objects().join(path));
        let bytes = bytes.unwrap_or_else(|why| panic!("{}: {path}: {why}", row.id));
        let hash = Checksum::of(&bytes);
        let said = row.checksum.as_ref().and_then(|text| text.parse().ok());
        assert_eq!(said, Some(hash), "{}: {path}", row.id);
        assert_eq!(row.file_size, i64::try_from(bytes.len()).ok(), "{}: {path}", row.id);
        Some(hash)
    }

    async fn check_reads(&self, notes: HashMap<Uuid, Entry>) {
        let step = notes.len().div_ceil(READ);
        let reads = stream::iter(notes.into_iter().step_by(step)).map(|(id, entry)| async move {
            let answer = self.client(&entry.user).get(&id.to_string()).await;
            if entry.now.deleted {
                assert_status(&answer.unwrap_err(), Code::NotFound, reason::NOT_FOUND);
                return;
            }
            let content = answer.unwrap_or_else(|status| panic!("{id}: {status:?}")).content;
            let body = (!content.is_empty()).then(|| Checksum::of(content.as_bytes()));
            assert_eq!(body, entry.now.body, "{id}");
        });
        reads.buffer_unordered(8).collect::<()>().await;
    }
}
