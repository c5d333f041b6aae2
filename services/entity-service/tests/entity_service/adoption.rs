//! Databases of V0.2 and early V0.3 that are adopted while they are in use.
//!
//! 2,000 entities; `SYNAP_TEST_ENTITIES=200000` makes it as many as a real installation has.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sqlx::{Connection as _, PgConnection, PgPool};
use synap_proto::{entity as pb, reason};
use synap_testkit::{
    postgres::{TestDatabase, TestServer},
    v02::{Generated, V02},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use uuid::Uuid;

use crate::{
    migrations::schema,
    support::{
        Running, assert_refused, begin_request, empty_database, execute, id, migrate, until,
    },
};

const ALL: usize = usize::MAX;

/// What a service does that is not told to adopt by itself.
const LEAVE_ALONE: [&str; 2] = ["--auto-adopt", "false"];

/// Indexes that an installation may lack: those whose builds lock writers out.
const WITHOUT_INDEXES: &str = "
    DROP INDEX idx_entities_type, idx_entities_user_id, idx_content_blocks_provider,
               idx_content_blocks_embedding";

async fn generated(early_v03: bool, entities: u32) -> (TestDatabase, Generated) {
    let database = empty_database().await;
    let wanted = V02 { entities, events: 0, early_v03, ..V02::default() };
    let made = wanted.generate(&database.pool).await;
    (database, made)
}

fn entities() -> u32 {
    std::env::var("SYNAP_TEST_ENTITIES").map_or(2_000, |entities| entities.parse().unwrap())
}

/// What is in the old columns.
async fn rows(pool: &PgPool) -> String {
    let rows = "SELECT md5(string_agg(line, '' ORDER BY line)) FROM (
        SELECT concat_ws('|', id, user_id, type, title, preview, version, created_at, updated_at,
                         deleted_at) AS line FROM entities
        UNION ALL SELECT concat_ws('|', entity_id, md5(content), storage_provider, size_bytes,
                                   checksum, md5(embedding::text)) FROM content_blocks) AS l";
    sqlx::query_scalar(rows).fetch_one(pool).await.unwrap()
}

/// V0.2's own process: no statement of it may wait for a lock for as long as a second.
async fn write(url: &str, writer: u32, stop: &CancellationToken) -> (u32, Duration) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("SET lock_timeout = '1s'").execute(&mut connection).await.unwrap();
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        let entity = Uuid::from_u128(u128::from(writer) << 64 | u128::from(count));
        for statement in [
            "INSERT INTO entities (id, user_id, type) VALUES ($1, 'writer', 'note')",
            "INSERT INTO content_blocks (entity_id, content) VALUES ($1, 'a text')",
            "UPDATE entities SET version = version + 1, title = 'changed' WHERE id = $1",
            "UPDATE content_blocks SET content = 'another text' WHERE entity_id = $1",
        ] {
            let begun = Instant::now();
            let query = sqlx::query(statement).bind(entity).persistent(false);
            if let Err(error) = query.execute(&mut connection).await {
                panic!("{statement}: {error} after {:?}", begun.elapsed());
            }
            slowest = slowest.max(begun.elapsed());
        }
        if count % 5 == 0 {
            let delete = "DELETE FROM entities WHERE id = $1";
            sqlx::query(delete).bind(entity).execute(&mut connection).await.unwrap();
        }
        count += 1;
    }
    (count, slowest)
}

