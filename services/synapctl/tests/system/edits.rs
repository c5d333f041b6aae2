//! A note through its life: changed, deleted, undeleted, and what it was all the while.

use std::collections::BTreeMap;

use crate::support::{
    Name, System, eventually,
    notes::seen,
    refusal::{assert_etag, assert_field, assert_status},
};
use futures::future::join_all;
use serde_json::{Value, json};
use synap_proto::{
    gateway::{GetNoteHistoryRequest, ListNoteRevisionsRequest, Note},
    reason,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const ID: &str = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";

fn not_found(status: &Status) {
    assert_status(status, Code::NotFound, reason::NOT_FOUND);
}

#[tokio::test]
async fn a_note_can_be_changed_deleted_and_undeleted_and_tells_what_it_was() {
    let system = System::start().await;
    let ada = system.client("ada");
    let (first, _) = ada.create("# First\n\nbody", "").await.unwrap();

    let change = Note { content: "# Second\n\nbody".to_owned(), ..seen(&first) };
    let (second, pending) = ada.update(change.clone(), &[], ID).await.unwrap();
    let below = format!("users/ada/notes/{}/", first.id);
    assert!(!pending && second.file_path.starts_with(&below), "{second:?}");
    assert_eq!((second.version, second.title.as_str()), (2, "First"));
    assert_eq!((second.preview.as_str(), second.create_time), ("# Second body", first.create_time));
    assert_eq!(ada.get(&first.id).await.unwrap().content, "# Second\n\nbody");
    // A repeat gets the first answer; the same id for something else does not.
    assert_eq!(ada.update(change.clone(), &[], ID).await.unwrap().0, second);
    let other = ada.update(change.clone(), &["title"], ID).await.unwrap_err();
    assert_field(&other, reason::REQUEST_ID_REUSED, "request_id");
    // Who has not seen the second is told.
    assert_etag(&ada.update(change, &[], "").await.unwrap_err(), &second.etag);
    assert_etag(&ada.delete(&first.id, &first.etag, "").await.unwrap_err(), &second.etag);

    let retitled = Note { title: "Third".to_owned(), tags: vec!["a".to_owned()], ..seen(&second) };
    let (third, _) = ada.update(retitled, &["title", "tags"], "").await.unwrap();
    assert_eq!((third.title.as_str(), &third.tags[..]), ("Third", &["a".to_owned()][..]));
    assert_eq!((&third.file_path, &third.checksum), (&second.file_path, &second.checksum));

    let (fourth, _) = ada.delete(&first.id, &third.etag, "").await.unwrap();
    assert!(fourth.delete_time.is_some() && fourth.version == 4);
    not_found(&ada.get(&first.id).await.unwrap_err());
    not_found(&ada.get_at(&first.id, 1).await.unwrap_err());
    not_found(&ada.revisions(&first.id, 0).await.unwrap_err());
    not_found(&ada.rewrite(&first.id, "x").await.unwrap_err());
    not_found(&ada.delete(&first.id, "", "").await.unwrap_err());
    assert_etag(&ada.undelete(&first.id, &third.etag, "").await.unwrap_err(), &fourth.etag);
    let (fifth, _) = ada.undelete(&first.id, &fourth.etag, "").await.unwrap();
    assert_eq!((fifth.version, fifth.delete_time), (5, None));
    let again = ada.undelete(&first.id, "", "").await.unwrap_err();
    assert_status(&again, Code::AlreadyExists, reason::NOT_DELETED);

    // All of it can be read, in pages of any size.
    let all = [fifth, fourth, third.clone(), second.clone(), first.clone()];
    for page_size in [0, 1, 2, 5, 1000] {
        assert_eq!(ada.revisions(&first.id, page_size).await.unwrap(), all);
    }
    for (revision, body) in
        [(1, "# First\n\nbody"), (2, "# Second\n\nbody"), (5, "# Second\n\nbody")]
    {
        let read = ada.get_at(&first.id, revision).await.unwrap();
        assert_eq!((read.version, read.content.as_str()), (revision, body));
        assert_eq!(read.etag, all[usize::try_from(5 - revision).unwrap()].etag);
    }
    not_found(&ada.get_at(&first.id, 6).await.unwrap_err());
    let bad = ada.get_at(&first.id, -1).await.unwrap_err();
    assert_field(&bad, reason::INVALID_FIELD, "revision");

    // Events tell of it, in deltas.
    for page_size in [0, 2] {
        let events = ada.history(&first.id, page_size).await.unwrap();
        let kinds: Vec<_> = events.iter().map(|one| (one.version, one.r#type.as_str())).collect();
        let expected = [
            (1, "entity.created"),
            (2, "entity.updated"),
            (3, "entity.updated"),
            (4, "entity.deleted"),
            (5, "entity.restored"),
        ];
        assert_eq!(kinds, expected);
        let data: Vec<Value> =
            events.iter().map(|one| serde_json::from_str(&one.data).unwrap()).collect();
        let file = json!({
            "path": second.file_path, "size": second.file_size, "checksum": second.checksum,
        });
        assert_eq!(data[1], json!({ "entityType": "note", "file": file }));
        assert_eq!(data[2], json!({ "entityType": "note", "title": "Third", "tags": ["a"] }));
        assert_eq!(data[4], json!({ "entityType": "note" }));
    }
    system.settled().await;
    assert_eq!(system.check_everything().await[&first.id].version, 5);
}

#[tokio::test]
async fn another_users_note_etags_and_pages_are_like_none() {
    let system = System::start().await;
    let (ada, eve) = (system.client("ada"), system.client("eve"));
    let (note, _) = ada.create("private", ID).await.unwrap();
    let (own, _) = eve.create("hers", ID).await.unwrap();
    let changed = Note { content: "hers now".to_owned(), ..seen(&note) };
    not_found(&eve.update(changed, &[], "").await.unwrap_err());
    not_found(&eve.rewrite(&note.id, "hers now").await.unwrap_err());
    not_found(&eve.delete(&note.id, "", "").await.unwrap_err());
    not_found(&eve.undelete(&note.id, "", "").await.unwrap_err());
    not_found(&eve.revisions(&note.id, 0).await.unwrap_err());
    not_found(&eve.history(&note.id, 0).await.unwrap_err());
    not_found(&eve.get_at(&note.id, 1).await.unwrap_err());
    // The etag of the same version of another note is none of this one's.
    assert_etag(&eve.delete(&own.id, &note.etag, "").await.unwrap_err(), &own.etag);
    // Ada has used the id to create, Eve for nothing but her own note.
    let reused = ada.delete(&note.id, "", ID).await.unwrap_err();
    assert_field(&reused, reason::REQUEST_ID_REUSED, "request_id");

    for id in ["", "x", &note.id[1..]] {
        let bad = |status: Status| assert_field(&status, reason::INVALID_FIELD, "id");
        bad(ada.delete(id, "", "").await.unwrap_err());
        bad(ada.undelete(id, "", "").await.unwrap_err());
        bad(ada.revisions(id, 0).await.unwrap_err());
        bad(ada.history(id, 0).await.unwrap_err());
        let named = Note { id: id.to_owned(), ..Note::default() };
        let status = ada.update(named, &["title"], "").await.unwrap_err();
        assert_field(&status, reason::INVALID_FIELD, "note.id");
    }
    let bad = ada.update(seen(&note), &["preview"], "").await.unwrap_err();
    assert_field(&bad, reason::INVALID_FIELD, "update_mask");
    let bad = ada.revisions(&note.id, -1).await.unwrap_err();
    assert_field(&bad, reason::INVALID_FIELD, "page_size");
    for page_token in ["x", "-1", "AAAA"] {
        let (id, page_token) = (note.id.clone(), page_token.to_owned());
        let list = ListNoteRevisionsRequest { id: id.clone(), page_size: 1, page_token };
        let history =
            GetNoteHistoryRequest { id, page_size: 1, page_token: list.page_token.clone() };
        let status = ada.stub.clone().list_note_revisions(ada.request(list)).await.unwrap_err();
        assert_field(&status, reason::INVALID_FIELD, "page_token");
        let status = ada.stub.clone().get_note_history(ada.request(history)).await.unwrap_err();
        assert_field(&status, reason::INVALID_FIELD, "page_token");
    }
    system.settled().await;
    let whole = system.check_whole().await;
    assert_eq!((whole[&note.id].as_str(), whole[&own.id].as_str()), ("private", "hers"));
}

/// Each reads, changes what it has read, and does so again when another was faster.
#[tokio::test]
async fn of_32_writers_each_acknowledged_version_is_in_the_history_once_and_in_order() {
    const WRITERS: usize = 32;
    let system = System::start().await;
    let (note, _) = system.client("ada").create("0", "").await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let (client, mut etag, id) = (system.client("ada"), note.etag.clone(), note.id.clone());
        async move {
            let content = format!("of writer {writer}");
            let mut refused = 0;
            loop {
                let change = Note {
                    id: id.clone(),
                    etag: etag.clone(),
                    content: content.clone(),
                    ..Note::default()
                };
                match client.update(change, &[], "").await {
                    Ok((written, _)) => return (written, content, refused),
                    Err(status) => {
                        assert_status(&status, Code::Aborted, reason::ETAG_MISMATCH);
                        let details = status.get_error_details();
                        let current = details.error_info().unwrap().metadata["etag"].clone();
                        assert_ne!(current, etag, "refused with the current etag");
                        etag = current;
                        refused += 1;
                    }
                }
            }
        }
    });
    let written = join_all(writers).await;
    let losers: usize = written.iter().map(|(_, _, refused)| refused).sum();
    assert!(losers >= WRITERS - 1, "only {losers} were refused");
    let acknowledged: BTreeMap<i32, (Note, String)> =
        written.into_iter().map(|(note, content, _)| (note.version, (note, content))).collect();
    let last = i32::try_from(WRITERS).unwrap() + 1;
    assert_eq!(acknowledged.keys().copied().collect::<Vec<_>>(), (2..=last).collect::<Vec<_>>());

    system.settled().await;
    let client = system.client("ada");
    let revisions = client.revisions(&note.id, 10).await.unwrap();
    assert_eq!(revisions.len(), WRITERS + 1);
    let history = client.history(&note.id, 10).await.unwrap();
    assert_eq!(history.len(), WRITERS + 1);
    for (revision, event) in revisions.iter().rev().zip(&history).skip(1) {
        let (note, content) = &acknowledged[&revision.version];
        assert_eq!((revision, i64::from(revision.version)), (note, event.version));
        let data: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(data["file"]["path"], note.file_path.as_str());
        assert_eq!(client.get_at(&note.id, note.version).await.unwrap().content, *content);
    }
    let kept = system.check_everything().await;
    assert_eq!(kept[&note.id].version, last);
}

#[tokio::test]
async fn old_revisions_go_with_their_bodies_and_no_other() {
    let mut system = System::new().await;
    system.environment.push(("REVISION_COUNT", "3".to_owned()));
    system.start_all(None).await;
    let ada = system.client("ada");
    let (note, _) = ada.create("body 1", "").await.unwrap();
    for version in 2..=6 {
        ada.rewrite(&note.id, &format!("body {version}")).await.unwrap();
    }
    let retitled = Note { title: "t".to_owned(), id: note.id.clone(), ..Note::default() };
    ada.update(retitled, &["title"], "").await.unwrap();
    let versions: Vec<_> =
        ada.revisions(&note.id, 0).await.unwrap().iter().map(|one| one.version).collect();
    assert_eq!(versions, [7, 6, 5]);
    not_found(&ada.get_at(&note.id, 4).await.unwrap_err());
    system.settled().await;
    assert_eq!(system.check_everything().await[&note.id].version, 7);
    assert_eq!(system.blobs().len(), 2);
    assert_eq!(ada.history(&note.id, 0).await.unwrap().len(), 7);
}

#[tokio::test]
async fn what_was_deleted_is_purged_when_its_time_is_over() {
    let mut system = System::new().await;
    // A third of a second.
    system.environment.push(("DELETED_RETENTION_DAYS", "0.000004".to_owned()));
    system.start_all(None).await;
    // All replicas find it due, and one operation purges it.
    system.second_gateway().await;
    let ada = system.client("ada");
    let (stays, _) = ada.create("stays", "").await.unwrap();
    let (goes, _) = ada.create("goes", ID).await.unwrap();
    ada.rewrite(&goes.id, "goes as well").await.unwrap();
    ada.delete(&goes.id, "", "").await.unwrap();
    eventually("it is purged", || async {
        let events = ada.history(&goes.id, 0).await.unwrap();
        events.last().unwrap().r#type == "entity.purged"
    })
    .await;
    not_found(&ada.undelete(&goes.id, "", "").await.unwrap_err());
    not_found(&ada.create("goes", ID).await.unwrap_err());
    system.settled().await;
    let kept = system.check_whole().await;
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [(stays.id, "stays".to_owned())]);
    assert_eq!(system.blobs().len(), 1);
}

