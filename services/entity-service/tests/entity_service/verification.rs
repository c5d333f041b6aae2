//! What there is to verify in the store, and what was found: as `synapctl verify` asks for it.

use std::collections::BTreeSet;

use sqlx::PgPool;
use synap_proto::entity::{
    self as pb, CheckLevel, CheckOrder, CheckOutcome, CheckScope,
    verification_service_client::VerificationServiceClient,
};
use synap_rpc::RpcError;
use synap_types::Checksum;

use crate::support::{Answer, Running, assert_invalid, execute, id, rows, service, set_phase};

struct Api(VerificationServiceClient<synap_rpc::Channel>);

impl Api {
    fn of(running: &Running) -> Self {
        Self(VerificationServiceClient::new(running.api.0.clone()))
    }

    async fn list(
        &self,
        request: pb::ListFilesToCheckRequest,
    ) -> Answer<pb::ListFilesToCheckResponse> {
        let answer = self.0.clone().list_files_to_check(request).await;
        answer.map(tonic::Response::into_inner).map_err(RpcError::from)
    }

    /// The ids of all pages of a walk.
    async fn walk(&self, mut request: pb::ListFilesToCheckRequest) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        request.order = CheckOrder::ById.into();
        loop {
            let page = self.list(request.clone()).await.unwrap();
            for file in page.files {
                assert!(all.insert(file.entity_id), "listed twice");
            }
            request.after_id = page.next_after_id;
            if request.after_id.is_empty() {
                return all;
            }
        }
    }

    async fn due(&self, level: CheckLevel, within: Option<i64>) -> BTreeSet<String> {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        self.walk(pb::ListFilesToCheckRequest {
            limit: 3,
            scope: CheckScope::NotSound.into(),
            level: level.into(),
            sound_within: within.map(seconds),
            ..pb::ListFilesToCheckRequest::default()
        })
        .await
    }

    async fn record(
        &self,
        entity_id: &str,
        key: &str,
        level: CheckLevel,
        outcome: CheckOutcome,
    ) -> Vec<String> {
        let check = pb::FileCheck {
            entity_id: entity_id.to_owned(),
            key: key.to_owned(),
            level: level.into(),
            outcome: outcome.into(),
        };
        let request = pb::RecordFileChecksRequest { checks: vec![check] };
        self.0.clone().record_file_checks(request).await.unwrap().into_inner().changed_entity_ids
    }

    async fn summary(&self, findings_only: bool) -> pb::GetVerificationSummaryResponse {
        let request = pb::GetVerificationSummaryRequest { findings_only };
        self.0.clone().get_verification_summary(request).await.unwrap().into_inner()
    }

    async fn unknown(&self, keys: &[&str], thorough: bool) -> Vec<String> {
        let keys = keys.iter().map(ToString::to_string).collect();
        let request = pb::FindUnknownKeysRequest { keys, thorough };
        self.0.clone().find_unknown_keys(request).await.unwrap().into_inner().keys
    }

    async fn differences(&self) -> (BTreeSet<String>, i64) {
        let (mut all, mut compared, mut after_id) = (BTreeSet::new(), 0, String::new());
        loop {
            let request = pb::ListContentDifferencesRequest { after_id };
            let page = self.0.clone().list_content_differences(request).await.unwrap().into_inner();
            compared += page.compared;
            all.extend(page.differences.into_iter().map(|one| one.entity_id));
            after_id = page.next_after_id;
            if after_id.is_empty() {
                return (all, compared);
            }
        }
    }
}

async fn notes(running: &Running, count: usize) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    for n in 0..count {
        let (_, entity) = running.api.write(["ada", "bob"][n % 2]).await;
        notes.push((entity.id, entity.file.unwrap().path));
    }
    notes
}

fn set(ids: &[&(String, String)]) -> BTreeSet<String> {
    ids.iter().map(|(id, _)| id.clone()).collect()
}

