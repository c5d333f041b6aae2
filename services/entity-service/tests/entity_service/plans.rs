//! No statement reads a whole table, however large it becomes under the plans that are kept.

use std::sync::Arc;

use futures::future::join_all;
use sqlx::PgPool;
use synap_entity_service::{
    domain::{
        Act, Attempt, Begun, Change, Edit, EntityDraft, EventDraft, Intent, Kind, Listing,
        OperationId, Period, Phase, Position, Rank, Search, Update,
    },
    store::Store,
};
use synap_postgres::connect_pool;
use synap_types::{Checksum, EntityType, IdGenerator as _, SystemIds, UserId};
use uuid::Uuid;

use crate::support::{config, database, execute, set_phase};

/// A store with one connection, which is the pool's too.
fn store(url: &str) -> (Store, PgPool) {
    let config = config(url, &["--group-commit-workers", "1", "--database-connections", "1"]);
    let pool = connect_pool(url, &config.pool_options()).unwrap();
    (Store::new(pool.clone(), config.protocol, config.search, Arc::new(SystemIds)), pool)
}

fn intent() -> Intent {
    Intent {
        operation: OperationId {
            user: UserId::parse("ada").unwrap(),
            request: SystemIds.next_id(),
        },
        attempt_id: SystemIds.next_id(),
        new_id: None,
        fingerprint: Checksum::of(b"request"),
        entity_type: EntityType::note(),
        kind: Kind::Create { extension: "md".to_owned() },
        lease: None,
        draft: None,
        words: None,
    }
}

async fn start(store: &Store, intent: Intent) -> Attempt {
    match store.begin(intent).await.unwrap() {
        Begun::Started(started) => started.attempt,
        other => panic!("{other:?}"),
    }
}

fn change(attempt: &Attempt) -> Change {
    Change {
        attempt: attempt.clone(),
        phase: Phase::Legacy,
        create: EntityDraft {
            title: None,
            preview: String::new(),
            tags: Vec::new(),
            file: None,
            content_block: Some("body".to_owned()),
            search_text: Some("body".to_owned()),
        },
        event: EventDraft { event_type: "entity.created".to_owned(), data: "{}".to_owned() },
        document: None,
    }
}

/// Everything that can be done to a note that is there.
async fn edit(store: &Store, id: Uuid) -> Vec<OperationId> {
    let user = UserId::parse("ada").unwrap();
    let update = Update { title: Some("onyx".to_owned()), tags: None, body: None };
    let mut operations = Vec::new();
    for (kind, act) in [
        (Kind::Update { entity_id: id, extension: None }, Act::Update(Box::new(update))),
        (Kind::Delete { entity_id: id }, Act::Delete),
        (Kind::Undelete { entity_id: id }, Act::Undelete),
    ] {
        let attempt = start(store, Intent { kind, ..intent() }).await;
        operations.push(attempt.operation.clone());
        let event = EventDraft { event_type: "entity.edited".to_owned(), data: "{}".to_owned() };
        let edit = Edit { attempt, phase: Phase::Legacy, act, expected_version: None, event };
        store.edit(edit).await.unwrap();
    }
    assert_eq!(store.revisions(&user, id, i32::MAX, 10).await.unwrap().unwrap().len(), 4);
    assert!(store.revision(&user, id, 1, true).await.unwrap().is_some());
    assert!(store.purgeable(100).await.unwrap().is_empty());
    operations
}

