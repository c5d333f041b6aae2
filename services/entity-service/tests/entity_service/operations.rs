//! The steps of the write protocol, one after the other and repeated.

use synap_proto::{
    entity::{self as pb, begin_operation_response::Outcome},
    reason,
};
use synap_rpc::RpcError;
use tonic::Code;

use crate::support::{
    EVENT_DATA, Rows, assert_fenced, assert_refused, assert_same_attempt, begin_request,
    commit_request, deletions, execute, expire_leases, id, operation, rows, service,
};

fn committed(outcome: Outcome) -> pb::OperationCommitted {
    match outcome {
        Outcome::Committed(committed) => committed,
        other => panic!("not committed: {other:?}"),
    }
}

fn started(outcome: Outcome) -> pb::OperationStarted {
    match outcome {
        Outcome::Started(started) => started,
        other => panic!("not started: {other:?}"),
    }
}

#[tokio::test]
async fn a_write_goes_from_begin_to_done() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let request = id();

    let started = api.start("auth0|12", &request).await;
    let attempt = started.operation.as_ref().unwrap();
    assert_eq!((attempt.user_id.as_str(), attempt.epoch), ("auth0|12", 1));
    assert_eq!(attempt.request_id, request);
    assert_eq!(started.key, format!("users/auth0%7C12/notes/{}.md", started.entity_id));
    assert_eq!(started.phase(), pb::StoragePhase::DualWrite);
    assert_ne!(started.event_id, started.entity_id);
    assert_eq!(api.status().await.unwrap().pending_operations, 1);
    // Nothing is true yet.
    let error = api.get("auth0|12", &started.entity_id).await;
    assert_refused(error, Code::NotFound, reason::NOT_FOUND);

    let commit = commit_request(&started, "# Hello");
    let entity = api.commit(commit.clone()).await.unwrap();
    let draft = commit.create.unwrap();
    let expected = pb::Entity {
        id: started.entity_id.clone(),
        user_id: "auth0|12".to_owned(),
        r#type: "note".to_owned(),
        title: draft.title,
        preview: draft.preview,
        tags: draft.tags,
        file: draft.file.clone(),
        version: 1,
        create_time: started.occur_time,
        update_time: started.occur_time,
        delete_time: None,
    };
    assert_eq!(entity, expected);
    let read = api.get("auth0|12", &entity.id).await.unwrap();
    // The body of an entity with a file is in the object store.
    assert_eq!(read, pb::GetEntityResponse { entity: Some(expected), content_block: None });

    let block: (String, i32, String, String) = sqlx::query_as(
        "SELECT content, size_bytes, checksum, content_type FROM content_blocks
         WHERE entity_id = $1::uuid",
    )
    .bind(&entity.id)
    .fetch_one(&database.pool)
    .await
    .unwrap();
    let checksum = draft.file.unwrap().checksum;
    assert_eq!(block, ("# Hello".to_owned(), 7, checksum, "markdown".to_owned()));
    let same_revision: bool = sqlx::query_scalar(
        "SELECT (r.user_id, r.title, r.preview, r.tags, r.file_url, r.file_path, r.file_size,
                 r.file_type, r.checksum, r.created_at)
              = (e.user_id, e.title, e.preview, e.tags, e.file_url, e.file_path, e.file_size,
                 e.file_type, e.checksum, e.created_at)
         FROM entity_revisions r JOIN entities e ON e.id = r.entity_id AND e.version = r.version",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert!(same_revision);

    let row = operation(&database.pool, started.operation.as_ref()).await;
    assert_eq!((row.state.as_str(), row.committed_epoch), ("COMMITTED", Some(1)));
    assert_eq!(row.event_type.as_deref(), Some("entity.created"));
    assert_eq!(row.event_data.as_deref(), Some(EVENT_DATA));
    let status = api.status().await.unwrap();
    assert_eq!((status.pending_operations, status.committed_operations), (0, 1));
    assert_eq!(status.phase(), pb::StoragePhase::DualWrite);
    // Its writer appends the event first.
    assert_eq!(api.claim(10).await.unwrap(), pb::ClaimOperationsResponse::default());

    api.finish(vec![attempt.clone()]).await.unwrap();
    assert_eq!(operation(&database.pool, Some(attempt)).await.state, "DONE");
    let status = api.status().await.unwrap();
    assert_eq!((status.committed_operations, status.blob_deletions), (0, 0));
    expire_leases(&database.pool).await;
    assert_eq!(api.claim(10).await.unwrap(), pb::ClaimOperationsResponse::default());
    // Again, and one that nobody knows.
    let unknown = pb::OperationRef { request_id: id(), ..attempt.clone() };
    api.finish(vec![attempt.clone(), unknown, attempt.clone()]).await.unwrap();
    assert_eq!(rows(&database.pool).await.write_operations, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_repeat_while_the_first_is_under_way_is_told_to_wait() {
    let (_database, running) = service(&[]).await;
    let request = id();
    running.api.start("ada", &request).await;
    match running.api.begin(begin_request("ada", &request)).await.unwrap() {
        Outcome::InProgress(other) => {
            let left = other.retry_after.unwrap();
            assert!((1..=30).contains(&left.seconds), "{left:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_begin_whose_reply_was_lost_gets_the_same_attempt() {
    let (database, running) = service(&[]).await;
    let request = begin_request("ada", &id());
    let first = started(running.api.begin(request.clone()).await.unwrap());
    assert_same_attempt(&first, &started(running.api.begin(request).await.unwrap()));
    assert_eq!(rows(&database.pool).await.write_operations, 1);
    assert_eq!(deletions(&database.pool).await, [""; 0]);
}

#[tokio::test]
async fn a_repeat_after_the_commit_gets_the_stored_answer() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let (started, entity) = api.write("ada").await;
    let attempt = started.operation.unwrap();
    let repeat = || begin_request("ada", &attempt.request_id);

    let first = committed(api.begin(repeat()).await.unwrap());
    let event = pb::PendingEvent {
        operation: Some(attempt.clone()),
        event_id: started.event_id,
        entity_type: "note".to_owned(),
        entity_id: started.entity_id,
        version: 1,
        occur_time: started.occur_time,
        event: Some(pb::EventDraft {
            r#type: "entity.created".to_owned(),
            data: EVENT_DATA.to_owned(),
        }),
        adopts: false,
    };
    let answer = pb::OperationCommitted {
        entity: Some(entity.clone()),
        done: false,
        pending_event: Some(event),
    };
    assert_eq!(first, answer);

    api.finish(vec![attempt.clone()]).await.unwrap();
    let done = pb::OperationCommitted { entity: Some(entity), done: true, pending_event: None };
    assert_eq!(committed(api.begin(repeat()).await.unwrap()), done);
    // What became of the entity since is not the answer to that request.
    let changed = "UPDATE entities SET title = 'x', version = 2, tags = '{}', updated_at = now()";
    execute(&database.pool, changed).await;
    assert_eq!(committed(api.begin(repeat()).await.unwrap()), done);
    let once = Rows {
        entities: 1,
        content_blocks: 1,
        entity_revisions: 1,
        write_operations: 1,
        blob_gc: 0,
    };
    assert_eq!(rows(&database.pool).await, once);
}

#[tokio::test]
async fn a_request_id_stands_for_one_payload() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let (started, _) = api.write("ada").await;
    let done = started.operation.unwrap();
    api.finish(vec![done.clone()]).await.unwrap();
    let committed = api.write("ada").await.0.operation.unwrap();
    let pending = api.start("ada", &id()).await.operation.unwrap();
    let aborted = api.start("ada", &id()).await.operation.unwrap();
    api.abort(Some(aborted.clone())).await.unwrap();
    let before = rows(&database.pool).await;
    for used in [done, committed, pending, aborted] {
        let mut other = begin_request("ada", &used.request_id);
        other.fingerprint = vec![8; 32].into();
        let error: RpcError = api.begin(other).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error:?}");
        assert_eq!(error.reason, reason::REQUEST_ID_REUSED);
        assert_eq!(error.violations.len(), 1);
        assert_eq!(error.violations[0].field, "request_id");
    }
    assert_eq!(rows(&database.pool).await, before);
}

#[tokio::test]
async fn the_same_request_id_of_another_user_is_another_operation() {
    let (_database, running) = service(&[]).await;
    let request = id();
    let ada = running.api.start("ada", &request).await;
    let bob = running.api.start("bob", &request).await;
    assert_ne!(ada.entity_id, bob.entity_id);
    assert_ne!(ada.event_id, bob.event_id);
    let entity = running.api.commit(commit_request(&bob, "bob's")).await.unwrap();
    assert_eq!((entity.id, entity.user_id), (bob.entity_id, "bob".to_owned()));
    running.api.commit(commit_request(&ada, "ada's")).await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_reply_was_lost_can_be_repeated() {
    let (database, running) = service(&[]).await;
    let api = &running.api;
    let started = api.start("ada", &id()).await;
    let commit = commit_request(&started, "body");
    let entity = api.commit(commit.clone()).await.unwrap();
    assert_eq!(api.commit(commit.clone()).await.unwrap(), entity);
    // Recovery took the event over.
    expire_leases(&database.pool).await;
    assert_eq!(api.claim(10).await.unwrap().pending_events.len(), 1);
    assert_eq!(api.commit(commit.clone()).await.unwrap(), entity);
    api.finish(vec![started.operation.unwrap()]).await.unwrap();
    assert_eq!(api.commit(commit).await.unwrap(), entity);
    let rows = rows(&database.pool).await;
    assert_eq!((rows.entities, rows.content_blocks, rows.entity_revisions), (1, 1, 1));
}

#[tokio::test]
async fn an_attempt_can_be_given_up_until_it_is_committed() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let request = id();
    let first = api.start("ada", &request).await;
    for _ in 0..2 {
        api.abort(first.operation.clone()).await.unwrap();
        assert_eq!(operation(pool, first.operation.as_ref()).await.state, "ABORTED");
        assert_eq!(deletions(pool).await, [first.key.as_str()]);
    }
    assert_fenced(api.commit(commit_request(&first, "late")).await);
    assert_eq!(rows(pool).await.entities, 0);

    let second = api.start("ada", &request).await;
    assert_eq!(second.operation.as_ref().unwrap().epoch, 2);
    assert_ne!((&second.entity_id, &second.key), (&first.entity_id, &first.key));
    assert_eq!((&second.event_id, second.occur_time), (&first.event_id, first.occur_time));
    // The first attempt cannot take the second down.
    api.abort(first.operation.clone()).await.unwrap();
    assert_fenced(api.commit(commit_request(&first, "late")).await);
    let entity = api.commit(commit_request(&second, "body")).await.unwrap();
    assert_eq!(entity.id, second.entity_id);

    for attempt in [&first, &second] {
        let refused = api.abort(attempt.operation.clone()).await;
        assert_refused(refused, Code::FailedPrecondition, reason::OPERATION_COMMITTED);
    }
    api.finish(vec![second.operation.clone().unwrap()]).await.unwrap();
    let refused = api.abort(second.operation.clone()).await;
    assert_refused(refused, Code::FailedPrecondition, reason::OPERATION_COMMITTED);
    assert_eq!(deletions(pool).await, [first.key]);
    // What nobody knows is given up already.
    let unknown = pb::OperationRef { request_id: id(), ..second.operation.unwrap() };
    api.abort(Some(unknown)).await.unwrap();
    assert_eq!(rows(pool).await.write_operations, 1);
}

#[tokio::test]
async fn only_committed_operations_can_be_finished() {
    let (database, running) = service(&[]).await;
    let pending = running.api.start("ada", &id()).await.operation;
    let aborted = running.api.start("ada", &id()).await.operation;
    running.api.abort(aborted.clone()).await.unwrap();
    running.api.finish(vec![pending.clone().unwrap(), aborted.clone().unwrap()]).await.unwrap();
    assert_eq!(operation(&database.pool, pending.as_ref()).await.state, "PENDING");
    assert_eq!(operation(&database.pool, aborted.as_ref()).await.state, "ABORTED");
}