#[tokio::test]
async fn what_was_found_sound_is_due_again_when_it_changes_or_ages() {
    let (database, running) = service(&[]).await;
    let api = Api::of(&running);
    let notes = notes(&running, 8).await;
    let all = set(&notes.iter().collect::<Vec<_>>());
    let (head, checksum) = (CheckLevel::Head, CheckLevel::Checksum);
    assert_eq!(api.due(checksum, None).await, all);
    for (id, key) in &notes[..3] {
        assert!(api.record(id, key, checksum, CheckOutcome::Sound).await.is_empty());
    }
    let (asked, key) = &notes[3];
    api.record(asked, key, head, CheckOutcome::Sound).await;
    let (gone, key) = &notes[4];
    api.record(gone, key, checksum, CheckOutcome::Missing).await;
    assert_eq!(api.due(head, None).await, set(&[&notes[4], &notes[5], &notes[6], &notes[7]]));
    assert_eq!(api.due(checksum, None).await.len(), 5);
    let summary = api.summary(false).await;
    assert_eq!((summary.entities, summary.with_file, summary.without_file), (8, 8, 0));
    assert_eq!((summary.sound, summary.verified, summary.missing), (4, 3, 1));
    assert_eq!(api.summary(true).await.missing, 1);

    // Asked for, what was read stays read.
    api.record(&notes[0].0, &notes[0].1, head, CheckOutcome::Sound).await;
    assert_eq!(api.summary(false).await.verified, 3);
    // What was found missing was not.
    api.record(&notes[0].0, &notes[0].1, head, CheckOutcome::Missing).await;
    assert_eq!(api.summary(false).await.verified, 2);
    api.record(&notes[0].0, &notes[0].1, checksum, CheckOutcome::Sound).await;

    // A wrong checksum does not become right by asking.
    let (wrong, key) = &notes[2];
    api.record(wrong, key, checksum, CheckOutcome::ChecksumDiffers).await;
    api.record(wrong, key, head, CheckOutcome::Sound).await;
    assert_eq!(api.summary(true).await.checksum_differs, 1);
    api.record(wrong, key, checksum, CheckOutcome::Sound).await;

    // Another key: the look was of another body, and a late one is not recorded.
    running.api.update("bob", &notes[1].0, "another").await;
    let changed = api.record(&notes[1].0, &notes[1].1, checksum, CheckOutcome::Sound).await;
    assert_eq!(changed, [notes[1].0.clone()]);
    assert!(api.due(checksum, None).await.contains(&notes[1].0));
    assert_eq!(api.record(&id(), "users/u/notes/x.md", head, CheckOutcome::Missing).await.len(), 1);

    execute(&database.pool, "UPDATE file_checks SET file_verified_at = now() - interval '1 h'")
        .await;
    assert!(!api.due(checksum, Some(7200)).await.contains(&notes[2].0));
    assert!(api.due(checksum, Some(1800)).await.contains(&notes[2].0));
    let request = pb::ListFilesToCheckRequest { limit: 5, ..Default::default() };
    assert_eq!(api.walk(request).await, all);
}

#[tokio::test]
async fn files_are_listed_in_every_order() {
    let (database, running) = service(&[]).await;
    let api = Api::of(&running);
    let notes = notes(&running, 6).await;
    execute(&database.pool, "UPDATE write_operations SET state = 'DONE', updated_at = updated_at")
        .await;
    let list = async |order: CheckOrder, limit| {
        let request =
            pb::ListFilesToCheckRequest { order: order.into(), limit, ..Default::default() };
        let answer = api.list(request).await.unwrap();
        (answer.files.into_iter().map(|file| file.entity_id).collect::<Vec<_>>(), answer.complete)
    };
    assert_eq!(list(CheckOrder::LeastRecentlyChecked, 10).await.0, Vec::<String>::new());
    assert_eq!(list(CheckOrder::Newest, 2).await.0, [notes[5].0.clone(), notes[4].0.clone()]);
    for n in [3, 5, 0] {
        let (id, key) = &notes[n];
        api.record(id, key, CheckLevel::Checksum, CheckOutcome::Sound).await;
    }
    let oldest = list(CheckOrder::LeastRecentlyChecked, 2).await.0;
    assert_eq!(oldest, [notes[3].0.clone(), notes[5].0.clone()]);
    assert_eq!(list(CheckOrder::Newest, 1).await.0, [notes[4].0.clone()]);
    let never = pb::ListFilesToCheckRequest {
        limit: 1,
        scope: CheckScope::NeverChecked.into(),
        ..Default::default()
    };
    assert_eq!(api.walk(never).await, set(&[&notes[1], &notes[2], &notes[4]]));
    let (drawn, complete) = list(CheckOrder::Random, 10).await;
    assert!(complete && drawn.len() == 6);
    let (drawn, complete) = list(CheckOrder::Random, 4).await;
    assert!(!complete && drawn.len() == 4);
    assert_invalid(api.list(pb::ListFilesToCheckRequest::default()).await, "limit");
    let request = pb::ListFilesToCheckRequest { limit: 1, ..Default::default() };
    assert_invalid(api.list(request).await, "order");
}

