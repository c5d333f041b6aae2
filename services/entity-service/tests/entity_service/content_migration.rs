//! Bodies of content_blocks on their way into the object store: what is handed out, and that a user who
//! writes at the same time always wins.

mod calls;

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use synap_proto::{
    entity::{
        self as pb, Attachment,
        OperationKind::{Delete, Purge},
    },
    reason,
};
use synap_types::Checksum;
use tonic::Code;

use self::calls::{claims, expire, file_path, old, request, uploaded};
use crate::support::{
    assert_invalid, assert_refused, deletions, edit_request, execute, id, rows, service, set_phase,
};

#[tokio::test]
async fn an_entity_names_its_object_and_all_else_stays_as_it_was() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let note = old(pool, "auth0|12", "note", "Grüße").await;
    execute(
        pool,
        "UPDATE content_blocks SET embedding = array_fill(0.5::real, ARRAY[1536])::vector;
         INSERT INTO entity_revisions (entity_id, version, user_id, tags, created_at)
         SELECT id, version, user_id, tags, created_at FROM entities",
    )
    .await;
    let before: String =
        sqlx::query_scalar("SELECT b::text FROM content_blocks b").fetch_one(pool).await.unwrap();

    let dry = pb::ClaimBodiesRequest { dry_run: true, ..request() };
    let (claim, body) = api.claim_bodies(dry).await.unwrap().one();
    assert_eq!((claim.size, body.len()), (7, 0), "nobody needs the body");
    assert_eq!(claims(pool).await, []);
    let handed = api.claim_bodies(request()).await.unwrap();
    assert!(handed.looked.done && handed.looked.last_id == note, "{:?}", handed.looked);
    let (claim, body) = handed.one();
    assert_eq!(body, "Grüße".as_bytes());
    let prefix = format!("users/auth0%7C12/notes/{note}/");
    assert!(claim.key.starts_with(&prefix), "{}", claim.key);

    let attach = || api.attach(vec![uploaded(&claim, &body)]);
    assert_eq!(attach().await.unwrap(), [Attachment::Attached]);
    // The reply was lost.
    assert_eq!(attach().await.unwrap(), [Attachment::Attached]);
    let checksum = Checksum::of(&body).to_string();
    let file = pb::File {
        url: format!("https://blobs.example.org/{}", claim.key),
        path: claim.key.clone(),
        size: 7,
        r#type: "markdown".to_owned(),
        checksum,
        name: String::new(),
    };
    let entity = api.get("auth0|12", &note).await.unwrap().entity.unwrap();
    assert_eq!((entity.version, entity.file), (1, Some(file)));
    let whole: (String, String, bool, i64, i64) = sqlx::query_as(
        "SELECT b::text, r.file_path, c.file_verified_at IS NOT NULL,
                (SELECT count(*) FROM entity_vectors v WHERE v.user_id = r.user_id),
                (SELECT count(*) FROM content_migrations)
         FROM content_blocks b, entity_revisions r, file_checks c
         WHERE c.key = r.file_path AND c.outcome = 'sound'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(whole, (before, claim.key, true, 1, 0));
    assert_eq!(deletions(pool).await, [""; 0]);
    let again = api.claim_bodies(request()).await.unwrap();
    assert_eq!(again.outcomes(), [("already_migrated", 1)]);
}

