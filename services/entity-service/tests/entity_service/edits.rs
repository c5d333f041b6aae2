//! Updates, deletions and undeletions of notes: each a version of its own, all or nothing.

use std::collections::BTreeSet;

use synap_proto::{
    entity::{
        self as pb,
        OperationKind::{Delete, Undelete, Update},
        begin_operation_response::Outcome,
    },
    reason,
};
use tonic::Code;

use crate::support::{
    assert_fenced, assert_invalid, assert_refused, begin_request, deletions, edit_request, execute,
    id, operation, rows, service, set_phase, update_commit,
};

#[tokio::test]
async fn an_update_changes_what_it_names_and_keeps_the_rest() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, created) = api.write("ada").await;

    let request = edit_request(Update, "ada", &created.id, "md");
    let started = api.started(request.clone()).await;
    assert_eq!(started.entity_id, created.id);
    let below = format!("users/ada/notes/{}/", created.id);
    let revision = started.key.strip_prefix(&below).and_then(|rest| rest.strip_suffix(".md"));
    assert!(revision.is_some(), "{}", started.key);
    let commit = update_commit(&started, "another body");
    let updated = api.commit(commit.clone()).await.unwrap();
    let file = commit.update.as_ref().unwrap().body.as_ref().unwrap().file.clone();
    let expected = pb::Entity {
        title: "Another".to_owned(),
        preview: "another body…".to_owned(),
        file,
        version: 2,
        update_time: started.occur_time,
        ..created.clone()
    };
    assert_eq!(updated, expected);
    assert_eq!(api.get("ada", &created.id).await.unwrap().entity, Some(expected.clone()));
    let block: (String, i32, String) =
        sqlx::query_as("SELECT content, size_bytes, checksum FROM content_blocks")
            .fetch_one(pool)
            .await
            .unwrap();
    let checksum = expected.file.as_ref().unwrap().checksum.clone();
    assert_eq!(block, ("another body".to_owned(), 12, checksum));

    // The reply was lost; or the whole call is repeated.
    assert_eq!(api.commit(commit).await.unwrap(), expected);
    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    let Outcome::Committed(committed) = api.begin(again).await.unwrap() else { panic!() };
    assert_eq!(committed.entity, Some(expected.clone()));
    let event = committed.pending_event.unwrap();
    assert_eq!((event.version, event.event.unwrap().r#type.as_str()), (2, "entity.updated"));

    // Without a body there is no key, and the new revision names the same file.
    let started = api.started(edit_request(Update, "ada", &created.id, "")).await;
    assert_eq!(started.key, "");
    let mut commit = update_commit(&started, "");
    commit.update = Some(pb::EntityUpdate {
        tags: Some(pb::EntityTags { tags: vec!["three".to_owned()] }),
        expected_version: 2,
        ..pb::EntityUpdate::default()
    });
    let tagged = api.commit(commit).await.unwrap();
    let expected = pb::Entity {
        tags: vec!["three".to_owned()],
        version: 3,
        update_time: started.occur_time,
        ..expected
    };
    assert_eq!(tagged, expected);
    assert_eq!((rows(pool).await.entity_revisions, deletions(pool).await), (3, vec![]));
}

#[tokio::test]
async fn what_is_not_there_or_not_seen_is_not_changed() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, note) = api.write("ada").await;
    let (_, deleted) = api.write("ada").await;
    api.mark(Delete, "ada", &deleted.id, 1).await.unwrap();
    let before = rows(pool).await;

    for (user, target) in [("eve", &note.id), ("ada", &deleted.id), ("ada", &id())] {
        let started = api.started(edit_request(Update, user, target, "md")).await;
        let refused = api.commit(update_commit(&started, "x")).await;
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
        api.abort(started.operation).await.unwrap();
    }
    let started = api.started(edit_request(Update, "ada", &note.id, "md")).await;
    let mut commit = update_commit(&started, "x");
    commit.update.as_mut().unwrap().expected_version = 7;
    let refused = api.commit(commit.clone()).await;
    assert_eq!(refused.as_ref().unwrap_err().metadata["version"], "1");
    assert_refused(refused, Code::Aborted, reason::VERSION_CONFLICT);

    // Under no key but its own, and with a body only if it was begun for one.
    let mut foreign = update_commit(&started, "x");
    let body = foreign.update.as_mut().unwrap().body.as_mut().unwrap();
    body.file.as_mut().unwrap().path = note.file.unwrap().path;
    assert_invalid(api.commit(foreign).await, "update.body.file.path");
    let mut without = update_commit(&started, "x");
    without.update.as_mut().unwrap().body = None;
    assert_invalid(api.commit(without).await, "update.body");
    let bodiless = api.started(edit_request(Update, "ada", &note.id, "")).await;
    let mut with = update_commit(&started, "x");
    with.operation = bodiless.operation.clone();
    assert_invalid(api.commit(with).await, "update.body.file.path");
    let mut deletion = update_commit(&bodiless, "x");
    (deletion.update, deletion.delete) = (None, Some(pb::EntityDeletion::default()));
    assert_invalid(api.commit(deletion).await, "delete");
    assert_eq!(operation(pool, started.operation.as_ref()).await.state, "PENDING");

    // Given up: it cannot commit any more, and its key is deleted.
    api.abort(started.operation.clone()).await.unwrap();
    assert_fenced(api.commit(update_commit(&started, "x")).await);
    let after = rows(pool).await;
    assert_eq!(
        (after.entities, after.entity_revisions),
        (before.entities, before.entity_revisions)
    );
    assert!(deletions(pool).await.contains(&started.key));
    assert_eq!(api.get("ada", &note.id).await.unwrap().entity.unwrap().version, 1);
}