#[tokio::test]
async fn a_database_of_v02_is_left_alone_until_it_is_adopted() {
    let (database, made) = generated(true, 200).await;
    let (schema_before, rows_before) = (schema(&database.pool).await, rows(&database.pool).await);
    let running = Running::start(&database.url, &LEAVE_ALONE).await;
    until("it has looked at the database", async || {
        let answer = running.api.status().await.unwrap_err();
        answer.reason == reason::NOT_ADOPTED
    })
    .await;
    let refused = running.api.begin(begin_request("ada", &id())).await;
    assert!(refused.as_ref().unwrap_err().message.contains("synapctl adopt"), "{refused:?}");
    assert_refused(refused, Code::FailedPrecondition, reason::NOT_ADOPTED);
    assert!(!running.api.0.is_ready().await);

    let found = running.api.inspect().await.unwrap();
    assert_eq!(found.state(), pb::DatabaseState::Legacy);
    assert_eq!(found.blockers, [""; 0]);
    assert!(!found.vector_version.is_empty() && found.server_version.starts_with(char::is_numeric));
    let count = |name: &str| {
        let one = found.oddities.iter().find(|one| one.name == name);
        let count = one.unwrap_or_else(|| panic!("no {name}")).count.unwrap();
        assert!(!count.about);
        usize::try_from(count.value.unwrap()).unwrap()
    };
    for (name, kinds) in [
        ("no_block", &["no_block"][..]),
        ("null_content", &["null_content"]),
        ("empty_content", &["empty_content"]),
        ("large", &["large"]),
        ("deleted", &["deleted"]),
        ("other_content_type", &["html"]),
        ("other_provider", &["elsewhere"]),
        ("early_v03_file", &["stored", "never_written", "edited_since"]),
    ] {
        let made: usize = kinds.iter().map(|kind| made.entities(kind).len()).sum();
        assert!(made > 0);
        assert_eq!(count(name), made, "{name}");
    }
    assert!(count("odd_user_id") > 0);
    assert_eq!((count("unusable_user_id"), count("half_file"), count("own_trigger")), (0, 0, 0));
    let table = found.tables.iter().find(|table| table.name == "entities").unwrap();
    assert_eq!(table.rows.unwrap().value, Some(200));
    assert!(table.row_security && table.owned && table.policies == ["user_entities"]);
    let steps: Vec<_> = found.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(steps, ["file_size", "migrations"]);
    assert_eq!(schema(&database.pool).await, schema_before);

    let statistics = running.api.statistics().await.unwrap();
    assert_eq!(statistics.entities.unwrap().value, Some(200));
    assert!(statistics.unmigrated.unwrap().value < statistics.block_bodies.unwrap().value);

    running.api.adopt(ALL).await.unwrap();
    let running = running.ready().await;
    assert_eq!(running.api.status().await.unwrap().phase(), pb::StoragePhase::Legacy);
    let found = running.api.inspect().await.unwrap();
    assert_eq!((found.state(), found.steps.len()), (pb::DatabaseState::Adopted, 0));
    assert_eq!(running.api.adopt(ALL).await.unwrap(), []);
    assert_eq!(rows(&database.pool).await, rows_before);
    running.api.write("ada").await;
}

#[tokio::test]
async fn a_database_is_inspected_in_every_state() {
    let database = empty_database().await;
    let adoption = synap_entity_service::store::Adoption::new(&database.url).unwrap();
    let found = adoption.inspect().await.unwrap();
    assert_eq!(found.state, synap_entity_service::domain::DatabaseState::Empty);
    assert_eq!(adoption.statistics().await.unwrap().entities.value, Some(0));
    migrate(database.url.clone()).await.unwrap();
    assert!(adoption.inspect().await.unwrap().steps.is_empty());
    adoption.statistics().await.unwrap();
}

/// The same schema as the migrations alone make, whatever was missing; with writers who go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_while_a_database_is_adopted() {
    for early_v03 in [false, true] {
        let ((twin, _), (database, _)) =
            (generated(early_v03, 200).await, generated(early_v03, entities()).await);
        execute(&twin.pool, WITHOUT_INDEXES).await;
        migrate(twin.url.clone()).await.unwrap();
        execute(&database.pool, WITHOUT_INDEXES).await;
        let running = Running::start(&database.url, &LEAVE_ALONE).await;
        let stop = CancellationToken::new();
        let adopting = async {
            let begun = Instant::now();
            running.api.adopt(ALL).await.unwrap();
            stop.cancel();
            begun.elapsed()
        };
        let writing = join_all((1..=4).map(|writer| write(&database.url, writer, &stop)));
        let (took, written) = tokio::join!(adopting, writing);
        let count: u32 = written.iter().map(|(count, _)| count).sum();
        let slowest = written.iter().map(|(_, slowest)| slowest).max().unwrap();
        println!("adopted in {took:?}; {count} notes meanwhile, the slowest statement {slowest:?}");
        assert!(count > 0);
        assert_eq!(schema(&database.pool).await, schema(&twin.pool).await);
        let unequal = "SELECT count(*) FROM entities e JOIN content_blocks b ON b.entity_id = e.id
                       WHERE e.file_size <> octet_length(content)
                         AND e.checksum = 'sha256:' || encode(sha256(convert_to(content, 'UTF8')), 'base64')";
        let unequal: i64 = sqlx::query_scalar(unequal).fetch_one(&database.pool).await.unwrap();
        assert_eq!(unequal, 0);
        running.ready().await.stop().await;
    }
}