#[tokio::test]
async fn every_oddity_has_an_outcome_with_a_name() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    old(pool, "ada", "page", "a page").await;
    old(pool, "a/b c", "note", "odd user").await;
    old(pool, "", "note", "no user").await;
    old(pool, "ada", "Mind Map", "odd type").await;
    old(pool, "ada", "note", "").await;
    for (text, set) in [
        ("of nothing", "content = NULL"),
        ("elsewhere", "content = NULL, storage_provider = 'r2', storage_path = 'x'"),
        ("html", "content_type = 'html'"),
        ("large", "content = repeat('0123456789abcdef', 4 << 20) || 'x'"),
    ] {
        old(pool, "ada", "note", text).await;
        let set = format!("UPDATE content_blocks SET {set} WHERE content = '{text}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(pool).await.unwrap();
    }
    let deleted = old(pool, "ada", "note", "deleted").await;
    let bare = old(pool, "ada", "task", "no block").await;
    execute(pool, "UPDATE entities SET deleted_at = now() FROM content_blocks b WHERE b.entity_id = id AND content = 'deleted'; DELETE FROM content_blocks WHERE content = 'no block'").await;
    let (_, new) = api.write("ada").await;

    let handed = api.claim_bodies(request()).await.unwrap();
    // One of ours is looked at, too, before it is believed.
    assert_eq!(handed.texts(), ["a page", "body", "deleted", "html", "odd user"]);
    let by_id: HashMap<_, _> =
        handed.bodies.iter().map(|(claim, _)| (claim.entity_id.as_str(), claim)).collect();
    assert!(by_id[&*deleted].key.starts_with("users/ada/notes/") && !by_id.contains_key(&*bare));
    assert_eq!(by_id[&*new.id].existing_key, new.file.unwrap().path);
    let html = handed.bodies.iter().find(|(_, body)| body == b"html").unwrap();
    assert_eq!(html.0.content_type, "html");
    let failures = ["entity_type", "too_large", "user_id"];
    let others = [("skipped_elsewhere", 1), ("skipped_empty", 2), ("skipped_missing_row", 1)];
    let failed = failures.map(|why| (format!("failed:{why}"), 1));
    let expected: Vec<_> =
        failed.iter().map(|(name, count)| (name.as_str(), *count)).chain(others).collect();
    assert_eq!(handed.outcomes(), expected);
    assert_eq!(handed.looked.notables.len(), 4);

    // They stay so, until they are to be tried again.
    for retry_failed in [false, true] {
        let again = pb::ClaimBodiesRequest { retry_failed, ..request() };
        let again = api.claim_bodies(again).await.unwrap();
        assert_eq!((again.outcomes(), again.looked.held_ids.len()), (expected.clone(), 5));
    }
    let answer = api.migration().get_content_migration(pb::GetContentMigrationRequest {}).await;
    let progress = answer.unwrap().into_inner();
    assert_eq!((progress.estimated_entities, progress.claims), (12, 5));
    assert_eq!(progress.failed["too_large"], 1);
    assert_invalid(api.claim_bodies(pb::ClaimBodiesRequest::default()).await.map(drop), "limit");

    let later = pb::ClaimBodiesRequest { since: new.update_time, ..request() };
    let later = api.claim_bodies(later).await.unwrap();
    assert_eq!(later.looked.held_ids, [new.id]);
    let of_user = pb::ClaimBodiesRequest { user_id: "a/b c".to_owned(), ..request() };
    assert_eq!(api.claim_bodies(of_user).await.unwrap().looked.entities, 1);
}

#[tokio::test]
async fn a_text_that_is_newer_than_its_sound_object_is_read_and_migrated() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    old(pool, "ada", "note", "written").await;
    let edited = old(pool, "ada", "note", "edited since").await;
    execute(
        pool,
        "UPDATE entities SET file_path = format('users/ada/notes/%s.md', id), file_size = 7,
                             file_type = 'markdown',
                             checksum = 'sha256:' || encode(sha256('written'), 'base64');
         INSERT INTO file_checks (entity_id, key, level, outcome, file_verified_at)
         SELECT id, file_path, 'checksum', 'sound', now() FROM entities",
    )
    .await;
    let read = api.get("ada", &edited).await.unwrap();
    assert_eq!(read.content_block.as_deref(), Some("edited since"));
    let handed = api.claim_bodies(request()).await.unwrap();
    assert_eq!(handed.outcomes(), [("already_migrated", 1)]);
    let (claim, body) = handed.one();
    assert_eq!(body, b"edited since");

    assert_eq!(api.attach(vec![uploaded(&claim, &body)]).await.unwrap(), [Attachment::Attached]);
    let read = api.get("ada", &edited).await.unwrap();
    assert_eq!((read.content_block, read.entity.unwrap().file.unwrap().path), (None, claim.key));
}