#[tokio::test]
async fn a_deletion_is_taken_back_once() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, note) = api.write("ada").await;
    let not_deleted = api.mark(Undelete, "ada", &note.id, 0).await;
    assert_refused(not_deleted, Code::AlreadyExists, reason::NOT_DELETED);
    api.mark(Delete, "ada", &note.id, 1).await.unwrap();
    let stale = api.mark(Undelete, "ada", &note.id, 1).await;
    assert_refused(stale, Code::Aborted, reason::VERSION_CONFLICT);
    let stranger = api.mark(Undelete, "eve", &note.id, 0).await;
    assert_refused(stranger, Code::NotFound, reason::NOT_FOUND);

    let restored = api.mark(Undelete, "ada", &note.id, 2).await.unwrap();
    let expected = pb::Entity { version: 3, update_time: restored.update_time, ..note.clone() };
    assert_eq!(restored, expected);
    assert_eq!(api.get("ada", &note.id).await.unwrap().entity, Some(expected));
    let again = api.mark(Undelete, "ada", &note.id, 0).await;
    assert_refused(again, Code::AlreadyExists, reason::NOT_DELETED);
    assert_eq!((rows(pool).await.entity_revisions, deletions(pool).await), (3, vec![]));
}

#[tokio::test]
async fn a_body_goes_where_the_phase_of_the_pivot_wants_it() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, note) = api.write("ada").await;
    for (phase, blob, block) in [
        ("legacy", false, true),
        ("dual_write", true, true),
        ("object_primary", true, true),
        ("object_only", true, false),
    ] {
        // Begun in another phase: refused, and to be begun again.
        let other = if phase == "legacy" { "object_only" } else { "legacy" };
        set_phase(pool, other).await;
        let started = api.started(edit_request(Update, "ada", &note.id, "md")).await;
        set_phase(pool, phase).await;
        let refused = api.commit(update_commit(&started, phase)).await;
        assert_refused(refused, Code::Aborted, reason::PHASE_CHANGED);

        let updated = api.update("ada", &note.id, phase).await;
        assert_eq!(updated.file.is_some(), blob, "{phase}");
        let stored: Option<String> =
            sqlx::query_scalar("SELECT content FROM content_blocks").fetch_one(pool).await.unwrap();
        assert_eq!(stored.as_deref() == Some(phase), block, "{phase}");
    }
}

/// Of many at once each takes the version that the one before it has made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixteen_updates_at_once_each_makes_a_version() {
    let (database, running) = service(&[]).await;
    let (_, note) = running.api.write("ada").await;
    let updates = (0..16).map(|n| {
        let (api, note) = (running.api.clone(), note.id.clone());
        async move { api.update("ada", &note, &format!("body {n}")).await }
    });
    let mut versions: Vec<_> =
        futures::future::join_all(updates).await.into_iter().map(|one| one.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..18).collect::<Vec<_>>());
    // Time does not go back with versions, whichever was begun first.
    let backwards: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM entity_revisions a JOIN entity_revisions b
         ON a.entity_id = b.entity_id AND a.version + 1 = b.version AND a.created_at > b.created_at",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(backwards, 0);
}

#[tokio::test]
async fn an_update_that_is_taken_over_gets_a_fresh_key() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, note) = api.write("ada").await;
    let request = edit_request(Update, "ada", &note.id, "md");
    let first = api.started(request.clone()).await;
    execute(pool, "UPDATE write_operations SET lease_until = now() - interval '1 s'").await;
    let again = pb::BeginOperationRequest { attempt_id: id(), ..request };
    let second = api.started(again).await;
    assert_eq!(second.entity_id, note.id);
    assert_ne!(second.key, first.key);
    assert_eq!(deletions(pool).await, std::slice::from_ref(&first.key));
    assert_fenced(api.commit(update_commit(&first, "slow")).await);
    let updated = api.commit(update_commit(&second, "fast")).await.unwrap();
    assert_eq!((updated.version, updated.file.unwrap().path), (2, second.key));
}

#[tokio::test]
async fn the_id_that_a_caller_brings_names_the_first_attempt_only() {
    let (_database, running) = service(&[]).await;
    let api = &running.api;
    let (_, created) = api.write("ada").await;
    let new_id = id();
    for request in [begin_request("ada", &id()), edit_request(Update, "ada", &created.id, "md")] {
        let request = pb::BeginOperationRequest { new_id: new_id.clone(), ..request };
        let begin = || api.started(request.clone());
        let first = begin().await;
        assert!(first.key.ends_with(&format!("/{new_id}.md")), "{}", first.key);
        assert_eq!(begin().await.key, first.key);

        // Its reply was lost, it was given up, and its key waits to be deleted. Then its caller asks
        // again; and once more, after somebody else had taken over and given up, too.
        api.abort(first.operation.clone()).await.unwrap();
        let second = begin().await;
        api.abort(second.operation.clone()).await.unwrap();
        let other = pb::BeginOperationRequest { attempt_id: id(), ..request.clone() };
        let third = api.started(other).await;
        api.abort(third.operation.clone()).await.unwrap();
        let fourth = begin().await;
        let keys = BTreeSet::from([&first.key, &second.key, &third.key, &fourth.key]);
        assert_eq!(keys.len(), 4, "{keys:?}");
    }
    let request =
        pb::BeginOperationRequest { new_id: "x".to_owned(), ..begin_request("ada", &id()) };
    assert_invalid(api.begin(request).await, "new_id");
}