/// Every statement of the write protocol, for one operation and for a batch.
async fn round(store: &Store) {
    for count in [1, 20] {
        let attempts = join_all((0..count).map(|_| start(store, intent()))).await;
        let mut first = None;
        for entity in join_all(attempts.iter().map(|a| store.commit(change(a)))).await {
            let entity = entity.unwrap();
            first = first.or(Some(entity.id));
            let user = UserId::parse("ada").unwrap();
            assert!(store.entity(&user, entity.id, true, true).await.unwrap().is_some());
        }
        store.commit(change(&attempts[0])).await.unwrap();
        let mut finished: Vec<_> = attempts.into_iter().map(|attempt| attempt.operation).collect();
        finished.extend(edit(store, first.unwrap()).await);
        store.finish(&finished).await.unwrap();
    }
    find(store).await;
    let given_up = intent();
    let attempt = start(store, given_up.clone()).await;
    store.abort(&attempt).await.unwrap();
    let again = start(store, Intent { attempt_id: SystemIds.next_id(), ..given_up }).await;
    assert_eq!(again.epoch, 2);
    store.abort(&again).await.unwrap();
    assert!(store.claim(100).await.unwrap().pending_events.is_empty());
    // They stay until their writer must have ended.
    let keys = store.claim_deletions(100).await.unwrap();
    assert_eq!(keys.len(), 2);
    store.complete_deletions(&keys).await.unwrap();
    assert!(store.claim_deletions(100).await.unwrap().is_empty());
    store.forget_operations(100).await.unwrap();
}

/// A page of a list, the first and the next; the same of a search for what few notes have.
async fn find(store: &Store) {
    let user = UserId::parse("ada").unwrap();
    let mut search = Search {
        user: user.clone(),
        entity_type: EntityType::note(),
        typed: "onyx".to_owned(),
        limit: 1,
        after: None,
    };
    let first = store.search(&search).await.unwrap();
    search.after = first.last().map(|last| Rank { score: last.score, id: last.entity.id });
    let next = store.search(&search).await.unwrap();
    assert!(first.len() == 1 && next.len() == 1 && first[0].entity.id != next[0].entity.id);

    let mut listing = Listing {
        user,
        entity_type: EntityType::note(),
        limit: 3,
        after: None,
        include_deleted: false,
        tags: Vec::new(),
        created: Period::default(),
        updated: Period::default(),
    };
    let first = store.list(&listing).await.unwrap();
    listing.after = first.last().map(|last| Position { created_at: last.created_at, id: last.id });
    let next = store.list(&listing).await.unwrap();
    assert!(first.len() == 3 && next.iter().all(|entity| first.iter().all(|e| e.id != entity.id)));
}

/// Rows that nothing is to be done about, as a busy day leaves them: most are done, some wait.
const GROW: &str = "
    INSERT INTO write_operations
        (user_id, request_id, kind, state, epoch, attempt_id, lease_until, fingerprint,
         entity_type, extension, entity_id, blob_key, event_id, occurred_at, committed_epoch,
         entity_version, event_type, event_data)
    SELECT CASE n % 10 WHEN 5 THEN 'ada' ELSE 'user-' || n % 1000 END, gen_random_uuid(), 'create', state, 1, gen_random_uuid(),
           now() + interval '1 h', decode(repeat('07', 32), 'hex'), 'note', 'md',
           gen_random_uuid(), 'users/user/notes/' || n || '.md', gen_random_uuid(), now(),
           CASE WHEN state <> 'PENDING' THEN 1 END, 1, 'entity.created', '{}'
    FROM generate_series(1, 100000) AS n,
         LATERAL (SELECT CASE n % 20 WHEN 0 THEN 'COMMITTED' WHEN 1 THEN 'PENDING' ELSE 'DONE' END)
             AS s (state);
    INSERT INTO blob_gc (key, not_before, settled_at)
    SELECT 'users/user/notes/gone-' || n || '.md', now() + interval '1 h', now() + interval '1 h'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO entities (id, user_id, type)
    SELECT gen_random_uuid(), CASE n % 10 WHEN 5 THEN 'ada' ELSE 'user-' || n % 1000 END, 'note'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO entity_revisions (entity_id, version, user_id, tags, created_at, deleted_at)
    SELECT id, n, user_id, '{}', now(), CASE WHEN n = 1 THEN now() END
    FROM entities CROSS JOIN generate_series(1, 3) AS n WHERE user_id <> 'ada';
    INSERT INTO content_blocks (entity_id, content) SELECT id, 'x' FROM entities
    ON CONFLICT DO NOTHING;
    INSERT INTO entity_search
    SELECT id, user_id, synap_search_document(user_id, 'body', 'body', NULL, 'english')
    FROM entities
    ON CONFLICT DO NOTHING";

