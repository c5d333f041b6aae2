//! What a write writes in each storage phase.

use synap_proto::{entity as pb, reason};
use tonic::Code;

use crate::support::{
    assert_invalid, assert_refused, commit_request, id, operation, rows, service, set_phase,
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
