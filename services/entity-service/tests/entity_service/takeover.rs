//! From content_blocks to the object store: what must hold, bodies on their way back, and a database
//! without the table.

use synap_proto::{
    entity::{
        self as pb,
        LegacyTableStep::{Drop, Rename, Restore},
        takeover_service_client::TakeoverServiceClient,
    },
    reason,
};
use synap_rpc::Channel;
use synap_types::Checksum;
use tonic::Code;

use crate::{
    purge,
    support::{
        Answer, Api, assert_invalid, assert_refused, commit_request, edit_request, execute, id,
        rows, service, set_phase,
    },
};

impl Api {
    fn takeover(&self) -> TakeoverServiceClient<Channel> {
        TakeoverServiceClient::new(self.0.clone())
    }

    /// The conditions that do not hold, with the entities that they name.
    async fn failing(&self, to: pb::StoragePhase) -> Vec<(String, Vec<String>)> {
        let request = pb::CheckPhaseRequest { to: to.into(), after_id: String::new() };
        let page = self.takeover().check_phase(request).await.unwrap().into_inner();
        let failing = page.conditions.into_iter().filter(|condition| condition.number > 0);
        failing.map(|condition| (condition.name, condition.entity_ids)).collect()
    }

    async fn to_copy_back(&self) -> pb::ListBodiesToCopyBackResponse {
        let request = pb::ListBodiesToCopyBackRequest { after_id: String::new() };
        self.takeover().list_bodies_to_copy_back(request).await.unwrap().into_inner()
    }

    async fn put_block(&self, entity_id: &str, key: &str, content: &str) -> Answer<i64> {
        let (entity_id, key) = (entity_id.to_owned(), key.to_owned());
        let block = pb::ContentBlock { entity_id, key, content: content.to_owned() };
        let request = pb::PutContentBlocksRequest { blocks: vec![block] };
        Ok(self.takeover().put_content_blocks(request).await?.into_inner().written)
    }

    async fn step(&self, step: pb::LegacyTableStep, min_days: i32, dry_run: bool) -> Answer<i64> {
        let backup = "{}".to_owned();
        let request = pb::ChangeLegacyTableRequest { step: step.into(), dry_run, min_days, backup };
        Ok(self.takeover().change_legacy_table(request).await?.into_inner().purged_rows)
    }
}

#[tokio::test]
async fn every_condition_names_the_entities_that_it_does_not_hold_for() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let mut ids = Vec::new();
    for _ in 0..8 {
        let (started, _) = api.write("ada").await;
        api.finish(started.operation.into_iter().collect()).await.unwrap();
        ids.push(started.entity_id);
    }
    ids.sort();
    assert_eq!(api.failing(pb::StoragePhase::ObjectOnly).await, []);
    for (number, damage) in [
        "UPDATE entities SET file_path = NULL WHERE id = $1::uuid",
        "INSERT INTO file_checks (entity_id, key, level, outcome)
         SELECT id, file_path, 'head', 'missing' FROM entities WHERE id = $1::uuid",
        // Written so long ago that it must have been read back since.
        "UPDATE entity_revisions SET created_at = now() - interval '2 days'
         WHERE entity_id = $1::uuid",
        "UPDATE content_blocks SET content = content || '!' WHERE entity_id = $1::uuid",
        "DELETE FROM entity_search WHERE entity_id = $1::uuid",
        "UPDATE content_blocks SET embedding = array_fill(0.5, ARRAY[1536])::vector
         WHERE entity_id = $1::uuid",
        // And what is no damage: read back, though long ago; and a block of nothing.
        "WITH aged AS (UPDATE entity_revisions SET created_at = now() - interval '2 days'
                       WHERE entity_id = $1::uuid)
         INSERT INTO file_checks (entity_id, key, level, outcome, file_verified_at)
         SELECT id, file_path, 'head', 'sound', now() FROM entities WHERE id = $1::uuid",
        "UPDATE content_blocks SET content = '' WHERE entity_id = $1::uuid",
    ]
    .into_iter()
    .enumerate()
    {
        let done = sqlx::query(damage).bind(&ids[number]).execute(pool).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{damage}");
    }
    let found = api.failing(pb::StoragePhase::ObjectOnly).await;
    let names = [
        "text_without_file",
        "file_unsound",
        "file_unchecked",
        "content_differs",
        "search_document_missing",
        "embedding_missing",
    ];
    let expected: Vec<_> =
        names.iter().zip(&ids).map(|(name, id)| ((*name).to_owned(), vec![id.clone()])).collect();
    assert_eq!(found, expected);
    assert_eq!(api.failing(pb::StoragePhase::ObjectPrimary).await, expected[..4]);

    // An embedding that is in its own table is found; an old event that is not appended is told of.
    execute(
        pool,
        "INSERT INTO entity_vectors (entity_id, user_id, entity_type, embedding_model, embedding)
         SELECT entity_id, 'ada', 'note', embedding_model, embedding FROM content_blocks
         WHERE embedding IS NOT NULL",
    )
    .await;
    api.write("ada").await;
    execute(pool, "UPDATE write_operations SET occurred_at = now() - interval '1 hour'").await;
    let found = api.failing(pb::StoragePhase::ObjectOnly).await;
    assert_eq!(found[0].0, "events_waiting");
    assert_eq!(found[1..], expected[..5]);
    assert_eq!(api.failing(pb::StoragePhase::DualWrite).await, []);
}

