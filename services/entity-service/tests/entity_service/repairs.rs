//! The same body under another key: only where the row is still what was to be repaired, and only in
//! the phase that has another copy.

use synap_proto::{
    entity::{
        self as pb, OperationKind, StoragePhase::DualWrite, begin_operation_response::Outcome,
    },
    reason,
};
use tonic::Code;

use crate::support::{
    Running, assert_fenced, assert_invalid, assert_refused, begin_request, commit_request,
    deletions, execute, id, operation, rows, service, set_phase,
};

async fn start(running: &Running, entity: &pb::Entity) -> pb::OperationStarted {
    let request = pb::BeginOperationRequest {
        kind: OperationKind::Repair.into(),
        entity_id: entity.id.clone(),
        ..begin_request(&entity.user_id, &id())
    };
    match running.api.begin(request).await.unwrap() {
        Outcome::Started(started) => started,
        other => panic!("{other:?}"),
    }
}

fn repair_request(
    started: &pb::OperationStarted,
    entity: &pb::Entity,
) -> pb::CommitOperationRequest {
    let repair = pb::EntityRepair {
        version: entity.version,
        bad_key: entity.file.as_ref().unwrap().path.clone(),
        url: "https://blobs.example.org/again".to_owned(),
    };
    pb::CommitOperationRequest {
        operation: started.operation.clone(),
        phase: started.phase,
        repair: Some(repair),
        ..pb::CommitOperationRequest::default()
    }
}

#[tokio::test]
async fn a_repair_changes_the_key_and_nothing_else() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, entity) = api.write("ada").await;
    let bad = entity.file.clone().unwrap();
    let started = start(&running, &entity).await;
    assert!(started.key.starts_with(&format!("users/ada/notes/{}/", entity.id)), "{started:?}");
    assert_eq!(started.phase(), DualWrite);

    let repaired = api.commit(repair_request(&started, &entity)).await.unwrap();
    let url = "https://blobs.example.org/again".to_owned();
    let file = pb::File { path: started.key.clone(), url, ..bad.clone() };
    let expected = pb::Entity { file: Some(file), ..entity.clone() };
    assert_eq!(repaired, expected);
    assert_eq!(api.get("ada", &entity.id).await.unwrap().entity, Some(expected.clone()));
    // Done at once: nothing is left to append.
    let row = operation(pool, started.operation.as_ref()).await;
    assert_eq!((row.state.as_str(), row.event_type), ("DONE", None));
    assert_eq!(deletions(pool).await, [bad.path]);
    let revisions: Vec<String> =
        sqlx::query_scalar("SELECT file_path FROM entity_revisions").fetch_all(pool).await.unwrap();
    assert_eq!(revisions, [started.key.as_str()]);
    // The reply was lost.
    assert_eq!(api.commit(repair_request(&started, &entity)).await.unwrap(), expected);
    assert_eq!(rows(pool).await.entity_revisions, 1);
}

#[tokio::test]
async fn a_repair_of_what_is_not_so_any_more_is_refused() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, entity) = api.write("ada").await;
    let (_, bobs) = api.write("bob").await;
    let started = start(&running, &entity).await;
    let good = repair_request(&started, &entity);

    let mut other = good.clone();
    other.repair.as_mut().unwrap().bad_key = bobs.file.unwrap().path;
    assert_refused(api.commit(other).await, Code::Aborted, reason::VERSION_CONFLICT);
    let mut other = good.clone();
    other.repair.as_mut().unwrap().version = 2;
    assert_refused(api.commit(other).await, Code::Aborted, reason::VERSION_CONFLICT);
    let event = commit_request(&started, "body").event;
    assert_invalid(
        api.commit(pb::CommitOperationRequest { event, ..good.clone() }).await,
        "repair",
    );
    let create = api.start("ada", &id()).await;
    let wrong = pb::CommitOperationRequest { operation: create.operation, ..good.clone() };
    assert_invalid(api.commit(wrong).await, "repair");

    for phase in ["object_primary", "legacy"] {
        set_phase(pool, phase).await;
        assert_refused(api.commit(good.clone()).await, Code::Aborted, reason::PHASE_CHANGED);
    }
    set_phase(pool, "dual_write").await;
    let after = rows(pool).await;
    assert_eq!((after.entities, after.entity_revisions, after.blob_gc), (2, 2, 0));
    api.abort(started.operation.clone()).await.unwrap();
    assert_fenced(api.commit(good).await);
    assert_eq!(deletions(pool).await, [started.key]);
    execute(pool, "DELETE FROM entities").await;
    let started = start(&running, &entity).await;
    let gone = api.commit(repair_request(&started, &entity)).await;
    assert_refused(gone, Code::NotFound, reason::NOT_FOUND);
}