#[tokio::test]
async fn a_large_body_comes_in_pieces_and_whole() {
    let (database, running) = service(&[]).await;
    let lines: Vec<String> = (0..900_000).map(|n| format!("{n} é")).collect();
    let text = lines.join("\n");
    old(&database.pool, "ada", "note", &text).await;
    let (claim, body) = running.api.claim_bodies(request()).await.unwrap().one();
    assert_eq!(usize::try_from(claim.size).unwrap(), text.len());
    assert!(text.len() > 8 << 20 && body == text.as_bytes());
}

#[tokio::test]
async fn what_changes_between_claim_and_attach_is_left_as_it_is() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let texts = ["updated", "retitled", "edited behind our back", "deleted", "purged", "gone"];
    let mut ids = HashMap::new();
    for text in texts {
        ids.insert(text, old(pool, "ada", "note", text).await);
    }
    let handed = api.claim_bodies(request()).await.unwrap();

    let updated = api.update("ada", &ids["updated"], "newer").await;
    api.mark(Delete, "ada", &ids["deleted"], 1).await.unwrap();
    api.mark(Delete, "ada", &ids["purged"], 1).await.unwrap();
    execute(
        pool,
        "UPDATE content_blocks SET content = 'edited' WHERE content = 'edited behind our back';
         UPDATE entities SET version = 2 FROM content_blocks
         WHERE entity_id = id AND content = 'retitled';
         DELETE FROM entities USING content_blocks WHERE entity_id = id AND content = 'gone';
         UPDATE entities SET deleted_at = deleted_at - interval '31 days';
         UPDATE entity_revisions SET deleted_at = deleted_at - interval '31 days'",
    )
    .await;
    let purge = api.started(edit_request(Purge, "ada", &ids["purged"], "")).await;
    let purge = pb::CommitOperationRequest {
        operation: purge.operation,
        phase: purge.phase,
        purge: Some(pb::EntityPurge {}),
        event: Some(pb::EventDraft { r#type: "entity.purged".into(), data: "{}".into() }),
        ..pb::CommitOperationRequest::default()
    };
    api.commit(purge).await.unwrap();

    let bodies = handed.bodies.iter().map(|(claim, body)| uploaded(claim, body)).collect();
    let answers = api.attach(bodies).await.unwrap();
    for ((claim, body), answer) in handed.bodies.iter().zip(answers) {
        let expected = match &**body {
            b"purged" | b"gone" => Attachment::Gone,
            _ => Attachment::Conflict,
        };
        assert_eq!(answer, expected, "{}", String::from_utf8_lossy(body));
        assert!(deletions(pool).await.contains(&claim.key));
    }
    assert_eq!((claims(pool).await, deletions(pool).await.len()), (vec![], 6));
    assert_eq!(file_path(pool, &ids["updated"]).await, Some(updated.file.unwrap().path));
    assert_eq!(file_path(pool, &ids["deleted"]).await, None);

    // Once more, and now they are what they were.
    let entity_ids = ids.values().cloned().collect();
    let again = pb::ClaimBodiesRequest { entity_ids, ..request() };
    let again = api.claim_bodies(again).await.unwrap();
    assert_eq!(again.texts(), ["deleted", "edited", "retitled"]);
    assert_eq!(again.outcomes(), [("already_migrated", 1)]);
    let bodies = again.bodies.iter().map(|(claim, body)| uploaded(claim, body)).collect();
    assert_eq!(api.attach(bodies).await.unwrap(), [Attachment::Attached; 3]);
}

#[tokio::test]
async fn writers_at_the_same_moment_win() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    for n in 0..24 {
        old(pool, "ada", "note", &format!("text {n}")).await;
    }
    let handed = api.claim_bodies(request()).await.unwrap();
    let races = stream::iter(handed.bodies).map(|(claim, body)| async move {
        let attach = api.attach(vec![uploaded(&claim, &body)]);
        let (written, attached) = tokio::join!(api.update("ada", &claim.entity_id, "new"), attach);
        let written = written.file.unwrap().path;
        assert_eq!(file_path(pool, &claim.entity_id).await, Some(written));
        (claim, attached.unwrap()[0])
    });
    let outcomes: Vec<_> = races.buffer_unordered(8).collect().await;
    // Whoever came first has a revision of its own.
    for (claim, attachment) in outcomes {
        let before = api.get_at("ada", &claim.entity_id, 1).await.unwrap().file;
        let attached = attachment == Attachment::Attached;
        assert_eq!(before.map(|file| file.path), attached.then_some(claim.key.clone()));
        assert_eq!(deletions(pool).await.contains(&claim.key), !attached);
    }
    assert_eq!(claims(pool).await, []);
}

