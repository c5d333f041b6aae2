//! Blobs that are missing, cut off, changed or out of reach, and notes that are read all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use crate::support::{Client, Name, System, eventually, refusal::assert_status};
use futures::{StreamExt as _, stream};
use synap_proto::{
    entity::StoragePhase::{DualWrite, ObjectPrimary},
    gateway::Note,
    reason,
};
use synap_rpc::RpcError;
use synap_types::Checksum;
use tonic::{Code, Status};

const NOTES: usize = 100;

/// Notes with their texts.
async fn written(client: &Client) -> Vec<(Note, String)> {
    let write = |number: usize| async move {
        let text = format!("# Note {number}\n\n{}", "grün ".repeat(number * 7));
        (client.create(&text, "").await.unwrap().0, text)
    };
    stream::iter(0..NOTES).map(write).buffered(16).collect().await
}

/// Deletes every third blob, truncates the next, and flips a byte of the one after that.
fn damage(system: &System, keys: impl Iterator<Item = String>) {
    for (number, key) in keys.enumerate() {
        let path = system.blob_dir().join(key);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        match number % 3 {
            0 => {
                fs::remove_file(path).unwrap();
                continue;
            }
            1 => bytes.truncate(middle),
            _ => bytes[middle] ^= 0x20,
        }
        fs::write(path, bytes).unwrap();
    }
}

async fn read_all(client: &Client, notes: &[(Note, String)]) -> Vec<Result<Note, Status>> {
    stream::iter(notes).map(|(note, _)| client.get(&note.id)).buffered(16).collect().await
}

/// The keys that rows name, with the checksum that each has there.
async fn named(system: &System) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT e.file_path, e.checksum FROM entities e JOIN entity_revisions r
         ON r.entity_id = e.id AND r.version = e.version AND r.file_path = e.file_path",
    )
    .fetch_all(&system.database.pool)
    .await
    .unwrap();
    rows.into_iter().collect()
}

async fn check_right(client: &Client, notes: &[(Note, String)]) {
    for (read, (_, text)) in read_all(client, notes).await.into_iter().zip(notes) {
        assert!(read.unwrap().content == *text, "another text than was written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_blob_is_read_elsewhere_and_repaired_while_there_is_another_copy() {
    let system = System::start().await;
    let client = system.client("ada");
    let notes = written(&client).await;
    let old: BTreeSet<String> = named(&system).await.into_keys().collect();
    damage(&system, notes.iter().map(|(note, _)| note.file_path.clone()));

    check_right(&client, &notes).await;
    eventually("every blob is repaired", || async {
        named(&system).await.keys().all(|key| !old.contains(key))
    })
    .await;
    system.settled().await;
    let stored: BTreeMap<String, String> = system
        .blobs()
        .into_iter()
        .map(|(key, bytes)| (key, Checksum::of(&bytes).to_string()))
        .collect();
    assert_eq!(stored, named(&system).await, "the store holds what rows name, and nothing else");
    // No new versions, and nothing that anybody is told of.
    for (read, (written, text)) in read_all(&client, &notes).await.into_iter().zip(&notes) {
        let read = read.unwrap();
        assert!(read.content == *text);
        let same = Note {
            content: String::new(),
            file_path: written.file_path.clone(),
            file_url: written.file_url.clone(),
            ..read
        };
        assert_eq!(same, *written);
    }
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM event_store.events")
        .fetch_one(&system.database.pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(events).unwrap(), NOTES);

    // In the next phase there is no other copy to rely on.
    system.change_phase(DualWrite, ObjectPrimary).await;
    let keys: Vec<String> = named(&system).await.into_keys().collect();
    damage(&system, keys.iter().cloned());
    for (read, (written, _)) in read_all(&client, &notes).await.into_iter().zip(&notes) {
        let status = read.unwrap_err();
        assert_status(&status, Code::DataLoss, reason::BODY_CORRUPT);
        let error = RpcError::from_status(&status);
        assert_eq!(error.metadata["id"], written.id);
        assert_eq!(error.metadata["revision"], "1");
    }
    let untouched: Vec<String> = named(&system).await.into_keys().collect();
    assert_eq!(untouched, keys, "a repair of what cannot be repaired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_out_of_reach_is_done_without_while_there_is_another_copy() {
    let mut system = System::start().await;
    let client = system.client("ada");
    let text = "Out of reach, and yet here.";
    let (note, _) = client.create(text, "").await.unwrap();
    system.kill(Name::Content).await;
    assert_eq!(client.get(&note.id).await.unwrap().content, text);
    // It stands still, and says nothing.
    system.spawn(Name::Content, None);
    system.ready(Name::Content).await;
    eventually("the store is back", || async { client.get(&note.id).await.is_ok() }).await;
    system.signal(Name::Content, "STOP");
    let limit = Duration::from_secs(2);
    assert_eq!(client.get_within(limit, &note.id).await.unwrap().content, text);

    system.change_phase(DualWrite, ObjectPrimary).await;
    let status = client.get_within(limit, &note.id).await.unwrap_err();
    assert_status(&status, Code::Unavailable, reason::SERVICE_UNAVAILABLE);
    let error = RpcError::from_status(&status);
    assert_eq!(error.metadata["id"], note.id);
    assert!(error.retry_after.is_some());
    system.signal(Name::Content, "CONT");
    eventually("the store is back", || async { client.get(&note.id).await.is_ok() }).await;
    // Nothing was ever wrong with the blob.
    let read = client.get(&note.id).await.unwrap();
    assert_eq!((read.content.as_str(), &read.file_path), (text, &note.file_path));
}