#[tokio::test]
async fn an_adoption_that_is_broken_off_goes_on_where_it_was() {
    let ((twin, _), (database, _)) = (generated(true, 200).await, generated(true, 200).await);
    execute(&twin.pool, WITHOUT_INDEXES).await;
    migrate(twin.url.clone()).await.unwrap();
    execute(&database.pool, WITHOUT_INDEXES).await;
    // As a build that was killed leaves it.
    execute(
        &database.pool,
        "CREATE INDEX entities_type_idx ON entities (type);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'entities_type_idx'::regclass",
    )
    .await;
    let before = rows(&database.pool).await;
    let running = Running::start(&database.url, &LEAVE_ALONE).await;
    let mut messages = 1;
    // Each attempt is dropped one message later than the one before.
    while running.api.adopt(messages).await.unwrap().len() == messages {
        messages += 1;
    }
    assert!(messages > 3, "{messages}");
    assert_eq!(schema(&database.pool).await, schema(&twin.pool).await);
    assert_eq!(rows(&database.pool).await, before);
    running.ready().await.stop().await;
}

#[tokio::test]
async fn what_cannot_be_adopted_is_said_before_anything_is_changed() {
    let (database, _) = generated(true, 100).await;
    execute(
        &database.pool,
        "CREATE VIEW sizes AS SELECT file_size FROM entities;
         CREATE TABLE blob_gc (id int);
         ALTER TABLE content_blocks DROP COLUMN embedding",
    )
    .await;
    let before = schema(&database.pool).await;
    let running = Running::start(&database.url, &LEAVE_ALONE).await;
    let blockers = running.api.inspect().await.unwrap().blockers;
    for part in ["view sizes", "table blob_gc", "content_blocks.embedding"] {
        let said = blockers.iter().filter(|one| one.contains(part)).count();
        assert_eq!(said, 1, "{part}: {blockers:?}");
    }
    let refused = running.api.adopt(ALL).await;
    assert_refused(refused, Code::FailedPrecondition, reason::NOT_ADOPTABLE);
    assert_eq!(schema(&database.pool).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_says_behind_whom_it_waits_and_writers_do_not() {
    let (database, _) = generated(true, 100).await;
    let running = Running::start(&database.url, &LEAVE_ALONE).await;
    let mut long = database.pool.begin().await.unwrap();
    let change = "UPDATE entities SET version = version WHERE user_id = 'local-user'";
    sqlx::query(change).execute(&mut *long).await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *long).await.unwrap();
    let stop = CancellationToken::new();
    let adopting = async {
        // Begins with a lock that it does not get.
        let heard = running.api.adopt(3).await.unwrap();
        let waits = heard.iter().filter(|update| update.waiting_for.contains(&pid.to_string()));
        assert!(waits.count() > 0, "{heard:?}");
        long.commit().await.unwrap();
        running.api.adopt(ALL).await.unwrap();
        stop.cancel();
    };
    let ((), (count, _)) = tokio::join!(adopting, write(&database.url, 1, &stop));
    assert!(count > 0);
    running.ready().await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_goes_on_when_postgresql_was_killed() {
    let server = TestServer::start_private().await;
    let database = server.database("empty", async |_| Ok::<_, String>(())).await;
    let wanted = V02 { entities: 100, events: 0, early_v03: true, ..V02::default() };
    wanted.generate(&database.pool).await;
    let running = Running::start(&database.url, &LEAVE_ALONE).await;
    // It waits for this lock, and does not get it before the end.
    let mut long = database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE entities IN SHARE MODE").execute(&mut *long).await.unwrap();
    let killing = async {
        until("it has begun", async || running.api.inspect().await.is_ok()).await;
        running.api.adopt(2).await.unwrap();
        server.provided().kill().await;
    };
    let (broken_off, ()) = tokio::join!(running.api.adopt(ALL), killing);
    assert_refused(broken_off, Code::Unavailable, reason::DATABASE_UNAVAILABLE);
    server.provided().restart().await.unwrap();
    // Connections of before the restart are found to be broken.
    until("it is adopted", async || running.api.adopt(ALL).await.is_ok()).await;
    running.ready().await.stop().await;
}
