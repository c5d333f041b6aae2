//! What a write writes in each storage phase.

use synap_proto::{entity as pb, reason};
use tonic::Code;

use crate::support::{
    assert_invalid, assert_refused, commit_request, id, operation, rows, service, set_phase, until,
};

#[tokio::test]
async fn every_phase_writes_what_it_says() {
    let (database, running) = service(&[]).await;
    for (name, phase, in_blob, in_block) in [
        ("legacy", pb::StoragePhase::Legacy, false, true),
        ("dual_write", pb::StoragePhase::DualWrite, true, true),
        ("object_primary", pb::StoragePhase::ObjectPrimary, true, true),
        ("object_only", pb::StoragePhase::ObjectOnly, true, false),
        ("legacy_dropped", pb::StoragePhase::LegacyDropped, true, false),
    ] {
        set_phase(&database.pool, name).await;
        assert_eq!(running.api.status().await.unwrap().phase(), phase);
        let before = rows(&database.pool).await.content_blocks;
        let started = running.api.start("ada", &id()).await;
        assert_eq!(started.phase(), phase);
        let entity = running.api.commit(commit_request(&started, "body")).await.unwrap();
        assert_eq!(entity.file.is_some(), in_blob, "{name}");
        assert_eq!(
            rows(&database.pool).await.content_blocks - before,
            i64::from(in_block),
            "{name}"
        );
        let read = running.api.get("ada", &entity.id).await.unwrap();
        assert_eq!(read.content_block.as_deref(), (name == "legacy").then_some("body"), "{name}");
        assert_eq!(read.entity, Some(entity));
    }
}

#[tokio::test]
async fn a_commit_brings_what_its_phase_writes_and_nothing_else() {
    let (database, running) = service(&[]).await;
    for (name, in_blob, in_block) in
        [("legacy", false, true), ("dual_write", true, true), ("object_only", true, false)]
    {
        set_phase(&database.pool, name).await;
        let started = running.api.start("ada", &id()).await;
        let before = rows(&database.pool).await;
        let good = commit_request(&started, "body");

        let mut other = good.clone();
        let key = started.key.clone();
        let checksum = synap_types::Checksum::of(b"").to_string();
        other.create.as_mut().unwrap().file = (!in_blob).then(|| pb::File {
            path: key,
            r#type: "markdown".to_owned(),
            checksum,
            ..pb::File::default()
        });
        assert_invalid(running.api.commit(other).await, "create.file");

        let mut other = good.clone();
        other.create.as_mut().unwrap().content_block = (!in_block).then(|| "body".to_owned());
        assert_invalid(running.api.commit(other).await, "create.content_block");
        assert_eq!(rows(&database.pool).await, before);
        running.api.commit(good).await.unwrap();
    }
}

#[tokio::test]
async fn a_phase_that_changed_under_an_attempt_stops_its_commit() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let request = id();
    let started = api.start("ada", &request).await;
    set_phase(pool, "object_only").await;
    let before = rows(pool).await;
    let refused = api.commit(commit_request(&started, "body")).await;
    assert_refused(refused, Code::Aborted, reason::PHASE_CHANGED);
    assert_eq!(rows(pool).await, before);
    assert_eq!(operation(pool, started.operation.as_ref()).await.state, "PENDING");

    // Nor can it pretend that it was started in another one.
    set_phase(pool, "dual_write").await;
    let mut pretended = started.clone();
    pretended.set_phase(pb::StoragePhase::ObjectOnly);
    let refused = api.commit(commit_request(&pretended, "body")).await;
    assert_refused(refused, Code::Aborted, reason::PHASE_CHANGED);
    assert_eq!(rows(pool).await, before);

    // The way on is to give up and begin again.
    set_phase(pool, "object_only").await;
    api.abort(started.operation).await.unwrap();
    let again = api.start("ada", &request).await;
    assert_eq!(again.phase(), pb::StoragePhase::ObjectOnly);
    api.commit(commit_request(&again, "body")).await.unwrap();
    let after = rows(pool).await;
    assert_eq!((after.entities, after.content_blocks), (1, 0));
}