#[tokio::test]
async fn what_a_dead_holder_left_is_taken_over_under_its_key_unless_it_changed() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let texts = ["same", "changed", "written", "gone"];
    let mut ids = HashMap::new();
    for text in texts {
        ids.insert(text, old(pool, "ada", "note", text).await);
    }
    let first = api.claim_bodies(request()).await.unwrap();
    let (one, two) = tokio::join!(api.claim_bodies(request()), api.claim_bodies(request()));
    for other in [one.unwrap(), two.unwrap()] {
        assert_eq!((other.bodies.len(), other.looked.held_ids.len()), (0, 4));
    }
    execute(
        pool,
        "UPDATE content_blocks SET content = 'changed!' WHERE content = 'changed';
         DELETE FROM entities USING content_blocks WHERE entity_id = id AND content = 'gone'",
    )
    .await;
    api.update("ada", &ids["written"], "written!").await;
    expire(pool).await;
    let keys: HashMap<_, _> =
        first.bodies.iter().map(|(claim, _)| (&*claim.entity_id, &*claim.key)).collect();

    // Wherever they are.
    let after_id = "ffffffff-ffff-ffff-ffff-ffffffffffff".to_owned();
    let second = pb::ClaimBodiesRequest { after_id, ..request() };
    let second = api.claim_bodies(second).await.unwrap();
    assert_eq!(second.texts(), ["changed!", "same"]);
    for (claim, body) in &second.bodies {
        let (kept, key) = (body == b"same", keys[&*claim.entity_id]);
        assert_eq!((claim.resumed, claim.key == key), (kept, kept));
    }
    let mut given_up: Vec<_> =
        ["changed", "written", "gone"].map(|text| keys[&*ids[text]]).to_vec();
    given_up.sort_unstable();
    assert_eq!(deletions(pool).await, given_up);

    // The first was not dead after all: where both have the same key, they have done the same.
    let of_first = first.bodies.iter().map(|(claim, body)| uploaded(claim, body)).collect();
    let answers = api.attach(of_first).await.unwrap();
    let attached = |(claim, _): &(pb::ClaimedBody, Vec<u8>)| claim.entity_id == ids["same"];
    for (body, answer) in first.bodies.iter().zip(answers) {
        assert_eq!(answer == Attachment::Attached, attached(body), "{body:?}");
    }
    let of_second = second.bodies.iter().map(|(claim, body)| uploaded(claim, body)).collect();
    assert_eq!(api.attach(of_second).await.unwrap(), [Attachment::Attached; 2]);
    assert_eq!(claims(pool).await, []);
}

