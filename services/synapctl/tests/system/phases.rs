//! The storage phase changes while notes are written, changed and deleted.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::support::{Client, Name, System, eventually, full_size, refusal::assert_status};
use futures::{StreamExt as _, future::join_all, stream};
use synap_proto::{
    entity::{
        SetStoragePhaseRequest,
        StoragePhase::{self, DualWrite, Legacy, LegacyDropped, ObjectOnly, ObjectPrimary},
        storage_service_client::StorageServiceClient,
    },
    reason,
};
use tonic::Code;

const WRITERS: usize = 50;
/// Writes that are acknowledged in each phase at least.
const WRITES_A_PHASE: usize = 5;

/// From one end to the other and back.
const WAY: [StoragePhase; 8] = [
    DualWrite,
    ObjectPrimary,
    ObjectOnly,
    LegacyDropped,
    ObjectOnly,
    ObjectPrimary,
    DualWrite,
    Legacy,
];

impl System {
    pub async fn change_phase(&self, expected: StoragePhase, next: StoragePhase) {
        let request = SetStoragePhaseRequest { expected: expected.into(), next: next.into() };
        let mut stub = StorageServiceClient::new(self.channel(Name::Entity));
        stub.set_storage_phase(request).await.unwrap();
    }
}

/// Where the newest body of a note is.
#[derive(Debug, PartialEq)]
struct Body {
    id: String,
    /// That brought the body; a deletion brings none.
    version: i32,
    in_store: bool,
    in_block: bool,
}

synap_postgres::from_row!(Body { id, version, in_store, in_block });

/// Of every note. A body of these is short, so it is its own preview. What a later phase writes
/// leaves an older body of the note in its block.
async fn bodies(system: &System) -> Vec<Body> {
    sqlx::query_as(
        "SELECT DISTINCT ON (r.entity_id) r.entity_id::text AS id, r.version,
                r.file_path IS NOT NULL AS in_store, (b.content = r.preview) IS TRUE AS in_block
         FROM entity_revisions r
         JOIN write_operations o ON o.entity_id = r.entity_id AND o.entity_version = r.version
         LEFT JOIN content_blocks b ON b.entity_id = r.entity_id
         WHERE o.kind IN ('create', 'update')
         ORDER BY r.entity_id, r.version DESC",
    )
    .fetch_all(&system.database.pool)
    .await
    .unwrap()
}

/// A note as it was acknowledged last.
#[derive(Default)]
struct Note {
    text: String,
    deleted: bool,
}

/// What has been acknowledged, by user and id.
#[derive(Default)]
struct Acknowledged {
    notes: Mutex<BTreeMap<(usize, String), Note>>,
    count: AtomicUsize,
    stop: AtomicBool,
}

/// Writes two notes, changes the newer and deletes the oldest, again and again. Nobody hears of the
/// phase, however often it changes under a write.
async fn write_on(client: Client, writer: usize, acknowledged: &Acknowledged) {
    let mut live = VecDeque::new();
    for number in 0.. {
        if acknowledged.stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("Text {number} of writer {writer}, and what a note says besides.");
        let (id, text) = match number % 4 {
            2 => {
                let id: &String = live.back().unwrap();
                (client.rewrite(id, &text).await.unwrap().id, Some(text))
            }
            3 => {
                let id = live.pop_front().unwrap();
                (client.delete(&id, "", "").await.unwrap().0.id, None)
            }
            _ => {
                let id = client.create(&text, "").await.unwrap().0.id;
                live.push_back(id.clone());
                (id, Some(text))
            }
        };
        let mut notes = acknowledged.notes.lock().unwrap();
        let note = notes.entry((writer, id)).or_default();
        match text {
            Some(text) => note.text = text,
            None => note.deleted = true,
        }
        acknowledged.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Changes the phase again and again. Between two changes every body that a note gets must be where
/// that phase puts it: what an earlier phase has begun must not come true any more.
async fn change_on(system: &System, acknowledged: &Acknowledged) {
    let way = WAY.iter().cycle();
    for (&phase, &next) in way.clone().zip(way.skip(1)).take(full_size(12, 100)) {
        let before = bodies(system).await;
        let enough = acknowledged.count.load(Ordering::Relaxed) + WRITES_A_PHASE;
        eventually("writes in every phase", || async {
            acknowledged.count.load(Ordering::Relaxed) >= enough
        })
        .await;
        let known: HashSet<_> = before.iter().map(|body| (&body.id, body.version)).collect();
        for body in bodies(system).await {
            if !known.contains(&(&body.id, body.version)) {
                let blocks = !matches!(phase, ObjectOnly | LegacyDropped);
                let found = (body.in_store, body.in_block);
                assert_eq!(found, (phase != Legacy, blocks), "{body:?} written in {phase:?}");
            }
        }
        system.change_phase(phase, next).await;
    }
    acknowledged.stop.store(true, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_lose_nothing_while_the_phase_changes_again_and_again() {
    let system = System::start().await;
    let acknowledged = Acknowledged::default();
    let client = |writer: usize| system.client(&format!("user-{writer}"));
    let writers = (0..WRITERS).map(|writer| write_on(client(writer), writer, &acknowledged));
    tokio::join!(join_all(writers), change_on(&system, &acknowledged));

    system.settled().await;
    let notes = acknowledged.notes.into_inner().unwrap();
    assert_eq!(bodies(&system).await.len(), notes.len(), "what nobody was told of is gone");
    let named: Vec<String> = sqlx::query_scalar(
        "SELECT file_path FROM entities WHERE file_path IS NOT NULL
         UNION SELECT file_path FROM entity_revisions WHERE file_path IS NOT NULL",
    )
    .fetch_all(&system.database.pool)
    .await
    .unwrap();
    let stored: BTreeSet<String> = system.blobs().into_keys().collect();
    assert_eq!(stored, named.into_iter().collect(), "blobs are those that rows name");

    let reads = stream::iter(notes).map(|((writer, id), note)| async move {
        let client = client(writer);
        if note.deleted {
            let gone = client.get(&id).await.unwrap_err();
            assert_status(&gone, Code::NotFound, reason::NOT_FOUND);
            client.undelete(&id, "", "").await.unwrap();
        }
        assert_eq!(client.get(&id).await.unwrap().content, note.text);
    });
    reads.buffer_unordered(16).collect::<()>().await;
}
