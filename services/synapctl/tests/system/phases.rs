//! The storage phase changes while notes are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::support::{Client, Name, System, eventually};
use futures::{StreamExt as _, future::join_all, stream};
use synap_proto::entity::{
    SetStoragePhaseRequest,
    StoragePhase::{self, DualWrite, Legacy, LegacyDropped, ObjectOnly, ObjectPrimary},
    storage_service_client::StorageServiceClient,
};

const WRITERS: usize = 50;
const CHANGES: usize = 100;
/// Notes that are written in each phase at least.
const NOTES_A_PHASE: usize = 5;

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

/// How many bodies are where.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
struct Bodies {
    notes: i64,
    in_store: i64,
    in_blocks: i64,
}

async fn bodies(system: &System) -> Bodies {
    sqlx::query_as(
        "SELECT count(*) AS notes, count(file_path) AS in_store,
                (SELECT count(*) FROM content_blocks) AS in_blocks
         FROM entities",
    )
    .fetch_one(&system.database.pool)
    .await
    .unwrap()
}

/// What has been acknowledged: the texts by user and id.
#[derive(Default)]
struct Acknowledged {
    notes: Mutex<BTreeMap<(usize, String), String>>,
    count: AtomicUsize,
    stop: AtomicBool,
}

async fn write_on(client: Client, writer: usize, acknowledged: &Acknowledged) {
    for number in 0.. {
        if acknowledged.stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("Note {number} of writer {writer}, and what a note says besides.");
        // Nobody hears of the phase, however often it changes under a write.
        let (note, _) = client.create(&text, "").await.unwrap();
        acknowledged.notes.lock().unwrap().insert((writer, note.id), text);
        acknowledged.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Changes the phase again and again. Between two changes every note that becomes one must be where
/// that phase puts it: what an earlier phase has begun must not come true any more.
async fn change_on(system: &System, acknowledged: &Acknowledged) {
    let way = WAY.iter().cycle();
    for (&phase, &next) in way.clone().zip(way.skip(1)).take(CHANGES) {
        let before = bodies(system).await;
        let enough = acknowledged.count.load(Ordering::Relaxed) + NOTES_A_PHASE;
        eventually("notes in every phase", || async {
            acknowledged.count.load(Ordering::Relaxed) >= enough
        })
        .await;
        let after = bodies(system).await;
        let notes = after.notes - before.notes;
        let expected = match phase {
            Legacy => (0, notes),
            ObjectOnly | LegacyDropped => (notes, 0),
            _ => (notes, notes),
        };
        let found = (after.in_store - before.in_store, after.in_blocks - before.in_blocks);
        assert_eq!(found, expected, "of {notes} notes written in {phase:?}");
        system.change_phase(phase, next).await;
    }
    acknowledged.stop.store(true, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_lose_nothing_while_the_phase_changes_a_hundred_times() {
    let system = System::start().await;
    let acknowledged = Acknowledged::default();
    let client = |writer: usize| system.client(&format!("user-{writer}"));
    let writers = (0..WRITERS).map(|writer| write_on(client(writer), writer, &acknowledged));
    tokio::join!(join_all(writers), change_on(&system, &acknowledged));

    system.settled().await;
    let notes = acknowledged.notes.into_inner().unwrap();
    let total = bodies(&system).await.notes;
    assert_eq!(usize::try_from(total).unwrap(), notes.len(), "what nobody was told of is gone");
    let named: Vec<String> =
        sqlx::query_scalar("SELECT file_path FROM entities WHERE file_path IS NOT NULL")
            .fetch_all(&system.database.pool)
            .await
            .unwrap();
    let stored: BTreeSet<String> = system.blobs().into_keys().collect();
    assert_eq!(stored, named.into_iter().collect(), "blobs are those that rows name");

    let reads = stream::iter(notes).map(|((writer, id), text)| async move {
        let read = client(writer).get(&id).await.unwrap();
        assert_eq!(read.content, text);
    });
    reads.buffer_unordered(16).collect::<()>().await;
}