/// How often each table was read as a whole, and how many entries of their indexes were read, as far
/// as the one connection knows.
async fn reads(pool: &PgPool) -> (Vec<(String, i64)>, i64) {
    let mut connection = pool.acquire().await.unwrap();
    // The counters of a session are published by its next statement after this one.
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut *connection).await.unwrap();
    sqlx::query("SELECT pg_stat_clear_snapshot()").execute(&mut *connection).await.unwrap();
    let scans = sqlx::query_as(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables
         WHERE relname IN ('write_operations', 'blob_gc', 'entities', 'content_blocks',
                           'entity_revisions', 'entity_search')
         ORDER BY 1",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let entries = sqlx::query_scalar(
        "SELECT sum(idx_tup_read)::int8 FROM pg_stat_user_indexes
         WHERE relname IN ('write_operations', 'blob_gc', 'entities', 'content_blocks',
                           'entity_revisions', 'entity_search')",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    (scans, entries)
}

async fn plans_survive_growth(analyzed: bool) {
    let database = database().await;
    set_phase(&database.pool, "legacy").await;
    // Nobody but us makes the server think again.
    execute(
        &database.pool,
        "ALTER TABLE write_operations SET (autovacuum_enabled = false);
         ALTER TABLE blob_gc SET (autovacuum_enabled = false);
         ALTER TABLE entities SET (autovacuum_enabled = false);
         ALTER TABLE content_blocks SET (autovacuum_enabled = false);
         ALTER TABLE entity_search SET (autovacuum_enabled = false);
         ALTER TABLE entity_revisions SET (autovacuum_enabled = false)",
    )
    .await;
    let (store, pool) = store(&database.url);
    if analyzed {
        round(&store).await;
        // The worst moment: every table is a page or two, and known to be.
        execute(&database.pool, "VACUUM (ANALYZE)").await;
    }
    for _ in 0..10 {
        round(&store).await;
    }
    execute(&pool, GROW).await;

    let (scans, entries) = reads(&pool).await;
    for _ in 0..10 {
        round(&store).await;
    }
    let (later_scans, later_entries) = reads(&pool).await;
    assert_eq!(later_scans, scans);
    // Some 250 operations, of a user who has 10,000 already; 100 old ones are looked at in each round.
    let read = later_entries - entries;
    assert!(read < 10_000, "{read} entries read");
}

#[tokio::test]
async fn plans_made_for_empty_tables_do_not_read_whole_tables_later() {
    plans_survive_growth(false).await;
}

#[tokio::test]
async fn plans_made_for_tiny_tables_do_not_read_whole_tables_later() {
    plans_survive_growth(true).await;
}

/// A migration gives every entity a file, and until the server thinks again it believes that none has
/// one.
const MIGRATED: &str = "
    ALTER TABLE entities SET (autovacuum_enabled = false);
    INSERT INTO entities (id, user_id, type)
    SELECT gen_random_uuid(), 'ada', 'note' FROM generate_series(1, 5000);
    INSERT INTO content_blocks (entity_id, content) SELECT id, 'body' FROM entities;
    ANALYZE;
    UPDATE entities SET file_size = 4, file_path = 'users/ada/notes/' || id || '.md',
                        checksum = 'sha256:' || encode(sha256('body'), 'base64')";

#[tokio::test]
async fn to_compare_bodies_right_after_a_migration_reads_each_row_once_for_each_question() {
    let database = database().await;
    let (store, pool) = store(&database.url);
    execute(&pool, MIGRATED).await;
    let (_, entries) = reads(&pool).await;
    let (mut after, mut compared) = (Some(Uuid::nil()), 0);
    while let Some(id) = after {
        let found = store.content_differences(id).await.unwrap();
        assert!(found.differences.is_empty());
        (after, compared) = (found.next, compared + found.compared);
    }
    assert_eq!(compared, 5_000);
    // What comes next, what its text is, and what its entity says now, and said before.
    let read = reads(&pool).await.1 - entries;
    assert!(read <= 4 * 5_000 + 100, "{read} entries read");
}