/// The event of the version before may be late: its writer waits for nobody, and the next one for it.
#[tokio::test]
async fn events_stay_in_order_while_the_event_store_is_away() {
    let mut system = System::new().await;
    system.environment.push(("APPEND_TIMEOUT_MS", "200".to_owned()));
    system.start_all(None).await;
    let ada = system.client("ada");
    let (note, _) = ada.create("1", "").await.unwrap();
    system.kill(Name::Event).await;
    for body in ["2", "3"] {
        ada.rewrite(&note.id, body).await.unwrap();
    }
    let (deleted, event_pending) = ada.delete(&note.id, "", "").await.unwrap();
    assert!(event_pending);
    system.spawn(Name::Event, None);
    system.ready(Name::Event).await;
    ada.undelete(&note.id, &deleted.etag, "").await.unwrap();
    system.settled().await;
    assert_eq!(system.check_everything().await[&note.id].version, 5);
}

/// What V0.2 has written had its versions before there were revisions, blobs or events.
#[tokio::test]
async fn an_adopted_note_goes_on_from_the_version_it_had() {
    let system = System::start().await;
    let ada = system.client("ada");
    sqlx::raw_sql(
        "INSERT INTO entities (id, user_id, type, title, version)
         VALUES ('0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60', 'ada', 'note', 'Old', 5);
         INSERT INTO content_blocks (entity_id, content)
         VALUES ('0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60', 'old')",
    )
    .execute(&system.database.pool)
    .await
    .unwrap();
    assert_eq!(ada.get_at(ID, 5).await.unwrap().content, "old");
    assert_eq!(ada.revisions(ID, 0).await.unwrap().len(), 1);
    assert_eq!(ada.history(ID, 0).await.unwrap(), []);

    let note = ada.get(ID).await.unwrap();
    let change = Note { content: "new".to_owned(), ..seen(&note) };
    let (updated, event_pending) = ada.update(change, &[], "").await.unwrap();
    assert_eq!((updated.version, updated.title.as_str(), event_pending), (6, "Old", false));
    ada.rewrite(ID, "newer").await.unwrap();
    assert_eq!(ada.get_at(ID, 6).await.unwrap().content, "new");
    let gone = ada.get_at(ID, 5).await.unwrap_err();
    assert_status(&gone, Code::FailedPrecondition, reason::REVISION_BODY_GONE);
    let events = ada.history(ID, 1).await.unwrap();
    assert_eq!(events.iter().map(|one| one.version).collect::<Vec<_>>(), [6, 7]);
    system.settled().await;
}
