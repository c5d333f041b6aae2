//! The end of what was deleted longer ago than the retention.

use synap_proto::{
    entity::{
        self as pb,
        OperationKind::{Delete, Purge, Undelete},
        begin_operation_response::Outcome,
    },
    reason,
};
use tonic::Code;

use crate::support::{
    Rows, assert_refused, begin_request, commit_request, deletions, edit_request, execute, id,
    rows, service,
};

pub(crate) fn purge_commit(started: &pb::OperationStarted) -> pb::CommitOperationRequest {
    pb::CommitOperationRequest {
        operation: started.operation.clone(),
        phase: started.phase,
        purge: Some(pb::EntityPurge {}),
        event: Some(pb::EventDraft { r#type: "entity.purged".into(), data: "{}".into() }),
        ..pb::CommitOperationRequest::default()
    }
}

/// All deletions were 31 days ago.
pub(crate) const AGE: &str = "UPDATE entities SET deleted_at = deleted_at - interval '31 days';
                   UPDATE entity_revisions SET deleted_at = deleted_at - interval '31 days'";

#[tokio::test]
async fn what_was_deleted_long_ago_goes_with_everything_that_hangs_on_it() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (created, note) = api.write("ada").await;
    let (_, other) = api.write("ada").await;
    let updated = api.update("ada", &note.id, "second").await;
    execute(
        pool,
        "INSERT INTO entity_vectors (entity_id, user_id, embedding, entity_type)
         SELECT id, user_id, array_fill(0.5::real, ARRAY[1536])::vector, type FROM entities",
    )
    .await;
    let deleted = api.mark(Delete, "ada", &note.id, 2).await.unwrap();

    // Too early, or for what is not deleted.
    assert_eq!(api.purgeable().await, [""; 0]);
    for target in [&note.id, &other.id] {
        let started = api.started(edit_request(Purge, "ada", target, "")).await;
        let refused = api.commit(purge_commit(&started)).await;
        assert_refused(refused, Code::FailedPrecondition, reason::PURGE_NOT_DUE);
        api.abort(started.operation).await.unwrap();
    }
    execute(pool, AGE).await;
    assert_eq!(api.purgeable().await, [note.id.as_str()]);
    let strangers = api.started(edit_request(Purge, "eve", &note.id, "")).await;
    let refused = api.commit(purge_commit(&strangers)).await;
    assert_refused(refused, Code::NotFound, reason::NOT_FOUND);

    let request = edit_request(Purge, "ada", &note.id, "");
    let started = api.started(request.clone()).await;
    assert_eq!(started.key, "");
    let commit = purge_commit(&started);
    let purged = api.commit(commit.clone()).await.unwrap();
    assert_eq!((purged.id.as_str(), purged.version), (note.id.as_str(), 4));
    assert_eq!((purged.title.as_str(), purged.file), ("", None));
    assert!(purged.delete_time.unwrap().seconds < deleted.delete_time.unwrap().seconds);
    let mut keys = vec![created.key, updated.file.unwrap().path];
    keys.sort();
    assert_eq!(deletions(pool).await, keys);
    let left = rows(pool).await;
    let vectors: i64 =
        sqlx::query_scalar("SELECT count(*) FROM entity_vectors").fetch_one(pool).await.unwrap();
    assert_eq!((left.entities, left.content_blocks, left.entity_revisions, vectors), (1, 1, 1, 1));
    assert_eq!(api.purgeable().await, [""; 0]);

    // The reply was lost; or another replica does the same.
    assert_eq!(api.commit(commit).await.unwrap().version, 4);
    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    let Outcome::Committed(committed) = api.begin(again).await.unwrap() else { panic!() };
    assert_eq!(committed.entity.unwrap().version, 4);
    assert_eq!(committed.pending_event.unwrap().version, 4);
    // Nothing is found any more, whatever was begun before.
    for kind in [Delete, Undelete] {
        let refused = api.mark(kind, "ada", &note.id, 0).await;
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    }
    let refused = api.get("ada", &note.id).await;
    assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
}

#[tokio::test]
async fn a_repeat_of_a_write_on_what_was_purged_is_not_found() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let request = begin_request("ada", &id());
    let created = api.started(request.clone()).await;
    let commit = commit_request(&created, "body");
    let note = api.commit(commit.clone()).await.unwrap();
    api.mark(Delete, "ada", &note.id, 0).await.unwrap();
    execute(pool, AGE).await;
    let started = api.started(edit_request(Purge, "ada", &note.id, "")).await;
    api.commit(purge_commit(&started)).await.unwrap();

    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    assert_refused(api.begin(again).await, Code::NotFound, reason::NOT_FOUND);
    assert_refused(api.commit(commit).await, Code::NotFound, reason::NOT_FOUND);
    // The events of all three are still to be told, in order.
    execute(pool, "UPDATE write_operations SET lease_until = now() - interval '1 s'").await;
    let events = api.claim(10).await.unwrap().pending_events;
    assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), [1]);
}

/// Nobody was told in V0.2 that what is deleted goes after a while.
#[tokio::test]
async fn what_v02_has_deleted_stays() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    execute(
        pool,
        "INSERT INTO entities (id, user_id, type, deleted_at)
         VALUES ('0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60', 'ada', 'note', now() - interval '1 year')",
    )
    .await;
    assert_eq!(api.purgeable().await, [""; 0]);
    let note = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";
    // Undeleted, and deleted anew: then it is as any other.
    api.mark(Undelete, "ada", note, 1).await.unwrap();
    api.mark(Delete, "ada", note, 2).await.unwrap();
    assert_eq!(api.purgeable().await, [""; 0]);
    execute(pool, AGE).await;
    assert_eq!(api.purgeable().await, [note]);
    let started = api.started(edit_request(Purge, "ada", note, "")).await;
    api.commit(purge_commit(&started)).await.unwrap();
    let expected = Rows { entities: 0, content_blocks: 0, entity_revisions: 0, ..rows(pool).await };
    assert_eq!(rows(pool).await, expected);
}