#[tokio::test]
async fn a_phase_is_left_for_one_beside_it_and_by_whoever_knows_it() {
    use pb::StoragePhase::{
        DualWrite, Legacy, LegacyDropped, ObjectOnly, ObjectPrimary, Unspecified,
    };
    let (_database, running) = service(&[]).await;
    let api = &running.api;
    let began = api.status().await.unwrap().change_time.unwrap();
    for (expected, next, field) in [
        (Unspecified, DualWrite, "expected"),
        (DualWrite, Unspecified, "next"),
        (DualWrite, DualWrite, "next"),
        (DualWrite, ObjectOnly, "next"),
        (LegacyDropped, Legacy, "next"),
    ] {
        assert_invalid(api.change_phase(expected, next).await, field);
    }
    let stale = api.change_phase(ObjectPrimary, ObjectOnly).await.unwrap_err();
    assert_eq!((stale.code, stale.reason.as_str()), (Code::Aborted, reason::PHASE_CHANGED));
    assert_eq!(stale.metadata["phase"], "dual_write");
    assert_eq!(api.status().await.unwrap().change_time, Some(began));

    for (expected, next) in [
        (DualWrite, ObjectPrimary),
        (ObjectPrimary, ObjectOnly),
        (ObjectOnly, LegacyDropped),
        (LegacyDropped, ObjectOnly),
        (ObjectOnly, ObjectPrimary),
        (ObjectPrimary, DualWrite),
        (DualWrite, Legacy),
    ] {
        let changed = api.change_phase(expected, next).await.unwrap();
        let status = api.status().await.unwrap();
        assert_eq!((status.phase(), status.change_time), (next, Some(changed)));
        // The reply was lost.
        assert_eq!(api.change_phase(expected, next).await.unwrap(), changed);
    }
}

/// A pivot that has begun in a phase ends in it: whoever changes the phase waits for it, and the
/// pivots that come later wait for the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phase_changes_between_pivots_and_not_within_one() {
    let (database, running) = service(&["--group-commit-workers", "2"]).await;
    let api = &running.api;
    let (first, second) = (api.start("ada", &id()).await, api.start("bob", &id()).await);
    // The first pivot is held up in its middle.
    let mut holder = database.pool.begin().await.unwrap();
    let hold = "SELECT FROM write_operations WHERE user_id = 'ada' FOR UPDATE";
    sqlx::query(hold).execute(&mut *holder).await.unwrap();
    let waiting = async |for_what: &str, count: i64| {
        until(for_what, async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_locks
                 WHERE NOT granted AND database = (SELECT oid FROM pg_database
                                                   WHERE datname = current_database())
                    OR NOT granted AND locktype = 'transactionid'",
            )
            .fetch_one(&database.pool)
            .await
            .unwrap();
            waiting == count
        })
        .await;
    };
    let commit = |started: &pb::OperationStarted| {
        let (api, request) = (api.clone(), commit_request(started, "body"));
        tokio::spawn(async move { api.commit(request).await })
    };
    let in_old_phase = commit(&first);
    waiting("the pivot to be held up", 1).await;
    let change = {
        let api = api.clone();
        tokio::spawn(async move {
            api.change_phase(pb::StoragePhase::DualWrite, pb::StoragePhase::ObjectPrimary).await
        })
    };
    waiting("the change to wait for it", 2).await;
    let too_late = commit(&second);
    waiting("the other pivot to wait for the change", 3).await;
    holder.rollback().await.unwrap();

    in_old_phase.await.unwrap().unwrap();
    change.await.unwrap().unwrap();
    let refused = too_late.await.unwrap();
    assert_refused(refused, Code::Aborted, reason::PHASE_CHANGED);
    assert_eq!(operation(&database.pool, second.operation.as_ref()).await.state, "PENDING");
}