#[tokio::test]
async fn a_random_file_is_drawn_from_any_page_of_a_large_table() {
    let (database, running) = service(&[]).await;
    let api = Api::of(&running);
    execute(
        &database.pool,
        "INSERT INTO entities (id, user_id, type, title, file_path)
         SELECT gen_random_uuid(), 'ada', 'note', repeat('x', 300), 'users/ada/notes/' || n || '.md'
         FROM generate_series(1, 6000) AS n;
         DELETE FROM entities WHERE file_path LIKE '%7.md'",
    )
    .await;
    let request = pb::ListFilesToCheckRequest {
        order: CheckOrder::Random.into(),
        limit: 300,
        ..Default::default()
    };
    let answer = api.list(request).await.unwrap();
    assert!(!answer.complete);
    let drawn: BTreeSet<_> = answer.files.iter().map(|file| &file.entity_id).collect();
    assert_eq!(drawn.len(), answer.files.len());
    assert!(drawn.len() > 200, "{} drawn", drawn.len());
    // Of the first half of the table as of the second: 11 standard deviations off would be neither.
    let n = |file: &pb::FileToCheck| file.key[16..file.key.len() - 3].parse::<usize>().unwrap();
    let first = answer.files.iter().filter(|file| n(file) <= 3000).count();
    assert!((drawn.len() / 5..drawn.len() * 4 / 5).contains(&first), "{first} of {}", drawn.len());
    assert!(answer.files.iter().all(|file| n(file) % 10 != 7));

    let sample = |seed| pb::ListFilesToCheckRequest {
        limit: 1000,
        sample_share: 0.1,
        sample_seed: seed,
        ..Default::default()
    };
    let one = api.walk(sample(1)).await;
    assert!((400..700).contains(&one.len()), "{}", one.len());
    assert_eq!(api.walk(sample(1)).await, one);
    assert_ne!(api.walk(sample(2)).await, one);
}

#[tokio::test]
async fn a_text_that_is_not_what_the_row_says_is_found_while_texts_are_written() {
    let (database, running) = service(&[]).await;
    let api = Api::of(&running);
    let notes = notes(&running, 5).await;
    let pool = &database.pool;
    let run = async |sql: &'static str, id: &str| {
        sqlx::query(sql).bind(id).execute(pool).await.unwrap();
    };
    assert_eq!(api.differences().await, (BTreeSet::new(), 5));
    run("UPDATE content_blocks SET content = 'bödy' WHERE entity_id = $1::uuid", &notes[1].0).await;
    // The same checksum in its other spelling, and texts that are none.
    let body = Checksum::of(b"body");
    let hex: Vec<String> = body.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    let hex = hex.concat();
    let spell = "UPDATE entities SET checksum = 'sha256:' || $2 WHERE id = $1::uuid";
    sqlx::query(spell).bind(&notes[2].0).bind(hex).execute(pool).await.unwrap();
    run("UPDATE content_blocks SET content = NULL WHERE entity_id = $1::uuid", &notes[3].0).await;
    run("UPDATE content_blocks SET content = '' WHERE entity_id = $1::uuid", &notes[4].0).await;
    assert_eq!(api.differences().await, (set(&[&notes[1]]), 5));
    set_phase(pool, "object_only").await;
    assert_eq!(api.differences().await, (BTreeSet::new(), 0));

    // A text without a file is one that was not migrated.
    execute(
        pool,
        "INSERT INTO entities (id, user_id, type)
         VALUES ('00000000-0000-4000-8000-000000000001', 'v', 'note'),
                ('00000000-0000-4000-8000-000000000002', 'v', 'note');
         INSERT INTO content_blocks (entity_id, content)
         VALUES ('00000000-0000-4000-8000-000000000001', 'text'),
                ('00000000-0000-4000-8000-000000000002', '')",
    )
    .await;
    assert_eq!(api.summary(false).await.without_file, 1);
    let request =
        pb::ListFilesToCheckRequest { limit: 100, with_missing_files: true, ..Default::default() };
    assert_eq!(api.walk(request.clone()).await.len(), 6);
    // At the end of the migration there are no content blocks any more.
    execute(pool, "ALTER TABLE content_blocks RENAME TO content_blocks_legacy").await;
    assert_eq!(api.walk(request).await.len(), 5);
    assert_eq!(api.summary(false).await.without_file, 0);
    set_phase(pool, "dual_write").await;
    assert_eq!(api.differences().await.1, 0);
}