#[tokio::test]
async fn an_object_that_nobody_vouches_for_is_kept_or_replaced() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    let kept = old(pool, "ada", "note", "kept").await;
    let stale = old(pool, "ada", "note", "stale").await;
    let shared = old(pool, "ada", "note", "shared").await;
    execute(
        pool,
        "UPDATE entities SET file_path = format('users/ada/notes/%s.md', id), file_size = 3;
         INSERT INTO entities (id, user_id, type, file_path)
         SELECT gen_random_uuid(), e.user_id, type, file_path FROM entities e
         JOIN content_blocks ON entity_id = id WHERE content = 'shared'",
    )
    .await;
    let handed = api.claim_bodies(request()).await.unwrap();
    let upload = |(claim, body): &(pb::ClaimedBody, Vec<u8>)| {
        assert_eq!(claim.existing_key, format!("users/ada/notes/{}.md", claim.entity_id));
        pb::UploadedBody { existing: claim.entity_id == kept, ..uploaded(claim, body) }
    };
    let bodies: Vec<_> = handed.bodies.iter().map(upload).collect();
    for _ in 0..2 {
        assert_eq!(api.attach(bodies.clone()).await.unwrap(), [Attachment::Attached; 3]);
    }
    let old_key = |id: &str| format!("users/ada/notes/{id}.md");
    assert_eq!(file_path(pool, &kept).await, Some(old_key(&kept)));
    assert_ne!(file_path(pool, &stale).await, Some(old_key(&stale)));
    // Not the one that another entity names.
    assert!(!deletions(pool).await.contains(&old_key(&shared)));
    assert!(deletions(pool).await.contains(&old_key(&stale)));
    let size: i64 = sqlx::query_scalar("SELECT file_size FROM entities WHERE id = $1::uuid")
        .bind(&kept)
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(size, 4);
    let again = api.claim_bodies(request()).await.unwrap();
    assert_eq!(again.outcomes(), [("already_migrated", 4)]);
}

#[tokio::test]
async fn what_failed_waits_and_what_is_given_up_goes_on() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    old(pool, "ada", "note", "body").await;
    let (first, _) = api.claim_bodies(request()).await.unwrap().one();
    api.release(&first, "").await;
    let (second, _) = api.claim_bodies(request()).await.unwrap().one();
    assert_ne!(first.key, second.key);
    api.release(&first, "another_holders").await;
    api.release(&second, "refused").await;
    assert_eq!(claims(pool).await, [("failed".to_owned(), Some("refused".to_owned()))]);
    let handed = api.claim_bodies(request()).await.unwrap();
    assert_eq!(handed.outcomes(), [("failed:refused", 1)]);
    assert_eq!(handed.looked.notables[0].detail, "what was said");
    let retry = pb::ClaimBodiesRequest { retry_failed: true, ..request() };
    let (third, body) = api.claim_bodies(retry).await.unwrap().one();
    assert!(![&first.key, &second.key].contains(&&third.key));
    assert_eq!(deletions(pool).await.len(), 2);
    assert_eq!(api.attach(vec![uploaded(&third, &body)]).await.unwrap(), [Attachment::Attached]);
}

#[tokio::test]
async fn bodies_are_migrated_in_one_phase_only() {
    let (database, running) = service(&[]).await;
    let (api, pool) = (&running.api, &database.pool);
    old(pool, "ada", "note", "body").await;
    let (claim, body) = api.claim_bodies(request()).await.unwrap().one();
    let renew =
        pb::RenewClaimsRequest { claimant_id: id(), entity_ids: vec![claim.entity_id.clone()] };
    let lease = api.migration().renew_claims(renew).await.unwrap().into_inner().lease;
    assert_eq!(lease.unwrap().seconds, 30);
    for phase in ["legacy", "object_primary", "object_only", "legacy_dropped"] {
        set_phase(pool, phase).await;
        let refused = api.claim_bodies(request()).await.map(drop);
        assert_refused(refused, Code::FailedPrecondition, reason::WRONG_PHASE);
        let attached = api.attach(vec![uploaded(&claim, &body)]).await;
        assert_refused(attached, Code::Aborted, reason::PHASE_CHANGED);
        let dry = pb::ClaimBodiesRequest { dry_run: true, ..request() };
        let dry = api.claim_bodies(dry).await;
        assert_eq!(dry.is_ok(), phase != "legacy_dropped", "{phase}");
    }
    assert_eq!(rows(pool).await.blob_gc, 0);
}
