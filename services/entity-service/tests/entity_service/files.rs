//! What files need beside what notes do: bodies in the object store only, leases as long as an
//! upload, drafts for whoever continues it, and deletion.

use synap_proto::{
    entity::{self as pb, begin_operation_response::Outcome, get_operation_response},
    reason,
};
use tonic::Code;

use crate::support::{
    Api, assert_fenced, assert_invalid, assert_refused, assert_same_attempt, begin_request,
    commit_request, deletions, execute, expire_leases, id, operation, rows, service, set_phase,
};

fn file_request(user: &str, request: &str) -> pb::BeginOperationRequest {
    pb::BeginOperationRequest {
        entity_type: "file".to_owned(),
        extension: "pdf".to_owned(),
        ..begin_request(user, request)
    }
}

fn file_commit(started: &pb::OperationStarted) -> pb::CommitOperationRequest {
    let mut commit = commit_request(started, "%PDF-1.7");
    let file = commit.create.as_mut().unwrap().file.as_mut().unwrap();
    file.r#type = "pdf".into();
    file.name = "Paper.pdf".into();
    commit
}

async fn start(api: &Api, request: pb::BeginOperationRequest) -> pb::OperationStarted {
    match api.begin(request).await.unwrap() {
        Outcome::Started(started) => started,
        other => panic!("not started: {other:?}"),
    }
}

async fn write_file(api: &Api, user: &str) -> (pb::OperationStarted, pb::Entity) {
    let started = start(api, file_request(user, &id())).await;
    let entity = api.commit(file_commit(&started)).await.unwrap();
    (started, entity)
}

fn delete_request(user: &str, entity: &str) -> pb::BeginOperationRequest {
    pb::BeginOperationRequest {
        kind: pb::OperationKind::Delete.into(),
        extension: String::new(),
        entity_id: entity.to_owned(),
        ..file_request(user, &id())
    }
}