#[tokio::test]
async fn a_key_is_known_while_any_row_names_it() {
    let (database, running) = service(&[]).await;
    let api = Api::of(&running);
    let (done, note) = running.api.write("ada").await;
    let first = note.file.unwrap().path;
    let second = running.api.update("ada", &note.id, "another").await.file.unwrap().path;
    let under_way = running.api.start("bob", &id()).await.key;
    let aborted = running.api.start("bob", &id()).await;
    running.api.abort(aborted.operation.clone()).await.unwrap();
    let stray = format!("users/ada/notes/{}.md", id());
    let odd = "users/auth0|x/notes/2.md";
    let named = [&*first, &second, &under_way, &aborted.key, &done.key];
    let asked = [&named[..], &[&stray, odd, "not a key"]].concat();
    let strays = [stray.as_str(), odd, "not a key"];
    for thorough in [false, true] {
        assert_eq!(api.unknown(&asked, thorough).await, strays, "{thorough}");
    }
    // Its blob is deleted for good, and the operation is not forgotten.
    execute(&database.pool, "DELETE FROM blob_gc").await;
    assert_eq!(api.unknown(&[&aborted.key], false).await, [aborted.key.as_str()]);
    assert_eq!(api.unknown(&[&aborted.key], true).await, Vec::<String>::new());
    // A revision of V0.2's making, whose key says nothing.
    execute(
        &database.pool,
        "INSERT INTO entity_revisions (entity_id, version, user_id, tags, file_path, created_at)
         SELECT id, 99, user_id, '{}', 'users/auth0|x/notes/2.md', now() FROM entities",
    )
    .await;
    assert_eq!(api.unknown(&[odd], false).await, [odd]);
    assert_eq!(api.unknown(&[odd], true).await, Vec::<String>::new());
}

/// How often a table was read as a whole, as far as is known.
async fn scans(pool: &PgPool, table: &str) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(pool).await.unwrap();
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1";
    sqlx::query_scalar(scans).bind(table).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn what_is_asked_every_minute_reads_no_large_table_as_a_whole() {
    let (database, running) = service(&["--database-connections", "1"]).await;
    let api = Api::of(&running);
    let pool = &database.pool;
    execute(
        pool,
        "INSERT INTO entities (id, user_id, type, file_path, checksum)
         SELECT gen_random_uuid(), 'ada', 'note', 'users/ada/notes/' || n || '.md', 'c'
         FROM generate_series(1, 20000) AS n;
         INSERT INTO entity_revisions (entity_id, version, user_id, tags, file_path, created_at)
         SELECT id, n, user_id, '{}', file_path, now() FROM entities, generate_series(1, 2) AS n;
         INSERT INTO file_checks (entity_id, key, level, outcome, checked_at)
         SELECT id, file_path, 'head', 'sound', now() - random() * interval '1 day' FROM entities;
         INSERT INTO write_operations
             (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
              entity_type, extension, entity_id, blob_key, event_id, occurred_at, committed_epoch)
         SELECT 'ada', gen_random_uuid(), 'create', 'DONE', 1, gen_random_uuid(), now(),
                decode(repeat('07', 32), 'hex'), 'note', 'md', id, file_path, id, now(), 1
         FROM entities",
    )
    .await;
    execute(pool, "VACUUM (ANALYZE)").await;
    let tables = ["entities", "entity_revisions", "file_checks", "write_operations", "blob_gc"];
    let mut before = Vec::new();
    for table in &tables[..4] {
        before.push(scans(pool, table).await);
    }
    let keys: Vec<String> = (0..1000).map(|n| format!("users/ada/notes/{n}.md")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(api.unknown(&keys, false).await, ["users/ada/notes/0.md"]);
    for order in [CheckOrder::LeastRecentlyChecked, CheckOrder::Newest, CheckOrder::Random] {
        let request =
            pb::ListFilesToCheckRequest { order: order.into(), limit: 100, ..Default::default() };
        api.list(request).await.unwrap();
    }
    let request = pb::ListFilesToCheckRequest {
        order: CheckOrder::ById.into(),
        scope: CheckScope::NeverChecked.into(),
        limit: 100,
        ..Default::default()
    };
    api.list(request).await.unwrap();
    api.summary(true).await;
    running.stop().await;
    let mut after = Vec::new();
    for table in &tables[..4] {
        after.push(scans(pool, table).await);
    }
    assert_eq!(after, before, "{tables:?}");
    assert_eq!(rows(pool).await.entities, 20_000);
}
