//! What an entity was: how it is read, and how long it is kept.

use synap_proto::{
    entity::{
        self as pb,
        OperationKind::{Delete, Undelete},
    },
    reason,
};
use tonic::Code;

use crate::support::{
    Api, assert_invalid, assert_refused, deletions, edit_request, execute, id, rows, service,
    set_phase, update_commit,
};

async fn versions(api: &Api, note: &str) -> Vec<i32> {
    let revisions = api.revisions("ada", note, 0, 1000).await.unwrap();
    revisions.into_iter().map(|one| one.version).collect()
}

#[tokio::test]
async fn each_version_can_be_read_as_it_was() {
    let (_database, running) = service(&[]).await;
    let api = &running.api;
    let (_, created) = api.write("ada").await;
    let updated = api.update("ada", &created.id, "second").await;
    let deleted = api.mark(Delete, "ada", &created.id, 2).await.unwrap();
    // Nothing of a deleted one.
    for refused in [
        api.get_at("ada", &created.id, 1).await.map(drop),
        api.revisions("ada", &created.id, 0, 10).await.map(drop),
    ] {
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    }
    let restored = api.mark(Undelete, "ada", &created.id, 3).await.unwrap();

    let all = [restored, deleted, updated, created.clone()];
    assert_eq!(api.revisions("ada", &created.id, 0, 10).await.unwrap(), all);
    assert_eq!(api.revisions("ada", &created.id, 0, 2).await.unwrap(), all[..2]);
    assert_eq!(api.revisions("ada", &created.id, 3, 1000).await.unwrap(), all[2..]);
    assert_eq!(api.revisions("ada", &created.id, 1, 10).await.unwrap(), []);
    for (one, version) in all.iter().zip([4, 3, 2, 1]) {
        assert_eq!(api.get_at("ada", &created.id, version).await.unwrap(), *one);
    }
    for (user, note, version) in
        [("ada", &created.id, 5), ("eve", &created.id, 1), ("ada", &id(), 1)]
    {
        let refused = api.get_at(user, note, version).await;
        assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
    }
    let stranger = api.revisions("eve", &created.id, 0, 10).await;
    assert_refused(stranger, Code::NotFound, reason::NOT_FOUND);
    assert_invalid(api.get_at("ada", &created.id, -1).await, "version");
    assert_invalid(api.revisions("ada", &created.id, -1, 10).await, "before_version");
    assert_invalid(api.revisions("ada", &created.id, 0, 1001).await, "limit");
}

#[tokio::test]
async fn only_the_newest_revisions_stay_and_only_bodies_that_they_name() {
    let (database, running) = service(&["--revision-count", "3"]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (created, note) = api.write("ada").await;
    let retitle = async || {
        let started =
            api.started(edit_request(pb::OperationKind::Update, "ada", &note.id, "")).await;
        let mut commit = update_commit(&started, "");
        commit.update.as_mut().unwrap().body = None;
        api.commit(commit).await.unwrap()
    };
    // Three revisions with the one body, then a fourth: it is still named.
    for _ in 0..3 {
        retitle().await;
    }
    assert_eq!(versions(api, &note.id).await, [4, 3, 2]);
    assert_eq!(deletions(pool).await, [""; 0]);
    // Other bodies come, until nobody names the first.
    let second = api.update("ada", &note.id, "second").await.file.unwrap().path;
    let third = api.update("ada", &note.id, "third").await.file.unwrap().path;
    assert_eq!(deletions(pool).await, [""; 0]);
    retitle().await;
    assert_eq!(versions(api, &note.id).await, [7, 6, 5]);
    assert_eq!(deletions(pool).await, [created.key]);
    for _ in 0..2 {
        retitle().await;
    }
    assert_eq!(versions(api, &note.id).await, [9, 8, 7]);
    assert!(deletions(pool).await.contains(&second) && !deletions(pool).await.contains(&third));
    // Whoever has just read a row can still read the body.
    let early: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM blob_gc WHERE not_before < clock_timestamp() + interval '1 hour'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(early, 0);
    let refused = api.get_at("ada", &note.id, 1).await;
    assert_refused(refused, Code::NotFound, reason::NOT_FOUND);
}

#[tokio::test]
async fn a_revision_is_kept_for_its_days_from_when_it_was_replaced() {
    let (database, running) = service(&["--revision-days", "10"]).await;
    let (api, pool) = (&running.api, &database.pool);
    let (_, note) = api.write("ada").await;
    api.update("ada", &note.id, "second").await;
    api.update("ada", &note.id, "third").await;
    // Written long ago, all of them; but the newest was in force until now.
    execute(pool, "UPDATE entity_revisions SET created_at = created_at - interval '11 days'").await;
    api.update("ada", &note.id, "fourth").await;
    assert_eq!(versions(api, &note.id).await, [4, 3]);
    assert_eq!(deletions(pool).await.len(), 2);
}

#[tokio::test]
async fn a_repeat_whose_revision_is_gone_is_answered_with_what_there_is() {
    let (_database, running) = service(&["--revision-count", "1"]).await;
    let api = &running.api;
    let (_, note) = api.write("ada").await;
    let started = api.started(edit_request(pb::OperationKind::Update, "ada", &note.id, "md")).await;
    let commit = update_commit(&started, "second");
    api.commit(commit.clone()).await.unwrap();
    let third = api.update("ada", &note.id, "third").await;
    assert_eq!(api.commit(commit).await.unwrap(), third);
}

/// What V0.2 has written has no revision; its first change must not lose what it was.
#[tokio::test]
async fn an_adopted_note_gets_a_revision_of_what_it_was() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let note = "0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60";
    execute(
        pool,
        "INSERT INTO entities (id, user_id, type, title, version, file_path, checksum)
         VALUES ('0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60', 'ada', 'note', 'Old', 5,
                 'users/ada|x/notes/old.md', 'sha256:x');
         INSERT INTO content_blocks (entity_id, content, storage_provider, storage_path, embedding)
         VALUES ('0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60', 'old', 'r2', 'x',
                 array_fill(0.5::real, ARRAY[1536])::vector)",
    )
    .await;
    assert_eq!(versions(api, note).await, [5]);
    let old = api.get_at("ada", note, 5).await.unwrap();
    set_phase(pool, "legacy").await;
    let updated = api.update("ada", note, "new").await;
    assert_eq!((updated.version, updated.file), (6, None));
    assert_eq!(versions(api, note).await, [6, 5]);
    assert_eq!(api.get_at("ada", note, 5).await.unwrap(), old);
    let block: (String, String, Option<String>, bool) = sqlx::query_as(
        "SELECT content, storage_provider, storage_path, embedding IS NULL FROM content_blocks",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(block, ("new".to_owned(), "db".to_owned(), None, true));
    // Its file has a key that is none of ours: nobody could delete it.
    execute(pool, "DELETE FROM entity_revisions WHERE version = 6").await;
    assert_eq!((rows(pool).await.entity_revisions, deletions(pool).await), (1, vec![]));
}