fn delete_commit(
    started: &pb::OperationStarted,
    expected_version: i32,
) -> pb::CommitOperationRequest {
    pb::CommitOperationRequest {
        create: None,
        delete: Some(pb::EntityDeletion { expected_version }),
        event: Some(pb::EventDraft { r#type: "entity.deleted".into(), data: "{}".into() }),
        ..commit_request(started, "")
    }
}

#[tokio::test]
async fn a_file_is_in_the_object_store_only_whatever_the_phase() {
    let (database, running) = service(&[]).await;
    for phase in ["legacy", "dual_write", "object_primary", "object_only", "legacy_dropped"] {
        set_phase(&database.pool, phase).await;
        let started = start(&running.api, file_request("ada", &id())).await;
        assert_eq!(started.phase(), pb::StoragePhase::ObjectOnly, "{phase}");
        assert_eq!(started.key, format!("users/ada/files/{}.pdf", started.entity_id));
        // A phase that changes on the way does not matter either.
        set_phase(&database.pool, "dual_write").await;
        let entity = running.api.commit(file_commit(&started)).await.unwrap();
        assert_eq!(entity.r#type, "file");
        assert_eq!(entity.file.as_ref().unwrap().name, "Paper.pdf");
        set_phase(&database.pool, phase).await;
        let read = running.api.get("ada", &entity.id).await.unwrap();
        assert_eq!(read, pb::GetEntityResponse { entity: Some(entity), content_block: None });
    }
    let rows = rows(&database.pool).await;
    assert_eq!((rows.entities, rows.content_blocks), (5, 0));

    // A note cannot be written so.
    let note = running.api.start("ada", &id()).await;
    let mut commit = file_commit(&note);
    commit.phase = pb::StoragePhase::ObjectOnly.into();
    commit.create.as_mut().unwrap().content_block = None;
    set_phase(&database.pool, "dual_write").await;
    assert_refused(running.api.commit(commit).await, Code::Aborted, reason::PHASE_CHANGED);
}

#[tokio::test]
async fn a_lease_is_as_long_as_it_is_asked_for_up_to_the_limit() {
    let (database, running) = service(&["--max-operation-lease-secs", "1000"]).await;
    let (api, pool) = (&running.api, &database.pool);
    for (asked, granted) in [(None, 30.0), (Some(500), 500.0), (Some(5000), 1000.0)] {
        let request = pb::BeginOperationRequest {
            lease: asked.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..file_request("ada", &id())
        };
        let started = start(api, request).await;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let told = started.lease.unwrap().seconds as f64;
        assert!((told - granted).abs() < 1.1, "{told}");
        let row = operation(pool, started.operation.as_ref()).await;
        assert!((row.lease - granted).abs() < 1.0, "{row:?}");
    }
}

#[tokio::test]
async fn a_lease_is_extended_until_the_attempt_is_fenced_or_committed() {
    let (database, running) = service(&["--max-operation-lease-secs", "1000"]).await;
    let (api, pool) = (&running.api, &database.pool);
    let request = file_request("ada", &id());
    let first = start(api, request.clone()).await;
    let attempt = first.operation.clone();
    assert!((98..=100).contains(&api.extend(attempt.clone(), 100).await.unwrap()));
    // Never shorter, never beyond the limit.
    assert!((98..=100).contains(&api.extend(attempt.clone(), 10).await.unwrap()));
    assert!((998..=1000).contains(&api.extend(attempt.clone(), 10_000).await.unwrap()));
    assert_eq!(api.claim(10).await.unwrap(), pb::ClaimOperationsResponse::default());
    let nothing = api.extend(attempt.clone(), 0).await;
    assert_invalid(nothing, "lease");

    // An attempt that nobody took over may still go on.
    expire_leases(pool).await;
    api.extend(attempt.clone(), 100).await.unwrap();
    assert_eq!(api.claim(10).await.unwrap().aborted, 0);

    expire_leases(pool).await;
    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    let second = start(api, again).await;
    assert_fenced(api.extend(attempt, 100).await);
    api.extend(second.operation.clone(), 100).await.unwrap();
    api.commit(file_commit(&second)).await.unwrap();
    assert_fenced(api.extend(second.operation.clone(), 100).await);

    let third = start(api, file_request("ada", &id())).await;
    api.abort(third.operation.clone()).await.unwrap();
    assert_fenced(api.extend(third.operation, 100).await);
    let unknown = pb::OperationRef { request_id: id(), ..second.operation.unwrap() };
    assert_fenced(api.extend(Some(unknown), 100).await);
}

#[tokio::test]
async fn whoever_continues_an_operation_finds_it_and_its_draft() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let request = id();
    let draft = r#"{"title":"ü", "n" : 1e2}"#;
    let begin =
        || pb::BeginOperationRequest { draft: draft.to_owned(), ..file_request("ada", &request) };
    let first = start(api, begin()).await;
    let found = api.operation("ada", &request).await.unwrap();
    assert_eq!(found.draft, draft);
    let Some(get_operation_response::Outcome::Started(same)) = found.outcome else { panic!() };
    assert_same_attempt(&first, &same);
    // Not by others, and not what was given up.
    let missing = |answer| assert_refused(answer, Code::NotFound, reason::NOT_FOUND);
    missing(api.operation("eve", &request).await);
    missing(api.operation("ada", &id()).await);
    api.abort(first.operation).await.unwrap();
    missing(api.operation("ada", &request).await);

    // The next attempt has the draft, too; and then the answer is there.
    let second = start(api, begin()).await;
    let found = api.operation("ada", &request).await.unwrap();
    let Some(get_operation_response::Outcome::Started(same)) = found.outcome else { panic!() };
    assert_same_attempt(&second, &same);
    let entity = api.commit(file_commit(&second)).await.unwrap();
    let found = api.operation("ada", &request).await.unwrap();
    assert_eq!(found.draft, draft);
    let Some(get_operation_response::Outcome::Committed(done)) = found.outcome else { panic!() };
    assert_eq!((done.entity, done.done), (Some(entity), false));
    assert_eq!(done.pending_event.unwrap().event_id, second.event_id);
    assert_eq!(rows(pool).await.entities, 1);

    for bad in ["[]", "{", "{\"a\":\"\\u0000\"}", &format!("{{\"a\":\"{}\"}}", "x".repeat(65_536))]
    {
        let request =
            pb::BeginOperationRequest { draft: bad.to_owned(), ..file_request("ada", &id()) };
        assert_invalid(api.begin(request).await, "draft");
    }
}

#[tokio::test]
async fn a_deletion_is_a_version_of_its_own() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, entity) = write_file(api, "ada").await;

    let request = delete_request("ada", &entity.id);
    let started = start(api, request.clone()).await;
    assert_eq!((&started.entity_id, started.key.as_str()), (&entity.id, ""));
    let commit = delete_commit(&started, 1);
    let deleted = api.commit(commit.clone()).await.unwrap();
    let expected = pb::Entity {
        version: 2,
        update_time: started.occur_time,
        delete_time: started.occur_time,
        ..entity.clone()
    };
    assert_eq!(deleted, expected);
    assert_refused(api.get("ada", &entity.id).await, Code::NotFound, reason::NOT_FOUND);
    assert_eq!(rows(pool).await.entity_revisions, 2);
    // The blob stays until the entity is purged.
    assert_eq!(deletions(pool).await, [""; 0]);

    // The reply was lost; or the whole call is repeated.
    assert_eq!(api.commit(commit).await.unwrap(), expected);
    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    let Outcome::Committed(committed) = api.begin(again).await.unwrap() else { panic!() };
    assert_eq!(committed.entity, Some(expected));
    let event = committed.pending_event.unwrap();
    assert_eq!((event.version, event.event.unwrap().r#type.as_str()), (2, "entity.deleted"));
    assert_eq!(rows(pool).await.entity_revisions, 2);

    // There is nothing left to delete.
    let late = start(api, delete_request("ada", &entity.id)).await;
    let refused = api.commit(delete_commit(&late, 0)).await;
    assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    api.abort(late.operation).await.unwrap();
    assert_eq!(deletions(pool).await, [""; 0]);
}

#[tokio::test]
async fn only_what_the_caller_has_seen_and_owns_is_deleted() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, entity) = write_file(api, "ada").await;
    let (_, note) = api.write("ada").await;
    for (user, target) in [("eve", &entity.id), ("ada", &note.id), ("ada", &id())] {
        let started = start(api, delete_request(user, target)).await;
        let refused = api.commit(delete_commit(&started, 1)).await;
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
        assert_eq!(operation(pool, started.operation.as_ref()).await.state, "PENDING");
    }
    let started = start(api, delete_request("ada", &entity.id)).await;
    let refused = api.commit(delete_commit(&started, 7)).await;
    assert_eq!(refused.as_ref().unwrap_err().metadata["version"], "1");
    assert_refused(refused, Code::Aborted, reason::VERSION_CONFLICT);

    // An operation does what it was begun for, and an attempt that was taken over nothing.
    let deleting = start(api, delete_request("ada", &entity.id)).await;
    let mut creating = file_commit(&deleting);
    let file = creating.create.as_mut().unwrap().file.as_mut().unwrap();
    file.path = "users/ada/files/x.pdf".into();
    assert_invalid(api.commit(creating).await, "create");
    let created = start(api, file_request("ada", &id())).await;
    assert_invalid(api.commit(delete_commit(&created, 0)).await, "delete");
    let both = pb::CommitOperationRequest {
        delete: Some(pb::EntityDeletion::default()),
        ..file_commit(&created)
    };
    assert_invalid(api.commit(both).await, "delete");
    api.abort(started.operation.clone()).await.unwrap();
    assert_fenced(api.commit(delete_commit(&started, 1)).await);

    assert!(api.get("ada", &entity.id).await.is_ok());
    assert!(api.get("ada", &note.id).await.is_ok());
    assert_invalid(api.begin(delete_request("ada", "x")).await, "entity_id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_eight_deletions_at_once_one_deletes() {
    let (database, running) = service(&[]).await;
    let (_, entity) = write_file(&running.api, "ada").await;
    let deletions = (0..8).map(|_| async {
        let started = start(&running.api, delete_request("ada", &entity.id)).await;
        running.api.commit(delete_commit(&started, 0)).await
    });
    let outcomes = futures::future::join_all(deletions).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter(Result::is_err) {
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    }
    assert_eq!(rows(&database.pool).await.entity_revisions, 2);
}

#[tokio::test]
async fn the_events_of_an_entity_are_handed_out_in_the_order_of_its_versions() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (created, entity) = write_file(api, "ada").await;
    let deleted = start(api, delete_request("ada", &entity.id)).await;
    api.commit(delete_commit(&deleted, 1)).await.unwrap();
    // The later one is due first.
    expire_leases(pool).await;
    execute(
        pool,
        "UPDATE write_operations SET lease_until = lease_until - interval '1 h'
         WHERE kind = 'delete'",
    )
    .await;
    let first = api.claim(10).await.unwrap().pending_events;
    assert_eq!(first.iter().map(|event| event.version).collect::<Vec<_>>(), [1]);
    // It waits under no lease of its own.
    assert_eq!(api.claim(10).await.unwrap(), pb::ClaimOperationsResponse::default());
    assert_eq!(operation(pool, deleted.operation.as_ref()).await.attempts, 0);
    api.finish(vec![created.operation.unwrap()]).await.unwrap();
    let second = api.claim(10).await.unwrap().pending_events;
    assert_eq!(second.iter().map(|event| event.version).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_deletion_that_nobody_commits_is_given_up_without_a_blob() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, entity) = write_file(api, "ada").await;
    let request = delete_request("ada", &entity.id);
    let first = start(api, request.clone()).await;
    execute(
        pool,
        "UPDATE write_operations SET lease_until = now() - interval '1 s'
         WHERE kind = 'delete'",
    )
    .await;
    assert_eq!(api.claim(10).await.unwrap().aborted, 1);
    assert_eq!(deletions(pool).await, [""; 0]);
    assert_fenced(api.commit(delete_commit(&first, 1)).await);
    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    let second = start(api, again).await;
    assert_eq!((&second.entity_id, second.operation.as_ref().unwrap().epoch), (&entity.id, 3));
    assert_eq!(second.event_id, first.event_id);
    api.commit(delete_commit(&second, 1)).await.unwrap();
}