#[tokio::test]
async fn what_content_blocks_lack_is_copied_back_and_nothing_older() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, edited) = api.write("ada").await;
    let (_, kept) = api.write("ada").await;
    // V0.2's blocks do not say whose they are, nor what their checksum is.
    execute(pool, "UPDATE content_blocks SET user_id = NULL, checksum = NULL").await;
    set_phase(pool, "object_only").await;
    let changed = api.update("ada", &edited.id, "changed").await;
    let (_, created) = api.write("ada").await;
    execute(pool, "UPDATE content_blocks SET last_modified_at = now() - interval '1 day'").await;

    let page = api.to_copy_back().await;
    let mut found: Vec<_> = page.bodies.iter().map(|body| body.entity_id.clone()).collect();
    found.sort();
    let mut lacking = [edited.id.clone(), created.id.clone()];
    lacking.sort();
    assert_eq!((found, page.unknown_ids.len()), (lacking.to_vec(), 0));

    let key = &changed.file.as_ref().unwrap().path;
    let old_key = &edited.file.as_ref().unwrap().path;
    assert_eq!(api.put_block(&edited.id, old_key, "body").await.unwrap(), 0, "an old body");
    assert_eq!(api.put_block(&edited.id, key, "other").await.unwrap(), 0, "another body");
    assert_eq!(api.put_block(&edited.id, key, "changed").await.unwrap(), 1);
    let key = &created.file.as_ref().unwrap().path;
    assert_eq!(api.put_block(&created.id, key, "body").await.unwrap(), 1);
    assert_invalid(api.put_block(&created.id, key, "b\0dy").await, "blocks[0].content");
    assert!(api.to_copy_back().await.bodies.is_empty());

    // Written behind our back, after the blob: nobody's to overwrite.
    execute(
        pool,
        "UPDATE content_blocks SET content = 'V0.2', last_modified_at = now()
                   WHERE user_id IS NULL",
    )
    .await;
    let page = api.to_copy_back().await;
    assert_eq!((page.bodies.len(), page.unknown_ids), (0, vec![kept.id.clone()]));

    set_phase(pool, "legacy").await;
    let read = api.get("ada", &edited.id).await.unwrap();
    assert_eq!(read.content_block.as_deref(), Some("changed"));
}

#[tokio::test]
async fn without_the_table_everything_goes_on() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, old) = api.write("ada").await;
    let refused = api.step(Rename, 0, false).await;
    assert_refused(refused, Code::FailedPrecondition, reason::LEGACY_NOT_READY);
    set_phase(pool, "object_only").await;
    api.step(Rename, 0, true).await.unwrap();
    assert_eq!(rows(pool).await.content_blocks, 1, "a dry run changes nothing");
    let late = api.start("ada", &id()).await;
    api.step(Rename, 0, false).await.unwrap();
    assert_eq!(api.status().await.unwrap().phase(), pb::StoragePhase::LegacyDropped);
    let refused = api.commit(commit_request(&late, "late")).await;
    assert_refused(refused, Code::Aborted, reason::PHASE_CHANGED);
    let refused = api.step(Drop, 30, false).await;
    assert_refused(refused, Code::FailedPrecondition, reason::LEGACY_NOT_READY);

    for dropped in [false, true] {
        let (_, made) = api.write("ada").await;
        let read = api.get("ada", &made.id).await.unwrap();
        assert_eq!(read.entity.as_ref(), Some(&made));
        let changed = api.update("ada", &made.id, "changed").await;
        assert_eq!(changed.file.unwrap().checksum, Checksum::of(b"changed").to_string());
        let kind = pb::OperationKind::Delete;
        api.mark(kind, "ada", &made.id, 2).await.unwrap();
        api.mark(pb::OperationKind::Undelete, "ada", &made.id, 3).await.unwrap();
        api.mark(kind, "ada", &made.id, 4).await.unwrap();
        execute(pool, purge::AGE).await;
        let purge = edit_request(pb::OperationKind::Purge, "ada", &made.id, "");
        let started = api.started(purge).await;
        api.commit(purge::purge_commit(&started)).await.unwrap();
        if !dropped {
            api.step(Drop, 0, false).await.unwrap();
            // Once more, as after a lost answer.
            api.step(Drop, 0, false).await.unwrap();
        }
    }
    // A row without a file has no body any more.
    execute(pool, "UPDATE entities SET file_path = NULL").await;
    assert_eq!(api.get("ada", &old.id).await.unwrap().content_block, None);
    api.change_phase(pb::StoragePhase::LegacyDropped, pb::StoragePhase::ObjectOnly).await.unwrap();
    let back =
        api.change_phase(pb::StoragePhase::ObjectOnly, pb::StoragePhase::ObjectPrimary).await;
    assert_refused(back, Code::FailedPrecondition, reason::LEGACY_NOT_READY);
    let refused = api.step(Restore, 0, false).await;
    assert_refused(refused, Code::FailedPrecondition, reason::LEGACY_NOT_READY);
}
